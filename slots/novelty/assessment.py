"""Novelty of inputs as p-values of their distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slots.novelty.conformal import check_rate, p_values
from slots.novelty.distances import Distances, NoveltyMetric
from slots.novelty.tails import bonferroni_score

SHARES = (0.6, 0.3, 0.1)
"""Shares of the false alarms that the first three tests may spend where the prototypes are a model's slots."""


@dataclass(frozen=True)
class Novelty:
    """How novel a batch of inputs is; all arrays have shape (example,).

    Parameters
    ----------
    scores : float64 array
        Higher = more novel: about minus the logarithm of the chance of such an input among familiar ones.
    p_values : float64 array
        In (0, 1]; valid for inputs exchangeable with the calibration data.
    novel : bool array
        ``p_values <= false_alarm_rate``.
    nearest : int64 array
        Prototype of smallest angle; for a model the slot.
    reasons : array of str
        Which of `REASONS` gave the score.
    """

    scores: npt.NDArray[np.float64]
    p_values: npt.NDArray[np.float64]
    novel: npt.NDArray[np.bool_]
    nearest: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.scores)


def assess_distances(
    found: Distances, metric: NoveltyMetric, calibration: npt.NDArray[np.float64], *, rate: float
) -> Novelty:
    """Scores, split conformal p-values and decisions from distances.

    Raises
    ------
    UsageError
        If the calibration examples are too few for the rate.
    """
    scores, reasons = bonferroni_score(found, metric)
    return assess_scores(scores, reasons, found.nearest.cpu().numpy(), calibration, rate=rate)


def assess_scores(
    scores: npt.NDArray[np.float64],
    reasons: npt.NDArray[np.str_],
    nearest: npt.NDArray[np.int64],
    calibration: npt.NDArray[np.float64],
    *,
    rate: float,
    alike: npt.NDArray[np.float64] | None = None,
) -> Novelty:
    """Split conformal p-values and decisions of scores; all but the calibration of shape (example,).

    With other calibration scores, where every class comes as often as another, the larger p-value of both holds.

    Raises
    ------
    UsageError
        If the calibration examples are too few for the rate.
    """
    check_rate(rate, len(calibration))
    chances = p_values(scores, calibration)
    if alike is not None and len(alike):
        chances = np.maximum(chances, p_values(scores, alike))
    return Novelty(scores, chances, chances <= rate * (1 + 1e-12), nearest, reasons)
