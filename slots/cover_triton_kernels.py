"""Triton kernels of the cover on a GPU: tiles of scores that never leave the chip, and the rounds of the greedy.

`slots.cover_triton_scores` and `slots.cover_triton_rounds` launch them and say what they compute.
"""

import triton
import triton.language as tl


@triton.jit
def maxima_kernel(
    x, y, x_labels, y_labels, x_best, y_best, pairs, scores, count, n, m, d, capacity, near,
    symmetric: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile: raise the maxima of its rows (and columns), and list what may be one."""
    pid = tl.program_id(0)
    high, wide = tl.cdiv(n, BM), tl.cdiv(m, BN)
    first = pid // (GROUP * wide) * GROUP  # tiles of a few rows together, so that what they read stays in the cache
    tall = tl.minimum(high - first, GROUP)
    a = first + pid % (GROUP * wide) % tall
    b = pid % (GROUP * wide) // tall
    if symmetric and (b + 1) * BN <= a * BM + 1:
        return
    low_x, high_x = tl.load(x_labels + a * BM), tl.load(x_labels + tl.minimum(n, (a + 1) * BM) - 1)
    low_y, high_y = tl.load(y_labels + b * BN), tl.load(y_labels + tl.minimum(m, (b + 1) * BN) - 1)
    if (low_x == high_y) & (low_y == high_x):  # sorted, so all of one label
        return
    rows, columns, depth = a * BM + tl.arange(0, BM), b * BN + tl.arange(0, BN), tl.arange(0, BK)
    x_rows = x + rows.to(tl.int64)[:, None] * d + depth[None, :]
    y_rows = y + columns.to(tl.int64)[None, :] * d + depth[:, None]
    tile = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, d, BK):  # d is a multiple of BK
        tile = tl.dot(
            tl.load(x_rows, mask=rows[:, None] < n, other=0.0),
            tl.load(y_rows, mask=columns[None, :] < m, other=0.0),
            tile,
        )
        x_rows += BK
        y_rows += BK
    mine = tl.load(x_labels + rows, mask=rows < n, other=-1)
    theirs = tl.load(y_labels + columns, mask=columns < m, other=-1)
    counts = (mine[:, None] != theirs[None, :]) & (rows < n)[:, None] & (columns < m)[None, :]
    if symmetric:
        counts = counts & (columns[None, :] > rows[:, None])  # each pair once
    tile = tl.where(counts, tile, -4.0)
    best = tl.max(tile, axis=1)
    best = tl.maximum(best, tl.atomic_max(x_best + rows, best, mask=rows < n))
    listed = counts & (tile >= best[:, None] - near)
    place = tl.atomic_add(count + tl.zeros((BM, BN), dtype=tl.int32), 1, mask=listed)
    listed = listed & (place < capacity)
    tl.store(pairs + place, (rows.to(tl.int64)[:, None] << 32) | columns.to(tl.int64)[None, :], mask=listed)
    tl.store(scores + place, tile, mask=listed)
    if symmetric:
        other = tl.max(tile, axis=0)
        other = tl.maximum(other, tl.atomic_max(y_best + columns, other, mask=columns < m))
        listed = counts & (tile >= other[None, :] - near)
        place = tl.atomic_add(count + tl.zeros((BM, BN), dtype=tl.int32), 1, mask=listed)
        listed = listed & (place < capacity)
        tl.store(pairs + place, (columns.to(tl.int64)[None, :] << 32) | rows.to(tl.int64)[:, None], mask=listed)
        tl.store(scores + place, tile, mask=listed)


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
    x, y, limits, tiles, words, pairs, count, d, capacity, near,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of one class: its bits, and what lies too near a threshold for them."""
    about = tiles + tl.program_id(0) * 6
    row, row_end = tl.load(about), tl.load(about + 1)
    column, column_end = tl.load(about + 2), tl.load(about + 3)
    target, width = tl.load(about + 4), tl.load(about + 5)  # where the tile's first half-word goes, half-words a row
    rows, columns, depth = row + tl.arange(0, BM), column + tl.arange(0, BN), tl.arange(0, BK)
    x_rows = x + rows[:, None] * d + depth[None, :]
    y_rows = y + columns[None, :] * d + depth[:, None]
    x_there, y_there = rows < row_end, columns < column_end
    tile = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, d, BK):
        left = tl.load(x_rows, mask=x_there[:, None], other=0.0)
        right = tl.load(y_rows, mask=y_there[None, :], other=0.0)
        tile = tl.dot(left, right, tile, input_precision="tf32x3")  # as good as float32
        x_rows += BK
        y_rows += BK
    tile -= tl.load(limits + rows, mask=x_there, other=4.0)[:, None]
    there = x_there[:, None] & y_there[None, :]
    bits = (there & (tile > near)).to(tl.int32)
    half_words = tl.sum(tl.reshape(bits, (BM, BN // 32, 32)) << tl.arange(0, 32)[None, None, :], axis=2)
    at = tl.arange(0, BN // 32)
    inside = x_there[:, None] & ((column + 32 * at) < column_end)[None, :]
    tl.store(words + target + tl.arange(0, BM).to(tl.int64)[:, None] * width + at[None, :], half_words, mask=inside)
    listed = there & (tl.abs(tile) <= near)
    place = tl.atomic_add(count + tl.zeros((BM, BN), dtype=tl.int32), 1, mask=listed)
    tl.store(pairs + place, (rows[:, None] << 32) | columns[None, :], mask=listed & (place < capacity))


@triton.jit
def bits_set(words):
    """Number of bits set in each 64-bit word; the masks clear what a shift of a signed word drags in."""
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


@triton.jit(do_not_specialize=["this_round"])
def bid_kernel(
    words, row_word, row_width, row_open, row_example, still_open, gains, bids, best, busy, this_round, min_gain,
    BW: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gain of one candidate; where it is enough, a bid for each example it would cover."""
    i = tl.program_id(0)
    if tl.load(gains + i) < min_gain:  # gains never rise
        return
    mine, there = words + tl.load(row_word + i), still_open + tl.load(row_open + i)
    width = tl.load(row_width + i)
    total = tl.zeros((BC,), dtype=tl.int64)
    for start in range(0, width, BC):
        at = start + tl.arange(0, BC)
        now = tl.load(mine + at, mask=at < width, other=0) & tl.load(there + at, mask=at < width, other=0)
        total += bits_set(now)
    gain = tl.sum(total, axis=0)
    tl.store(gains + i, gain.to(tl.int32))
    if gain < min_gain:
        tl.store(bids + i, -1)
        return
    tl.store(busy, this_round)
    bid = (this_round.to(tl.int64) << 48) | (gain << 24) | (16777215 - i).to(tl.int64)
    tl.store(bids + i, bid)
    example = best + tl.load(row_example + i)
    bit = tl.arange(0, 64).to(tl.int64)
    for start in range(0, width, BW):
        at = start + tl.arange(0, BW)
        now = tl.load(mine + at, mask=at < width, other=0) & tl.load(there + at, mask=at < width, other=0)
        if tl.max((now != 0).to(tl.int32), axis=0) > 0:
            covered = ((now[:, None] >> bit[None, :]) & 1) != 0
            standing = example + at.to(tl.int64)[:, None] * 64 + bit[None, :]
            higher = covered & (tl.load(standing, mask=covered, other=0) < bid)
            tl.atomic_max(standing, tl.zeros((BW, 64), dtype=tl.int64) + bid, mask=higher)


@triton.jit
def pick_kernel(
    words, row_word, row_width, row_open, row_example, still_open, open_after, gains, bids, best, gain_at_pick,
    min_gain, BW: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Pick one candidate if nobody outbids it at any example it would cover."""
    i = tl.program_id(0)
    gain = tl.load(gains + i)
    if gain < min_gain:
        return
    mine, there = words + tl.load(row_word + i), still_open + tl.load(row_open + i)
    width, bid = tl.load(row_width + i), tl.load(bids + i)
    example = best + tl.load(row_example + i)
    bit = tl.arange(0, 64).to(tl.int64)
    outbid, start = 0, 0
    while (outbid == 0) & (start < width):
        at = start + tl.arange(0, BW)
        now = tl.load(mine + at, mask=at < width, other=0) & tl.load(there + at, mask=at < width, other=0)
        if tl.max((now != 0).to(tl.int32), axis=0) > 0:
            covered = ((now[:, None] >> bit[None, :]) & 1) != 0
            standing = tl.load(example + at.to(tl.int64)[:, None] * 64 + bit[None, :], mask=covered, other=0)
            lost = (covered & (standing != bid)).to(tl.int32)
            outbid = tl.max(tl.max(lost, axis=1), axis=0)
        start += BW
    if outbid == 0:
        tl.store(gain_at_pick + i, gain)
        after = open_after + tl.load(row_open + i)
        for begin in range(0, width, BC):
            at = begin + tl.arange(0, BC)
            now = tl.load(mine + at, mask=at < width, other=0)
            tl.atomic_and(after + at, ~now, mask=(at < width) & (now != 0))


@triton.jit
def or_kernel(words, row_word, row_width, row_open, chosen, out, BC: tl.constexpr):
    """Or one chosen row into what its class covers."""
    i = tl.load(chosen + tl.program_id(0))
    mine, there, width = words + tl.load(row_word + i), out + tl.load(row_open + i), tl.load(row_width + i)
    for start in range(0, width, BC):
        at = start + tl.arange(0, BC)
        now = tl.load(mine + at, mask=at < width, other=0)
        tl.atomic_or(there + at, now, mask=(at < width) & (now != 0))
