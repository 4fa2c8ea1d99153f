"""The drift monitor of one served model: fed by whatever answers, read by any thread."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.callers import SERVICE, Caller
from protocols.service.drift.minutes import Minute
from protocols.service.drift.monitor import Alarm, Monitor
from protocols.service.drift.rows import KeptMonitor, Seen, packed
from slots.errors import UsageError

_MOST_UNSAVED = 10_000  # minutes that wait for a disk that has room again: a week


@dataclass(frozen=True)
class Standing:
    """What a monitor says now.

    Parameters
    ----------
    watched : bool
        Whether the generation that answers gives novelty scores at all.
    generation, era : int
        Generation whose scores are watched; and which run of the martingale.
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
    minutes : tuple of Seen
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
    minutes: tuple[Seen, ...]


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
    minutes : tuple of Seen
        Those that ended.
    happenings : tuple of Happening
        For the log of events.
    """

    head: bytes
    state: bytes
    minutes: tuple[Seen, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True)
class _Arrived:
    loaded: Loaded
    scores: npt.NDArray[np.float64]
    answers: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    at: float


class Watch:
    """A model's monitor, and what of it is not stored yet.

    Parameters
    ----------
    loaded : Loaded
        The generation that answers.
    kept : KeptMonitor, optional
        What was stored. If it is of this generation, it goes on; else an era begins.
    last_era : int, default -1
        The greatest era that has stored minutes.
    """

    def __init__(self, loaded: Loaded, kept: KeptMonitor | None = None, *, last_era: int = -1) -> None:
        self._lock = threading.Lock()
        self._arrived: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()
        self._minutes: list[Seen] = []
        self._happenings: list[Happening] = []
        self._alarms = 0
        self._left: Loaded | None = None  # a batch of it may still come after the swap
        self.changed = False
        """Whether there is anything to be stored."""
        if kept is None:
            scores = calibration_of(loaded)
            self.monitor = Monitor(scores, generation=loaded.generation, era=last_era + 1)
            self._loaded, self._compared = loaded, len(scores)
        else:
            self.monitor, self._loaded, self._compared = kept.monitor, loaded, kept.compared
            if (kept.monitor.generation, kept.of) != (loaded.generation, identity(loaded)):
                self._begin(loaded)

    @property
    def urgent(self) -> bool:
        """Whether something for the log of events waits to be stored."""
        return bool(self._happenings)

    def tell(self, answers: Answers, at: float | None = None) -> None:
        """Take a batch to be looked at later; quick, for it stands between answers. At: seconds since 1970, or now."""
        if answers.again or answers.novelty is None:
            return
        told = answers.prediction
        now = time.time() if at is None else at
        self._arrived.put(
            _Arrived(answers.loaded, answers.novelty.scores, told.answers.astype(np.int64), told.labels, now)
        )

    def swapped(self, after: Loaded) -> None:
        """Another generation answers: an era begins."""
        self.digest()
        with self._lock:
            if after is not self._loaded:
                self._left = self._loaded
                self._begin(after)

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
            self._end(self.monitor.acknowledge(scores), self.monitor.generation)
            self._compared, self.changed = len(scores), True
            self._happenings.append(Happening(caller, "drift.acknowledge", self.monitor.generation, detail))

    def standing(self) -> Standing:
        """What the monitor says of all that came in until now."""
        self.digest()
        with self._lock:
            it = self.monitor
            now = () if it.minute is None else (Seen(deepcopy(it.minute), it.generation),)
            watched = self._loaded.model.novelty is not None
            return Standing(
                watched, it.generation, it.era, it.n_items, self._compared, it.threshold, it.log10, it.alarm,
                self._alarms, (*self._minutes, *now),
            )  # fmt: skip

    def unsaved(self) -> Unsaved:
        """What is to be stored; `saved` tells when it is."""
        with self._lock:
            self.changed = False
            head = packed(identity(self._loaded), self._compared)
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
        if loaded is self._left:
            return
        if loaded is not self._loaded:  # it answered before the swap was told
            self._left = self._loaded
            self._begin(loaded)
        scores = np.concatenate([it.scores for it in several])
        answers = np.concatenate([it.answers for it in several])
        labels = np.concatenate([it.labels for it in several])
        times = np.repeat([it.at for it in several], [len(it.scores) for it in several])
        known = ~np.isnan(scores)
        seen = self.monitor.observe(scores[known], answers[known], labels[known], times[known])
        self._minutes += [Seen(minute, self.monitor.generation) for minute in seen.minutes]
        if seen.alarm is not None:
            self._alarms += 1
            detail = {"era": self.monitor.era, **asdict(seen.alarm)}
            self._happenings.append(Happening(SERVICE, "drift.alarm", self.monitor.generation, detail))
        self.changed = True

    def _begin(self, loaded: Loaded) -> None:
        before, scores = self.monitor.generation, calibration_of(loaded)
        self._end(self.monitor.restart(scores, generation=loaded.generation), before)
        self._loaded, self._compared, self.changed = loaded, len(scores), True

    def _end(self, minute: Minute | None, generation: int) -> None:
        if minute is not None:
            self._minutes.append(Seen(minute, generation))


def calibration_of(loaded: Loaded) -> npt.NDArray[np.float64]:
    """Scores of held-out examples that a generation's familiar stream is exchangeable with; else none.

    They were measured against certain slots. One that an update adds lets familiar inputs score lower, and one that
    was deleted higher: a monitor takes either for drift.
    """
    model, novelty = loaded.model, loaded.model.novelty
    if novelty is None or novelty.familiar is None or novelty.n_slots != model.head.n_slots:
        return np.empty(0)
    return np.empty(0) if any(line.what == "delete" for line in model.history) else novelty.familiar


def identity(loaded: Loaded) -> str:
    """Digest of a generation's calibration scores."""
    model = loaded.model
    scores = b"" if model.novelty is None else np.ascontiguousarray(model.novelty.calibration, "<f8").tobytes()
    return hashlib.sha256(scores).hexdigest()
