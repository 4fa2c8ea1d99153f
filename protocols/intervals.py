"""Intervals of confidence of measured figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
