"""What happens to jobs, for those who watch: server-sent events with numbers to go on from."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

_KEPT_EVENTS = 256
_KEPT_JOBS = 64


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job.

    Parameters
    ----------
    number : int
        Larger than that of every event before it, over restarts too: milliseconds since 1970 as far as they go.
    job : dict
        The job's document then.
    over : bool
        Whether it is the job's last event.
    """

    number: int
    job: dict[str, Any]
    over: bool


@dataclass
class _Watched:
    events: deque[JobEvent] = field(default_factory=lambda: deque(maxlen=_KEPT_EVENTS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """The last events of the last jobs, and who waits for the next. For the event loop alone."""

    def __init__(self) -> None:
        self._jobs: dict[int, _Watched] = {}
        self._last = 0

    def tell(self, number: int, document: dict[str, Any], *, over: bool) -> None:
        """Something happened to the job of this number."""
        watched = self._jobs.setdefault(number, _Watched())
        self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        watched.events.append(JobEvent(self._last, document, over))
        watched.changed.set()
        watched.changed = asyncio.Event()
        while len(self._jobs) > _KEPT_JOBS:
            self._jobs.pop(next(iter(self._jobs)))

    async def follow(self, number: int, after: int, until: asyncio.Event) -> AsyncIterator[JobEvent | None]:
        """Events of a job after a number, as they happen, to the job's last; None every few seconds of silence.

        Parameters
        ----------
        number : int
            Of the job; nothing comes where nothing is known of it.
        after : int
            Number of the last event that the client saw, 0 for none.
        until : asyncio.Event
            Ends it: the service is stopping.
        """
        ending = asyncio.ensure_future(until.wait())
        try:
            while (watched := self._jobs.get(number)) is not None and not until.is_set():
                changed = watched.changed
                for event in list(watched.events):
                    if event.number > after:
                        after = event.number
                        yield event
                if watched.events[-1].over:
                    return
                if not changed.is_set():
                    waiting = asyncio.ensure_future(changed.wait())
                    done, _ = await asyncio.wait((waiting, ending), timeout=10, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    if not done:
                        yield None
        finally:
            ending.cancel()

    def knows(self, number: int) -> bool:
        """Whether events of the job are kept."""
        return number in self._jobs
