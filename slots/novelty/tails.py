"""From several distances to one score: how rare each is among familiar inputs, and which is the rarest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from slots.novelty.distances import Distances, NoveltyMetric

REASONS = ("angle", "pattern", "size", "surface")
"""The tests: far from all prototypes; near one, but off in directions in which nothing ever varied; a feature vector
longer or shorter than any; off every flat piece of the surface that familiar inputs lie on."""

_LEVELS = np.linspace(0.0, 0.9, 10)


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
            tail = -np.log1p(-np.interp(values[:, test], quantiles, _LEVELS))
            parts[:, test] = np.log(share) + tail + np.maximum(0.0, values[:, test] - quantiles[-1]) / excess
    return parts.max(1, initial=-np.inf), np.array(REASONS)[parts.argmax(1)]
