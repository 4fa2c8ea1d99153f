"""Triton kernels of the cover on a GPU: tiles of scores that never leave the chip.

`slots.cover.fused.scores` launches them and says what they compute.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def split_kernel(x, order, lengths, high, low, d, d_padded, BD: tl.constexpr):
    """Length of one row, and the row of unit length as two float16 numbers: ``high + low / 2048``."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(order + row)
    total = tl.zeros((BD,), dtype=tl.float64)
    for start in range(0, d, BD):
        at = start + tl.arange(0, BD)
        value = tl.load(x + source * d + at, mask=at < d, other=0.0).to(tl.float64)
        total += value * value
    length = tl.sqrt(tl.sum(total, axis=0))
    length = tl.where(length > 0, length, 1.0)
    tl.store(lengths + source, length)
    for start in range(0, d_padded, BD):
        at = start + tl.arange(0, BD)
        value = tl.load(x + source * d + at, mask=at < d, other=0.0).to(tl.float64) / length
        first = value.to(tl.float16)
        rest = ((value - first.to(tl.float64)) * 2048.0).to(tl.float16)
        tl.store(high + row * d_padded + at, first, mask=at < d_padded)
        tl.store(low + row * d_padded + at, rest, mask=at < d_padded)


@triton.jit
def maxima_kernel(
    x, y, x_labels, y_labels, best, n, m, d,
    symmetric: tl.constexpr, B: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile: the largest score of each row, and of each column where the tile serves both ways."""
    pid = tl.program_id(0)
    high, wide = tl.cdiv(n, B), tl.cdiv(m, B)
    first = pid // (GROUP * wide) * GROUP  # tiles of a few rows together, so that what they read stays in the cache
    tall = tl.minimum(high - first, GROUP)
    a = first + pid % (GROUP * wide) % tall
    b = pid % (GROUP * wide) // tall
    if symmetric and b < a:
        return
    low_x, high_x = tl.load(x_labels + a * B), tl.load(x_labels + tl.minimum(n, (a + 1) * B) - 1)
    low_y, high_y = tl.load(y_labels + b * B), tl.load(y_labels + tl.minimum(m, (b + 1) * B) - 1)
    if (low_x == high_y) & (low_y == high_x):  # sorted, so all of one label
        return
    rows, columns, depth = a * B + tl.arange(0, B), b * B + tl.arange(0, B), tl.arange(0, BK)
    x_rows = x + rows.to(tl.int64)[:, None] * d + depth[None, :]
    y_rows = y + columns.to(tl.int64)[None, :] * d + depth[:, None]
    tile = tl.zeros((B, B), dtype=tl.float32)
    for _ in range(0, d, BK):  # d is a multiple of BK
        left = tl.load(x_rows, mask=rows[:, None] < n, other=0.0)
        right = tl.load(y_rows, mask=columns[None, :] < m, other=0.0)
        tile = tl.dot(left, right, tile)
        x_rows += BK
        y_rows += BK
    mine = tl.load(x_labels + rows, mask=rows < n, other=-1)
    theirs = tl.load(y_labels + columns, mask=columns < m, other=-1)
    counts = (mine[:, None] != theirs[None, :]) & (rows < n)[:, None] & (columns < m)[None, :]
    tile = tl.where(counts, tile, -4.0)
    tl.store(best + b.to(tl.int64) * n + rows, tl.max(tile, axis=1), mask=rows < n)
    if symmetric and b > a:
        tl.store(best + a.to(tl.int64) * n + columns, tl.max(tile, axis=0), mask=columns < n)


@triton.jit
def near_kernel(
    x, y, x_labels, y_labels, best, rows_hit, starts, pairs, count, m, d, capacity, near,
    B: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Of the rows whose maximum may lie in one block of columns: the pairs that may be it."""
    b = tl.program_id(0)
    begin, end = tl.load(starts + b), tl.load(starts + b + 1)
    columns, depth = b * B + tl.arange(0, B), tl.arange(0, BK)
    there = columns < m
    theirs = tl.load(y_labels + columns, mask=there, other=-1)
    for at in range(begin + tl.program_id(1) * BR, end, tl.num_programs(1) * BR):
        hit = at + tl.arange(0, BR)
        rows = tl.load(rows_hit + hit, mask=hit < end, other=0)
        x_rows = x + rows[:, None] * d + depth[None, :]
        y_rows = y + columns.to(tl.int64)[None, :] * d + depth[:, None]
        tile = tl.zeros((BR, B), dtype=tl.float32)
        for _ in range(0, d, BK):
            left = tl.load(x_rows)
            right = tl.load(y_rows, mask=there[None, :], other=0.0)
            tile = tl.dot(left, right, tile)
            x_rows += BK
            y_rows += BK
        mine, top = tl.load(x_labels + rows), tl.load(best + rows)
        listed = (mine[:, None] != theirs[None, :]) & there[None, :] & (hit < end)[:, None]
        listed = listed & (tile >= top[:, None] - near)
        place = tl.atomic_add(count + tl.zeros((BR, B), dtype=tl.int32), 1, mask=listed)
        tl.store(pairs + place, (rows[:, None] << 32) | columns.to(tl.int64)[None, :], mask=listed & (place < capacity))


@triton.jit
def exact_kernel(x, y, x_lengths, y_lengths, i, j, out, d, BD: tl.constexpr):
    """Cosine of a pair in float64."""
    p = tl.program_id(0)
    left, right = tl.load(i + p), tl.load(j + p)
    total = tl.zeros((BD,), dtype=tl.float64)
    for start in range(0, d, BD):
        at = start + tl.arange(0, BD)
        u = tl.load(x + left * d + at, mask=at < d, other=0.0).to(tl.float64)
        total += u * tl.load(y + right * d + at, mask=at < d, other=0.0).to(tl.float64)
    lengths = tl.load(x_lengths + left) * tl.load(y_lengths + right)
    tl.store(out + p, tl.sum(total, axis=0) / lengths)


@triton.jit
def coverage_kernel(
    x, x_low, y, y_low, limits, tiles, words, pairs, count, d, capacity, near,
    symmetric: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of one class: its bits, and what lies too near a threshold for them; and those of the mirrored tile."""
    about = tiles + tl.program_id(0) * 7
    row, row_end = tl.load(about), tl.load(about + 1)
    column, column_end = tl.load(about + 2), tl.load(about + 3)
    target, width = tl.load(about + 4), tl.load(about + 5)  # where the tile's first half-word goes, half-words a row
    rows, columns, depth = row + tl.arange(0, BM), column + tl.arange(0, BN), tl.arange(0, BK)
    left_at, right_at = rows[:, None] * d + depth[None, :], columns[None, :] * d + depth[:, None]
    x_there, y_there = rows < row_end, columns < column_end
    tile = tl.zeros((BM, BN), dtype=tl.float32)
    rest = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, d, BK):
        left = tl.load(x + left_at + k, mask=x_there[:, None], other=0.0)
        right = tl.load(y + right_at + k, mask=y_there[None, :], other=0.0)
        left_low = tl.load(x_low + left_at + k, mask=x_there[:, None], other=0.0)
        right_low = tl.load(y_low + right_at + k, mask=y_there[None, :], other=0.0)
        tile = tl.dot(left, right, tile)
        rest = tl.dot(left, right_low, rest)
        rest = tl.dot(left_low, right, rest)
    scores = tile + rest * (1.0 / 2048.0)
    tile = scores - tl.load(limits + rows, mask=x_there, other=4.0)[:, None]
    there = x_there[:, None] & y_there[None, :]
    bits = (there & (tile > near)).to(tl.int32)
    half_words = tl.sum(tl.reshape(bits, (BM, BN // 32, 32)) << tl.arange(0, 32)[None, None, :], axis=2)
    at = tl.arange(0, BN // 32)
    inside = x_there[:, None] & ((column + 32 * at) < column_end)[None, :]
    tl.store(words + target + tl.arange(0, BM).to(tl.int64)[:, None] * width + at[None, :], half_words, mask=inside)
    listed = there & (tl.abs(tile) <= near)
    place = tl.atomic_add(count + tl.zeros((BM, BN), dtype=tl.int32), 1, mask=listed)
    tl.store(pairs + place, (rows[:, None] << 32) | columns[None, :], mask=listed & (place < capacity))
    if symmetric:
        mirrored = tl.load(about + 6)
        if mirrored >= 0:
            turned = scores - tl.load(limits + columns, mask=y_there, other=4.0)[None, :]
            turned_bits = (there & (turned > near)).to(tl.int32)
            packed = tl.sum(tl.reshape(turned_bits, (BM // 32, 32, BN)) << tl.arange(0, 32)[None, :, None], axis=1)
            half = tl.arange(0, BM // 32)
            goes = mirrored + tl.arange(0, BN).to(tl.int64)[None, :] * width + half[:, None]
            tl.store(words + goes, packed, mask=((row + 32 * half) < row_end)[:, None] & y_there[None, :])
            unsure = there & (tl.abs(turned) <= near)
            slot = tl.atomic_add(count + tl.zeros((BM, BN), dtype=tl.int32), 1, mask=unsure)
            tl.store(pairs + slot, (columns[None, :] << 32) | rows[:, None], mask=unsure & (slot < capacity))
