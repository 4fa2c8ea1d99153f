"""What can be settled about a cover without searching: forced picks, dominated candidates, dominated examples.

An example that one candidate alone covers forces that candidate. A candidate whose open examples are all covered by
another is never needed. An example whose candidates include all those of another is covered whenever that other is.
Each step makes room for the next; what is left falls into components that share nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from slots.cover.kernels import Flags, Ints, Lists, SparseCoverage, Words, sparse_coverage
from slots.jit import compiled

_ZERO = np.uint64(0)


@dataclass(frozen=True)
class Component:
    """An independent part of a reduced cover.

    Parameters
    ----------
    candidates : int64 array of shape (candidate,)
        Their places in the block.
    starts, lists : int64 and int32 arrays
        Candidate ``i`` (of the component) covers examples ``lists[starts[i]:starts[i + 1]]`` (of the component).
    n_examples : int
        Examples that it covers, numbered from 0 in ``lists`` (count).
    """

    candidates: Ints
    starts: Ints
    lists: Lists
    n_examples: int


def reduce_cover(rows: Words, cover: SparseCoverage, *, deadline: float = math.inf) -> tuple[Ints, list[Component]]:
    """Settle what can be settled; returns the forced picks, ascending, and the independent parts that are left.

    ``rows`` and ``cover`` are the same coverage, packed and listed. After ``deadline`` (on `time.perf_counter`) no
    further round begins; what is left then is larger than it need be, and as valid.
    """
    candidates = np.arange(len(rows))
    settled = [candidates[:0]]
    changed = True
    while changed and time.perf_counter() < deadline:
        by_column = SparseCoverage(cover.column_starts, cover.column_lists, cover.starts, cover.lists)
        columns = packed_lists(cover.column_starts, cover.column_lists, len(rows))
        alive, open_examples = np.ones(len(rows), np.bool_), np.diff(cover.column_starts) > 0
        forced = np.zeros(len(rows), np.bool_)
        changed = drop_dominated(rows, cover, alive, open_examples, False) > 0
        changed |= drop_dominated(columns, by_column, open_examples, alive, True) > 0
        changed |= take_forced(cover, alive, open_examples, forced) > 0
        settled.append(candidates[forced])
        candidates, cover = candidates[alive], _living(cover, alive, open_examples)
        rows = packed_lists(cover.starts, cover.lists, len(cover.column_starts) - 1)
    return np.sort(np.concatenate(settled)), _components(candidates, cover)


def _living(cover: SparseCoverage, alive: Flags, open_examples: Flags) -> SparseCoverage:
    """The living rows and columns, numbered anew: later rounds work on little."""
    owners = np.repeat(np.arange(len(alive)), np.diff(cover.starts))
    left = alive[owners] & open_examples[cover.lists]
    sizes = np.bincount(owners[left], minlength=len(alive))[alive]
    names = np.cumsum(open_examples, dtype=np.int32) - np.int32(1)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return sparse_coverage(starts, names[cover.lists[left]], int(open_examples.sum()))


@compiled
def packed_flags(flags: Flags) -> Words:
    """Flags as the words of one packed row."""
    words = np.zeros((len(flags) + 63) >> 6, np.uint64)
    for j in range(len(flags)):
        if flags[j]:
            words[j >> 6] |= np.uint64(1) << np.uint64(j & 63)
    return words


@compiled
def packed_lists(starts: Ints, lists: Lists, n_columns: int) -> Words:
    """Packed rows from lists of their set bits."""
    rows = np.zeros((len(starts) - 1, (n_columns + 63) >> 6), np.uint64)
    for i in range(len(starts) - 1):
        for place in range(starts[i], starts[i + 1]):
            j = lists[place]
            rows[i, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
    return rows


@compiled
def subset(small: Words, large: Words, alive: Words) -> bool:
    """Whether every living bit of one row is set in another."""
    for w in range(len(alive)):  # noqa: SIM110  (numba compiles no generators)
        if small[w] & alive[w] & ~large[w] != _ZERO:
            return False
    return True


@compiled
def living_sizes(cover: SparseCoverage, alive: Flags, columns_alive: Flags) -> tuple[Ints, Ints]:
    """Living columns of each living row, and living rows of each living column."""
    sizes = np.zeros(len(alive), np.int64)
    degrees = np.zeros(len(columns_alive), np.int64)
    for i in range(len(alive)):
        if alive[i]:
            for place in range(cover.starts[i], cover.starts[i + 1]):
                if columns_alive[cover.lists[place]]:
                    sizes[i] += 1
                    degrees[cover.lists[place]] += 1
    return sizes, degrees


@compiled
def drop_dominated(rows: Words, cover: SparseCoverage, alive: Flags, columns_alive: Flags, drop_larger: bool) -> int:
    """Of two living rows, one a subset of the other on the living columns, drop the subset (or the superset).

    Of equal rows the first stays. A row is compared only with those that share its rarest column, for any superset
    must. A row without living columns goes. Returns how many went.
    """
    sizes, degrees = living_sizes(cover, alive, columns_alive)
    words_alive = packed_flags(columns_alive)
    n_living = alive.sum()
    for i in range(len(alive)):
        if not alive[i]:
            continue
        rarest = -1
        for place in range(cover.starts[i], cover.starts[i + 1]):
            j = cover.lists[place]
            if columns_alive[j] and (rarest < 0 or degrees[j] < degrees[rarest]):
                rarest = j
        if rarest < 0:
            alive[i] = False
            continue
        for place in range(cover.column_starts[rarest], cover.column_starts[rarest + 1]):
            k = cover.column_lists[place]
            loses_tie = i < k if drop_larger else k < i
            larger = sizes[k] > sizes[i] or (sizes[k] == sizes[i] and loses_tie)
            if k != i and larger and alive[k] and subset(rows[i], rows[k], words_alive):
                alive[k if drop_larger else i] = False
                if not drop_larger:
                    break
    return int(n_living - alive.sum())


@compiled
def take_forced(cover: SparseCoverage, alive: Flags, open_examples: Flags, forced: Flags) -> int:
    """Pick candidates that alone cover an open example, and close what they cover; returns how many."""
    n_forced = 0
    for j in range(len(open_examples)):
        if not open_examples[j]:
            continue
        only, n_living = -1, 0
        for place in range(cover.column_starts[j], cover.column_starts[j + 1]):
            if alive[cover.column_lists[place]]:
                only = cover.column_lists[place]
                n_living += 1
        if n_living == 1:
            forced[only] = True
            alive[only] = False
            n_forced += 1
            for place in range(cover.starts[only], cover.starts[only + 1]):
                open_examples[cover.lists[place]] = False
    return n_forced


@compiled
def component_labels(cover: SparseCoverage) -> Ints:
    """A number for each row: equal where rows are linked through shared columns."""
    n = len(cover.starts) - 1
    labels = np.full(n, -1, np.int64)
    seen = np.zeros(len(cover.column_starts) - 1, np.bool_)
    stack = np.empty(n, np.int64)
    n_labels = 0
    for first in range(n):
        if labels[first] >= 0:
            continue
        labels[first] = n_labels
        stack[0] = first
        depth = 1
        while depth:
            depth -= 1
            i = stack[depth]
            for place in range(cover.starts[i], cover.starts[i + 1]):
                j = cover.lists[place]
                if seen[j]:
                    continue
                seen[j] = True
                for other in range(cover.column_starts[j], cover.column_starts[j + 1]):
                    k = cover.column_lists[other]
                    if labels[k] < 0:
                        labels[k] = n_labels
                        stack[depth] = k
                        depth += 1
        n_labels += 1
    return labels


def _components(candidates: Ints, cover: SparseCoverage) -> list[Component]:
    """Split what is left into parts that share nothing, each with its own numbering."""
    labels = component_labels(cover)
    parts = []
    by_label = np.argsort(labels, kind="stable")
    for members in np.split(by_label, np.cumsum(np.bincount(labels))[:-1]) if len(labels) else []:
        own = np.concatenate([cover.lists[cover.starts[i] : cover.starts[i + 1]] for i in members])
        if len(own) == 0:  # a candidate that covers nothing (more), where reductions were cut short
            continue
        mine, renumbered = np.unique(own, return_inverse=True)
        starts = np.concatenate([[0], np.cumsum(np.diff(cover.starts)[members])]).astype(np.int64)
        parts.append(Component(candidates[members], starts, renumbered.astype(np.int32), len(mine)))
    return parts
