"""Compiled loops: how far a point is from a half-space or a cap, inside a box, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slots.jit import compiled

Doubles = npt.NDArray[np.float64]

_NEWTON = 200  # steps; each ends where an entry meets the box, few are needed
_TANGENTS = 3
_ROUNDING = 1e-12  # of a product of a unit row with an input, over its length: of a thousand features 1e-13


class Space(NamedTuple):
    """Where changed inputs may lie, and how changes are measured: by the largest entry where ``infinity`` is set."""

    low: float
    high: float
    infinity: bool


class Caps(NamedTuple):
    """Unit vectors of slots and their thresholds."""

    weights: Doubles
    precision: Doubles
    centres: Doubles
    support: Doubles


@compiled
def gap_matrix(weights: Doubles, infinity: bool) -> Doubles:
    """Lengths of all differences of rows: Euclidean, or with ``infinity`` the sums of absolute entries."""
    n, d = weights.shape
    gaps = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            total = 0.0
            for p in range(d):
                apart = weights[i, p] - weights[j, p]
                total += abs(apart) if infinity else apart * apart
            gaps[i, j] = gaps[j, i] = total if infinity else np.sqrt(total)
    return gaps


@compiled
def fill_room(x: Doubles, slope: Doubles, space: Space, room: Doubles) -> None:
    """How far each entry of ``x`` can move in the direction of its slope."""
    for p in range(len(x)):
        room[p] = space.high - x[p] if slope[p] > 0 else x[p] - space.low


@compiled
def boxed_step(slope: Doubles, room: Doubles, lead: float, infinity: bool) -> float:
    """How far along its slope a point must go until ``<slope, delta>`` reaches ``lead``.

    Entry ``p`` moves by ``min(t |slope[p]|, room[p])``, with ``infinity`` by ``min(t, room[p])``: the best that a ball
    allows inside the box. ``t`` is never above the true one but for rounding, since Newton's steps on a concave
    function come from below; infinite where the box is too small.
    """
    total = 0.0
    for p in range(len(slope)):
        total += abs(slope[p]) if infinity else slope[p] * slope[p]
    if total == 0:
        return np.inf
    t = lead / total
    for _ in range(_NEWTON):
        reached, rise = 0.0, 0.0
        for p in range(len(slope)):
            a = abs(slope[p])
            moved = t if infinity else t * a
            if moved < room[p]:
                reached += a * moved
                rise += a if infinity else a * a
            else:
                reached += a * room[p]
        if reached >= lead * (1 - 1e-13):
            break
        if rise <= 0:
            return np.inf
        t += (lead - reached) / rise
    return t


@compiled
def boxed_distance(slope: Doubles, room: Doubles, lead: float, infinity: bool) -> float:
    """Radius of the smallest ball in which ``<slope, delta>`` can reach ``lead``; see `boxed_step`."""
    if lead <= 0:
        return 0.0
    t = boxed_step(slope, room, lead, infinity)
    if infinity or t == np.inf:
        return t
    squared = 0.0
    for p in range(len(slope)):
        moved = min(t * abs(slope[p]), room[p])
        squared += moved * moved
    return float(np.sqrt(squared))


@compiled
def cap_distance(x: Doubles, axis: Doubles, threshold: float, space: Space) -> float:
    """A lower bound of the distance from ``x`` to a cap ``<z, axis> > threshold |z|`` inside the box; 0 from inside.

    ``threshold |z| >= threshold <z, u>`` for every unit ``u``, so the cap lies in the half-space ``<z, axis - threshold
    u> > 0``. The direction of ``x`` comes first, then that of the point reached.
    """
    if threshold < 0:
        return 0.0
    slope, room, point = np.empty(len(x)), np.empty(len(x)), x.copy()
    best, rounding = 0.0, _ROUNDING * np.sqrt((x * x).sum())
    for _ in range(_TANGENTS):
        length = np.sqrt((point * point).sum())
        if length == 0:
            break
        for p in range(len(x)):
            slope[p] = axis[p] - threshold / length * point[p]
        fill_room(x, slope, space, room)
        lead = -(x * slope).sum() - rounding
        if lead <= 0:
            break
        t = boxed_step(slope, room, lead, space.infinity)
        if t == np.inf:
            return np.inf
        squared = 0.0
        for p in range(len(x)):
            moved = min(t if space.infinity else t * abs(slope[p]), room[p])
            squared += moved * moved
            point[p] = x[p] + (moved if slope[p] > 0 else -moved)
        best = max(best, t if space.infinity else np.sqrt(squared))
    return best


@compiled
def fill_clear(x: Doubles, held: Doubles, caps: Caps, space: Space, clear: Doubles) -> None:
    """Of each row the smallest over slots of the larger of what is known of it and its `cap_distance`.

    Parameters
    ----------
    x : array of shape (row, feature)
        Inputs.
    held : array of shape (row, slot)
        Distances that are known to be free; infinite for slots that do not count.
    caps : Caps
        The slots.
    space : Space
        The box and the norm.
    clear : array of shape (row,)
        Filled in.
    """
    for row in range(len(x)):
        clear[row] = np.inf
        for j in np.argsort(held[row]):
            known = held[row, j]
            if known >= clear[row]:
                break
            known = max(known, cap_distance(x[row], caps.weights[j], caps.precision[j], space))
            if known < clear[row]:
                known = max(known, cap_distance(x[row], caps.centres[j], caps.support[j], space))
            clear[row] = min(clear[row], known)
