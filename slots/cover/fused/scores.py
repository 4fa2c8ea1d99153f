"""Thresholds and coverage on a GPU: fused Triton kernels with the same results as the torch path of `coverage`.

For the thresholds a tile of scores is a float16 product, which is off by a proved bound: the largest score of each row
in each block of columns is kept, blocks within twice the bound of the row's maximum are looked at once more, and what
may be the maximum is computed in float64. For the coverage, rows are split into two float16 numbers each, whose
products are as good as float32; the bits are packed at once, and what is too near a threshold is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from slots.cover.fused.kernels import coverage_kernel, exact_kernel, maxima_kernel, near_kernel, split_kernel
from slots.cover.fused.tiles import ClassTiles, Tiling

_DEPTH = 64  # features are padded to a multiple of it
_MAXIMA_FLOATS = 1 << 28  # block maxima held at once: 1 GB
_LEAST_PAIRS = 1 << 16  # first guess of the pairs to compute again; where there are more, the kernel runs once more
_SUMS = 1e-5  # what the same float16 product may differ by when it is summed in another order


MAXIMA_TILING = Tiling(warps=4)


@dataclass(frozen=True)
class SplitRows:
    """Rows sorted by label, of unit length, as two float16 numbers each.

    Parameters
    ----------
    raw : float tensor of shape (row, feature)
        As given, in the order given.
    lengths : float64 tensor of shape (row,)
        Theirs, 1 for a zero row.
    order : int64 tensor of shape (row,)
        Places in ``raw`` in the order of the labels.
    labels : int64 tensor of shape (row,)
        Ascending.
    high, low : float16 tensors of shape (row, padded feature)
        Sorted; ``high + low / 2048`` is the unit row to 2**-22 of each number.
    """

    raw: Float[Tensor, "row feature"]
    lengths: Float[Tensor, " row"]
    order: Int[Tensor, " row"]
    labels: Int[Tensor, " row"]
    high: Float[Tensor, "row padded"]
    low: Float[Tensor, "row padded"]

    @classmethod
    def of(cls, raw: Float[Tensor, "row feature"], labels: Int[Tensor, " row"]) -> SplitRows:
        """Sort and split.

        Parameters
        ----------
        raw : float tensor of shape (row, feature)
            Any scale.
        labels : int64 tensor of shape (row,)
            Label of each row, in any order.

        Returns
        -------
        SplitRows
        """
        ordered, order = labels.sort(stable=True)
        n, d = raw.shape
        padded = -(-max(1, d) // _DEPTH) * _DEPTH
        lengths = torch.empty(n, dtype=torch.float64, device=raw.device)
        high, low = torch.empty(2, n, padded, dtype=torch.float16, device=raw.device)
        raw = raw.contiguous()
        if n:
            split_kernel[(n,)](raw, order, lengths, high, low, d, padded, BD=min(1024, triton.next_power_of_2(padded)))
        return cls(raw, lengths, order, ordered, high, low)

    def only(self, kept: Int[Tensor, " kept"]) -> SplitRows:
        """Some of the rows.

        Parameters
        ----------
        kept : int64 tensor of shape (kept,)
            Places in the sorted order, ascending.

        Returns
        -------
        SplitRows
        """
        return SplitRows(self.raw, self.lengths, self.order[kept], self.labels[kept], self.high[kept], self.low[kept])


def float16_bound(feature_dim: int) -> float:
    """How far a float16 product of unit vectors with float32 sums may lie from their float64 cosine.

    Parameters
    ----------
    feature_dim : int
        Products summed (count, >= 1).

    Returns
    -------
    float
        Each number is off by at most one part in 2048 (and 2**-25 where it is below the normal range), so the sum of
        the products by 2**-10 of ``|x| |y| <= 1``; the tensor cores' sums by one part in 2**23 an addition.
    """
    return 2.0**-10 + 2.0**-20 + feature_dim * 2.0**-23 + math.sqrt(feature_dim) * 2.0**-23


def split_bound(feature_dim: int) -> float:
    """The same for rows split in two.

    Parameters
    ----------
    feature_dim : int
        Products summed (count, >= 1).

    Returns
    -------
    float
        What the two numbers leave out and the product of the two low ones: four parts in 2**22; sums are rounded once
        for 16 features.
    """
    return 2.0**-20 + feature_dim * 2.0**-26


def exact_cosines(
    rows: SplitRows, i: Int[Tensor, " pair"], columns: SplitRows, j: Int[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """Float64 cosines of pairs.

    Parameters
    ----------
    rows, columns : SplitRows
        What the pairs are of.
    i, j : int64 tensors of shape (pair,)
        Places in their sorted orders.

    Returns
    -------
    float64 tensor of shape (pair,)
    """
    out = torch.empty(len(i), dtype=torch.float64, device=i.device)
    if len(i):
        d = rows.raw.shape[1]
        exact_kernel[(len(i),)](
            rows.raw, columns.raw, rows.lengths, columns.lengths, rows.order[i], columns.order[j], out, d,
            BD=min(1024, triton.next_power_of_2(d)), num_warps=1,
        )  # fmt: skip
    return out


def foreign_maxima(
    rows: SplitRows,
    columns: SplitRows,
    *,
    tiling: Tiling = MAXIMA_TILING,
    meanwhile: Callable[[], object] = int,
) -> Float[Tensor, " row"]:
    """Largest cosine of each row to a column of another label.

    Parameters
    ----------
    rows, columns : SplitRows
        Where they are the same object each tile serves both ways.
    tiling : Tiling
        Shape of a tile on the GPU; it changes the time, never the result.
    meanwhile : callable
        What the host does while the device works on the tiles; once for each stripe of rows.

    Returns
    -------
    float64 tensor of shape (row,)
        In the order of the labels; minus infinity where there is none.
    """
    n, blocks = len(rows.high), -(-len(columns.high) // tiling.side)
    whole = n * blocks <= _MAXIMA_FLOATS
    step = n if whole else max(tiling.side, _MAXIMA_FLOATS // blocks // tiling.side * tiling.side)
    top = torch.full((n,), -math.inf, dtype=torch.float64, device=rows.high.device)
    for start in range(0, n, step):
        part = rows if whole else rows.only(torch.arange(start, min(n, start + step), device=rows.high.device))
        i, j = near_maxima(part, columns, symmetric=rows is columns and whole, tiling=tiling, meanwhile=meanwhile)
        top.scatter_reduce_(0, i + start, exact_cosines(part, i, columns, j), "amax")
    return top


def near_maxima(
    rows: SplitRows,
    columns: SplitRows,
    *,
    symmetric: bool,
    tiling: Tiling = MAXIMA_TILING,
    meanwhile: Callable[[], object] = int,
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Pairs of other labels among which each row's largest cosine is, and few others.

    Parameters
    ----------
    rows, columns : SplitRows
        Each row is compared with all columns.
    symmetric : bool
        Whether they are the same rows.
    tiling : Tiling
        Shape of a tile on the GPU; it changes the time, never the result.
    meanwhile : callable
        What the host does while the device works on the tiles.

    Returns
    -------
    i, j : int64 tensors of shape (pair,)
        Places in the sorted orders, in no particular order.
    """
    x, y, device = rows.high, columns.high, rows.high.device
    n, m, d, side = len(x), len(y), x.shape[1], tiling.side
    blocks = -(-m // side)
    best = torch.full((blocks, n), -4.0, device=device)
    how = {"B": side, "BK": tiling.depth, "num_warps": tiling.warps, "num_stages": tiling.stages}
    maxima_kernel[(-(-n // side) * blocks,)](
        x, y, rows.labels, columns.labels, best, n, m, d, symmetric=symmetric, GROUP=8, **how
    )
    meanwhile()
    near = 2 * float16_bound(d)
    top = best.amax(0)
    block, hit = ((best >= top - near) & (top > -3)).nonzero(as_tuple=True)
    starts = torch.searchsorted(block, torch.arange(blocks + 1, device=device))
    capacity = max(_LEAST_PAIRS, 8 * len(hit))
    lanes = min(64, max(1, len(hit) // max(1, 16 * blocks)))
    while True:
        pairs = torch.empty(capacity, dtype=torch.int64, device=device)
        count = torch.zeros(1, dtype=torch.int32, device=device)
        near_kernel[(blocks, lanes)](
            x, y, rows.labels, columns.labels, top, hit, starts, pairs, count, m, d, capacity, near + _SUMS,
            B=side, BR=16, BK=tiling.depth, num_warps=4, num_stages=3,
        )  # fmt: skip
        found = int(count)
        if found <= capacity:
            return pairs[:found] >> 32, pairs[:found] & 0xFFFFFFFF
        capacity = found


def packed_coverage(
    rows: SplitRows,
    columns: SplitRows,
    limits: Float[Tensor, " row"],
    tiles: ClassTiles,
    *,
    rounding: float,
) -> list[Int[Tensor, "row word"]]:
    """Packed coverage of each class by itself.

    Parameters
    ----------
    rows, columns : SplitRows
        Where they are the same object each tile serves both ways.
    limits : float64 tensor of shape (row,)
        In the order of the labels; a row covers the columns of its class whose cosine is above.
    tiles : ClassTiles
        Those of these rows and columns.
    rounding : float
        What a float64 cosine must be above its limit by.

    Returns
    -------
    list of int64 tensors of shape (row of the class, ceil(column of the class / 64))
        Views of one tensor, one after the other.
    """
    device = limits.device
    sizes = tiles.n_rows * tiles.widths
    words = torch.zeros(int(sizes.sum()), dtype=torch.int64, device=device)
    if len(tiles.about):
        pairs = _covered(rows, columns, limits.float(), tiles, words)
        i, j = pairs >> 32, pairs & 0xFFFFFFFF
        inside = exact_cosines(rows, i, columns, j) > limits[i] + rounding
        i, j = pairs[inside] >> 32, pairs[inside] & 0xFFFFFFFF
        counts = np.stack([tiles.n_rows, tiles.n_columns, sizes])
        table = torch.from_numpy(np.concatenate([counts.cumsum(1) - counts, tiles.widths[None]])).to(device)
        of_class = torch.searchsorted(table[0], i, right=True) - 1
        row, column, word, width = table[:, of_class]
        place = j - column
        bit = torch.ones_like(place) << (place % 64)
        words.scatter_add_(0, word + (i - row) * width + place // 64, bit)  # each bit once and zero before: it is an or
    parts = words.split(sizes.tolist())
    return [part.view(n, w) for part, n, w in zip(parts, tiles.n_rows.tolist(), tiles.widths.tolist(), strict=True)]


def _covered(
    rows: SplitRows, columns: SplitRows, limits: Tensor, tiles: ClassTiles, words: Tensor
) -> Int[Tensor, " pair"]:
    """Write the bits that are beyond doubt; the pairs that are not."""
    d, tiling = rows.high.shape[1], tiles.tiling
    about = torch.from_numpy(tiles.about).to(words.device)
    capacity = max(_LEAST_PAIRS, 16 * len(limits))
    while True:
        pairs = torch.empty(capacity, dtype=torch.int64, device=words.device)
        count = torch.zeros(1, dtype=torch.int32, device=words.device)
        coverage_kernel[(len(about),)](
            rows.high, rows.low, columns.high, columns.low, limits, about, words.view(torch.int32), pairs, count, d,
            capacity, split_bound(d), symmetric=tiles.symmetric, BM=tiling.side, BN=tiling.side, BK=tiling.depth,
            num_warps=tiling.warps, num_stages=tiling.stages,
        )  # fmt: skip
        found = int(count)
        if found <= capacity:
            return pairs[:found]
        capacity = found
