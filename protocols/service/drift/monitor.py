"""A monitor of one model's stream: ranks, martingale, minutes and the alarm, in a state that a database can hold."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from protocols.service.drift.martingale import Bets, SimpleJumper
from protocols.service.drift.minutes import Minute
from protocols.service.drift.ranks import OnlineRanks, as_scores
from slots.errors import DataError, UsageError
from slots.head import Answer

SCHEMA = 1
BETS = Bets(slopes=(-1.0, 0.0, 1.0), powers=(0.7, 0.9))


@dataclass(frozen=True)
class Alarm:
    """The first time in an era that the martingale reached the threshold.

    Parameters
    ----------
    item : int
        Number of the input in its era, from 0.
    time : float
        Its time, seconds since 1970 (UTC).
    log10 : float
        Decimal logarithm of the martingale after it.
    """

    item: int
    time: float
    log10: float


@dataclass(frozen=True)
class Observation:
    """What one batch brought.

    Parameters
    ----------
    p_values : float64 array of shape (item,)
        Online conformal ranks, in (0, 1]; small = more novel than nearly all before.
    log10 : float64 array of shape (item,)
        Decimal logarithm of the martingale after each.
    minutes : tuple of Minutes
        Those that ended within the batch, to be stored; the one that goes on is `Monitor.minute`.
    alarm : Alarm or None
        The alarm, where this batch raised it; later batches do not repeat it.
    """

    p_values: npt.NDArray[np.float64]
    log10: npt.NDArray[np.float64]
    minutes: tuple[Minute, ...]
    alarm: Alarm | None


class Monitor:
    """Watches novelty scores as they arrive, and says when the stream is no longer what it was.

    Parameters
    ----------
    calibration : float array of shape (calibration example,)
        Novelty scores of familiar examples that had no part in making the score; may be empty.
    threshold : float, default 100
        Capital at which the alarm is raised (> 1). A familiar stream ever raises one with probability at most
        ``1 / threshold``.
    capacity : int, default 10000
        Most scores that are kept (>= 1); see `OnlineRanks`.
    seed : int, default 0
        Same seed and same inputs, same result (>= 0).
    generation : int, default 0
        Generation of the model that makes the scores; may be set to another one that scores every input alike.
    era : int, default 0
        Number of the first era (>= 0): after those of a monitor whose state was lost.

    Raises
    ------
    UsageError
        If the threshold is not above 1, or capacity, seed or era is out of range.
    DataError
        If a calibration score is no number.

    Notes
    -----
    The promise belongs to one *era*: one score function, one calibration set, one run of the martingale. A generation
    that scores differently gives scores that are not exchangeable with those kept, and must begin an era (`restart`);
    one that scores alike goes on in it. After an alarm the kept scores hold inputs that are known by having raised it,
    and the capital is what it is because of them: an alarm that was looked at ends the era as well (`acknowledge`).
    Each era has its own chance of ``1 / threshold``. Eras that begin at other times, say whenever the capital is low,
    would each add their chance of a false alarm; therefore `acknowledge` without an alarm is refused.

    The bets are the slopes -1, 0, 1 of the simple jumper and the powers 0.7 and 0.9, so that a few very novel inputs
    among many familiar ones are found too; half of the capital sleeps (`SimpleJumper`).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> monitor = Monitor(rng.normal(size=500), seed=1)
    >>> kinds, labels = [Answer.MATCHED] * 300, [0] * 300
    >>> monitor.observe(rng.normal(size=300), kinds, labels, np.arange(300.0)).alarm is None
    True
    >>> found = monitor.observe(rng.normal(0.5, size=300), kinds, labels, np.arange(300.0, 600.0))
    >>> 300 < found.alarm.item < 500, len(found.minutes), monitor.minute.n
    (True, 5, 60)
    >>> again = Monitor.from_bytes(monitor.to_bytes())
    >>> again.to_bytes() == monitor.to_bytes(), again.alarm == found.alarm
    (True, True)
    """

    def __init__(
        self,
        calibration: npt.ArrayLike = (),
        *,
        threshold: float = 100.0,
        capacity: int = 10_000,
        seed: int = 0,
        generation: int = 0,
        era: int = 0,
    ) -> None:
        if not 1 < threshold < math.inf:
            raise UsageError(
                f"`threshold` must be above 1, got {threshold}. 100 allows one false alarm in 100 streams."
            )
        self.threshold, self.generation = float(threshold), int(generation)
        self.alarm: Alarm | None = None
        self.minute: Minute | None = None
        self.ranks = OnlineRanks(calibration, capacity=capacity, seed=seed, era=era)
        self.martingale = _martingale()

    @property
    def era(self) -> int:
        """Number of the era; the next one's is greater by one."""
        return self.ranks.era

    @property
    def n_items(self) -> int:
        """Inputs of this era."""
        return self.ranks.n_ranked

    @property
    def log10(self) -> float:
        """Decimal logarithm of the martingale."""
        return self.martingale.log_capital / math.log(10)

    def observe(
        self, scores: npt.ArrayLike, answers: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike
    ) -> Observation:
        """Take inputs in the order in which they arrived.

        Parameters
        ----------
        scores : float array of shape (item,)
            Novelty scores, higher = more novel.
        answers : int array of shape (item,)
            `Answer` of each.
        labels : int array of shape (item,)
            Predicted label of each.
        times : float or float array of shape (item,)
            Seconds since 1970 (UTC). An input that is late is counted in the newest minute.

        Returns
        -------
        Observation
            The same in one call and in many.

        Raises
        ------
        DataError
            If lengths differ, a score or time is no number or an answer no `Answer`; nothing has been observed then.
        """
        given = as_scores(scores)
        kinds, names, clock = _matching(len(given), answers, labels, times)
        p_values = self.ranks.rank(given)
        log_capital = self.martingale.bet(p_values)
        log10 = log_capital / math.log(10)
        alarm = self._alarm_in(log_capital, log10, clock)
        ended = self._count(p_values, kinds, names, log10, clock)
        return Observation(p_values, log10, tuple(ended), alarm)

    def acknowledge(self, calibration: npt.ArrayLike = ()) -> Minute | None:
        """Begin a new era after an alarm that somebody has looked at.

        Parameters
        ----------
        calibration : float array of shape (calibration example,)
            Empty where the stream is to be compared with itself from now on, which keeps the promise whatever happened
            before. The model's calibration scores where it should be again as it was; but if it was the luck of
            these scores that raised a false alarm, they may well raise the next.

        Returns
        -------
        Minute or None
            The minute that ended by it, to be stored.

        Raises
        ------
        UsageError
            If there is no alarm.
        DataError
            If a calibration score is no number.
        """
        if self.alarm is None:
            raise UsageError("There is no alarm to acknowledge, and beginning anew without one weakens the promise.")
        return self.restart(calibration, generation=self.generation)

    def restart(self, calibration: npt.ArrayLike, *, generation: int) -> Minute | None:
        """Begin a new era, as a generation of the model that scores otherwise must.

        Parameters
        ----------
        calibration : float array of shape (calibration example,)
            Scores of familiar examples by that generation; may be empty.
        generation : int
            Generation of the model that makes the scores from now on.

        Returns
        -------
        Minute or None
            The minute that ended by it, to be stored.

        Raises
        ------
        DataError
            If a calibration score is no number.
        """
        old = self.ranks
        self.ranks = OnlineRanks(calibration, capacity=old.capacity, seed=old.seed, era=old.era + 1)
        self.martingale, self.alarm, self.generation = _martingale(), None, int(generation)
        ended, self.minute = self.minute, None
        return ended

    def to_bytes(self) -> bytes:
        """The whole state; to be stored in one transaction with the minutes that were returned so far.

        Returns
        -------
        bytes
            JSON in UTF-8; about 11 bytes a kept score.
        """
        state = {
            "schema": SCHEMA, "threshold": self.threshold, "generation": self.generation,
            "alarm": None if self.alarm is None else asdict(self.alarm),
            "minute": None if self.minute is None else self.minute.to_json(),
            "ranks": self.ranks.to_json(), "martingale": self.martingale.to_json(),
        }  # fmt: skip
        return json.dumps(state, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, state: bytes) -> Monitor:
        """Go on where `to_bytes` was called, bit for bit.

        Parameters
        ----------
        state : bytes
            What `to_bytes` gave.

        Returns
        -------
        Monitor

        Raises
        ------
        DataError
            If it is no state of a monitor, is damaged, or is of a newer version.
        """
        try:
            found = json.loads(state)
            if found["schema"] != SCHEMA:
                raise DataError(
                    f"A drift state has schema {found['schema']}, this version reads {SCHEMA}. Upgrade slots."
                )
            monitor = cls(threshold=found["threshold"], generation=found["generation"])
            monitor.alarm = None if found["alarm"] is None else Alarm(**found["alarm"])
            minute = found["minute"]  # of older versions without its generation
            monitor.minute = None if minute is None else Minute.from_json({"generation": monitor.generation, **minute})
            monitor.ranks = OnlineRanks.from_json(found["ranks"])
            monitor.martingale = SimpleJumper.from_json(found["martingale"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"This is no state of a drift monitor ({error!r}). Restart the monitor.") from None
        return monitor

    def _alarm_in(
        self, log_capital: npt.NDArray[np.float64], log10: npt.NDArray[np.float64], clock: npt.NDArray[np.float64]
    ) -> Alarm | None:
        """The era's first alarm, where it lies in this batch."""
        reached = np.flatnonzero(log_capital >= math.log(self.threshold))
        if self.alarm is not None or not len(reached):
            return None
        first = int(reached[0])
        self.alarm = Alarm(self.n_items - len(log10) + first, float(clock[first]), float(log10[first]))
        return self.alarm

    def _count(
        self,
        p_values: npt.NDArray[np.float64],
        kinds: npt.NDArray[np.int64],
        names: npt.NDArray[np.int64],
        log10: npt.NDArray[np.float64],
        clock: npt.NDArray[np.float64],
    ) -> list[Minute]:
        """Add a batch to its minutes; those that ended. A clock that goes back stays in the newest minute."""
        starts = (np.floor(clock / 60) * 60).astype(np.int64)
        if self.minute is not None and len(starts):
            starts[0] = max(int(starts[0]), self.minute.start)
        starts = np.maximum.accumulate(starts)
        ended = []
        for start in np.unique(starts).tolist():
            rows = slice(*np.searchsorted(starts, [start, start + 1]).tolist())
            if self.minute is None or self.minute.start != start:
                ended += [] if self.minute is None else [self.minute]
                self.minute = Minute(self.era, start)
            self.minute.add(p_values[rows], kinds[rows], names[rows], log10[rows])
            self.minute.generation = self.generation
        return ended


def _martingale() -> SimpleJumper:
    return SimpleJumper(BETS, jump=0.002, asleep=0.5)


def _matching(
    n: int, answers: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Answers, labels and times as arrays of ``n``, or one clear error."""
    kinds, names = np.asarray(answers), np.asarray(labels)
    clock = np.asarray(times, np.float64)
    clock = np.full(n, clock) if clock.ndim == 0 else clock
    for name, column in (("answers", kinds), ("labels", names), ("times", clock)):
        if column.shape != (n,):
            raise DataError(f"`{name}` must have shape ({n},) as the scores, got {column.shape}.")
    for name, column in (("answers", kinds), ("labels", names)):
        if n and not np.issubdtype(column.dtype, np.integer):
            raise DataError(f"`{name}` must be whole numbers, got {column.dtype}.")
    if not np.isin(kinds, list(Answer)).all():
        raise DataError(f"`answers` must be 0 (unmatched), 1 (ambiguous) or 2 (matched), got {np.unique(kinds)}.")
    if not (np.abs(clock) < 1e15).all():
        raise DataError("`times` must be seconds since 1970.")
    return kinds.astype(np.int64), names.astype(np.int64), clock
