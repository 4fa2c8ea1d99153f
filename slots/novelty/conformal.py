"""Split conformal prediction: from scores to p-values with a finite-sample guarantee."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from slots.errors import UsageError

Scores = npt.NDArray[np.float64]


def p_values(scores: npt.ArrayLike, calibration: npt.ArrayLike) -> Scores:
    """How unusual each score is among calibration scores: small = more novel than nearly all of them.

    Parameters
    ----------
    scores : float array of shape (example,)
        Higher = more novel.
    calibration : float array of shape (calibration example,)
        Scores of in-distribution examples that had no part in making the score.

    Returns
    -------
    float64 array of shape (example,)
        ``(1 + #{calibration >= score}) / (n + 1)``, in (0, 1].

    Notes
    -----
    For a score exchangeable with the calibration scores ``P(p <= a) <= a`` for every ``a`` (Vovk, Gammerman and Shafer
    2005, proposition 2.4). Ties count against novelty, so they cannot break it. One calibration set serves many inputs,
    whose p-values then share its luck: the share of false alarms is held on average over calibration sets.

    Examples
    --------
    >>> p_values([0.5, 9.0], [0.1, 0.4, 0.5, 0.9])
    array([0.6, 0.2])
    """
    ordered = np.sort(np.asarray(calibration, np.float64))
    at_least = len(ordered) - np.searchsorted(ordered, np.asarray(scores, np.float64), side="left")
    return np.asarray((1.0 + at_least) / (len(ordered) + 1.0), np.float64)


def threshold(calibration: npt.ArrayLike, rate: float) -> float:
    """Score above which an input is called novel, at a false-alarm rate.

    Parameters
    ----------
    calibration : float array of shape (calibration example,)
        Scores of in-distribution examples that had no part in making the score.
    rate : float in (0, 1)
        Largest share of in-distribution inputs called novel.

    Returns
    -------
    float
        ``p_values(score) <= rate`` exactly where ``score`` is above it.

    Raises
    ------
    UsageError
        If ``rate`` is no share, or so small that this many calibration examples cannot vouch for it.

    Examples
    --------
    >>> threshold([0.1, 0.4, 0.5, 0.9], 0.4)
    0.5
    """
    ordered = np.sort(np.asarray(calibration, np.float64))
    n = len(ordered)
    check_rate(rate, n)
    allowed = math.floor(rate * (n + 1) * (1 + 1e-12)) - 1  # calibration scores that may reach a novel score
    return float(ordered[n - 1 - allowed])


def offers(rate: float, n: int) -> bool:
    """Whether ``n`` calibration examples can hold a false-alarm rate: the smallest is 1 in n + 1."""
    return rate * (n + 1) * (1 + 1e-12) >= 1


def check_rate(rate: float, n: int) -> None:
    """Raise a `UsageError` where ``n`` calibration examples cannot hold a false-alarm rate."""
    if not 0 < rate < 1:
        raise UsageError(f"`false_alarm_rate` must lie in (0, 1), got {rate}. 0.05 allows one false alarm in twenty.")
    if not offers(rate, n):
        raise UsageError(
            f"`false_alarm_rate` must be at least {1 / (n + 1):.2g} with {n} calibration examples, got {rate}. "
            "Calibrate on more, or allow more false alarms."
        )
