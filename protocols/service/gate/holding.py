"""One service at a time: who has a data folder and a database holds a lock on each for life; a killed one's is free.

The lock of a folder is the operating system's, and goes with the process. That of a PostgreSQL database is an advisory
lock of a connection that does nothing else; the server gives it back when the connection is gone. A connection can be
lost while the service lives, and another service may begin then. So whoever takes the lock writes a token of its own
down, and every transaction that writes looks whether it is still there: what the former holder has not committed by
then, it never does.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from protocols.service.engines.engine import make_engine
from protocols.service.engines.failures import refused
from protocols.service.engines.unavailable import UnavailableError
from protocols.service.inbox.tables import meta
from slots.storage.atomic import storage

LOCK = ".serving.lock"
"""Name of the lock in a data folder."""

_WAIT_SECONDS = 10.0  # for a killed service's connections to be missed by the server
_AGAIN_SECONDS = 0.1
_TOKEN = "serving"  # noqa: S105  # name of the row
_NUMBER = 0x51075E  # of the advisory lock; it is one of the database, and goes with the schema too


class TakenError(UnavailableError):
    """Another service has what this one needs for itself."""


class FolderHold:
    """A data folder, for one service.

    Parameters
    ----------
    folder : Path
        It is there.

    Raises
    ------
    TakenError
        If another service has it.
    StorageError
        If the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        # Never the fallback that only makes a file: that would outlive a killed service.
        self._lock = FileLock(folder.absolute() / LOCK, fallback_to_soft=False, thread_local=False)
        with storage(folder):
            try:
                self._lock.acquire(blocking=False)
            except Timeout as error:  # an OSError too
                raise TakenError(
                    f"`{folder}` must be free, but another `slots serve` keeps its data there. "
                    "Stop that one, or give this one another --data."
                ) from error

    def close(self) -> None:
        """Let the next service have it."""
        self._lock.release()


class ServerHold:
    """A PostgreSQL database, for one service.

    Parameters
    ----------
    url : str
        Of the database; its tables are there.
    wait : float, default 10
        How long to wait for it (seconds): a killed service's connections may be there a little longer than it was.

    Raises
    ------
    TakenError
        If another service has it.
    StorageError
        If the server cannot be reached.
    """

    def __init__(self, url: str, *, wait: float = _WAIT_SECONDS) -> None:
        self._engine = make_engine(url).execution_options(isolation_level="AUTOCOMMIT")
        self._token = secrets.token_hex(16)
        self._connection: Connection | None = None
        try:
            taken = self._awaited(wait)
        except SQLAlchemyError as error:
            self.close()
            raise refused(error, detailed=True) from error
        if not taken:
            self.close()
            raise TakenError(
                "The database must be free, but another `slots serve` uses it. "
                "Stop that one, or name another --db. Others may follow it (--follow)."
            )

    def _awaited(self, wait: float) -> bool:
        until = time.monotonic() + wait
        while not (taken := self._taken(first=True)) and time.monotonic() < until:
            time.sleep(_AGAIN_SECONDS)
        return taken

    def check(self, connection: Connection) -> None:
        """Refuse to write once another service has begun; called at the beginning of every transaction that writes.

        Raises
        ------
        TakenError
            If it has.
        """
        # The row stays locked until the commit, so that whoever comes next waits for it.
        held = select(meta.c.value).where(meta.c.name == _TOKEN).with_for_update(read=True)
        if connection.execute(held).scalar() != self._token:
            raise _lost()

    def look(self) -> bool:
        """Whether the connection lives; where it was lost the lock is taken again, if nobody else had it meanwhile.

        Returns
        -------
        bool
            False while the server cannot be reached.

        Raises
        ------
        TakenError
            If another service has begun.
        """
        try:
            if self._connection is not None:
                self._connection.exec_driver_sql("SELECT 1")
                return True
        except SQLAlchemyError:
            self._drop()
        try:
            if self._taken(first=False):
                return True
        except SQLAlchemyError:
            self._drop()
            return False
        return self._still_mine()

    def close(self) -> None:
        """Let the next service have it."""
        self._drop()
        self._engine.dispose()

    def _taken(self, *, first: bool) -> bool:
        """Try once to take the lock; a later time only where the token is still ours."""
        if self._connection is None:
            self._connection = self._engine.connect()
        ask = text("SELECT pg_try_advisory_lock(:of, hashtext(current_schema()))")
        if not self._connection.execute(ask, {"of": _NUMBER}).scalar():
            return False
        if first:
            made = insert(meta).values(name=_TOKEN, value=self._token)
            self._connection.execute(made.on_conflict_do_update(index_elements=["name"], set_={"value": self._token}))
        elif not self._is_mine(self._connection):
            raise _lost()
        return True

    def _still_mine(self) -> bool:
        """Somebody has the lock: the server may not have missed our own lost connection yet."""
        connection = self._connection
        assert connection is not None
        try:
            if not self._is_mine(connection):
                raise _lost()
        except SQLAlchemyError:
            pass
        self._drop()
        return False

    def _is_mine(self, connection: Connection) -> bool:
        return connection.execute(select(meta.c.value).where(meta.c.name == _TOKEN)).scalar() == self._token

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _lost() -> TakenError:
    return TakenError(
        "Another `slots serve` uses the database now, so this one stops: "
        "its connection was lost for a while. Run one at a time; others may follow it (--follow)."
    )
