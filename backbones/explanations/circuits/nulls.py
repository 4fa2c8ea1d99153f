"""A measured statistic beside what it would be if there were nothing to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Result:
    """A statistic and its null distribution.

    Parameters
    ----------
    statistic : float
        What was measured; larger means more of what the test looks for.
    null_mean, null_q01, null_q99 : float
        Mean, 1 % and 99 % quantile of the same statistic where there is nothing to find.
    p_value : float
        ``(1 + number of null values >= statistic) / (1 + number of null values)``, in (0, 1].
    effect : float
        Distance from the null's mean in its standard deviations; 0 where neither varies.
    n_null : int
        Null values drawn (count).
    """

    statistic: float
    null_mean: float
    null_q01: float
    null_q99: float
    p_value: float
    effect: float
    n_null: int


def against(statistic: float, null: Sequence[float] | Float[np.ndarray, " draw"]) -> Result:
    """Set a statistic beside its null distribution; large values speak against the null.

    Parameters
    ----------
    statistic : float
        What was measured (finite).
    null : sequence of float
        The same statistic, drawn where the null hypothesis holds (at least one, finite).

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If there is no null value, or one that is not finite.

    Notes
    -----
    The measured value counts as one draw of the null, so that the p-value is valid for any number of draws and never 0
    (B. Phipson and G. Smyth, "Permutation p-values should never be zero", 2010).

    Examples
    --------
    >>> against(3.0, [0.0, 1.0, 2.0]).p_value, against(1.0, [0.0, 1.0, 2.0]).p_value
    (0.25, 0.75)
    """
    drawn = np.asarray(null, np.float64)
    if drawn.size == 0 or not np.isfinite(drawn).all() or not np.isfinite(statistic):
        raise ValueError(
            f"`null` and `statistic` must be finite, with at least one null value, got {drawn.size} values and "
            f"{statistic}. Draw the null from data that vary."
        )
    # What is equal but for rounding counts as equal, or a test of identical things would be significant.
    slack = 1e-12 * max(1.0, abs(statistic))
    beyond = int((drawn >= statistic - slack).sum())
    mean, spread = float(drawn.mean()), float(drawn.std())
    low, high = np.quantile(drawn, [0.01, 0.99]).tolist()
    gap = statistic - mean
    effect = gap / spread if spread > slack else (0.0 if abs(gap) <= slack else float(np.copysign(np.inf, gap)))
    return Result(float(statistic), mean, low, high, (1 + beyond) / (1 + drawn.size), effect, int(drawn.size))


def discoveries(p_values: Sequence[float], *, rate: float = 0.05) -> Bool[np.ndarray, " test"]:
    """Which of many tests to call significant, at a false discovery rate (Benjamini and Hochberg, 1995).

    Parameters
    ----------
    p_values : sequence of float
        One for each test, in [0, 1].
    rate : float in (0, 1), default 0.05
        Expected share of wrong ones among those that are called significant, at most.

    Returns
    -------
    bool array of shape (test,)

    Raises
    ------
    ValueError
        If a p-value or the rate is out of range.

    Examples
    --------
    >>> discoveries([0.01, 0.04, 0.03, 0.5], rate=0.05).tolist()
    [True, False, False, False]
    """
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all() or not 0 < rate < 1:
        raise ValueError(f"`p_values` must lie in [0, 1] and `rate` in (0, 1), got rate {rate}. Check the p-values.")
    if not values.size:
        return np.zeros(0, bool)
    ordered = np.sort(values)
    passed = ordered <= rate * np.arange(1, values.size + 1) / values.size
    limit = ordered[passed].max() if passed.any() else -1.0
    found: Bool[np.ndarray, " test"] = values <= limit
    return found
