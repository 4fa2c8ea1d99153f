"""The latest answers of a model, kept in memory for whoever looks at the service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.service.answering.loaded import Answers
from slots.head.prediction import Answer

_SECONDS = 900  # how far back the counts reach
_ANSWERS = 4096  # how many answers are kept one by one


@dataclass(frozen=True)
class Tally:
    """How many answers of each kind.

    Parameters
    ----------
    matched, ambiguous, unmatched : int
        Counts.
    """

    matched: int
    ambiguous: int
    unmatched: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.matched + self.ambiguous + self.unmatched

    def share(self, kind: str) -> float | None:
        """Share of one kind, in [0, 1]; None where nothing was answered."""
        return int(getattr(self, kind)) / self.total if self.total else None


class Recent:
    """Counts of the last quarter of an hour by the second, and the last few thousand answers one by one.

    Written by the thread that answers, read by any other.

    Parameters
    ----------
    clock : callable, optional
        Gives seconds; replaced where a test moves the time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = np.zeros((_SECONDS, 3), np.int64)
        self._second = np.full(_SECONDS, -1, np.int64)
        self._kept = np.zeros(_ANSWERS, [("at", "f8"), ("generation", "i8"), ("slot", "i8"), ("answer", "i1")])
        self._n = 0

    def add(self, answers: Answers) -> None:
        """Take in the answers of a batch."""
        now = self._clock()
        kinds = np.bincount(answers.prediction.answers, minlength=3)
        slots, answered = answers.prediction.slots[-_ANSWERS:], answers.prediction.answers[-_ANSWERS:]
        with self._lock:
            place = int(now) % _SECONDS
            if self._second[place] != int(now):
                self._second[place], self._counts[place] = int(now), 0
            self._counts[place] += kinds
            rows = (self._n + np.arange(len(slots))) % _ANSWERS
            self._kept["at"][rows], self._kept["generation"][rows] = now, answers.loaded.generation
            self._kept["slot"][rows], self._kept["answer"][rows] = slots, answered
            self._n += len(slots)

    def tallies(self, *, seconds: int, parts: int = 1) -> list[Tally]:
        """Answers of the last seconds, in parts of equal length, the oldest first.

        Parameters
        ----------
        seconds : int
            How far back, 1 to 900 (seconds).
        parts : int, default 1
            Into how many parts, a divisor of ``seconds``.

        Returns
        -------
        list of Tally
        """
        length = seconds // parts
        now = int(self._clock())
        last = now + 1 if parts == 1 else now - now % length + length  # columns must not shift with every look
        with self._lock:
            second, counts = self._second.copy(), self._counts.copy()
        found = []
        for start in range(last - parts * length, last, length):
            n = counts[(second >= start) & (second < start + length)].sum(0)
            found.append(Tally(int(n[Answer.MATCHED]), int(n[Answer.AMBIGUOUS]), int(n[Answer.UNMATCHED])))
        return found

    def by_slot(self, n_slots: int, generation: int) -> npt.NDArray[np.int64]:
        """How many of the answers kept one by one each slot of a generation matched.

        Parameters
        ----------
        n_slots : int
            Slots of the generation (count).
        generation : int
            Slot numbers belong to it.

        Returns
        -------
        int64 array of shape (slot,)
        """
        with self._lock:
            kept = self._kept[: min(self._n, _ANSWERS)].copy()
        fired = kept[(kept["generation"] == generation) & (kept["answer"] != Answer.UNMATCHED)]["slot"]
        return np.bincount(fired[fired < n_slots], minlength=n_slots).astype(np.int64)
