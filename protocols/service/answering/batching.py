"""Requests gathered into micro-batches without a waiting window, and answered where that costs least."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from protocols.service.answering.loaded import Answers

_QUICK_SECONDS = 0.01  # of processor time: twice as long as another thread may hold the interpreter
_FEW_ROWS = 16  # of one request: reading and writing more takes as long as the model, so that both go on side by side
_WEIGHT = 0.2  # of the latest batch in the pace
_STOP_SECONDS = 30


class Overloaded(Exception):  # noqa: N818  # not a fault of anybody: a state of the service
    """More rows wait for the model than it may hold; the client should come again."""

    def __init__(self) -> None:
        super().__init__("More inputs wait than the service can hold. Come again in a second.")


class Expired(Exception):  # noqa: N818
    """The client's own deadline passed while its request waited; nobody answered it."""

    def __init__(self) -> None:
        super().__init__("Your deadline passed before the model came to it. Allow more time.")


@dataclass(eq=False)
class Asked:
    """Rows that wait for their answers.

    Parameters
    ----------
    x : array of shape (example, ...)
        The rows.
    rate : float in (0, 1)
        Share of familiar inputs that may be called novel.
    deadline : float or None
        On the clock of `time.monotonic`: after it the answer is of no use.
    again : bool
        Whether the rows are no part of the stream, see `Answers`.
    future : asyncio.Future
        Gets the answers.
    """

    x: npt.NDArray[Any]
    rate: float
    deadline: float | None
    again: bool
    future: asyncio.Future[Answers]

    def alike(self, other: Asked) -> bool:
        """Whether both can be answered together."""
        same = self.rate == other.rate and self.again == other.again
        return same and self.x.dtype == other.x.dtype and self.x.shape[1:] == other.x.shape[1:]


Outcome = list[tuple[Asked, Answers | Exception]]
"""What each of a batch gets."""


class Pace:
    """Whether a model's batches are so quick that handing them to another thread would cost more than it saves.

    A thread that computes and an event loop that reads and writes take turns at the interpreter hundreds of times in a
    batch of a small model; either waits up to 5 ms for the other each time. A model that takes longer than that would
    keep the event loop from everybody else.

    Parameters
    ----------
    seconds : float
        Processor time of a full batch; infinity for a model that is never to be answered in the event loop.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """Processor time of a batch, the latest ones counting most."""
        self.quick = seconds <= _QUICK_SECONDS
        """Whether batches are answered in the event loop."""

    def note(self, seconds: float) -> None:
        """Take in the processor time of a batch; who became slow must be twice as quick to come back."""
        self.seconds += _WEIGHT * (seconds - self.seconds)
        self.quick = self.seconds <= (_QUICK_SECONDS if self.quick else _QUICK_SECONDS / 2)


class Batcher:
    """Answers what waits, up to a batch at a time; a batch waits for nobody.

    All of it lives in the event loop, but for the work on batches of slow models and on requests of many rows: that is
    done in a thread. There is one batch at a time.

    Parameters
    ----------
    name : str
        Of the model, for the thread's name.
    rows : int
        Rows that are answered together at most (count); a single request may have more.
    work : callable
        Answers a batch: ``work(batch)`` gives what each gets. In the event loop or the thread.
    pace : callable
        ``pace()`` gives the `Pace` of the generation that answers now.
    """

    def __init__(self, name: str, rows: int, work: Callable[[list[Asked]], Outcome], pace: Callable[[], Pace]) -> None:
        self._most, self._work, self._pace = rows, work, pace
        self._waiting: deque[Asked] = deque()
        self._seen = 0  # how many waited when they were last looked at
        self._called = False  # a turn is coming
        self._away = False  # a batch is in the thread
        self._batches: queue.SimpleQueue[list[Asked] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._answer_all, name=f"answers-{name}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Answer what waits, then end the thread."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                while self._waiting or self._away:
                    await asyncio.sleep(0.005)
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def add(self, asked: Asked) -> None:
        """Let somebody wait for answers."""
        self._waiting.append(asked)
        self._call()

    def _call(self) -> None:
        if not self._called and not self._away:
            assert self._loop is not None
            self._called = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Answer a batch, as soon as a look at the connections brought nobody else who could come along."""
        self._called = False
        if self._seen < len(self._waiting) < self._most:
            self._seen = len(self._waiting)
            self._call()
            return
        batch, n_rows = self._gathered()
        self._seen = 0
        if self._pace().quick and n_rows <= self._most and max(len(it.x) for it in batch) <= _FEW_ROWS:
            _deliver(self._worked(batch))
            if self._waiting:
                self._call()
        else:
            self._away = True
            self._batches.put(batch)

    def _gathered(self) -> tuple[list[Asked], int]:
        """Who has waited longest, and whoever behind them can be answered with them; and their rows."""
        batch = [self._waiting.popleft()]
        n_rows = len(batch[0].x)
        while self._waiting:
            following = self._waiting[0]
            if not batch[0].alike(following) or n_rows + len(following.x) > self._most:
                break
            batch.append(self._waiting.popleft())
            n_rows += len(following.x)
        return batch, n_rows

    def _worked(self, batch: list[Asked]) -> Outcome:
        """What each gets; whatever goes wrong, they are told and others go on."""
        pace, began = self._pace(), time.thread_time()
        try:
            outcome = self._work(batch)
        except Exception as error:  # noqa: BLE001
            return [(it, error) for it in batch]
        if sum(len(it.x) for it in batch) <= self._most:
            pace.note(time.thread_time() - began)
        return outcome

    def _answer_all(self) -> None:
        """Thread: answer one batch after the other."""
        assert self._loop is not None
        while (batch := self._batches.get()) is not None:
            self._loop.call_soon_threadsafe(self._back, self._worked(batch))

    def _back(self, outcome: Outcome) -> None:
        """In the event loop: the thread has answered."""
        self._away = False
        _deliver(outcome)
        if self._waiting:
            self._call()


def _deliver(outcome: Outcome) -> None:
    """Hand a batch's answers to those who still wait."""
    for asked, found in outcome:
        if asked.future.done():  # the client is gone
            continue
        if isinstance(found, Exception):
            asked.future.set_exception(found)
        else:
            asked.future.set_result(found)
