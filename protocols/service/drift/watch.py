"""The drift monitor of one served model: fed by whatever answers, read by any thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.callers import SERVICE, Caller
from protocols.service.drift.comparing import calibration_of, identity, watched
from protocols.service.drift.minutes import Minute
from protocols.service.drift.monitor import Alarm, Monitor
from protocols.service.drift.rows import KeptMonitor, packed
from slots.errors import UsageError

_MOST_UNSAVED = 10_000  # minutes that wait for a disk that has room again: a week


@dataclass(frozen=True)
class Standing:
    """What a monitor says now.

    Parameters
    ----------
    watched : bool
        Whether the generation that answers gives scores that can be watched.
    generation, era : int
        Generation that answers; and which run of the martingale.
    items : int
        Inputs of the era (count).
    compared : int
        Calibration scores that the era began with; 0 where the stream is compared with its own beginning (count).
    threshold : float
        Capital at which the alarm is raised.
    log10 : float
        Decimal logarithm of the capital.
    alarm : Alarm or None
        The era's alarm.
    alarms : int
        Alarms since the service started (count).
    minutes : tuple of Minute
        Those that are not stored yet, and the one that goes on.
    """

    watched: bool
    generation: int
    era: int
    items: int
    compared: int
    threshold: float
    log10: float
    alarm: Alarm | None
    alarms: int
    minutes: tuple[Minute, ...]


@dataclass(frozen=True)
class Happening:
    """Something for the log of events.

    Parameters
    ----------
    caller : Caller
        Who did it.
    action : str
        What.
    generation : int
        That answered.
    detail : dict
        What else belongs to it.
    """

    caller: Caller
    action: str
    generation: int
    detail: dict[str, Any]


@dataclass(frozen=True)
class Unsaved:
    """What is to be stored in one transaction.

    Parameters
    ----------
    head, state : bytes
        Of the monitor.
    minutes : tuple of Minute
        Those that ended.
    happenings : tuple of Happening
        For the log of events.
    """

    head: bytes
    state: bytes
    minutes: tuple[Minute, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True)
class _Arrived:
    loaded: Loaded
    scores: npt.NDArray[np.float64]
    answers: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    at: float
    swap: bool = False  # no answers: from now on this generation answers


class Watch:
    """A model's monitor, and what of it is not stored yet.

    What is watched is the novelty by the slots of the fit alone, which no update changes: generations that score alike
    share an era, and one that does not begins the next.

    Parameters
    ----------
    loaded : Loaded
        The generation that answers.
    kept : KeptMonitor, optional
        What was stored. If this generation scores as that one did, it goes on; else an era begins.
    last_era : int, default -1
        The greatest era that has stored minutes.
    """

    def __init__(self, loaded: Loaded, kept: KeptMonitor | None = None, *, last_era: int = -1) -> None:
        self._lock = threading.Lock()
        self._arrived: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()
        self._minutes: list[Minute] = []
        self._happenings: list[Happening] = []
        self._alarms = 0
        self._left: WeakKeyDictionary[Loaded, str] = WeakKeyDictionary()  # batches of theirs may come after a swap
        self.changed = False
        """Whether there is anything to be stored."""
        self._loaded, self._of = loaded, identity(loaded)
        if kept is None:
            scores = calibration_of(loaded)
            self.monitor, self._compared = Monitor(scores, era=last_era + 1), len(scores)
        else:
            self.monitor, self._compared = kept.monitor, kept.compared
            if kept.of != self._of:
                self._begin()
        self.monitor.generation = loaded.generation

    @property
    def urgent(self) -> bool:
        """Whether something for the log of events waits to be stored."""
        return bool(self._happenings)

    def tell(self, answers: Answers, at: float | None = None) -> None:
        """Take a batch to be looked at later; quick, for it stands between answers. At: seconds since 1970, or now."""
        if answers.again or answers.scores_by_fit is None:
            return
        told = answers.prediction
        now = time.time() if at is None else at
        self._arrived.put(
            _Arrived(answers.loaded, answers.scores_by_fit, told.answers.astype(np.int64), told.labels, now)
        )

    def swapped(self, after: Loaded) -> None:
        """Another generation answers; as quick as `tell`, and looked at in the same order."""
        none = np.empty(0, np.int64)
        self._arrived.put(_Arrived(after, np.empty(0), none, none, 0.0, swap=True))

    def digest(self) -> None:
        """Look at what came in since the last time."""
        with self._lock:
            for _, several in groupby(self._drained(), key=lambda it: id(it.loaded)):
                self._observe(list(several))

    def acknowledge(self, caller: Caller, *, calibrated: bool) -> None:
        """Begin a new era after an alarm that somebody has looked at.

        Parameters
        ----------
        caller : Caller
            Who.
        calibrated : bool
            Whether to compare with the generation's calibration scores again, else with the stream from now on.

        Raises
        ------
        UsageError
            If there is no alarm, or the generation has no calibration scores that its stream can be compared with.
        """
        self.digest()
        with self._lock:
            scores = calibration_of(self._loaded) if calibrated else np.empty(0)
            if calibrated and not len(scores):
                raise UsageError(
                    f"Generation {self._loaded.generation} has no calibration scores to compare its stream with. "
                    "Compare with the stream itself."
                )
            detail = {"era": self.monitor.era, "calibrated": calibrated}
            self._end(self.monitor.acknowledge(scores))
            self._compared, self.changed = len(scores), True
            self._happenings.append(Happening(caller, "drift.acknowledge", self._loaded.generation, detail))

    def standing(self) -> Standing:
        """What the monitor says of all that came in until now."""
        self.digest()
        with self._lock:
            it = self.monitor
            now = () if it.minute is None else (deepcopy(it.minute),)
            return Standing(
                watched(self._loaded), self._loaded.generation, it.era, it.n_items, self._compared, it.threshold,
                it.log10, it.alarm, self._alarms, (*self._minutes, *now),
            )  # fmt: skip

    def unsaved(self) -> Unsaved:
        """What is to be stored; `saved` tells when it is."""
        with self._lock:
            self.changed = False
            head = packed(self._of, self._compared)
            return Unsaved(head, self.monitor.to_bytes(), tuple(self._minutes), tuple(self._happenings))

    def saved(self, done: Unsaved) -> None:
        """It is stored."""
        with self._lock:
            del self._minutes[: len(done.minutes)]
            del self._happenings[: len(done.happenings)]

    def not_saved(self) -> None:
        """The database refused: it is to be tried again, and the oldest minutes go where too many wait."""
        with self._lock:
            self.changed = True
            del self._minutes[:-_MOST_UNSAVED]

    def _drained(self) -> list[_Arrived]:
        found: list[_Arrived] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._arrived.get_nowait())
        return found

    def _observe(self, several: list[_Arrived]) -> None:
        """Look at consecutive batches of one generation, at once: that takes a fraction of the time of one by one."""
        loaded = several[0].loaded
        told = any(it.swap for it in several)
        if loaded is not self._loaded and (told or loaded not in self._left):  # answers may come before they are told
            self._follow(loaded)
        if self._left.get(loaded, self._of) != self._of:  # late, and of another era
            return
        self.monitor.generation = loaded.generation
        scores = np.concatenate([it.scores for it in several])
        answers = np.concatenate([it.answers for it in several])
        labels = np.concatenate([it.labels for it in several])
        times = np.repeat([it.at for it in several], [len(it.scores) for it in several])
        known = ~np.isnan(scores)
        seen = self.monitor.observe(scores[known], answers[known], labels[known], times[known])
        self._minutes += seen.minutes
        if seen.alarm is not None:
            self._alarms += 1
            detail = {"era": self.monitor.era, **asdict(seen.alarm)}
            self._happenings.append(Happening(SERVICE, "drift.alarm", self.monitor.generation, detail))
        self.changed = True

    def _follow(self, loaded: Loaded) -> None:
        """A generation answers that did not before: in the same era where it scores as the one before it did."""
        self._left[self._loaded], before = self._of, self._of
        self._loaded, self._of, self.changed = loaded, identity(loaded), True
        if self._of != before:
            self._begin()

    def _begin(self) -> None:
        scores = calibration_of(self._loaded)
        self._end(self.monitor.restart(scores, generation=self._loaded.generation))
        self._compared, self.changed = len(scores), True

    def _end(self, minute: Minute | None) -> None:
        if minute is not None:
            self._minutes.append(minute)
