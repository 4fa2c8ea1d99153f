"""A model that answers many clients: micro-batches without a waiting window, swapped generations."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.service.answering.batching import Asked, Batcher, Expired, Outcome, Overloaded, Pace
from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.answering.recent import Recent
from protocols.service.settings import Limits
from slots.errors import SlotsError
from slots.storage.states import POINTER


@dataclass
class Batches:
    """Counts of what was answered since the start.

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
        ``answered(served, answers, seconds)``, told after each batch, in the event loop or a thread; must be quick.
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
        self._queued = 0
        self._seen = self._stamp()
        self._swapping = asyncio.Lock()
        self.current = Loaded.load(self.folder, self.device)
        self._pace = self._measured(self.current)
        self._batcher = Batcher(self.name, self.limits.batch_rows, self._outcome, lambda: self._pace)

    @property
    def queued(self) -> int:
        """Rows that wait for an answer or are being answered (count)."""
        return self._queued

    @property
    def alive(self) -> bool:
        """Whether whatever answers runs."""
        return self._batcher.alive

    @property
    def quick(self) -> bool:
        """Whether batches are answered in the event loop, see `Pace`."""
        return self._pace.quick

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """Answer what waits, then end."""
        await self._batcher.stop()

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
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._queued += len(x)
        self._batcher.add(Asked(x, false_alarm_rate, deadline, again, future))
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
                pace = await asyncio.to_thread(self._measured, fresh)
            except SlotsError as error:
                self.problem, self._seen = str(error), stamp
                return False
            before, self.current, self._seen, self.problem = self.current, fresh, stamp, ""
            self._pace = pace
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

    def _measured(self, loaded: Loaded) -> Pace:
        """How long a full batch of a generation takes."""
        return Pace(loaded.batch_seconds(self.limits.batch_rows))

    def _outcome(self, batch: list[Asked]) -> Outcome:
        """What each client of a batch gets."""
        now = time.monotonic()
        outcome: Outcome = []
        live: list[Asked] = []
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
        Whether this process has not done so before: what is out of reach already, it inherited or
        imported, and it may stay there.
    """
    if not first:
        gc.unfreeze()  # the generation before should go
    gc.collect()
    gc.freeze()
