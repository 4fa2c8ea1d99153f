"""Compiled step of a training on fixed features, for steps so small that calls of torch cost more than their work."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slots.jit import reordered

Indices = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]


class Examples(NamedTuple):
    """Unit rows of shape (example, feature), and places of their classes."""

    unit: Singles
    wanted: Indices


class Grid(NamedTuple):
    """Slots of shape (place * class, feature), which are changed in place, and where the grid has slots (place, class).

    ``first`` and ``second`` are Adam's running means of the slope and of its square, shaped like the slots.
    """

    weights: Singles
    there: npt.NDArray[np.bool_]
    first: Singles
    second: Singles


class Loss(NamedTuple):
    """What the cross-entropy is made with: fields of `slots.training.config.TrainConfig`, as float32."""

    scale: np.float32
    beta: np.float32
    margin: np.float32
    label_smoothing: np.float32


class Pace(NamedTuple):
    """Adam's decays, one less each, its guard against a zero; of this step the rate and the weights of the means."""

    decay1: np.float32
    decay2: np.float32
    rest1: np.float32
    rest2: np.float32
    tiny: np.float32
    rate: np.float32
    weight1: np.float32
    weight2: np.float32


class Room(NamedTuple):
    """What a row's step writes: slopes, shape (place * class,), and scores, shape (class,)."""

    slope: Singles
    pooled: Singles


@reordered
def _pool(scores: Singles, there: npt.NDArray[np.bool_], beta: np.float32, room: Room) -> None:
    """Pooled cosines of the classes, and their slopes by each cosine."""
    places, classes = there.shape
    slope, pooled = room
    one, none = np.float32(1), np.float32(0)
    for c in range(classes):
        if places == 1:
            pooled[c], slope[c] = scores[c], one
            continue
        top = np.float32(-2)
        for j in range(places):
            if there[j, c]:
                top = max(top, scores[j * classes + c])
        weights, sums = none, none
        for j in range(places):
            k = j * classes + c
            slope[k] = math.exp(beta * (scores[k] - top)) if there[j, c] else none
            weights += slope[k]
            sums += slope[k] * scores[k]
        pooled[c] = sums / weights
        for j in range(places):
            k = j * classes + c
            slope[k] *= (one + beta * (scores[k] - pooled[c])) / weights


@reordered
def _row_slope(scores: Singles, wanted: int, there: npt.NDArray[np.bool_], loss: Loss, room: Room) -> float:
    """Cross-entropy of a row, and its derivative by each of its cosines."""
    places, classes = there.shape
    _pool(scores, there, loss.beta, room)
    slope, logits = room
    high = -math.inf
    for c in range(classes):
        logits[c] = loss.scale * (logits[c] - (loss.margin if c == wanted else np.float32(0)))
        high = max(high, logits[c])
    total, mean = 0.0, 0.0
    for c in range(classes):
        total += math.exp(logits[c] - high)
        mean += (logits[c] - high) / classes
    rest = math.log(total)
    smooth = loss.label_smoothing
    for c in range(classes):
        chance = math.exp(logits[c] - high - rest)
        target = (1.0 - smooth if c == wanted else 0.0) + smooth / classes
        by_class = np.float32((chance - target) * loss.scale)
        for j in range(places):
            slope[j * classes + c] *= by_class
    found: float = (smooth - 1.0) * (logits[wanted] - high - rest) - smooth * (mean - rest)
    return found


@reordered
def take_step(examples: Examples, rows: Indices, grid: Grid, loss: Loss, pace: Pace) -> float:
    """One step of Adam on the slots, which then have unit length again; gives the sum of the rows' cross-entropies.

    Parameters
    ----------
    examples : Examples
        All of them.
    rows : int64 array of shape (row,)
        Examples of the step.
    grid : Grid
        Changed in place.
    loss : Loss
        What is learned.
    pace : Pace
        How far the slots move.

    Returns
    -------
    float
    """
    weights = grid.weights
    n_slots, n_features = weights.shape
    gradient = np.zeros_like(weights)
    scores = np.empty(n_slots, np.float32)
    room = Room(np.empty(n_slots, np.float32), np.empty(grid.there.shape[1], np.float32))
    total = 0.0
    for row in rows:
        x = examples.unit[row]
        for k in range(n_slots):
            score = np.float32(0)
            for f in range(n_features):
                score += weights[k, f] * x[f]
            scores[k] = score
        total += _row_slope(scores, examples.wanted[row], grid.there, loss, room)
        for k in range(n_slots):
            slope = room.slope[k]
            for f in range(n_features):
                gradient[k, f] += slope * x[f]
    for k in range(n_slots):
        _move(k, gradient, np.float32(len(rows)), grid, pace)
    return total


@reordered
def take_steps(examples: Examples, batches: tuple[Indices, Indices], grid: Grid, loss: Loss, paces: Singles) -> float:
    """`take_step` time after time, so that a call from outside is paid for once.

    Parameters
    ----------
    examples, grid, loss
        As there.
    batches : int64 arrays of shape (row,) and (step + 1,)
        Examples of all steps, and the places among them where each step begins and the last one ends.
    paces : float32 array of shape (step, 8)
        The numbers of `Pace` at each step.

    Returns
    -------
    float
        Sum of the rows' cross-entropies.
    """
    rows, ends = batches
    total = 0.0
    for step in range(len(paces)):
        p = paces[step]
        pace = Pace(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])
        total += take_step(examples, rows[ends[step] : ends[step + 1]], grid, loss, pace)
    return total


@reordered
def _move(k: int, gradient: Singles, n: np.float32, grid: Grid, pace: Pace) -> None:
    """Adam's step of one slot, which then has unit length again; one that is not there stays zero."""
    weights = grid.weights[k]
    squares = 0.0
    for f in range(len(weights)):
        slant = gradient[k, f] / n
        grid.first[k, f] = first = pace.decay1 * grid.first[k, f] + pace.rest1 * slant
        grid.second[k, f] = second = pace.decay2 * grid.second[k, f] + pace.rest2 * slant * slant
        root = np.float32(math.sqrt(second / pace.weight2)) + pace.tiny
        weights[f] = weight = weights[f] - pace.rate * (first / pace.weight1) / root
        squares += np.float64(weight) * np.float64(weight)
    if squares > 0:
        length = np.float32(math.sqrt(squares))
        for f in range(len(weights)):
            weights[f] /= length
