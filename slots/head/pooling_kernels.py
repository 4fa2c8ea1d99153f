"""Compiled loops of the pooled score: bounds of it from float32 scores, and the few scores that float64 must decide.

Every loop that works with rounded numbers knows how far off they may be, and leaves what lies nearer to the caller.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from slots.jit import compiled, reordered

Indices = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_CHUNK = 256  # float32 numbers summed before the sum goes to float64
_LOG2_E = np.float32(math.log2(math.e))
_EXP2 = tuple(np.float32(c) for c in (0.99999993, 0.69315307, 0.24015362, 0.05582632, 0.00898934, 0.00187758))
_LEAST = np.float32(-125)  # 2 to less than this is no longer a normal number; what is added is below 1e-37

_POOLED = 2e-4
"""Largest error of a pooled score, as a share of its distance to the maximum: of a weight 2e-5 (its exponent is up to
125, in float32), of a sum of 256 as much, both twice, and twice that for safety."""


class PooledArrays(NamedTuple):
    """Weights of all slots and one over their lengths; which of them vote, by class, and where each class begins."""

    weights: Singles
    inverse: Doubles
    slots: Indices
    starts: Indices


class Pools(NamedTuple):
    """Pooled scores of a block of inputs, shape (input, class), in bounds that hold whatever rounding did.

    ``lower`` and ``upper`` are minus infinity where a class cannot be first or second. ``best`` are the two best
    classes of an input, shape (input, 2), -1 where there is no second; ``settled`` says whether the bounds tell them
    from all others and from one another.
    """

    lower: Doubles
    upper: Doubles
    best: Indices
    settled: npt.NDArray[np.bool_]


def _float_of_bits(_context: Any, bits: Any) -> Any:
    """The float32 of these bits: no instruction, and vectorised in loops."""

    def build(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(bits), build


float_of_bits: Any = intrinsic(_float_of_bits)


@numba.njit(inline="always")
def exp2(power: Any) -> Any:
    """``2 ** power`` in float32 for powers in [-126, 0], to a share of 1e-6, without a branch."""
    whole = np.int32(power) - np.int32(1)
    f = power - np.float32(whole)  # in (0, 1]
    value = _EXP2[4] + f * _EXP2[5]
    value = _EXP2[3] + f * value
    value = _EXP2[2] + f * value
    value = _EXP2[1] + f * value
    value = _EXP2[0] + f * value
    return value * float_of_bits(np.int32((whole + np.int32(127)) << np.int32(23)))


@compiled
def _largest(bits: npt.NDArray[np.int32]) -> float:
    """The largest of some float32 numbers, given as bits: maxima of integers are vectorised, of floats they are not."""
    best = np.int32(-0x7FFFFFFF)
    for k in range(np.uint64(len(bits))):
        best = max(best, bits[k] ^ ((bits[k] >> np.int32(31)) & np.int32(0x7FFFFFFF)))  # in the order of the floats
    return float(float_of_bits(np.int32(best ^ ((best >> np.int32(31)) & np.int32(0x7FFFFFFF)))))


@reordered
def _pool(scores: Singles, top: float, power: float) -> float:
    """Softmax-weighted mean of scores whose maximum is ``top``; ``power`` is the inverse temperature over ln 2."""
    high, steep = np.float32(top), np.float32(power)
    total, below = 0.0, 0.0
    for start in range(0, len(scores), _CHUNK):
        weights, sums = np.float32(0), np.float32(0)
        for k in range(np.uint64(start), np.uint64(min(len(scores), start + _CHUNK))):
            gap = scores[k] - high
            exponent = steep * gap
            weight = exp2(exponent if exponent > _LEAST else _LEAST)
            weights += weight
            sums += weight * gap
        total += np.float64(weights)
        below += np.float64(sums)
    return top + below / total


@compiled
def best_views(scores: Singles, out: Singles) -> None:
    """Largest score over the views: shape (input, view, pooled) to (input, pooled)."""
    for i in range(scores.shape[0]):
        out[i] = scores[i, 0]
        for v in range(1, scores.shape[1]):
            for k in range(scores.shape[2]):
                out[i, k] = max(out[i, k], scores[i, v, k])


@compiled
def pool_classes(scores: Singles, starts: Indices, beta: float, error: float, out: Pools) -> None:
    """Bounds of the pooled score of every class that can be first or second, slots in the order of their classes.

    A pooled score is at most the class's maximum, so the classes of the two largest maxima are pooled first, and others
    only where their maximum reaches the second of these. When no score is off by more than ``error``, a pooled one is
    off by at most that times ``1 + 2 beta`` the distance between maximum and pool (which may itself be off).
    """
    n_classes, power, bits = len(starts) - 1, beta / math.log(2.0), scores.view(np.int32)
    tops = np.empty(n_classes)
    for i in range(len(scores)):
        for c in range(n_classes):
            tops[c] = _largest(bits[i, starts[c] : starts[c + 1]])
        out.lower[i], out.upper[i] = -np.inf, -np.inf
        first, second = -np.inf, -np.inf  # the two largest lower bounds
        for turn in range(3):
            lead = tops.argmax() if turn < 2 else 0
            for c in range(lead, lead + 1 if turn < 2 else n_classes):
                if tops[c] == -np.inf or tops[c] + error < second:
                    continue
                pooled = _pool(scores[i, starts[c] : starts[c + 1]], tops[c], power)
                gap = tops[c] - pooled
                moved = min(1.0 + beta, 1.0 + 2.0 * beta * (1.001 * gap + (2.0 + beta) * error))
                off = error * moved + _POOLED * gap + 1e-12
                out.lower[i, c], out.upper[i, c] = pooled - off, pooled + off
                if pooled - off > first:
                    first, second = pooled - off, first
                elif pooled - off > second:
                    second = pooled - off
                tops[c] = -np.inf
        _rank(out, i, second)


@compiled
def _rank(out: Pools, i: int, second: float) -> None:
    """The two best classes of a row by their lower bounds, and whether that is certain."""
    best, next_best, contending = -1, -1, 0
    for c in range(out.lower.shape[1]):
        if out.upper[i, c] == -np.inf:
            continue
        contending += out.upper[i, c] >= second
        if best < 0 or out.lower[i, c] > out.lower[i, best]:
            best, next_best = c, best
        elif next_best < 0 or out.lower[i, c] > out.lower[i, next_best]:
            next_best = c
    out.best[i, 0], out.best[i, 1] = best, next_best
    out.settled[i] = contending <= 2 and (next_best < 0 or out.lower[i, best] > out.upper[i, next_best])


@compiled
def nearest_pooled(
    scores: Singles, views: Singles, starts: Indices, best: Indices, error: float
) -> tuple[Indices, Indices, Indices]:
    """Pooled slots of each input's two classes that may be the nearest: (2 input + place), view and slot.

    ``scores`` has shape (input, pooled), ``views`` (input, view, pooled). Ascending by slot, then view.
    """
    room = 4 * len(scores)
    found, n, bits = np.empty((3, room), np.int64), 0, scores.view(np.int32)
    for i in range(len(scores)):
        for place in range(2):
            if best[i, place] < 0:
                continue
            a, b = starts[best[i, place]], starts[best[i, place] + 1]
            least = np.float32(_largest(bits[i, a:b]) - 2.0 * error)
            for k in range(a, b):
                if scores[i, k] < least:
                    continue
                for v in range(views.shape[1]):
                    if views[i, v, k] >= least:
                        if n == room:
                            larger = np.empty((3, 2 * room), np.int64)
                            for part in range(3):
                                for kept in range(room):
                                    larger[part, kept] = found[part, kept]
                            found, room = larger, 2 * room
                        found[0, n], found[1, n], found[2, n] = 2 * i + place, v, k
                        n += 1
    return found[0, :n].copy(), found[1, :n].copy(), found[2, :n].copy()


@reordered
def _products(row: Doubles, weights: Singles, slots: Indices, inverse: Doubles, out: Doubles) -> None:
    """Raise ``out`` to the float64 cosines of a unit row to some slots, where they are larger."""
    for n in range(len(slots)):
        k, total = slots[n], 0.0
        for f in range(np.uint64(len(row))):
            total += row[f] * np.float64(weights[k, f])
        out[n] = max(out[n], total * inverse[k])


@compiled
def exact_pooled_scores(unit: Doubles, pairs: Indices, pooled: PooledArrays, out: Doubles) -> None:
    """Float64 scores of single (input, class) pairs, the best view's, to every pooled slot of the class.

    ``unit`` has shape (input, view, feature), ``pairs`` (2, pair), ``out`` (pair, widest class); what a class leaves
    free there is not written.
    """
    for p in range(pairs.shape[1]):
        a, b = pooled.starts[pairs[1, p]], pooled.starts[pairs[1, p] + 1]
        out[p, : b - a] = -np.inf
        for v in range(unit.shape[1]):
            _products(unit[pairs[0, p], v], pooled.weights, pooled.slots[a:b], pooled.inverse, out[p, : b - a])
