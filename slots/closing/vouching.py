"""Matched means it: caps made so much smaller that held-out matches are right as often as the user asked for.

On the training data no cap lets in another label, by construction, and that says nothing about new data where examples
are few or classes many. So examples that trained nothing are asked: by how many radians must all precision caps shrink
until those of them that a slot still matches are right at the wanted level?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.decision import exact_scores, matching_pairs
from slots.head.hashing import IncrementalNeuralHashing
from slots.rounding import strictly_below
from slots.shapes import Ids

_RISK = 0.1
"""Chance that a level that does not hold passes the test."""

_ANGLES = 200  # candidates tried between no shrinking and no match


@dataclass(frozen=True)
class Evidence:
    """What slots answered to examples that trained nothing, while their caps shrink.

    Parameters
    ----------
    examples : int64 array of shape (pair,)
        Which example, for each that a slot matches.
    right : bool array of shape (pair,)
        Whether the slot has its label.
    depths : float64 array of shape (pair,)
        Radians inside the precision cap, > 0.
    support_depths : float64 array of shape (pair,)
        Radians inside the support cap, > 0.
    trained : bool array of shape (pair,)
        Whether the slot was trained; otherwise it was added for examples that trained slots do not match.
    n : int
        Number of examples asked, matched or not.
    """

    examples: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    depths: npt.NDArray[np.float64]
    support_depths: npt.NDArray[np.float64]
    trained: npt.NDArray[np.bool_]
    n: int

    def of_trained(self) -> Evidence:
        """The same for the trained slots alone."""
        kept = self.trained
        columns = self.examples[kept], self.right[kept], self.depths[kept], self.support_depths[kept], kept[kept]
        return Evidence(*columns, self.n)

    def answers(self, angle: float) -> tuple[int, int]:
        """Examples that are matched, and rightly, when all precision caps are smaller by an angle."""
        fires = self.depths > angle
        margin = np.minimum(self.depths - angle, self.support_depths)[fires]
        examples, right = self.examples[fires], self.right[fires]
        order = np.lexsort((-margin, examples))
        first = np.unique(examples[order], return_index=True)[1]
        return len(first), int(right[order][first].sum())

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """That of several heads, each asked about other examples."""
        parts = [*parts, cls.none()]
        starts = np.cumsum([0, *(part.n for part in parts)])
        return cls(
            np.concatenate([part.examples + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.right for part in parts]),
            np.concatenate([part.depths for part in parts]),
            np.concatenate([part.support_depths for part in parts]),
            np.concatenate([part.trained for part in parts]),
            int(starts[-1]),
        )

    @classmethod
    def none(cls) -> Evidence:
        """That of no examples."""
        return cls(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0), np.zeros(0), np.zeros(0, bool), 0)


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
        Whether the level passed the test; otherwise there were too few examples, and the caps are such that none of
        these was matched wrongly.
    """

    level: float
    angle: float
    n_checked: int
    n_matched: int
    n_right: int
    shown: bool

    def __str__(self) -> str:
        found = f"{self.n_right:,} of {self.n_matched:,} matched answers right on {self.n_checked:,} held-out examples"
        if self.shown:
            return f"matched answers are right at {self.level:.1%} or better: {found}"
        return f"too few held-out examples to show that matched answers are right at {self.level:.1%}: {found}"


@torch.no_grad()
def ask(source: FeatureSource, head: IncrementalNeuralHashing, y: npt.NDArray[np.int64], ids: Ids) -> Evidence:
    """Ask slots about examples that trained nothing.

    Parameters
    ----------
    source : FeatureSource
        The data.
    head : IncrementalNeuralHashing
        With caps that know nothing of these examples.
    y : int64 array of shape (example,)
        Labels of the data.
    ids : int64 array
        The examples.
    """
    caps = head.caps()
    found: list[tuple[Tensor, ...]] = []
    for rows in source.blocks(len(ids), columns=head.n_slots):
        features = source(ids[rows])
        example, slot = matching_pairs(features, caps)
        depth = torch.full((2, len(slot)), -math.inf, dtype=torch.float64, device=features.device)
        for view in range(features.shape[1]):
            pairs = example, torch.full_like(example, view), slot
            here = torch.stack([
                limit[slot].double().clamp(-1, 1).arccos() - exact_scores(features, axes, pairs).clamp(-1, 1).arccos()
                for limit, axes in ((caps.precision, caps.weights), (caps.support, caps.centres))
            ])  # fmt: skip
            deeper = (here > 0).all(0) & (here[0] > depth[0])
            depth = torch.where(deeper, here, depth)
        labels = torch.from_numpy(y[ids[rows]]).to(slot.device)
        right = labels[example] == caps.labels[slot]
        found.append((example + rows.start, right, depth[0], depth[1], caps.pooled[slot]))
    if not found:
        return Evidence.none()
    columns = [torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)]
    return Evidence(columns[0], columns[1], columns[2], columns[3], columns[4], len(ids))


def calibrate(evidence: Evidence, level: float) -> Vouching:
    """The smallest shrinking at which held-out matches are right at a level.

    Parameters
    ----------
    evidence : Evidence
        From examples that trained nothing.
    level : float in (0, 1)
        Wanted share of right answers among the matched.

    Returns
    -------
    Vouching

    Notes
    -----
    Learn then test (Angelopoulos et al., "Learn then Test", 2021): from the smallest caps to the largest, each is
    tested by the exact binomial tail of its errors at risk 0.1; the walk ends at the first that fails after one has
    passed. Where there are too few matches to pass at all, caps shrink until no held-out example is matched wrongly.

    Examples
    --------
    >>> depths = np.linspace(0.01, 1, 300)
    >>> sure = Evidence(np.arange(300), depths > 0.1, depths, np.ones(300), depths > 0, 300)
    >>> found = calibrate(sure, 0.95)
    >>> found.shown, found.angle < 0.1, found.n_right / found.n_matched > 0.95
    (True, True, True)
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie in (0, 1), got {level}. 0.98 lets one matched answer in fifty be wrong.")
    spots = np.unique(np.quantile(evidence.depths, np.linspace(0, 1, _ANGLES))) if len(evidence.depths) else np.zeros(0)
    passed = None
    for angle in [*spots[::-1], 0.0]:
        matched, right = evidence.answers(float(angle))
        if _holds(matched, right, level):
            passed = Vouching(level, float(angle), evidence.n, matched, right, shown=True)
        elif passed is not None:
            break
    if passed is not None:
        return passed
    wrong = evidence.depths[~evidence.right]
    angle = float(wrong.max()) if len(wrong) else 0.0
    return Vouching(level, angle, evidence.n, *evidence.answers(angle), shown=False)


def measure(evidence: Evidence, level: float) -> Vouching:
    """How often matches are right where the caps stay as they are, and whether that shows the level (as `calibrate`).

    Examples
    --------
    >>> half = Evidence(np.arange(100), np.arange(100) % 2 == 0, np.ones(100), np.ones(100), np.ones(100) > 0, 100)
    >>> found = measure(half, 0.95)
    >>> found.shown, found.n_right, found.angle
    (False, 50, 0.0)
    """
    matched, right = evidence.answers(0.0)
    return Vouching(level, 0.0, evidence.n, matched, right, shown=_holds(matched, right, level))


def _holds(matched: int, right: int, level: float) -> bool:
    """The exact binomial tail of the errors, at risk 0.1."""
    return matched > 0 and bool(stats.binom.cdf(matched - right, matched, 1 - level) <= _RISK)


@torch.no_grad()
def tighten(head: IncrementalNeuralHashing, angle: float) -> None:
    """Make all precision caps smaller by an angle (radians, >= 0); those that vanish match nothing."""
    if angle == 0:
        return
    limit = head.precision_thresholds.double()
    radius = limit.clamp(-1, 1).arccos() - angle
    head.precision_thresholds = torch.maximum(strictly_below(radius.clamp_min(0).cos()), limit.float())
    head.support_thresholds = torch.where(radius > 0, head.support_thresholds, torch.full_like(limit, 2.0).float())
