"""Compiled loops of the slot index: unit rows, and the test of pairs that a bound lets through.

Products of single pairs are summed in float64 from the numbers as given, so they are off by less than
`slots.index.cap_bound.NEAR`; the exact rule looks again at what lies that near to a threshold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from slots.cover.kernels import lowest_bit
from slots.jit import reordered

Reals = npt.NDArray[Any]  # float32 or float64
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """Inputs: features as given, one over the length of each, and float32 rows of length 1 (or 0)."""

    features: Reals
    inverse: Doubles
    unit: Singles


class Slots(NamedTuple):
    """Slots: both vectors as given, one over their lengths, and thresholds less what rounding may hide.

    ``doubled`` is true where the centre is the weight, so that one product serves both caps. ``axes`` are float32 axes
    of the enclosing caps, or none, and ``limits`` what a float32 product with them exceeds where a slot may match.
    """

    weights: Reals
    centres: Reals
    weight_inverse: Doubles
    centre_inverse: Doubles
    precision: Doubles
    support: Doubles
    doubled: npt.NDArray[np.bool_]
    axes: Singles
    limits: Singles


class Tile(NamedTuple):
    """Bounds (row, slot), float32 or bfloat16, as integers of their bits, and where the corner lies.

    ``hits`` is scratch, one a column.
    """

    signs: npt.NDArray[Any]
    first_row: int
    first_slot: int
    hits: Indices


class Kept(NamedTuple):
    """Pairs (row, slot) and their cosines to weight and centre, both of shape (2, pair)."""

    pairs: Indices
    scores: Doubles


_WIDE = 64  # bounds looked at together
_ONE, _ZERO = np.uint64(1), np.uint64(0)
_SHORT = 128  # features of which a product takes no longer than to fetch them


@reordered
def unit_rows(rows: Reals, unit: Reals, inverse: Doubles) -> None:
    """Write float32 rows of length 1 and one over each length; a zero row stays zero, with inverse 1."""
    for i in range(rows.shape[0]):
        row = rows[i]
        square = 0.0
        for j in range(len(row)):
            square += np.float64(row[j]) * np.float64(row[j])
        scale = 1.0 / np.sqrt(square) if square > 0 else 1.0
        inverse[i] = scale
        for j in range(len(row)):
            unit[i, j] = np.float32(np.float64(row[j]) * scale)


@reordered
def _product(a: Reals, i: int, b: Reals, k: int) -> float:
    """Inner product of two rows, summed in float64."""
    total, row, column = 0.0, np.uint64(i), np.uint64(k)
    for f in range(np.uint64(a.shape[1])):
        total += np.float64(a[row, f]) * np.float64(b[column, f])
    return total


@reordered
def _single_product(a: Singles, i: int, b: Singles, k: int) -> Any:
    """Inner product of two rows, summed in float32 in any order."""
    total, row, column = np.float32(0), np.uint64(i), np.uint64(k)
    for f in range(np.uint64(a.shape[1])):
        total += a[row, f] * b[column, f]
    return total


@reordered
def _inside_axes(rows: Rows, slots: Slots, i: int, hits: Indices, n: int) -> int:
    """Keep, in place, the first ``n`` hits that may lie in the enclosing cap; returns how many."""
    left = 0
    for h in range(n):
        k = hits[h]
        hits[left] = k  # without a branch: which of them it is cannot be foretold
        left += _single_product(rows.unit, i, slots.axes, k) > slots.limits[k]
    return left


@reordered
def _may_match(rows: Rows, slots: Slots, i: int, k: int, out: Doubles) -> bool:
    """Whether row ``i`` may lie in both caps of slot ``k``; the two cosines go to ``out``."""
    score = _product(rows.features, i, slots.weights, k) * rows.inverse[i] * slots.weight_inverse[k]
    out[0] = score
    if not score > slots.precision[k]:
        return False
    if not slots.doubled[k]:
        score = _product(rows.features, i, slots.centres, k) * rows.inverse[i] * slots.centre_inverse[k]
    out[1] = score
    return bool(score > slots.support[k])


def _which_positive(_context: Any, numbers: Any, _start: Any) -> Any:
    """A bit for each of 64 integers of a row, from a place on: set where it is above zero."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = context.make_array(signature.args[0])(context, builder, arguments[0])
        bits = signature.args[0].dtype.bitwidth
        many = ir.VectorType(ir.IntType(bits), _WIDE)
        place = builder.gep(row.data, [arguments[1]])
        loaded = builder.load(builder.bitcast(place, many.as_pointer()), align=bits // 8)
        above = builder.icmp_signed(">", loaded, ir.Constant(many, [0] * _WIDE))
        return builder.bitcast(above, ir.IntType(64))

    return types.uint64(numbers, types.int64), build


which_positive: Any = intrinsic(_which_positive)


@reordered
def scan_tile(
    tile: Tile,
    rows: Rows,
    slots: Slots,
    kept: Kept,
    found: int,
) -> int:
    """Test every pair whose bound is above zero; returns how many have been found so far.

    Of 64 bounds at a time one word says which are, and mostly none is. Pairs go to ``kept``, from ``found``
    on, where there must be room for the tile.
    """
    out = np.empty(2)
    width = tile.signs.shape[1]
    whole = width - width % _WIDE
    for r in range(tile.signs.shape[0]):
        row, i, n = tile.signs[r], tile.first_row + r, 0
        for start in range(0, whole, _WIDE):
            bits = which_positive(row, start)
            while bits != _ZERO:
                tile.hits[n] = tile.first_slot + start + lowest_bit(bits)
                bits &= bits - _ONE
                n += 1
        for j in range(whole, width):
            tile.hits[n] = tile.first_slot + j
            n += row[j] > 0
        if len(slots.axes):
            n = _inside_axes(rows, slots, i, tile.hits, n)
        for h in range(n):
            k = tile.hits[h]
            kept.pairs[0, found], kept.pairs[1, found] = i, k
            if rows.features.shape[1] <= _SHORT:  # both products at once and no branch: the processor looks ahead
                a = _product(rows.features, i, slots.weights, k) * rows.inverse[i] * slots.weight_inverse[k]
                b = _product(rows.features, i, slots.centres, k) * rows.inverse[i] * slots.centre_inverse[k]
                kept.scores[0, found], kept.scores[1, found] = a, b
                found += int(a > slots.precision[k]) & int(b > slots.support[k])
            elif _may_match(rows, slots, i, k, out):
                kept.scores[0, found], kept.scores[1, found] = out[0], out[1]
                found += 1
    return found


@reordered
def scan_pairs(rows: Rows, slots: Slots, kept: Kept) -> int:
    """Keep, in place, the pairs (row, slot) that may match, and write their cosines; returns how many there are."""
    out, found = np.empty(2), 0
    for p in range(kept.pairs.shape[1]):
        i, k = kept.pairs[0, p], kept.pairs[1, p]
        if _may_match(rows, slots, i, k, out):
            kept.pairs[0, found], kept.pairs[1, found] = i, k
            kept.scores[0, found], kept.scores[1, found] = out[0], out[1]
            found += 1
    return found
