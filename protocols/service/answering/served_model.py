"""A model that answers many clients: one thread, micro-batches without a waiting window, swapped generations."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.answering.recent import Recent
from protocols.service.settings import Limits
from slots.errors import SlotsError
from slots.storage.states import POINTER


class Overloaded(Exception):  # noqa: N818  # not a fault of anybody: a state of the service
    """More rows wait for the model than it may hold; the client should come again."""

    def __init__(self) -> None:
        super().__init__("More inputs wait than the service can hold. Come again in a second.")


class Expired(Exception):  # noqa: N818
    """The client's own deadline passed while its request waited; nobody answered it."""

    def __init__(self) -> None:
        super().__init__("Your deadline passed before the model came to it. Allow more time.")


@dataclass(eq=False)
class _Request:
    x: npt.NDArray[Any]
    rate: float
    deadline: float | None
    again: bool
    future: asyncio.Future[Answers]


@dataclass
class Batches:
    """Counts of what the answer thread did since the start.

    Parameters
    ----------
    batches, rows : int
        Batches answered and rows in them (count).
    seconds : float
        Time in the model (seconds).
    largest : int
        Rows of the largest batch (count).
    """

    batches: int = 0
    rows: int = 0
    seconds: float = 0.0
    largest: int = 0


@dataclass
class ServedModel:
    """A model folder that answers requests.

    Answers are the same, bit for bit, as `SlotModel.examine` gives for the rows alone: batches only save time. Each
    batch is answered by one generation, and its answers name it.

    Parameters
    ----------
    name : str
        How clients name it.
    folder : Path
        A model folder; whoever writes a new generation into it, this process or another, it is swapped in.
    device : str
        Where the model lies.
    limits : Limits
        Rows a batch, and rows that may wait.
    swapped : callable
        ``swapped(served, before, after)``, told in the event loop when a new generation answers.
    answered : callable
        ``answered(served, answers, seconds)``, told in the answer thread after each batch; it must be quick.
    """

    name: str
    folder: Path
    device: str
    limits: Limits
    swapped: Callable[[ServedModel, Loaded, Loaded], None] = lambda *_: None
    answered: Callable[[ServedModel, Answers, float], None] = lambda *_: None
    counted: Batches = field(default_factory=Batches)
    recent: Recent = field(default_factory=Recent)
    """The latest answers."""

    def __post_init__(self) -> None:
        self.problem: str = ""
        """Why the newest generation could not be loaded; empty if it could. The one before goes on answering."""
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._queued = 0
        self._seen = self._stamp()
        self._swapping = asyncio.Lock()
        self.current = Loaded.load(self.folder, self.device)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._answer_all, name=f"answers-{self.name}", daemon=True)

    @property
    def queued(self) -> int:
        """Rows that wait for an answer or are being answered (count)."""
        return self._queued

    @property
    def alive(self) -> bool:
        """Whether the thread that answers runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join(timeout=30)

    async def answer(
        self, x: npt.NDArray[Any], *, false_alarm_rate: float, deadline: float | None = None, again: bool = False
    ) -> Answers:
        """Answer the rows of one request.

        Parameters
        ----------
        x : array of shape (example, ...)
            As `SlotModel.predict` takes it, already checked by `SlotModel.preprocessing`.
        false_alarm_rate : float in (0, 1)
            Share of familiar inputs that may be called novel.
        deadline : float, optional
            On the clock of `time.monotonic`: after it the answer is of no use to the client.
        again : bool, default False
            Whether the inputs are no part of the stream, see `Answers`.

        Returns
        -------
        Answers

        Raises
        ------
        Overloaded
            If too many rows wait already.
        Expired
            If the deadline passed before the model came to it.
        """
        if self._queued and self._queued + len(x) > self.limits.queued_rows:
            raise Overloaded
        assert self._loop is not None
        future: asyncio.Future[Answers] = self._loop.create_future()
        self._queued += len(x)
        self._waiting.put(_Request(x, false_alarm_rate, deadline, again, future))
        try:
            return await future
        finally:
            self._queued -= len(x)

    async def refresh(self) -> bool:
        """Swap in the folder's current generation if it is another than the one that answers.

        Returns
        -------
        bool
            Whether a new generation answers now.
        """
        async with self._swapping:
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == self._seen:
                return False
            try:
                fresh = await asyncio.to_thread(Loaded.load, self.folder, self.device)
            except SlotsError as error:
                self.problem, self._seen = str(error), stamp
                return False
            before, self.current, self._seen, self.problem = self.current, fresh, stamp, ""
            self.swapped(self, before, fresh)
            await asyncio.to_thread(freeze)
            return True

    def _stamp(self) -> tuple[int, int, int] | None:
        """What changes with every new pointer of the folder; None where there is none to be seen."""
        try:
            found = (self.folder / POINTER).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _answer_all(self) -> None:
        """Thread: take what waits, up to a batch, and answer it at once. A batch never waits for company."""
        held: list[_Request | None] = []  # taken, but not of the same kind as the batch before it
        while True:
            first = held.pop() if held else self._waiting.get()
            if first is None:
                return
            batch = self._gather(first, held)
            self._answer(batch)

    def _gather(self, first: _Request, held: list[_Request | None]) -> list[_Request]:
        """The first request and what can be answered with it; what was taken beyond that goes into ``held``."""
        batch, n_rows = [first], len(first.x)
        while n_rows < self.limits.batch_rows:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None or not _alike(first, following) or n_rows + len(following.x) > self.limits.batch_rows:
                held.append(following)
                break
            batch.append(following)
            n_rows += len(following.x)
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        """Answer one batch and hand the parts to their clients; whatever goes wrong, they are told and others go on."""
        try:
            outcome = self._outcome(batch)
        except Exception as error:  # noqa: BLE001
            outcome = [(it, error) for it in batch]
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_deliver, outcome)

    def _outcome(self, batch: list[_Request]) -> list[tuple[_Request, Answers | Exception]]:
        """What each client of a batch gets."""
        now = time.monotonic()
        outcome: list[tuple[_Request, Answers | Exception]] = []
        live: list[_Request] = []
        for it in batch:
            if it.deadline is not None and it.deadline < now:
                outcome.append((it, Expired()))
            else:
                live.append(it)
        if not live:
            return outcome
        x = live[0].x if len(live) == 1 else np.concatenate([it.x for it in live])
        answers = replace(self.current.answer(x, false_alarm_rate=live[0].rate), again=live[0].again)
        seconds = time.monotonic() - now
        self._count(len(x), seconds)
        if not answers.again:
            self.recent.add(answers)
        self.answered(self, answers, seconds)
        start = 0
        for it in live:
            outcome.append((it, answers.rows(start, start + len(it.x)) if len(live) > 1 else answers))
            start += len(it.x)
        return outcome

    def _count(self, n_rows: int, seconds: float) -> None:
        self.counted.batches += 1
        self.counted.rows += n_rows
        self.counted.seconds += seconds
        self.counted.largest = max(self.counted.largest, n_rows)


def freeze(*, first: bool = False) -> None:
    """Move everything that lives now out of the reach of the garbage collector.

    With torch loaded a pass over all objects takes a quarter of a second, during which nobody is answered; what a model
    consists of lives until the next generation anyway.

    Parameters
    ----------
    first : bool, default False
        Whether this process has not done so before: what is out of reach already, it inherited, and it may stay there.
    """
    if not first:
        gc.unfreeze()  # the generation before should go
    gc.collect()
    gc.freeze()


def _alike(one: _Request, other: _Request) -> bool:
    same = one.rate == other.rate and one.again == other.again
    return same and one.x.dtype == other.x.dtype and one.x.shape[1:] == other.x.shape[1:]


def _deliver(outcome: list[tuple[_Request, Answers | Exception]]) -> None:
    """In the event loop: hand a batch's answers to those who still wait."""
    for request, found in outcome:
        if request.future.done():  # the client is gone
            continue
        if isinstance(found, Exception):
            request.future.set_exception(found)
        else:
            request.future.set_result(found)
