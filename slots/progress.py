"""How long work says what it is doing, and how well, to whoever asked for it: a terminal, a page, a log, nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, float], None]
"""``progress(step, share)``: told what is being done, and how much of it is done (0 to 1)."""


Log = Callable[[str, float, int], Any]
"""``log(name, value, step)``: told a point of a curve, such as the loss (``"train/loss"``) of an epoch. The
``add_scalar`` of TensorBoard's writer and MLflow's ``log_metric`` are of this form."""


def silent(_step: str, _share: float) -> None:
    """Tell nobody."""


def unlogged(_name: str, _value: float, _step: int) -> None:
    """Keep no curve."""


def part(progress: Progress, low: float, high: float) -> Progress:
    """The progress of one part of the work, as progress of the whole.

    Parameters
    ----------
    progress : callable
        ``progress(step, share)`` of the whole.
    low, high : float in [0, 1]
        Share of the whole that is done when the part begins, and when it ends.

    Returns
    -------
    callable
        ``progress(step, share)`` of the part.

    Examples
    --------
    >>> second_half = part(lambda step, share: print(step, share), 0.5, 1.0)
    >>> second_half("measuring", 0.5)
    measuring 0.75
    """
    return lambda step, share: progress(step, low + (high - low) * share)
