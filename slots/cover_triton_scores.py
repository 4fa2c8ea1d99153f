"""Thresholds and coverage on a GPU: fused Triton kernels with the same results as the torch path of `slots.coverage`.

A tile of scores never leaves the chip. For the thresholds it is a float16 product, which is off by a proved bound, and
only what lies within twice the bound of a row's maximum is computed again in float64; for the coverage it is a float32
product whose bits are packed at once, and what lies within `NEAR` of a threshold is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from slots.cover_triton_kernels import coverage_kernel, exact_kernel, maxima_kernel

_LEAST_PAIRS = 1 << 16
_PAIRS_A_ROW = 64  # first guess of the pairs to compute again; where there are more, the kernel runs once more


@dataclass(frozen=True)
class Tiling:
    """Sizes of a tile and how it is worked on.

    Parameters
    ----------
    rows, columns, depth : int
        Rows, columns and features a step (powers of two, >= 16).
    warps, stages : int
        Warps a tile, and loads in flight.
    """

    rows: int = 128
    columns: int = 256
    depth: int = 64
    warps: int = 8
    stages: int = 3


MAXIMA_TILING = Tiling()
COVERAGE_TILING = Tiling(rows=128, columns=128, depth=32, warps=8, stages=3)


def float16_bound(feature_dim: int) -> float:
    """How far a float16 product of unit vectors with float32 sums may lie from their float64 cosine.

    Parameters
    ----------
    feature_dim : int

    Returns
    -------
    float
        Each number is off by at most one part in 2048 (and 2**-25 where it is below the normal range), so the sum of
        the products by 2**-10 of ``|x| |y| <= 1``; the tensor cores' sums by one part in 2**23 an addition.
    """
    return 2.0**-10 + 2.0**-20 + feature_dim * 2.0**-23 + math.sqrt(feature_dim) * 2.0**-23


def exact_cosines(  # noqa: PLR0917  # two sides and the pairs between them
    x: Float[Tensor, "row feature"],
    x_lengths: Float[Tensor, " row"],
    y: Float[Tensor, "column feature"],
    y_lengths: Float[Tensor, " column"],
    i: Int[Tensor, " pair"],
    j: Int[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Float64 cosines of the pairs ``(x[i], y[j])``.

    Parameters
    ----------
    x, y : float tensors of shape (row, feature) and (column, feature)
    x_lengths, y_lengths : float64 tensors
        Their lengths.
    i, j : int64 tensors of shape (pair,)

    Returns
    -------
    float64 tensor of shape (pair,)
    """
    out = torch.empty(len(i), dtype=torch.float64, device=x.device)
    if len(i):
        size = min(1024, triton.next_power_of_2(x.shape[1]))
        exact_kernel[(len(i),)](x, y, x_lengths, y_lengths, i, j, out, x.shape[1], BD=size, num_warps=1)
    return out


def near_maxima(
    x: Float[Tensor, "row feature"],
    x_labels: Int[Tensor, " row"],
    y: Float[Tensor, "column feature"],
    y_labels: Int[Tensor, " column"],
    *,
    symmetric: bool,
    tiling: Tiling = MAXIMA_TILING,
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Pairs of other labels among which each row's largest cosine is, and few others.

    Parameters
    ----------
    x, y : float32 tensors of shape (row, feature) and (column, feature)
        Unit or zero rows, sorted by label.
    x_labels, y_labels : int64 tensors
        Ascending.
    symmetric : bool
        Whether ``y`` is ``x``: each tile then serves both ways.
    tiling : Tiling

    Returns
    -------
    i, j : int64 tensors of shape (pair,)
        In no particular order.
    """
    n, m, device = len(x), len(y), x.device
    near = 2 * float16_bound(x.shape[1])
    x_half = _padded(x.half(), tiling.depth)
    y_half = x_half if symmetric else _padded(y.half(), tiling.depth)
    x_best = torch.full((n,), -4.0, device=device)
    y_best = x_best if symmetric else torch.full((m,), -4.0, device=device)
    capacity = max(_LEAST_PAIRS, _PAIRS_A_ROW * n)
    while True:  # once more where the list is too short: the maxima are known then, and the second list is shorter
        pairs = torch.empty(capacity, dtype=torch.int64, device=device)
        scores = torch.empty(capacity, device=device)
        count = torch.zeros(1, dtype=torch.int32, device=device)
        grid = (triton.cdiv(n, tiling.rows) * triton.cdiv(m, tiling.columns),)
        maxima_kernel[grid](
            x_half, y_half, x_labels, y_labels, x_best, y_best, pairs, scores, count, n, m, x_half.shape[1], capacity,
            near, symmetric=symmetric, BM=tiling.rows, BN=tiling.columns, BK=tiling.depth, GROUP=8,
            num_warps=tiling.warps, num_stages=tiling.stages,
        )  # fmt: skip
        found = int(count)
        if found <= capacity:
            break
        capacity = found
    pairs, scores = pairs[:found], scores[:found]
    i = pairs >> 32
    kept = scores >= x_best[i] - near
    i, pairs = i[kept], pairs[kept]
    return i, pairs & 0xFFFFFFFF


def packed_coverage(
    x: tuple[Tensor, Tensor, Tensor],
    y: tuple[Tensor, Tensor, Tensor],
    limits: Float[Tensor, " row"],
    rows_a_class: Sequence[int],
    columns_a_class: Sequence[int],
    *,
    near: float,
    rounding: float,
    tiling: Tiling = COVERAGE_TILING,
) -> list[Int[Tensor, "row word"]]:
    """Packed coverage of each class by itself.

    Parameters
    ----------
    x, y : (raw, length, unit)
        Rows and columns sorted by class: as given, their float64 lengths, and float32 rows of unit length.
    limits : float64 tensor of shape (row,)
        A row covers the columns of its class whose cosine is above.
    rows_a_class, columns_a_class : sequence of int
        How many rows and columns each class has.
    near : float
        How far a float32 product may be off.
    rounding : float
        What a float64 cosine must be above its limit by.
    tiling : Tiling

    Returns
    -------
    list of int64 tensors of shape (row of the class, ceil(column of the class / 64))
    """
    device = limits.device
    widths = -(-np.asarray(columns_a_class, np.int64) // 64)
    sizes = np.asarray(rows_a_class, np.int64) * widths
    words = torch.zeros(int(sizes.sum()), dtype=torch.int64, device=device)
    tiles = _class_tiles(rows_a_class, columns_a_class, sizes, tiling)
    row_words = np.repeat(np.cumsum(sizes) - sizes, rows_a_class) + _within(rows_a_class) * np.repeat(
        widths, rows_a_class
    )
    places = _sent(np.concatenate([tiles.ravel(), row_words, _within(columns_a_class)]), device)
    about, row_word, column_place = places.split([tiles.size, len(row_words), sum(columns_a_class)])
    if len(tiles):
        pairs = _covered(x[2], y[2], limits.float(), about, words, near, tiling)
        i, j = pairs >> 32, pairs & 0xFFFFFFFF
        inside = exact_cosines(x[0], x[1], y[0], y[1], i, j) > limits[i] + rounding
        i, j = i[inside], column_place[j[inside]]
        bit = torch.ones_like(j) << (j % 64)
        words.scatter_add_(0, row_word[i] + j // 64, bit)  # bits that were zero, each once: a sum is an or
    parts = words.split(sizes.tolist())
    return [part.view(n, int(w)) for part, n, w in zip(parts, rows_a_class, widths, strict=True)]


def _covered(  # noqa: PLR0917
    x: Tensor, y: Tensor, limits: Tensor, about: Tensor, words: Tensor, near: float, tiling: Tiling
) -> Int[Tensor, " pair"]:
    """Write the bits that are beyond doubt; the pairs that are not."""
    x_padded = _padded(x, tiling.depth)
    y_padded = x_padded if y is x else _padded(y, tiling.depth)
    capacity = max(_LEAST_PAIRS, 16 * len(x))
    while True:
        pairs = torch.empty(capacity, dtype=torch.int64, device=x.device)
        count = torch.zeros(1, dtype=torch.int32, device=x.device)
        coverage_kernel[(len(about) // 6,)](
            x_padded, y_padded, limits, about, words.view(torch.int32), pairs, count, x_padded.shape[1], capacity, near,
            BM=tiling.rows, BN=tiling.columns, BK=tiling.depth, num_warps=tiling.warps, num_stages=tiling.stages,
        )  # fmt: skip
        found = int(count)
        if found <= capacity:
            return pairs[:found]
        capacity = found


def _class_tiles(
    rows_a_class: Sequence[int], columns_a_class: Sequence[int], sizes: npt.NDArray[np.int64], tiling: Tiling
) -> npt.NDArray[np.int64]:
    """First and last row and column of each tile, where its half-words go, and how many a row of its class has."""
    found: list[npt.NDArray[np.int64]] = [np.zeros((0, 6), np.int64)]
    row = column = word = 0
    for n, m, size in zip(rows_a_class, columns_a_class, sizes.tolist(), strict=True):
        width = 2 * -(-m // 64)
        grid = np.meshgrid(np.arange(0, n, tiling.rows), np.arange(0, m, tiling.columns), indexing="ij")
        i, j = grid[0].ravel(), grid[1].ravel()
        whole = np.ones_like(i)
        target = 2 * word + i * width + j // 32
        found.append(
            np.stack([row + i, whole * (row + n), column + j, whole * (column + m), target, whole * width], axis=1)
        )
        row, column, word = row + n, column + m, word + size
    return np.concatenate(found)


def _within(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """Place of each element within its class."""
    starts = np.cumsum(np.asarray([0, *sizes], np.int64))[:-1]
    return np.arange(int(sum(sizes)), dtype=np.int64) - np.repeat(starts, sizes)


def _sent(values: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """A host array on the device, without waiting."""
    there = torch.from_numpy(np.ascontiguousarray(values))
    return there.to(device) if device.type == "cpu" else there.pin_memory().to(device, non_blocking=True)


def _padded(rows: Tensor, multiple: int) -> Tensor:
    """Rows with zero columns behind them up to a multiple."""
    missing = -rows.shape[1] % multiple
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows.contiguous()
