"""Compiled loops of the set cover: the greedy over bit-packed rows.

A *row* is one candidate's coverage as 64-bit words; ``uncovered`` is the same for the examples still open. Kernels
are compiled at their first call and kept on disk where that is possible.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from slots.jit import compiled

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Lists = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class SparseCoverage(NamedTuple):
    """Sparse coverage, compressed by row (CSR) and by column (CSC).

    Rows are candidates and columns the examples that they cover; in compiled loops the two may change places.
    Row ``i`` has columns ``lists[starts[i]:starts[i + 1]]``, column ``j`` has rows
    ``column_lists[column_starts[j]:column_starts[j + 1]]``; both ascend.
    """

    starts: Ints
    lists: Lists
    column_starts: Ints
    column_lists: Lists


_ONE = np.uint64(1)
_ZERO = np.uint64(0)


def _count_bits(_context: Any, word: Any) -> Any:
    """Number of set bits of a 64-bit word: one machine instruction, vectorised in loops."""

    def build(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(word), build


def _lowest_bit(_context: Any, word: Any) -> Any:
    """Place of the lowest set bit of a word that is not zero."""

    def build(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], numba.core.cgutils.true_bit)

    return types.int64(word), build


count_bits: Any = intrinsic(_count_bits)
lowest_bit: Any = intrinsic(_lowest_bit)


@compiled
def open_counts(rows: Words, uncovered: Words) -> Ints:
    """How many open examples each of bit-packed rows covers."""
    n, width = rows.shape
    counts = np.zeros(n, np.int64)
    for i in range(n):
        for w in range(width):
            counts[i] += count_bits(rows[i, w] & uncovered[w])
    return counts


@compiled
def greedy_rows(rows: Words, uncovered: Words, min_gain: int, max_slots: int, target: int) -> tuple[Ints, Ints]:
    """Exact greedy set cover of bit-packed rows; marks what it covers in ``uncovered``.

    Candidates wait in buckets by the last gain known, an upper bound since gains only fall. The buckets are walked
    from the top; in one bucket candidates are looked at in the order of their index, each gain is computed anew, and
    a candidate is picked when it still has the gain of its bucket: nobody has more, and nobody before it as much.

    Returns the picks in order, with the gain of each; stops after ``max_slots`` picks, or with ``target`` examples
    covered, or when no gain reaches ``min_gain`` (>= 1).
    """
    n, width = rows.shape
    gains = np.empty(n, np.int64)
    for i in range(n):
        gain = 0
        for w in range(width):
            gain += count_bits(rows[i, w] & uncovered[w])
        gains[i] = gain
    top = gains.max() if n else 0
    head = np.full(top + 1, -1, np.int64)
    following = np.empty(n, np.int64)
    for i in range(n):
        following[i] = head[gains[i]]
        head[gains[i]] = i
    picks = np.empty(n, np.int64)
    marks = np.zeros((n + 63) >> 6, np.uint64)
    n_picks = 0
    covered = 0
    for level in range(top, min_gain - 1, -1):
        if head[level] < 0:
            continue
        i = head[level]
        while i >= 0:  # a set of bits sorts the bucket by index
            marks[i >> 6] |= _ONE << np.uint64(i & 63)
            i = following[i]
        for block in range(len(marks)):
            word = marks[block]
            marks[block] = _ZERO
            while word != _ZERO:
                i = (block << 6) + lowest_bit(word)
                word &= word - _ONE
                gain = 0
                for w in range(width):
                    gain += count_bits(rows[i, w] & uncovered[w])
                if gain < level:
                    following[i] = head[gain]
                    head[gain] = i
                    continue
                if n_picks >= max_slots or covered >= target:
                    return picks[:n_picks].copy(), gains[:n_picks].copy()
                for w in range(width):
                    uncovered[w] &= ~rows[i, w]
                covered += gain
                picks[n_picks] = i
                gains[n_picks] = gain  # the first gains are no longer needed; reuse their place
                n_picks += 1
    return picks[:n_picks].copy(), gains[:n_picks].copy()


@compiled
def sparse_rows(rows: Words) -> tuple[Ints, Lists]:
    """Lists of set bits: where each row's list starts (and the last ends), and the lists one after the other."""
    n, width = rows.shape
    starts = np.zeros(n + 1, np.int64)
    for i in range(n):
        count = 0
        for w in range(width):
            count += count_bits(rows[i, w])
        starts[i + 1] = starts[i] + count
    lists = np.empty(starts[n], np.int32)
    for i in range(n):
        place = starts[i]
        for w in range(width):
            word = rows[i, w]
            while word != _ZERO:
                lists[place] = (w << 6) + lowest_bit(word)
                place += 1
                word &= word - _ONE
    return starts, lists


@compiled
def transposed(starts: Ints, lists: Lists, n_columns: int) -> tuple[Ints, Lists]:
    """The same pairs listed by column; each list ascends."""
    column_starts = np.zeros(n_columns + 1, np.int64)
    for place in range(len(lists)):
        column_starts[lists[place] + 1] += 1
    for j in range(n_columns):
        column_starts[j + 1] += column_starts[j]
    free = column_starts[:-1].copy()
    column_lists = np.empty(len(lists), np.int32)
    for i in range(len(starts) - 1):
        for place in range(starts[i], starts[i + 1]):
            j = lists[place]
            column_lists[free[j]] = i
            free[j] += 1
    return column_starts, column_lists


def sparse_coverage(starts: Ints, lists: Lists, n_columns: int) -> SparseCoverage:
    """Both ways round, from the lists by row."""
    return SparseCoverage(starts, lists, *transposed(starts, lists, n_columns))


@compiled
def rarest_first(cover: SparseCoverage, order: Ints) -> Ints:
    """Cover: for each example in ``order`` still open, the candidate of the largest gain (lowest index) that has it."""
    gains = cover.starts[1:] - cover.starts[:-1]
    covered = np.zeros(len(cover.column_starts) - 1, np.bool_)
    picks = np.empty(len(gains), np.int64)
    n_picks = 0
    for j in order:
        if covered[j] or cover.column_starts[j] == cover.column_starts[j + 1]:
            continue
        best = np.int64(cover.column_lists[cover.column_starts[j]])
        for place in range(cover.column_starts[j] + 1, cover.column_starts[j + 1]):
            if gains[cover.column_lists[place]] > gains[best]:
                best = np.int64(cover.column_lists[place])
        picks[n_picks] = best
        n_picks += 1
        for place in range(cover.starts[best], cover.starts[best + 1]):
            e = cover.lists[place]
            if not covered[e]:
                covered[e] = True
                for other in range(cover.column_starts[e], cover.column_starts[e + 1]):
                    gains[cover.column_lists[other]] -= 1
    return picks[:n_picks].copy()


@compiled
def reverse_delete(cover: SparseCoverage, picks: Ints) -> Ints:
    """Drop, from the last pick to the first, those whose examples the others cover too."""
    counts = np.zeros(len(cover.column_starts) - 1, np.int64)
    for i in picks:
        for place in range(cover.starts[i], cover.starts[i + 1]):
            counts[cover.lists[place]] += 1
    keep = np.ones(len(picks), np.bool_)
    for p in range(len(picks) - 1, -1, -1):
        i = picks[p]
        needed = False
        for place in range(cover.starts[i], cover.starts[i + 1]):
            if counts[cover.lists[place]] == 1:
                needed = True
                break
        if not needed:
            keep[p] = False
            for place in range(cover.starts[i], cover.starts[i + 1]):
                counts[cover.lists[place]] -= 1
    return picks[keep]
