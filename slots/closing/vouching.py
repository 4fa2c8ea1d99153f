"""Matched means it: caps made so much smaller that held-out matches are right as often as the user asked for.

On the training data no cap lets in another label, by construction, and that says nothing about new data where examples
are few or classes many. So examples that trained nothing are asked: by how many radians must all precision caps shrink
until those of them that a slot still matches are right at the wanted level?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from slots.closing.evidence import Evidence, Tally
from slots.head.hashing import IncrementalNeuralHashing
from slots.rounding import strictly_below

LEVELS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Levels whose angles a fit notes beside that of its own."""

_COURSE = 40  # angles at which the course is noted

_RISK = 0.1
"""Chance that a level that does not hold passes the test."""

_DEEPER = 200  # angles tried inside the deepest wrong match
_FEW_WRONG = 8  # up to here the mean depth of all wrong matches says how fast they get fewer, beyond that of a quarter


@dataclass(frozen=True)
class Shrunk:
    """Answers of caps that are all smaller by an angle.

    Parameters
    ----------
    angle : float
        Radians, >= 0.
    n_matched, n_right : int
        Examples that are then matched, and those rightly.
    """

    angle: float
    n_matched: int
    n_right: int


@dataclass(frozen=True)
class Asked:
    """What another level would have taken.

    Parameters
    ----------
    level : float
        Share of matched answers to be right, in (0, 1).
    angle : float
        Radians by which the caps had become smaller; infinite where nothing could be matched.
    shown : bool
        Whether the level would have passed the test.
    """

    level: float
    angle: float
    shown: bool


@dataclass(frozen=True)
class Vouching:
    """How far matched answers can be relied on, by examples that trained nothing.

    Parameters
    ----------
    level : float
        Share of matched answers that was asked to be right, in (0, 1).
    angle : float
        Radians by which all precision caps were made smaller; infinite where nothing may be matched.
    n_checked, n_matched, n_right : int
        Examples asked, those then matched, and those rightly.
    shown : bool
        Whether the level passed the test; otherwise there were too few examples, and the caps are such that it is to
        be expected (`calibrate`).
    open_share : float in [0, 1), default 0.0
        Share of the examples asked that had to stay unmatched.
    left_open : int, default 0
        Examples that stay unmatched for it, and that the level alone would have let match.
    course : tuple of Shrunk, default ()
        Answers to the same examples at other angles, ascending.
    asked : tuple of Asked, default ()
        What other levels would have taken, ascending.
    """

    level: float
    angle: float
    n_checked: int
    n_matched: int
    n_right: int
    shown: bool
    open_share: float = 0.0
    left_open: int = 0
    course: tuple[Shrunk, ...] = ()
    asked: tuple[Asked, ...] = ()

    def __str__(self) -> str:
        found = f"{self.n_right:,} of {self.n_matched:,} matched answers right on {self.n_checked:,} held-out examples"
        if self.shown:
            return f"matched answers are right at {self.level:.1%} or better: {found}"
        return f"too few held-out examples to show that matched answers are right at {self.level:.1%}: {found}"


def calibrate(evidence: Evidence, level: float, *, open_share: float = 0.0) -> Vouching:
    """The smallest shrinking at which held-out matches are right at a level.

    Parameters
    ----------
    evidence : Evidence
        From examples that trained nothing.
    level : float in (0, 1)
        Wanted share of right answers among the matched.
    open_share : float in [0, 1), default 0.0
        Share of the examples that must stay unmatched, however right the matches are: for features that may come from
        a network which has seen these examples in its training, so that it answers them better than new ones.

    Returns
    -------
    Vouching

    Notes
    -----
    Learn then test (Angelopoulos et al., "Learn then Test", 2021): from the smallest caps to the largest, each is
    tested by the exact binomial tail of its errors at risk 0.1; the walk ends at the first that fails after one has
    passed. It must pass twice, with every example alike and with every class alike, since new data may hold more of the
    classes that had few examples; weights count as so many equal ones as Kish's formula says. What shows a higher one
    of `LEVELS` shows this level, too: a lower level never matches fewer than a higher one that was shown (ours; in
    simulations as many levels that do not hold pass as without, at most one in ten).

    Where there are too few matches to pass at all, the level need only be expected: of ``m`` matches ``w`` wrong,
    ``w + t <= (1 - level) m``, with one more error than was seen, as in the control of false discoveries by knockoffs
    (Barber and Candes 2015). Up to the deepest wrong match ``t`` is 1; further inside it falls exponentially, by the
    mean depth of wrong matches (ours). Where no angle will do, nothing is matched. Where no example is matched wrongly,
    caps stay if half of all are matched, or so many that one error more would do.

    Examples
    --------
    >>> depths = np.linspace(0.01, 1, 300)
    >>> sure = Evidence(np.arange(300), depths > 0.1, depths, np.ones(300), depths > 0, np.zeros(300, int))
    >>> found = calibrate(sure, 0.95)
    >>> found.shown, found.angle < 0.1, found.n_right / found.n_matched > 0.95
    (True, True, True)
    >>> half = calibrate(sure, 0.95, open_share=0.5)
    >>> half.n_matched, half.left_open == found.n_matched - 150
    (150, True)
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie in (0, 1), got {level}. 0.98 lets one matched answer in fifty be wrong.")
    walks = (_shown_angle(evidence, it) for it in (level, *(higher for higher in LEVELS if higher > level)))
    angle = min((it for it in walks if it is not None), default=None)
    if angle is None:
        angle = _expected_angle(evidence, level)
    most = math.floor((1 - open_share) * evidence.n + 1e-9)
    if (before := evidence.answers(angle)[0]) > most:
        angle = _angle_for(evidence, most)
    shown = _holds(evidence.tallies(angle), level)
    n_matched, n_right = evidence.answers(angle)
    return Vouching(
        level, angle, evidence.n, n_matched, n_right, shown=shown, open_share=open_share, left_open=before - n_matched
    )


def measure(evidence: Evidence, level: float) -> Vouching:
    """How often matches are right where the caps stay as they are, and whether that shows the level (as `calibrate`).

    Examples
    --------
    >>> examples, ones = np.arange(100), np.ones(100)
    >>> found = measure(Evidence(examples, examples % 2 == 0, ones, ones, ones > 0, examples % 4), 0.95)
    >>> found.shown, found.n_right, found.angle
    (False, 50, 0.0)
    """
    return Vouching(level, 0.0, evidence.n, *evidence.answers(0.0), shown=_holds(evidence.tallies(0.0), level))


def with_course(found: Vouching, evidence: Evidence) -> Vouching:
    """The same with the answers to the same examples at other angles, and with the angles of other levels.

    Parameters
    ----------
    found : Vouching
        As `calibrate` gave it.
    evidence : Evidence
        What it was given.

    Examples
    --------
    >>> depths = np.linspace(0.01, 1, 300)
    >>> sure = Evidence(np.arange(300), depths > 0.1, depths, np.ones(300), depths > 0, np.zeros(300, int))
    >>> whole = with_course(calibrate(sure, 0.95), sure)
    >>> (whole.course[0].n_matched, whole.course[0].n_right), [it.level for it in whole.asked if it.shown]
    ((300, 272), [0.8, 0.9, 0.95, 0.98, 0.99])
    """
    ends = np.quantile(evidence.depths, np.linspace(0, 0.99, _COURSE)) if len(evidence.depths) else np.zeros(0)
    angles = np.unique(np.concatenate([[0.0], ends, [found.angle] if math.isfinite(found.angle) else []]))
    course = tuple(Shrunk(float(angle), *evidence.answers(float(angle))) for angle in angles)
    asked = []
    for level in sorted({*LEVELS, found.level}):
        other = calibrate(evidence, level, open_share=found.open_share)
        asked.append(Asked(level, other.angle, other.shown))
    return replace(found, course=course, asked=tuple(asked))


def _shown_angle(evidence: Evidence, level: float) -> float | None:
    """The last angle that passes on the way from the smallest caps to the largest."""
    if level in evidence.walks:
        return evidence.walks[level]
    passed = None
    for angle in evidence.angles[::-1].tolist():
        if _holds(evidence.tallies(angle), level):
            passed = angle
        elif passed is not None:
            break
    evidence.walks[level] = passed
    return passed


def _expected_angle(evidence: Evidence, level: float) -> float:
    """The smallest angle at which the level is to be expected."""
    wrong = np.sort(evidence.wrong_depths())
    if not len(wrong):
        return 0.0 if evidence.answers(0.0)[0] >= min(1 / (1 - level), evidence.n / 2) else math.inf
    deepest = wrong[-1]
    few = len(wrong) <= _FEW_WRONG
    outermost = wrong[-max(1, len(wrong) // 4) :]
    fall = float(wrong.mean() if few else (outermost - np.quantile(wrong, 0.75)).mean())
    angles = np.concatenate([evidence.angles, np.linspace(deepest, evidence.depths.max(), _DEEPER)])
    for angle in np.unique(angles):
        unseen = min(1.0, math.exp(-(angle - deepest) / max(fall, 1e-9)))
        if all(it.matched > 0 and it.wrong + unseen <= (1 - level) * it.matched for it in evidence.tallies(angle)):
            return float(angle)
    return math.inf


def _angle_for(evidence: Evidence, most: int) -> float:
    """The smallest angle at which so many examples are matched, or fewer."""
    depths = np.zeros(evidence.n)
    np.maximum.at(depths, evidence.examples, evidence.depths)
    return float(np.sort(depths)[::-1][most])


def _holds(tallies: Sequence[Tally], level: float) -> bool:
    """The exact binomial tail of the errors, at risk 0.1, in every weighing; with weights its continuous form."""
    return all(it.matched > 0 and _tail(it, 1 - level) <= _RISK for it in tallies)


def _tail(tally: Tally, share: float) -> float:
    """Chance of so few errors or fewer where this share of answers is wrong."""
    from scipy.special import betainc  # a third of a second, which only fits need

    wrong, n = tally.wrong / tally.matched * tally.effective, tally.effective
    return 1.0 if wrong >= n else 1.0 - float(betainc(wrong + 1, n - wrong, share))


@torch.no_grad()
def tighten(head: IncrementalNeuralHashing, angle: float) -> None:
    """Make all precision caps smaller by an angle (radians, >= 0); those that vanish match nothing."""
    if angle == 0:
        return
    limit = head.precision_thresholds.double()
    radius = limit.clamp(-1, 1).arccos() - angle
    head.precision_thresholds = torch.maximum(strictly_below(radius.clamp_min(0).cos()), limit.float())
    head.support_thresholds = torch.where(radius > 0, head.support_thresholds, torch.full_like(limit, 2.0).float())
