"""The database: one writer that commits for all who wait, and readers that never write."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from protocols.service.engines.engine import make_engine, reading
from protocols.service.engines.failures import is_general, refused
from protocols.service.inbox.tables import VERSION, meta, metadata
from slots.errors import StorageError

Result = TypeVar("Result")
Given = TypeVar("Given")
Work = Callable[[Connection], Result]
"""Something to be done in a transaction."""
Together = Callable[[Connection, Sequence[Given]], Sequence[Result | Exception]]
"""The same thing for several who wait: one outcome for each, which may be the error that this one gets."""

_TOGETHER = 256  # pieces of work that share one commit
_LOCK = 0x510741  # of PostgreSQL: two processes must not make the same tables


class Database:
    """SQLite or PostgreSQL behind one writer thread.

    What `write` returned is committed: written to the disk by whatever guarantee the database gives (SQLite: WAL with
    ``synchronous=FULL``; PostgreSQL: ``synchronous_commit``). Pieces of work that wait share one transaction, each in a
    savepoint of its own, so that one that fails takes back only itself.

    Parameters
    ----------
    url : str
        ``sqlite:///FILE`` or ``postgresql+psycopg://...``.

    Raises
    ------
    UsageError
        If the URL is of another kind.
    MissingExtraError
        If its driver is not installed.
    StorageError
        If the database cannot be opened, or has another layout.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._reading = reading(self._engine)
        self._writing = self._engine.execution_options(slots_writes=True)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._queued = 0
        self._read, self._readers, self._closed = threading.Condition(), 0, False
        self.commits = 0
        """Transactions committed by the writer (count)."""
        self.before: Callable[[Connection], None] = lambda _connection: None
        """Called in the writer's thread at the beginning of each transaction; what it raises everybody is told."""
        self.committed: Callable[[float], None] = lambda _seconds: None
        """Told in the writer's thread after each commit how long the transaction took (seconds)."""
        _lay_out(self._engine)
        self._thread = threading.Thread(target=self._write_all, name="database-writer", daemon=True)
        self._thread.start()

    @classmethod
    def in_folder(cls, folder: Path) -> Database:
        """The SQLite database of a data folder, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'inbox.db'}")

    @property
    def on_server(self) -> bool:
        """Whether it is PostgreSQL, which several machines can reach."""
        return self._engine.dialect.name == "postgresql"

    @property
    def queued(self) -> int:
        """Pieces of work that wait for their commit (count)."""
        return self._queued

    async def write(self, work: Work[Result]) -> Result:
        """Do something in a transaction of the writer; when this returns it is committed.

        Parameters
        ----------
        work : callable
            Given the connection. It must not commit, and touch nothing but the database: it may be run again.

        Returns
        -------
        object
            What the work returned.

        Raises
        ------
        StorageError
            If the database refuses to commit: nothing of the work is kept. As `UnavailableError` if it is away; where
            it went away while it committed, nobody knows whether it did.
        """
        return await self._written(work)

    async def write_together(self, together: Together[Given, Result], given: Given) -> Result:
        """Do something that is cheaper for many at once: whoever waits for the same gets it in one call.

        Parameters
        ----------
        together : callable
            Given the connection and what each of those who wait gave; a function of a module, so that calls know that
            they ask for the same. Held to the same as `write`'s work, and that nobody's outcome may depend on who
            else waits. Where it raises, it is called again for each alone.
        given : object
            What this call gives.

        Returns
        -------
        object
            This call's outcome.

        Raises
        ------
        StorageError
            If the database refuses to commit: nothing of the work is kept.
        """

        def alone(connection: Connection) -> Result:
            (outcome,) = together(connection, [given])
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return await self._written(alone, together, given)

    async def _written(
        self, work: Work[Result], together: Together[Any, Result] | None = None, given: Any = None
    ) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queued += 1
        self._waiting.put(_Waiting(work, loop, future, together, given))
        try:
            return await future
        finally:
            self._queued -= 1

    def write_now(self, work: Work[Result]) -> Result:
        """The same, for a thread that has no event loop: blocks until it is committed."""
        return asyncio.run(self.write(work))

    async def read(self, work: Work[Result]) -> Result:
        """Do something that only reads, in a thread of its own."""
        return await asyncio.to_thread(self.read_now, work)

    def read_now(self, work: Work[Result]) -> Result:
        """Do something that only reads, in this thread.

        Raises
        ------
        StorageError
            If the database does not answer.
        """
        try:
            with self._reads(), self._reading.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            if not is_general(error):
                raise
            raise refused(error) from error

    def close(self) -> None:
        """Commit what waits, and close all connections."""
        self._waiting.put(None)
        self._thread.join(timeout=30)
        with self._read:
            self._closed = True
            self._read.wait_for(lambda: not self._readers, timeout=30)  # what they use now is closed, not left behind
        self._engine.dispose()

    @contextlib.contextmanager
    def _reads(self) -> Iterator[None]:
        """Count who reads, so that whoever closes can wait for them."""
        with self._read:
            if self._closed:
                raise StorageError("The database is closed: the service is stopping. Come again when it has started.")
            self._readers += 1
        try:
            yield
        finally:
            with self._read:
                self._readers -= 1
                self._read.notify_all()

    def _write_all(self) -> None:
        ending = False
        while not ending:
            first = self._waiting.get()
            if first is None:
                return
            together = [first]
            while len(together) < _TOGETHER:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ending = True
                    break
                together.append(following)
            self._commit(together)

    def _commit(self, together: list[_Waiting]) -> None:
        """One transaction for all; whoever waits is told after it is committed, never before."""
        outcome: list[Outcome] = []
        began = time.monotonic()
        try:
            with self._writing.begin() as connection:
                self.before(connection)
                for alike in _alike(together):
                    outcome += _tried_together(connection, alike)
            self.commits += 1
            self.committed(time.monotonic() - began)
        except SQLAlchemyError as error:
            outcome = [(it, None, refused(error)) for it in together]
        except Exception as error:  # noqa: BLE001  # the writer must go on; everybody is told
            outcome = [(it, None, error) for it in together]
        loops: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for told in outcome:
            loops.setdefault(told[0].loop, []).append(told)
        for loop, several in loops.items():
            _tell(loop, several)


class _Waiting:
    """A piece of work and who waits for it."""

    def __init__(
        self,
        work: Work[Any],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        together: Together[Any, Any] | None,
        given: Any,
    ) -> None:
        self.work, self.loop, self._future = work, loop, future
        self.together, self.given = together, given

    def settle(self, result: Any, failure: BaseException | None) -> None:
        """In the event loop: hand the outcome to whoever waits; nobody may wait any more."""
        if self._future.done():
            return
        if failure is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(failure)


Outcome = tuple[_Waiting, Any, BaseException | None]
"""What became of a piece of work: its result, or why there is none."""


def _tell(loop: asyncio.AbstractEventLoop, outcome: list[Outcome]) -> None:
    """Hand outcomes to the event loop that waits for them."""

    def settle() -> None:
        for it, result, failure in outcome:
            it.settle(result, failure)

    with contextlib.suppress(RuntimeError):  # the loop has ended: the process is stopping, and it is committed
        loop.call_soon_threadsafe(settle)


def _alike(waiting: list[_Waiting]) -> list[list[_Waiting]]:
    """Those who wait for the same thing together, the others alone, in the order in which each came first."""
    groups: dict[object, list[_Waiting]] = {}
    for it in waiting:
        groups.setdefault(it if it.together is None else it.together, []).append(it)
    return list(groups.values())


def _tried_together(connection: Connection, alike: list[_Waiting]) -> list[Outcome]:
    """Run one call for all in one savepoint; where that fails, each alone."""
    together = alike[0].together
    if together is None or len(alike) == 1:
        return [_tried(connection, it) for it in alike]
    try:
        with connection.begin_nested():
            outcomes = together(connection, [it.given for it in alike])
    except Exception as error:  # whoever is at fault is told when it runs alone
        if isinstance(error, SQLAlchemyError) and is_general(error):
            raise
        return [_tried(connection, it) for it in alike]
    return [
        (it, None, outcome) if isinstance(outcome, Exception) else (it, outcome, None)
        for it, outcome in zip(alike, outcomes, strict=True)
    ]


def _tried(connection: Connection, waiting: _Waiting) -> Outcome:
    """Run one piece of work in its savepoint."""
    try:
        with connection.begin_nested():
            return waiting, waiting.work(connection), None
    except Exception as error:  # it is told to whoever asked; the others go on
        if isinstance(error, SQLAlchemyError) and is_general(error):
            raise  # a full disk, a lost connection: not this piece of work's fault
        return waiting, None, error


def _lay_out(engine: Engine) -> None:
    """Make the tables of a new database; refuse one of another layout."""
    try:
        with engine.execution_options(slots_writes=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:of)"), {"of": _LOCK})
            metadata.create_all(connection)
            found = connection.execute(select(meta.c.value).where(meta.c.name == "layout")).scalar()
            if found is None:
                connection.execute(insert(meta).values(name="layout", value=str(VERSION)))
    except SQLAlchemyError as error:
        raise refused(error, detailed=True) from error
    if found is not None and found != str(VERSION):
        raise StorageError(
            f"The database has layout {found}, and this version of slots knows layout {VERSION}. "
            "Install the version that wrote it, or name another --data folder."
        )
