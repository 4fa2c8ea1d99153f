"""Compiled step of a training on fixed features, for steps so small that calls of torch cost more than their work."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slots.head.pooling_kernels import exp2
from slots.jit import reordered

Indices = npt.NDArray[np.int64]
Places = npt.NDArray[np.bool_]
Singles = npt.NDArray[np.float32]

_LOG2_E = np.float32(math.log2(math.e))
_LEAST = np.float32(-125)  # 2 to less than this is no longer a normal number


class Examples(NamedTuple):
    """Unit rows of shape (example, feature), and places of their classes."""

    unit: Singles
    wanted: Indices


class Grid(NamedTuple):
    """Slots of shape (place * class, feature), which are changed in place, and where the grid has slots (place, class).

    ``first`` and ``second`` are Adam's running means of the slope and of its square, shaped like the slots.
    """

    weights: Singles
    there: Places
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
    """Room for three numbers a row, each of shape (row,)."""

    tops: Singles
    sums: Singles
    means: Singles


@reordered
def _pool(scores: Singles, slopes: Singles, pooled: Singles, way: tuple[Places, np.float32], room: Room) -> None:
    """Pooled cosines, shape (class, row), of cosines of shape (place, class, row); and their slopes by each cosine."""
    tops, sums, _ = room
    there, power = way[0], way[1] * _LOG2_E
    places, classes, n = scores.shape
    beta, one = way[1], np.float32(1)
    for c in range(classes):
        for r in range(n):
            tops[r], sums[r], pooled[c, r] = -2, 0, 0
        for j in range(places):
            if there[j, c]:
                for r in range(n):
                    tops[r] = max(tops[r], scores[j, c, r])
        for j in range(places):
            powers, some = slopes[j, c], scores[j, c]
            if not there[j, c]:
                for r in range(n):
                    powers[r] = 0
                continue
            for r in range(n):
                powers[r] = exp2(max(power * (some[r] - tops[r]), _LEAST))
                sums[r] += powers[r]
                pooled[c, r] += powers[r] * some[r]
        for r in range(n):
            pooled[c, r] /= sums[r]
            sums[r] = one / sums[r]
        for j in range(places):
            for r in range(n):
                slopes[j, c, r] *= (one + beta * (scores[j, c, r] - pooled[c, r])) * sums[r]


@reordered
def _cross_entropy(logits: Singles, wanted: Indices, loss: Loss, room: Room) -> float:
    """Summed cross-entropies of pooled scores of shape (class, row), which its slopes by them take the place of."""
    tops, sums, means = room
    classes, n = logits.shape
    smooth, each = loss.label_smoothing, loss.label_smoothing / np.float32(classes)
    for r in range(n):
        logits[wanted[r], r] -= loss.margin
        tops[r], sums[r], means[r] = -np.inf, 0, 0
    for c in range(classes):
        for r in range(n):
            logits[c, r] *= loss.scale
            tops[r] = max(tops[r], logits[c, r])
    found = 0.0
    for r in range(n):
        found -= np.float64(np.float32(1) - smooth) * (logits[wanted[r], r] - tops[r])
    for c in range(classes):
        for r in range(n):
            logits[c, r] -= tops[r]
            means[r] += logits[c, r]
            logits[c, r] = exp2(max(_LOG2_E * logits[c, r], _LEAST))
            sums[r] += logits[c, r]
    for r in range(n):
        found += math.log(sums[r]) - np.float64(each) * means[r]
        sums[r] = loss.scale / sums[r]
    for c in range(classes):
        for r in range(n):
            logits[c, r] = logits[c, r] * sums[r] - each * loss.scale
    for r in range(n):
        logits[wanted[r], r] -= (np.float32(1) - smooth) * loss.scale
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
    x, (places, classes), n = examples.unit[rows], grid.there.shape, len(rows)
    scores = np.dot(grid.weights, x.T).reshape(places, classes, n)
    slopes, pooled = np.empty_like(scores), np.empty((classes, n), np.float32)
    room = Room(np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32))
    if places == 1:
        for c in range(classes):
            for r in range(n):
                pooled[c, r], slopes[0, c, r] = scores[0, c, r], 1
    else:
        _pool(scores, slopes, pooled, (grid.there, loss.beta), room)
    total = _cross_entropy(pooled, examples.wanted[rows], loss, room)
    for j in range(places):
        for c in range(classes):
            for r in range(n):
                slopes[j, c, r] *= pooled[c, r]
    gradient = np.dot(slopes.reshape(places * classes, n), x)
    for k in range(places * classes):
        _move(k, gradient, np.float32(len(rows)), grid, pace)
    return total


@reordered
def take_steps(
    examples: Examples, batches: tuple[Indices, Indices], grid: Grid, loss: Loss, paces: Singles
) -> npt.NDArray[np.float64]:
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
    float64 array of shape (step,)
        Sum of the rows' cross-entropies.
    """
    rows, ends = batches
    totals = np.empty(len(paces))
    for step in range(len(paces)):
        p = paces[step]
        pace = Pace(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])
        totals[step] = take_step(examples, rows[ends[step] : ends[step + 1]], grid, loss, pace)
    return totals


@reordered
def _move(k: int, gradient: Singles, n: np.float32, grid: Grid, pace: Pace) -> None:
    """Adam's step of one slot, which then has unit length again; one that is not there stays zero."""
    weights, slant, first, second = grid.weights[k], gradient[k], grid.first[k], grid.second[k]
    decay1, decay2, rest1, rest2, tiny = pace.decay1, pace.decay2, pace.rest1, pace.rest2, pace.tiny
    one, squares = np.float32(1), np.float32(0)
    each, fast, whole = one / n, pace.rate / pace.weight1, one / pace.weight2
    for f in range(len(weights)):
        by = slant[f] * each
        first[f] = decay1 * first[f] + rest1 * by
        second[f] = decay2 * second[f] + rest2 * by * by
        weights[f] -= fast * first[f] / (np.sqrt(second[f] * whole) + tiny)
    for f in range(len(weights)):
        squares += weights[f] * weights[f]
    if squares > 0:
        for f in range(len(weights)):
            weights[f] /= np.sqrt(squares)
