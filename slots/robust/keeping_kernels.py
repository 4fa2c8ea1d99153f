"""Compiled loops: how far a point may move, entry by entry inside a box, before it may leave a cap, in float64."""

from __future__ import annotations

import numpy as np

from slots.jit import compiled
from slots.robust.box_kernels import Caps, Doubles, Space

_HALVINGS = 40
_LENGTHS = 40  # guesses of the length of the worst point
_BRANCHES = 8  # entries that are tried both ways; more features than these leave hardly a gap
_ROUNDING = 1e-12  # of a product of a unit row with an input, over its length


@compiled
def stays_inside(x: Doubles, axis: Doubles, threshold: float, size: float, space: Space) -> bool:
    """Whether a proof is found that no entry by entry change of a size leaves the cap ``<z, axis> > threshold |z|``.

    A cap with a threshold below 0 is taken as that of 0. Where one bound for all points is no proof, and its corner no
    counterexample, the entry for which both ends are most alike is fixed at each of them, up to eight entries deep: so
    up to eight features no proof is missed. (A list of what is left, as compiled recursion cannot be kept on disk.)
    """
    if not x.any():
        return False
    lows, highs = np.empty((_BRANCHES + 1, len(x))), np.empty((_BRANCHES + 1, len(x)))
    depths = np.zeros(_BRANCHES + 1, np.int64)
    for p in range(len(x)):
        lows[0, p], highs[0, p] = np.maximum(x[p] - size, space.low), np.minimum(x[p] + size, space.high)
    left = 1
    while left:
        left -= 1
        inside, tied = _proof(lows[left], highs[left], axis, max(threshold, 0.0))
        if inside:
            continue
        if tied < 0 or depths[left] == _BRANCHES:
            return False
        depths[left] += 1
        depths[left + 1] = depths[left]
        for p in range(len(x)):
            lows[left + 1, p], highs[left + 1, p] = lows[left, p], highs[left, p]
        lows[left, tied], highs[left + 1, tied] = highs[left, tied], lows[left, tied]
        left += 2
    return True


@compiled
def _proof(low: Doubles, high: Doubles, axis: Doubles, threshold: float) -> tuple[bool, int]:
    """Whether all points between two corners lie in a cap with a threshold ``t >= 0``; else the entry to fix, or -1.

    For every ``c > 0`` a length is at most ``(|z|^2 / c + c) / 2``, with equality at ``c = |z|``. So no point has less
    than the minimum of ``<z, axis> - t (|z|^2 / c + c) / 2``, which is a sum of concave functions of single entries:
    each is smallest where its entry is smallest or largest. As a function of ``1 / c`` that minimum is concave, and
    rises while ``c`` is longer than its point: bisection finds the largest.
    """
    shortest, longest = 0.0, np.sqrt(np.maximum(low * low, high * high).sum())
    rounding, length, tied = _ROUNDING * longest, longest, -1
    if longest == 0:
        return False, -1
    for _ in range(_LENGTHS):
        total, squared, product, least = -threshold * length / 2, 0.0, 0.0, np.inf
        for p in range(len(low)):
            at_low = low[p] * axis[p] - threshold * low[p] * low[p] / (2 * length)
            at_high = high[p] * axis[p] - threshold * high[p] * high[p] / (2 * length)
            worst = low[p] if at_low < at_high else high[p]
            total += min(at_low, at_high)
            squared += worst * worst
            product += worst * axis[p]
            if low[p] < high[p] and abs(at_low - at_high) < least:
                least, tied = abs(at_low - at_high), p
        if total > rounding:
            return True, -1
        reached = np.sqrt(squared)
        if product - threshold * reached <= rounding:  # this corner lies outside, or on the edge
            return False, -1
        if reached < length:
            longest = length
        else:
            shortest = length
        length = (shortest + longest) / 2
        if longest - shortest <= 1e-12 * longest:
            break
    return False, tied


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
