"""How sure a figure is: intervals of means over seeds, and of shares of counted cases."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.96  # the normal quantile that tables of 95 % use


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
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    if not known:
        return None
    if len(known) == 1:
        return Interval(known[0], None, 1)
    spread = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return Interval(float(np.mean(known)), _half_width(len(known) - 1) * spread, len(known))


@functools.cache
def _half_width(freedom: int) -> float:
    """The quantile of Student's t of so many degrees of freedom beyond which 2.5 % lie."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


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
    if not 0 <= right <= total:
        raise ValueError(f"`right` must lie in [0, {total}], got {right}. Successes are among the trials.")
    if total == 0:
        return 0.0
    # The formula itself: scipy's `binomtest` gives the same after a second of imports, and every answer asks for it.
    share, square = right / total, _Z * _Z
    middle = share + square / (2 * total)
    half = _Z * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, (middle - half) / (1 + square / total))
