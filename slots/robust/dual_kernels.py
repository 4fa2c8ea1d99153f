"""Compiled loops: the shortest change that brings a point to where one slot leads all of a label, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from slots.jit import compiled
from slots.robust.box_kernels import Doubles, Space

_SWEEPS = 5000
_TIGHT = 1e-8  # how far the change may be from a plane, over its length, where the dual counts as solved
_NEWTON = 200  # steps to the root of one multiplier; few are needed
_ULPS = 1e-15
_TOGETHER = 10  # sweeps before all multipliers take a step at once
_HALVINGS, _RIDGE = 20, 1e-12


class Rivalry(NamedTuple):
    """One slot against all of a label: ``slopes[k]`` is own slot ``k`` less the rival, ``lead[k]`` its lead."""

    slopes: Doubles
    lead: Doubles
    first: int


class Ascent(NamedTuple):
    """Where the ascent is: multipliers of the slopes, their sum, and the change of the input that it stands for."""

    multipliers: Doubles
    pulled: Doubles
    change: Doubles


@compiled
def _inside(entry: float, pull: float, space: Space) -> float:
    """Change of an entry that is pulled down, inside the box."""
    return min(max(-pull, space.low - entry), space.high - entry)


@compiled
def _most_lost(x: Doubles, slope: Doubles, space: Space) -> float:
    """How much of ``<x, slope>`` the farthest corner of the box takes away."""
    lost = 0.0
    for p in range(len(x)):
        if slope[p] != 0:
            lost += slope[p] * (x[p] - space.low) if slope[p] > 0 else slope[p] * (x[p] - space.high)
    return lost


@compiled
def _best_step(x: Doubles, slope: Doubles, pulled: Doubles, lead: float, space: Space) -> float:
    """The step of one multiplier after which its slope keeps exactly no lead.

    The lead that is left falls with the step, in straight pieces: entries stop where they meet the box, and others come
    back from there. Newton's steps stay inside the interval that holds the root. A step by the curvature without the
    box is always too short, and by far where nearly all entries have stopped.
    """
    low, high, step = -np.inf, np.inf, 0.0
    for _ in range(_NEWTON):
        left, free = lead, 0.0
        for p in range(len(x)):
            pull = pulled[p] + step * slope[p]
            moved = _inside(x[p], pull, space)
            left += slope[p] * moved
            if moved == -pull:
                free += slope[p] * slope[p]
        if left > 0:
            low = step
        elif left < 0:
            high = step
        else:
            break
        ahead = step + left / free if free > 0 else np.copysign(np.inf, left)
        if not low < ahead < high:  # past a root that is known, or no entry moves here
            if np.isinf(low) or np.isinf(high):
                ahead = step + np.copysign(max(1.0, abs(step)), left)
            else:
                ahead = (low + high) / 2
        if ahead == step or abs(ahead - step) <= _ULPS * abs(step):
            break
        step = ahead
    return step


@compiled
def _fill_inside(x: Doubles, pulled: Doubles, space: Space, change: Doubles) -> None:
    for p in range(len(x)):
        change[p] = _inside(x[p], pulled[p], space)


@compiled
def _dual_value(leads: Doubles, ascent: Ascent) -> float:
    """The dual's value: half a squared length that no change to the border is below."""
    change, total = ascent.change, 0.0
    for p in range(len(change)):
        total += (change[p] / 2 + ascent.pulled[p]) * change[p]
    return total + float((ascent.multipliers * leads).sum())


@compiled
def _step_together(x: Doubles, rivalry: Rivalry, space: Space, ascent: Ascent) -> None:
    """Newton's step for all multipliers that are not 0, halved until the dual rises; in place, or nothing.

    One at a time they creep where two slopes are nearly parallel once the entries at the box are left out.
    """
    slopes, leads, (multipliers, pulled, change) = rivalry.slopes, rivalry.lead, ascent
    active = np.flatnonzero(multipliers > 0)
    free = np.flatnonzero(change == -pulled)
    n = len(active)
    if n < 2 or len(free) == 0:
        return
    curvature, left = np.zeros((n, n)), np.empty(n)
    for a in range(n):
        left[a] = leads[active[a]] + (slopes[active[a]] * change).sum()
        for b in range(a + 1):
            total = 0.0
            for p in free:
                total += slopes[active[a], p] * slopes[active[b], p]
            curvature[a, b] = curvature[b, a] = total
    for a in range(n):
        curvature[a, a] += _RIDGE
    ahead, before = np.linalg.solve(curvature, left), _dual_value(leads, ascent)
    tried, moved, size = multipliers.copy(), change.copy(), 1.0
    for _ in range(_HALVINGS):
        for a in range(n):
            tried[active[a]] = max(multipliers[active[a]] + size * ahead[a], 0.0)
        pull = tried @ slopes
        _fill_inside(x, pull, space, moved)
        if _dual_value(leads, Ascent(tried, pull, moved)) > before:
            for k in range(len(multipliers)):
                multipliers[k] = tried[k]
            for place in range(len(change)):
                pulled[place], change[place] = pull[place], moved[place]
            return
        size /= 2


@compiled
def nearest_boundary(x: Doubles, rivalry: Rivalry, needed: float, space: Space, change: Doubles) -> float:
    """Euclidean distance to where no own slot leads the rival by more than needed, by coordinate ascent on the dual.

    Parameters
    ----------
    x : array of shape (feature,)
        The input.
    rivalry : Rivalry
        Against whom.
    needed : float
        What a lead must exceed.
    space : Space
        The box.
    change : array of shape (feature,)
        Filled with the change that the solution stands for.

    Returns
    -------
    float
        A lower bound of the distance, and the distance itself where the ascent has ended: any ``lambda >= 0`` gives
        ``r^2 / 2 >= min over delta in the box of |delta|^2 / 2 + sum lambda_k (lead_k - needed + <delta, slope_k>)``.
        Infinite where the box holds no such point.
    """
    slopes, leads, n = rivalry.slopes, rivalry.lead - needed, len(rivalry.lead)
    multipliers, pulled, bound = np.zeros(n), np.zeros(len(x)), 0.0  # pulled: sum of lambda_k slope_k
    ascent = Ascent(multipliers, pulled, change)
    change[:] = 0.0
    for k in range(n):
        if leads[k] > _most_lost(x, slopes[k], space):
            return np.inf
    for sweep in range(_SWEEPS):
        farthest = 0.0
        for place in range(n):
            k = (rivalry.first + place) % n
            size = (slopes[k] * slopes[k]).sum()
            left = leads[k] + (slopes[k] * change).sum()
            if size == 0 or (left <= 0 and multipliers[k] == 0):
                continue
            farthest = max(farthest, abs(left) / np.sqrt(size))
            step = max(_best_step(x, slopes[k], pulled, leads[k], space), -multipliers[k])
            multipliers[k] += step
            pulled += step * slopes[k]
            _fill_inside(x, pulled, space, change)
        value = _dual_value(leads, ascent)
        bound = max(bound, value)
        if farthest <= _TIGHT * np.sqrt((change * change).sum()):
            break
        if 2 * value > len(x) * (space.high - space.low) ** 2:
            return np.inf
        if sweep % _TOGETHER == _TOGETHER - 1:
            _step_together(x, Rivalry(slopes, leads, rivalry.first), space, ascent)
    return float(np.sqrt(2 * bound))
