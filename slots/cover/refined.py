"""Set cover refined by local search from the greedy one."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from slots.cover.bits import CoverBlock, as_words
from slots.cover.greedy import NO_LIMIT, all_open, as_matrix, greedy_order, whole_block
from slots.cover.kernels import (
    Ints,
    SparseCoverage,
    Words,
    greedy_rows,
    rarest_first,
    reverse_delete,
    sparse_coverage,
    sparse_rows,
)
from slots.cover.reductions import Component, reduce_cover
from slots.cover.search import ComponentSearch, search_components
from slots.shapes import Covers


def refined_set_cover(
    covers: Covers | npt.NDArray[np.bool_],
    *,
    time_budget_s: float = 1.0,
    seed: int = 0,
    max_steps: int | None = None,
) -> Int[Tensor, " slot"]:
    """Cover everything that can be covered with fewer candidates than greedy, given time.

    Forced picks and dominated candidates and examples are settled first; the parts that are left are searched one by
    one, from the better of two constructions: greedy, and rarest example first.

    Parameters
    ----------
    covers : bool tensor or array of shape (candidate, example)
        ``covers[i, j]`` is true when candidate ``i`` covers example ``j``.
    time_budget_s : float, default 1.0
        Seconds from the call, less those that compiling takes once on a machine, after which no further class is
        reduced and no further search step is taken (>= 0). With 0 there are no reductions and no search: only the two
        constructions, each without what it turned out not to need.
    seed : int, default 0
        Start of the search's random numbers (>= 0).
    max_steps : int, optional
        Search steps each independent part may take (count, >= 0).

    Returns
    -------
    int64 tensor of shape (slot,)
        Candidate indices, those first that cover most of what is still open, on the device of ``covers``. Never more
        than `greedy_set_cover` needs.

    Raises
    ------
    ValueError
        If ``covers`` is not a bool matrix or a number is out of its range.

    Notes
    -----
    The search is row weighting [1]_, or by swaps [2]_ in parts where candidates and examples meet rarely. It ends
    before the budget does when every part is proved smallest, or has gone 100,000 steps and 1,000 for each of its
    candidates without progress, or ``max_steps`` in all; then the picks depend on the input and the seed alone. When
    the clock ends it they depend on the machine's speed too: for picks that repeat pass ``max_steps`` and
    ``time_budget_s=math.inf``. It runs on the CPU wherever ``covers`` is.

    References
    ----------
    .. [1] C. Gao, T. Weise, J. Li, "An efficient local search heuristic with row weighting for the unicost set covering
       problem", European Journal of Operational Research 246, 2015.
    .. [2] W. Lin, F. Ma, Z. Su, Q. Zhang, C. Li, Z. Lü, "Weighting-based parallel local search for optimal camera
       placement and unicost set covering", GECCO Companion, 2020; here in one thread.

    Examples
    --------
    >>> from slots.cover import greedy_set_cover
    >>> covers = torch.tensor(
    ...     [[True, True, True, True, False, False], [True, True, False, False, True, False],
    ...      [False, False, True, True, False, True]])
    >>> greedy_set_cover(covers), refined_set_cover(covers)
    (tensor([0, 1, 2]), tensor([1, 2]))
    """
    matrix = as_matrix(covers)
    picks = refined_set_cover_packed(
        [whole_block(matrix.cpu())], time_budget_s=time_budget_s, seed=seed, max_steps=max_steps
    )
    return picks.to(matrix.device)


def refined_set_cover_packed(
    blocks: Sequence[CoverBlock], *, time_budget_s: float = 1.0, seed: int = 0, max_steps: int | None = None
) -> Int[Tensor, " slot"]:
    """`refined_set_cover` of a matrix that is block diagonal by class, given as packed bits.

    Parameters
    ----------
    blocks : sequence of CoverBlock
        No candidate and no example stands in two of them.
    time_budget_s, seed, max_steps
        As in `refined_set_cover`; the time is for all blocks together.

    Returns
    -------
    int64 tensor of shape (slot,)
        Places of candidates in the whole set.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    check_search(time_budget_s, seed, max_steps)
    if time_budget_s > 0:
        compile_search()
    deadline = time.perf_counter() + time_budget_s
    all_listed = [_SparseBlock.of(block) for block in blocks]
    chosen = [block.constructed() for block in all_listed]
    if time_budget_s > 0:
        reduced = [block.reduced(deadline) for block in all_listed]
        late = time.perf_counter() >= deadline
        parts = [] if late else [component for _, part in reduced for component in part]
        covers = iter(search_components(parts, deadline=deadline, seed=seed, max_steps=max_steps))
        for n, (forced, part) in enumerate(reduced):
            if not late or not part:
                found = np.concatenate([forced, *(next(covers) for _ in part)])
                chosen[n] = min(chosen[n], found, key=len)
    return _most_useful_first(all_listed, chosen)


@cache
def compile_search() -> None:
    """Compile, or read from disk, all that a search needs, on three candidates of which no reduction settles anything.

    A machine that runs it for the first time would else spend its first budget on the compiler.
    """
    odd_cycle = _SparseBlock.of(
        whole_block(torch.tensor([[True, True, False], [False, True, True], [True, False, True]]))
    )
    cover = odd_cycle.constructed()
    _, components = odd_cycle.reduced(math.inf)
    search_components(components, deadline=math.inf, seed=0, max_steps=0)
    for by_swaps in (False, True):
        ComponentSearch.of(components[0], 0, by_swaps=by_swaps).advance(1)
    _most_useful_first([odd_cycle], [cover])


@dataclass(frozen=True)
class _SparseBlock:
    """A block with the lists of its set bits."""

    block: CoverBlock
    rows: Words
    cover: SparseCoverage

    @classmethod
    def of(cls, block: CoverBlock) -> _SparseBlock:
        rows = as_words(block.words.cpu())
        return cls(block, rows, sparse_coverage(*sparse_rows(rows), len(block.examples)))

    def constructed(self) -> Ints:
        """The smaller of the greedy and the rarest-example-first cover, without what they do not need."""
        order = np.argsort(np.diff(self.cover.column_starts), kind="stable")
        greedy, _ = greedy_rows(self.rows, all_open(self.rows), 1, NO_LIMIT, NO_LIMIT)
        rarest = rarest_first(self.cover, order)
        return min((reverse_delete(self.cover, picks) for picks in (greedy, rarest)), key=len)

    def reduced(self, deadline: float) -> tuple[Ints, list[Component]]:
        """Forced picks and what is left to search."""
        return reduce_cover(self.rows, self.cover, deadline=deadline)


def _most_useful_first(blocks: Sequence[_SparseBlock], chosen: Sequence[Ints]) -> Tensor:
    """The chosen candidates of all blocks in the order in which a greedy would take them."""
    picks, gains = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    for one, found in zip(blocks, chosen, strict=True):
        ids = np.sort(found)
        rows = one.rows[ids]
        order, gains_there = greedy_rows(rows, all_open(rows), 1, NO_LIMIT, NO_LIMIT)
        picks.append(one.block.candidates.cpu()[torch.from_numpy(ids[order])])
        gains.append(torch.from_numpy(gains_there))
    all_picks = torch.cat(picks)
    return all_picks[greedy_order(all_picks, torch.cat(gains))]


def check_search(time_budget_s: float, seed: int, max_steps: int | None) -> None:
    """Raise for numbers of the search outside their range."""
    if not time_budget_s >= 0:
        raise ValueError(f"`time_budget_s` must be at least 0, got {time_budget_s}. 0 means no search.")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}. Any other whole number will do.")
    if max_steps is not None and max_steps < 0:
        raise ValueError(f"`max_steps` must be at least 0, got {max_steps}. Leave it out for no bound.")
