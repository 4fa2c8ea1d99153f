"""How far a model's answers can be relied on, by examples that trained nothing: the numbers behind a report's plots."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from protocols.summaries.fit import Vouched
from slots.closing.evidence import Evidence, ask
from slots.features.source import FeatureSource
from slots.head.caps import SlotCaps
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.novelty.conformal import threshold
from slots.novelty.slot_novelty import assess
from slots.shapes import Ids, RawInputs

MOST = 2000
"""Examples measured at most; of more every n-th is."""

FALSE_ALARMS = 0.05
"""Rate whose threshold is shown, where enough examples were left out of the fit for it."""

_POINTS = 40


@dataclass(frozen=True)
class CurvePoint:
    """Answers where all precision caps are smaller by some degrees (negative: larger), of the examples of a curve."""

    smaller_by: float
    n_matched: int
    n_right: int


@dataclass(frozen=True)
class MatchCurve:
    """What is matched, and how much of it rightly, as the caps shrink.

    Parameters
    ----------
    n : int
        Examples asked.
    points : tuple of CurvePoint
        From the largest caps to the smallest.
    here : CurvePoint
        The model's own caps.
    """

    n: int
    points: tuple[CurvePoint, ...]
    here: CurvePoint


@dataclass(frozen=True)
class Promise:
    """A level that a fit was or could have been asked for, and what came of it on other examples.

    Parameters
    ----------
    level : float
        Share of matched answers to be right, in (0, 1).
    is_own : bool
        Whether it is the level of the fit.
    shown : bool
        Whether the examples left out of the fit were enough to show it.
    n_matched, n_right : int
        Examples matched at this level, and those rightly.
    """

    level: float
    is_own: bool
    shown: bool
    n_matched: int
    n_right: int


@dataclass(frozen=True)
class NoveltyScores:
    """Novelty scores; higher is more novel.

    Parameters
    ----------
    familiar : float64 array of shape (example,)
        Of examples left out of the fit, which the threshold is made of.
    tested, foreign : float64 arrays of shape (example,)
        Of test examples, and of those whose class no slot stands for; may be empty.
    threshold : float
        Above it an input is called novel.
    rate : float
        The false-alarm rate that the threshold keeps.
    """

    familiar: npt.NDArray[np.float64]
    tested: npt.NDArray[np.float64]
    foreign: npt.NDArray[np.float64]
    threshold: float
    rate: float


@dataclass(frozen=True)
class Reliability:
    """What the plots of a report show.

    Parameters
    ----------
    of_test, of_fit : MatchCurve or None
        Of test examples, and of those that were left out of the fit.
    level : float or None
        The level that the fit was asked for.
    promises : tuple of Promise
        Ascending; empty where nothing was promised, or nothing tested.
    novelty : NoveltyScores or None
        None where the model judges no novelty.
    n_left_out : int
        Test examples that were not measured, since there are so many.
    """

    of_test: MatchCurve | None
    of_fit: MatchCurve | None
    level: float | None
    promises: tuple[Promise, ...]
    novelty: NoveltyScores | None
    n_left_out: int = 0


def measure_reliability(
    model: SlotModel,
    x: RawInputs,
    y: Ids,
    prediction: Prediction,
    *,
    vouched: Vouched | None,
    foreign: RawInputs | None = None,
    is_fit: bool = True,
) -> Reliability:
    """Measure what the plots of a report show.

    Parameters
    ----------
    model : SlotModel
        The slots that answer.
    x, y : arrays of shape (example, ...) and (example,)
        Inputs that trained nothing, and ids of the model's labels; may be empty.
    prediction : Prediction
        Of ``x``.
    vouched : Vouched or None
        What the fit promised.
    foreign : array of shape (foreign example, ...), optional
        Inputs of classes that no slot stands for.
    is_fit : bool
        Whether the slots are those of the fit, so that what it noted holds for them.

    Returns
    -------
    Reliability
    """
    rows = np.arange(len(y))[:: max(1, math.ceil(len(y) / MOST))]
    source = FeatureSource(model.featurizer, x[rows])
    of_test: MatchCurve | None = None
    promises: tuple[Promise, ...] = ()
    if len(rows):
        right = prediction.matched & (prediction.labels == y)
        here = CurvePoint(0.0, int(prediction.matched[rows].sum()), int(right[rows].sum()))
        room = math.radians(vouched.smaller_by or 0.0) if vouched else 0.0
        evidence = ask(source, model.head, y[rows], np.arange(len(rows)), caps=_larger(model.head.caps(), room))
        of_test = _curve(evidence, room, here)
        promises = () if vouched is None else _promises(evidence, vouched, room, here)
    return Reliability(
        of_test,
        _curve_of_fit(vouched) if vouched is not None and is_fit else None,
        None if vouched is None else vouched.level,
        promises,
        _novelty(model, source, x[:0] if foreign is None else foreign),
        len(y) - len(rows),
    )


def _larger(caps: SlotCaps, angle: float) -> SlotCaps:
    """The same slots, with precision caps larger by an angle (radians)."""
    wide = (caps.precision.double().clamp(-1, 1).arccos() + angle).clamp(max=math.pi).cos().float()
    return replace(caps, precision=wide.minimum(caps.precision))


def _curve(evidence: Evidence, room: float, here: CurvePoint) -> MatchCurve:
    """Answers as the caps shrink by ``room`` (radians) to what they are, and further."""
    ends = np.quantile(evidence.depths, np.linspace(0, 0.99, _POINTS)) if len(evidence.depths) else np.zeros(0)
    points = {here.smaller_by: here}
    for angle in np.unique(np.concatenate([[0.0], ends])).tolist():
        smaller_by = math.degrees(angle - room)
        points.setdefault(smaller_by, CurvePoint(smaller_by, *evidence.answers(angle)))
    return MatchCurve(evidence.n, tuple(points[key] for key in sorted(points)), here)


def _curve_of_fit(vouched: Vouched) -> MatchCurve | None:
    """What the fit noted of the examples that it left out."""
    if vouched.smaller_by is None or not vouched.course:
        return None
    points = [CurvePoint(angle - vouched.smaller_by, matched, right) for angle, matched, right in vouched.course]
    here = CurvePoint(0.0, vouched.n_matched, vouched.n_right)
    return MatchCurve(vouched.n_checked, tuple(points), here)


def _promises(evidence: Evidence, vouched: Vouched, room: float, here: CurvePoint) -> tuple[Promise, ...]:
    """Each level that the fit noted an angle for, measured at that angle."""
    found = []
    for level, smaller_by, shown in vouched.asked:
        is_own = level == vouched.level
        angle = math.inf if smaller_by is None else math.radians(smaller_by)
        answers = (here.n_matched, here.n_right) if is_own or angle == room else evidence.answers(angle)
        found.append(Promise(level, is_own, shown, *answers))
    return tuple(found)


def _novelty(model: SlotModel, source: FeatureSource, foreign: RawInputs) -> NoveltyScores | None:
    """Scores of what is at hand, and the threshold of the false-alarm rate."""
    if model.novelty is None:
        return None
    familiar = model.novelty.calibration
    rate = max(FALSE_ALARMS, 1 / (len(familiar) + 1))
    others = FeatureSource(model.featurizer, foreign[:: max(1, math.ceil(len(foreign) / MOST))], keep=False)
    tested, strange = (assess(it, model.head, model.novelty, rate=rate).scores for it in (source, others))
    return NoveltyScores(familiar, tested, strange, threshold(familiar, rate), rate)
