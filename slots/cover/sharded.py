"""Greedy coverage of examples that lie in many shards: the same picks as of all at once, one shard in memory at a time.

Every shard holds the same candidates, as packed rows over its own examples (`slots.cover.bits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from slots.cover.kernels import Words, open_counts
from slots.shapes import Ids

_AT_ONCE = 32  # candidates whose gains are looked up again in one go over the shards: opening a file costs more


class PackedShard(Protocol):
    """Packed rows (candidate, word) that may lie on the disk; an array of 64-bit words is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Candidates and words."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Rows in memory: one by its number, some by an array of numbers, or all by ``[:]``."""


class Coverage(NamedTuple):
    """How much some picks cover, and how much others could.

    Parameters
    ----------
    gains : int64 array of shape (pick,)
        Examples that each pick covers and none before it does.
    next_gain : int
        Most that one pick more would cover.
    bound : int
        No choice of as many candidates covers more.
    """

    gains: Ids
    next_gain: int
    bound: int


def greedy_over_shards(shards: Sequence[PackedShard], *, min_gain: int = 1, max_slots: int | None = None) -> Ids:
    """Pick few candidates that together cover most examples of all shards.

    Parameters
    ----------
    shards : sequence of PackedShard
        Of the same candidates in the same order.
    min_gain : int, default 1
        Open examples that a pick must cover (count, >= 1).
    max_slots : int, optional
        Most picks (count, >= 0). Default: no bound.

    Returns
    -------
    int64 array of shape (pick,)
        Candidates in the order of picking: what `slots.cover.greedy_set_cover_packed` picks from all examples in one
        block, ties to the lowest candidate.

    Notes
    -----
    Lazy greedy (Minoux 1978): gains only fall, so the last one known is an upper bound, and who is best by a gain that
    is up to date is best. One whole shard is read at a time for the first gains, then only rows of candidates that may
    be best. What stays in memory is one bit an example and two numbers a candidate.
    """
    limit = np.inf if max_slots is None else max_slots
    bounds = np.zeros(shards[0].shape[0] if shards else 0, np.int64)
    left = [_all_open(shard) for shard in shards]
    for shard, words in zip(shards, left, strict=True):
        bounds += open_counts(shard[:], words)
    picks: list[int] = []
    known = np.ones(len(bounds), bool)
    while len(bounds) and len(picks) < limit:
        best = int(bounds.argmax())
        if bounds[best] < min_gain:
            break
        if not known[best]:
            stale = np.flatnonzero(~known)
            first = np.sort(stale[np.argsort(-bounds[stale], kind="stable")[:_AT_ONCE]])
            bounds[first] = sum(open_counts(shard[first], words) for shard, words in zip(shards, left, strict=True))
            known[first] = True
            continue
        picks.append(best)
        for place, shard in enumerate(shards):
            left[place] &= ~shard[best]
        known[:] = False
        bounds[best], known[best] = 0, True
    return np.array(picks, np.int64)


def coverage_of(shards: Sequence[PackedShard], picks: Ids, n_examples: int) -> Coverage:
    """What picks cover, and a bound on what others could; reads each shard once.

    Parameters
    ----------
    shards : sequence of PackedShard
        Of the same candidates in the same order.
    picks : int64 array of shape (pick,)
        Candidates.
    n_examples : int
        Of all shards (count).

    Returns
    -------
    Coverage

    Notes
    -----
    For any set ``S``, what ``S`` covers plus the ``n`` largest gains over ``S`` bounds every choice of ``n``
    (Nemhauser, Wolsey and Fisher 1978); the least over none, a quarter, half and all of the picks is taken.
    """
    n = len(picks)
    looked_at = sorted({0, n // 4, n // 2, n})
    margins = np.zeros((len(looked_at), shards[0].shape[0] if shards else 0), np.int64)
    gains = np.zeros(n, np.int64)
    for shard in shards:
        rows, left = shard[:], _all_open(shard)
        for place in range(n + 1):
            if place in looked_at:
                margins[looked_at.index(place)] += open_counts(rows, left)
            if place < n:
                mine = rows[picks[place]]
                gains[place] += open_counts(mine[None], left)[0]
                left &= ~mine
    bounds = [
        int(gains[:place].sum() + np.sort(margin)[::-1][:n].sum())
        for place, margin in zip(looked_at, margins, strict=True)
    ]
    return Coverage(gains, int(margins[-1].max(initial=0)), min(n_examples, *bounds))


def first_covers(rows: Words, n_examples: int) -> Ids:
    """Which of some picks covers each example first.

    Parameters
    ----------
    rows : uint64 array of shape (pick, word)
        Packed rows in the order of picking.
    n_examples : int
        Columns wanted; at most 64 a word.

    Returns
    -------
    int64 array of shape (example,)
        Place of the pick; -1 where none covers the example.
    """
    found = np.full(n_examples, -1, np.int64)
    for place in range(len(rows) - 1, -1, -1):
        octets: npt.NDArray[np.uint8] = np.ascontiguousarray(rows[place]).view(np.uint8)
        found[np.unpackbits(octets, count=n_examples, bitorder="little").astype(bool)] = place
    return found


def _all_open(shard: PackedShard) -> Words:
    return np.full(shard.shape[1], np.iinfo(np.uint64).max, np.uint64)
