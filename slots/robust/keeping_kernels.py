"""Compiled loops: how far a point may move, entry by entry inside a box, before it may leave a cap, in float64."""

from __future__ import annotations

import numpy as np

from slots.jit import compiled
from slots.robust.box_kernels import Caps, Doubles, Space

_HALVINGS = 40
_LENGTHS = 12  # guesses of the length of the worst point; few are needed
_ROUNDING = 1e-12  # of a product of a unit row with an input, over its length


@compiled
def stays_inside(x: Doubles, axis: Doubles, threshold: float, size: float, space: Space) -> bool:
    """Whether a proof is found that no entry by entry change of a size leaves the cap ``<z, axis> > threshold |z|``.

    For every ``c > 0`` a length is at most ``(|z|^2 / c + c) / 2``, with equality at ``c = |z|``. So with a threshold
    ``t >= 0`` no point of the ball has less than the minimum of ``<z, axis> - t (|z|^2 / c + c) / 2``, which is a sum
    of concave functions of single entries: each is smallest where its entry is smallest or largest. The best ``c`` is
    the length of that point.
    """
    steep, length = max(threshold, 0.0), np.sqrt((x * x).sum())
    if length == 0:
        return False
    for _ in range(_LENGTHS):
        total, squared = -steep * length / 2, 0.0
        for p in range(len(x)):
            low, high = max(x[p] - size, space.low), min(x[p] + size, space.high)
            at_low = low * axis[p] - steep * low * low / (2 * length)
            at_high = high * axis[p] - steep * high * high / (2 * length)
            worst = low if at_low < at_high else high
            total += min(at_low, at_high)
            squared += worst * worst
        if total > _ROUNDING * (length + size * len(x)):
            return True
        reached = np.sqrt(squared)
        if reached == 0 or abs(reached - length) <= 1e-9 * length:
            return False
        length = reached
    return False


@compiled
def fill_kept(x: Doubles, fires: Doubles, caps: Caps, space: Space, kept: Doubles) -> None:
    """Of each row the largest change, by its largest entry, through which one of its slots provably fires on.

    Parameters
    ----------
    x : array of shape (row, feature)
        Inputs.
    fires : array of shape (row, slot)
        Depth of those slots that count and fire; 0 or less for all others.
    caps : Caps
        The slots.
    space : Space
        The box.
    kept : array of shape (row,)
        What is known already, >= 0; raised where more is found.
    """
    for row in range(len(x)):
        for j in np.argsort(-fires[row]):
            if fires[row, j] <= 0:
                break
            low, high = kept[row], np.abs(x[row]).max()  # from there on the input may be zero, or its opposite
            size = low
            for _ in range(_HALVINGS):
                if not (
                    stays_inside(x[row], caps.weights[j], caps.precision[j], size, space)
                    and stays_inside(x[row], caps.centres[j], caps.support[j], size, space)
                ):
                    if size == low:  # no better than what is known
                        break
                    high = size
                else:
                    low = size
                size = (low + high) / 2
            kept[row] = max(kept[row], low)
