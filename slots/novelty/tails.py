"""From several distances to one score: how rare each is among familiar inputs, and which is the rarest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from slots.novelty.distances import Distances, NoveltyMetric

REASONS = ("angle", "pattern", "size", "surface", "class")
"""The tests: far from all prototypes; near one, but off in directions in which nothing ever varied; a feature vector
longer or shorter than any; off every flat piece of the surface that familiar inputs lie on; of no class more than of
all together (where the labels are known)."""

_LEVELS = np.linspace(0.0, 0.9, 10)


@dataclass(frozen=True)
class Tails:
    """How rare each of several measures is among familiar inputs.

    Parameters
    ----------
    quantiles : float64 array of shape (level, measure)
        Quantiles 0, 0.1, ..., 0.9.
    mean_excess : float64 array of shape (measure,)
        Mean of what lies beyond the last of them, less that one; > 0.
    """

    quantiles: npt.NDArray[np.float64]
    mean_excess: npt.NDArray[np.float64]

    def rarities(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Minus the logarithm of the share of familiar inputs that lie as high, of shape (example, measure)."""
        found = np.empty(values.shape)
        for column, (knots, excess) in enumerate(zip(self.quantiles.T, self.mean_excess, strict=True)):
            value = values[:, column]
            found[:, column] = _rarity(value, knots, excess)
        return found


def fit_tail(reference: npt.NDArray[np.float64]) -> Tails:
    """Quantiles and mean excess of each column of reference data (see `fit_tails`)."""
    quantiles = np.quantile(reference, _LEVELS, axis=0)
    beyond = np.maximum(reference - quantiles[-1], 0)
    count = np.maximum((beyond > 0).sum(0), 1)
    return Tails(quantiles, np.maximum(beyond.sum(0) / count, 1e-6))


def _rarity(values: npt.NDArray[np.float64], quantiles: npt.ArrayLike, excess: float) -> npt.NDArray[np.float64]:
    knots = np.asarray(quantiles, np.float64)
    inside = -np.log1p(-np.interp(values, knots, _LEVELS))
    found: npt.NDArray[np.float64] = inside + np.maximum(0.0, values - knots[-1]) / excess
    return found


def fit_tails(metric: NoveltyMetric, reference: Distances, shares: tuple[float, ...]) -> NoveltyMetric:
    """Fit the tail of each distance to reference data: quantiles, and an exponential beyond them.

    Parameters
    ----------
    metric : NoveltyMetric
        Whose quantiles, mean excesses and shares are replaced.
    reference : Distances
        Of familiar inputs that placed no prototype.
    shares : tuple of floats
        Of the false alarms, for each test.

    Notes
    -----
    Quantiles up to 0.9; beyond, an exponential tail of the same mean excess, so that the score goes on growing where
    the reference data ends.
    """
    quantiles, mean_excess = [], []
    for column in reference.values.cpu().numpy().T:
        of_test = np.quantile(column, _LEVELS)
        beyond = column[column > of_test[-1]] - of_test[-1]
        quantiles.append(tuple(of_test.tolist()))
        mean_excess.append(max(float(beyond.mean()) if len(beyond) else 0.0, 1e-6))
    return replace(metric, quantiles=tuple(quantiles), mean_excess=tuple(mean_excess), shares=tuple(shares))


def bonferroni_score(found: Distances, metric: NoveltyMetric) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Weighted Bonferroni: the largest ``log(share / tail)`` over the tests, and which test gave it."""
    values = found.values.cpu().numpy()
    parts = np.full(values.shape, -np.inf)
    for test, (quantiles, excess, share) in enumerate(
        zip(metric.quantiles, metric.mean_excess, metric.shares, strict=True)
    ):
        if share > 0:
            parts[:, test] = np.log(share) + _rarity(values[:, test], quantiles, excess)
    return parts.max(1, initial=-np.inf), np.array(REASONS)[parts.argmax(1)]
