"""Compiled loops: the nearest centre by the largest entry of a difference, for all points of a ball at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slots.jit import compiled
from slots.robust.box_kernels import Doubles, Space

Indices = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

_TOGETHER = 16  # entries looked at before a centre that is too far is left
_NARROW = 1e-9  # width of the interval that holds a radius, over its upper end


class Balls(NamedTuple):
    """Middle and half width of each entry that an input can have: of balls cut to a box."""

    middle: Singles
    half: Singles


class Centres(NamedTuple):
    """Centres of slots, their labels, and how far a computed distance may be off."""

    places: Doubles
    labels: Indices
    rounding: float


class Stays(NamedTuple):
    """Results: radii of labels, and the places of their rivals."""

    radii: Doubles
    rivals: Indices


class Decisive(NamedTuple):
    """Of each ball the own centre that stays nearest, the rival that can come nearest, and both distances."""

    own: Indices
    rival: Indices
    distances: Singles


@compiled
def fill_decisive(balls: Balls, centres: Singles, labels: Indices, wanted: Indices, found: Decisive) -> None:
    """Fill in the centre of the wanted label of least largest distance, and that of others of least smallest distance.

    Parameters
    ----------
    balls : Balls
        Arrays of shape (row, feature).
    centres : float32 array of shape (slot, feature)
        Entries that differ most among inputs first: then a centre that is too far is left early.
    labels : int64 array of shape (slot,)
        Of the centres.
    wanted : int64 array of shape (row,)
        The label that shall answer.
    found : Decisive
        Filled in; -1 and infinity where there is none.
    """
    n, d = balls.middle.shape
    for row in range(n):
        least, own = np.float32(np.inf), -1
        lowest, rival = np.float32(np.inf), -1
        for k in range(len(labels)):
            mine = labels[k] == wanted[row]
            bound = least if mine else lowest
            sign = np.float32(1.0) if mine else np.float32(-1.0)
            largest = np.float32(0.0)
            for first in range(0, d, _TOGETHER):
                for p in range(first, min(first + _TOGETHER, d)):
                    apart = abs(balls.middle[row, p] - centres[k, p]) + sign * balls.half[row, p]
                    largest = max(largest, apart)
                if largest >= bound:
                    break
            if largest < bound:
                if mine:
                    least, own = largest, k
                else:
                    lowest, rival = largest, k
        found.own[row], found.rival[row] = own, rival
        found.distances[row, 0], found.distances[row, 1] = least, lowest


@compiled
def _largest_distance(x: Doubles, centre: Doubles, size: float, space: Space, bound: float) -> float:
    """The largest distance of a centre from points of the ball; anything above the bound once it is above."""
    largest = 0.0
    for first in range(0, len(x), _TOGETHER):
        for p in range(first, min(first + _TOGETHER, len(x))):
            low, high = max(x[p] - size, space.low), min(x[p] + size, space.high)
            largest = max(largest, abs(low - centre[p]), abs(high - centre[p]))
        if largest >= bound:
            break
    return largest


@compiled
def _comes_near(x: Doubles, centre: Doubles, size: float, space: Space, bound: float) -> bool:
    """Whether some point of the ball is as near to a centre as the bound."""
    for first in range(0, len(x), _TOGETHER):
        largest = 0.0
        for p in range(first, min(first + _TOGETHER, len(x))):
            low, high = max(x[p] - size, space.low), min(x[p] + size, space.high)
            largest = max(largest, low - centre[p], centre[p] - high)
        if largest > bound:
            return False
    return True


@compiled
def fill_nearest(x: Doubles, slots: Centres, space: Space, nearest: Indices) -> None:
    """Fill in the place of the nearest centre of each row, the lowest of equal ones."""
    for row in range(len(x)):
        least = np.inf
        for k in range(len(slots.labels)):
            apart = _largest_distance(x[row], slots.places[k], 0.0, space, least)
            if apart < least:
                least, nearest[row] = apart, k


@compiled
def _breaks(x: Doubles, slots: Centres, own: int, size: float, space: Space) -> int:
    """The first centre of another label that may come nearest inside the ball; -1 where none can."""
    label, least = slots.labels[own], np.inf
    for k in range(len(slots.labels)):
        if slots.labels[k] == label:
            least = min(least, _largest_distance(x, slots.places[k], size, space, least))
    for k in range(len(slots.labels)):
        if slots.labels[k] != label and _comes_near(x, slots.places[k], size, space, least + slots.rounding):
            return k
    return -1


@compiled
def _everywhere(x: Doubles, slots: Centres, space: Space) -> float:
    """A size whose ball holds the whole box, or where there is none a point upon each centre."""
    if space.high - space.low < np.inf:
        return space.high - space.low
    size = 0.0
    for k in range(len(slots.labels)):
        size = max(size, _largest_distance(x, slots.places[k], 0.0, space, np.inf))
    return size


@compiled
def fill_label_radii(x: Doubles, slots: Centres, space: Space, nearest: Indices, found: Stays) -> None:
    """Fill in the largest size at which each row's label provably stays, and a rival just above it, by halving.

    Parameters
    ----------
    x : array of shape (row, feature)
        Inputs.
    slots : Centres
        The slots.
    space : Space
        The box.
    nearest : int64 array of shape (row,)
        Place of the nearest centre.
    found : Stays
        Filled in: infinity and -1 where there is no other label, or the box holds no other answer.
    """
    for row in range(len(x)):
        low, high = 0.0, _everywhere(x[row], slots, space)
        above = _breaks(x[row], slots, nearest[row], 0.0, space)
        if above >= 0:
            found.radii[row], found.rivals[row] = 0.0, above
            continue
        above = _breaks(x[row], slots, nearest[row], high, space)
        if above < 0:
            found.radii[row] = np.inf
            continue
        while high - low > _NARROW * high:
            size = (low + high) / 2
            j = _breaks(x[row], slots, nearest[row], size, space)
            if j >= 0:
                high, above = size, j
            else:
                low = size
        found.radii[row], found.rivals[row] = low, above
