"""Triton kernels of the greedy's rounds on a GPU, on packed bits.

`slots.cover.fused.rounds` launches them and says what they compute.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def bits_set(words):
    """Number of bits set in each 64-bit word; the masks clear what a shift of a signed word drags in."""
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


@triton.jit
def count_kernel(words, row_word, row_width, counts, gains, BC: tl.constexpr):
    """Words of one row that are not 0, and bits set in them."""
    i = tl.program_id(0)
    mine, width = words + tl.load(row_word + i), tl.load(row_width + i)
    count = tl.zeros((BC,), dtype=tl.int64)
    total = tl.zeros((BC,), dtype=tl.int64)
    for start in range(0, width, BC):
        at = start + tl.arange(0, BC)
        now = tl.load(mine + at, mask=at < width, other=0)
        count += (now != 0).to(tl.int64)
        total += bits_set(now)
    tl.store(counts + i, tl.sum(count, axis=0))
    tl.store(gains + i, tl.sum(total, axis=0).to(tl.int32))


@triton.jit
def list_kernel(words, row_word, row_width, row_open, begins, listed, places, BC: tl.constexpr):
    """The words of one row that are not 0, one after the other, and where their examples are."""
    i = tl.program_id(0)
    mine, width = words + tl.load(row_word + i), tl.load(row_width + i)
    opened, goes = tl.load(row_open + i), tl.load(begins + i)
    for start in range(0, width, BC):
        at = start + tl.arange(0, BC)
        now = tl.load(mine + at, mask=at < width, other=0)
        some = (now != 0).to(tl.int64)
        to = goes + tl.cumsum(some, axis=0) - some
        tl.store(listed + to, now, mask=some != 0)
        tl.store(places + to, (opened + at).to(tl.int32), mask=some != 0)
        goes += tl.sum(some, axis=0)


@triton.jit(do_not_specialize=["n_active", "this_round"])
def bid_kernel(
    words, places, ends, words_left, places_left, ends_left, begins, active, n_active, still_open, gains, bids, best,
    this_round, min_gain, n, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Gain of a few candidates, and what is left of their words; where it is enough, a bid for each example of them."""
    here = tl.program_id(0) * BR + tl.arange(0, BR)
    living = here < n_active
    i = tl.load(active + here, mask=living, other=0)
    living = living & (tl.load(gains + i) >= min_gain)  # gains never rise
    begin = tl.load(begins + i, mask=living, other=0)
    end = tl.load(ends + i, mask=living, other=0)
    total = tl.zeros((BR, BW), dtype=tl.int64)
    goes = begin
    for start in range(0, tl.max(end - begin, axis=0), BW):
        at = begin[:, None] + start + tl.arange(0, BW)[None, :]
        there = at < end[:, None]
        place = tl.load(places + at, mask=there, other=0)
        now = tl.load(words + at, mask=there, other=0) & tl.load(still_open + place)
        some = (now != 0).to(tl.int64)
        to = goes[:, None] + tl.cumsum(some, axis=1) - some
        tl.store(words_left + to, now, mask=some != 0)
        tl.store(places_left + to, place, mask=some != 0)
        goes += tl.sum(some, axis=1)
        total += bits_set(now)
    gain = tl.sum(total, axis=1)
    tl.store(gains + i, gain.to(tl.int32), mask=living)
    tl.store(ends_left + i, goes, mask=living)
    living = living & (gain >= min_gain)
    bid = (this_round.to(tl.int64) << 48) | (gain << 24) | (n - 1 - i)
    tl.store(bids + i, bid, mask=living)
    end = tl.where(living, end, begin)
    bit = tl.arange(0, 64).to(tl.int64)[None, None, :]
    for start in range(0, tl.max(end - begin, axis=0), BW):
        at = begin[:, None] + start + tl.arange(0, BW)[None, :]
        there = at < end[:, None]
        place = tl.load(places + at, mask=there, other=0)
        now = tl.load(words + at, mask=there, other=0) & tl.load(still_open + place)
        covered = ((now[:, :, None] >> bit) & 1) != 0
        standing = best + place.to(tl.int64)[:, :, None] * 64 + bit
        offered = tl.zeros((BR, BW, 64), dtype=tl.int64) + bid[:, None, None]
        higher = covered & (tl.load(standing, mask=covered, other=0) < offered)
        tl.atomic_max(standing, offered, mask=higher)


@triton.jit(do_not_specialize=["n_active"])
def pick_kernel(
    words, places, ends, begins, active, n_active, still_open, gains, bids, best, gain_at_pick, min_gain,
    BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Pick those of a few candidates whom nobody outbids at any example they would cover."""
    here = tl.program_id(0) * BR + tl.arange(0, BR)
    living = here < n_active
    i = tl.load(active + here, mask=living, other=0)
    gain = tl.load(gains + i)
    living = living & (gain >= min_gain)
    begin = tl.load(begins + i, mask=living, other=0)
    end = tl.load(ends + i, mask=living, other=0)
    bid = tl.load(bids + i)
    bit = tl.arange(0, 64).to(tl.int64)[None, None, :]
    outbid = tl.where(living, 0, 1)
    for start in range(0, tl.max(end - begin, axis=0), BW):
        at = begin[:, None] + start + tl.arange(0, BW)[None, :]
        there = (at < end[:, None]) & (outbid == 0)[:, None]
        place = tl.load(places + at, mask=there, other=0)
        now = tl.load(words + at, mask=there, other=0)
        covered = ((now[:, :, None] >> bit) & 1) != 0
        standing = tl.load(best + place.to(tl.int64)[:, :, None] * 64 + bit, mask=covered, other=0)
        lost = (covered & (standing != bid[:, None, None])).to(tl.int32)
        outbid = tl.maximum(outbid, tl.max(tl.max(lost, axis=2), axis=1))
    won = outbid == 0
    tl.store(gain_at_pick + i, gain, mask=won)
    end = tl.where(won, end, begin)
    for start in range(0, tl.max(end - begin, axis=0), BW):
        at = begin[:, None] + start + tl.arange(0, BW)[None, :]
        there = at < end[:, None]
        place = tl.load(places + at, mask=there, other=0)
        tl.atomic_and(still_open + place, ~tl.load(words + at, mask=there, other=0), mask=there)


@triton.jit
def or_kernel(words, row_word, row_width, row_open, chosen, out, BC: tl.constexpr):
    """Or one chosen row into what its class covers."""
    i = tl.load(chosen + tl.program_id(0))
    mine, there, width = words + tl.load(row_word + i), out + tl.load(row_open + i), tl.load(row_width + i)
    for start in range(0, width, BC):
        at = start + tl.arange(0, BC)
        now = tl.load(mine + at, mask=at < width, other=0)
        tl.atomic_or(there + at, now, mask=(at < width) & (now != 0))
