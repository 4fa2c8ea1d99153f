"""Several measures of novelty in one score: each as a rarity, weighted by what found examples known to be new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.novelty.tails import Tails, fit_tail

Values = npt.NDArray[np.float64]

PRIOR = 0.3
"""Weight of a measure of which nothing is known."""

_PULL = 0.1  # strength of the pull towards it, against the mean loss of one familiar and one foreign example
_ALERT = 0.2  # share of the false alarms for inputs of which one measure alone is very rare
_FURTHEST = 20.0  # rarity beyond which an example teaches no more


@dataclass(frozen=True)
class WeightedScore:
    """From measures to one score.

    Parameters
    ----------
    tails : Tails
        Of each measure among familiar inputs.
    weights : float64 array of shape (measure,)
        >= 0.
    total : Tails
        Of the weighted sum of the rarities among the same inputs: one column.
    """

    tails: Tails
    weights: Values
    total: Tails

    def __call__(self, values: Values) -> tuple[Values, npt.NDArray[np.int64]]:
        """Scores, and the measure that says most of each.

        Parameters
        ----------
        values : float64 array of shape (example, measure)
            Higher = more novel.

        Returns
        -------
        scores : float64 array of shape (example,)
            Higher = more novel; never falls where a value rises.
        measures : int64 array of shape (example,)

        Notes
        -----
        Bonferroni's rule over two tests: the weighted sum of all rarities (Fisher's method, with weights), and the
        largest of them. The second finds what is wholly foreign to one measure and usual to the others.
        """
        rarities = self.tails.rarities(values)
        parts = rarities * self.weights
        together = self.total.rarities(parts.sum(1, keepdims=True))[:, 0] + np.log(1 - _ALERT)
        alone = rarities.max(1, initial=-np.inf) + np.log(_ALERT / max(1, rarities.shape[1]))
        says = np.where(alone > together, rarities.argmax(1), parts.argmax(1))
        return np.maximum(together, alone), says


def fit_score(familiar: Values, foreign: tuple[tuple[Values, float], ...] = ()) -> WeightedScore:
    """Tails from familiar examples, weights from examples that stand for what is new.

    Parameters
    ----------
    familiar : float64 array of shape (example, measure)
        Of examples that had no part in making the measures.
    foreign : tuple of (float64 array of shape (example, measure), float)
        Kinds of examples to tell from them, and the share that each kind counts; without any all weights are equal.

    Returns
    -------
    WeightedScore
    """
    tails = fit_tail(familiar)
    kinds = [(tails.rarities(values), share) for values, share in foreign if len(values) and share > 0]
    rarities = tails.rarities(familiar)
    return weighted(familiar, _weights(rarities, kinds) if kinds else np.full(familiar.shape[1], PRIOR))


def weighted(familiar: Values, weights: Values) -> WeightedScore:
    """A score with these weights and the tails of these familiar examples."""
    tails = fit_tail(familiar)
    return WeightedScore(tails, weights, fit_tail((tails.rarities(familiar) * weights).sum(1, keepdims=True)))


def _weights(familiar: Values, kinds: list[tuple[Values, float]]) -> Values:
    """Logistic regression with weights >= 0 that are pulled towards the prior; familiar and foreign count alike."""
    from scipy.optimize import minimize

    rows = np.concatenate([familiar, *(values for values, _ in kinds)]).clip(max=_FURTHEST)
    total = sum(share for _, share in kinds)
    counts = [np.full(len(familiar), 1 / len(familiar))]
    counts += [np.full(len(values), share / total / len(values)) for values, share in kinds]
    count = np.concatenate(counts)
    sign = np.where(np.arange(len(rows)) < len(familiar), -1.0, 1.0)
    width = rows.shape[1]

    def loss(at: Values) -> tuple[float, Values]:
        margin = sign * (rows @ at[:width] + at[width])
        slope = -sign * count / (1 + np.exp(margin.clip(-700, 700)))
        off = at[:width] - PRIOR
        value = float(count @ np.logaddexp(0, -margin) + _PULL * off @ off)
        return value, np.append(rows.T @ slope + 2 * _PULL * off, slope.sum())

    bounds: list[Any] = [(0, None)] * width + [(None, None)]
    found = minimize(loss, np.append(np.full(width, PRIOR), -1.0), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x[:width], np.float64)
