"""How sure a figure is: intervals of means over seeds, and of shares of counted cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WILSON = 0.9500042097035593
"""Confidence whose normal quantile is 1.96, the figure that tables of 95 % use."""


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with its two-sided 95 % interval by Student's t; ``half`` is None for one seed."""

    mean: float
    half: float | None
    n: int


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and 95 % interval of the values that are known; None where there is none.

    Parameters
    ----------
    values : sequence of float
        One a seed; None and NaN are left out.

    Examples
    --------
    >>> found = interval([0.5, 0.7])
    >>> round(found.mean, 3), round(found.half, 3)
    (0.6, 1.271)
    """
    from scipy.stats import t

    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    if not known:
        return None
    if len(known) == 1:
        return Interval(known[0], None, 1)
    spread = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return Interval(float(np.mean(known)), float(t.ppf(0.975, len(known) - 1)) * spread, len(known))


def wilson_lower(right: int, total: int) -> float:
    """Lower end of Wilson's 95 % score interval for a share; 0 where nothing was seen.

    Parameters
    ----------
    right, total : int
        Successes and trials, 0 <= ``right`` <= ``total``.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If there are more successes than trials, or fewer than 0.

    References
    ----------
    Wilson: Probable inference, the law of succession, and statistical inference. JASA 22, 1927.

    Examples
    --------
    >>> round(wilson_lower(40, 40), 4)
    0.9124
    """
    from scipy.stats import binomtest

    if not 0 <= right <= total:
        raise ValueError(f"`right` must lie in [0, {total}], got {right}. Successes are among the trials.")
    if total == 0:
        return 0.0
    return float(binomtest(right, total).proportion_ci(_WILSON, method="wilson").low)
