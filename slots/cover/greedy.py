"""Greedy set cover: few candidates that together match every example.

Greedy picks are canonical: integer gains, ties to the lowest index. So equal input gives equal output on a CPU, on a
GPU and on any number of processes.
"""

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

from slots.cover.coverage import CoverBlock, as_words, has_fused_kernels, pack_bits, unpack_bits
from slots.cover.kernels import Ints, Listed, Words, greedy_rows, listed, rarest_first, reverse_delete, sparse_rows
from slots.cover.local_search import search_components
from slots.cover.parallel import greedy_rounds
from slots.cover.reductions import Component, reduce_cover
from slots.shapes import Covers

_NO_LIMIT = np.iinfo(np.int64).max


def greedy_set_cover(
    covers: Covers | npt.NDArray[np.bool_],
    *,
    max_slots: int | None = None,
    min_gain: int = 1,
    coverage: float = 1.0,
) -> Int[Tensor, " slot"]:
    """Pick few candidates that together cover every example that can be covered.

    At each step take the candidate that covers most examples still open; ties go to the lowest index.

    Parameters
    ----------
    covers : bool tensor or array of shape (candidate, example)
        ``covers[i, j]`` is true when candidate ``i`` covers example ``j``.
    max_slots : int, optional
        Upper bound on the number of picks (count, >= 1). Default: no bound.
    min_gain : int, default 1
        Open examples that a pick must cover (count, >= 1).
    coverage : float in (0, 1], default 1.0
        Stop when this share of all examples is covered.

    Returns
    -------
    int64 tensor of shape (slot,)
        Candidate indices in the order of picking, on the device of ``covers``; empty when nothing can be covered.

    Raises
    ------
    ValueError
        If ``covers`` is not a bool matrix or a limit is out of its range.

    Notes
    -----
    At most ``1 + ln(n)`` times as many as needed, ``n`` the most examples a candidate covers [1]_. On the CPU: packed
    bits and lazy gains; elsewhere: parallel rounds, with the same picks in the same order.

    References
    ----------
    .. [1] V. Chvatal, "A greedy heuristic for the set-covering problem", Mathematics of Operations Research 4, 1979.

    Examples
    --------
    >>> greedy_set_cover(torch.tensor([[True, True, False], [False, False, True]]))
    tensor([0, 1])
    """
    matrix = _matrix(covers)
    return greedy_set_cover_packed([_whole(matrix)], max_slots=max_slots, min_gain=min_gain, coverage=coverage)


def greedy_set_cover_packed(
    blocks: Sequence[CoverBlock],
    *,
    max_slots: int | None = None,
    min_gain: int = 1,
    coverage: float = 1.0,
) -> Int[Tensor, " slot"]:
    """`greedy_set_cover` of a matrix that is block diagonal by class, given as packed bits.

    Parameters
    ----------
    blocks : sequence of CoverBlock
        No candidate and no example stands in two of them; all on one device.
    max_slots, min_gain, coverage
        As in `greedy_set_cover`; ``coverage`` is a share of the examples in all blocks together.

    Returns
    -------
    int64 tensor of shape (slot,)
        Places of candidates in the whole set: what `greedy_set_cover` picks from the whole matrix, in its order.

    Raises
    ------
    ValueError
        If a limit is out of its range.
    """
    check_limits(max_slots, min_gain, coverage)
    if not blocks:
        return torch.zeros(0, dtype=torch.long)
    target = _target(coverage, sum(len(block.examples) for block in blocks))
    limit = _NO_LIMIT if max_slots is None else max_slots
    if _on_cpu(blocks):
        only = len(blocks) == 1
        found = [
            _greedy_block(block, min_gain=min_gain, max_slots=limit, target=target if only else _NO_LIMIT)
            for block in blocks
        ]
        picks, gains = (torch.cat(column) for column in zip(*found, strict=True))
    else:
        picks, gains = _greedy_blocks_rounds(blocks, min_gain)
    order = _greedy_order(picks, gains)
    picks, gains = picks[order][:limit], gains[order][:limit]
    return picks[gains.cumsum(0) - gains < target]


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
    The search is row weighting [1]_. It ends before the budget does when every part is proved smallest, or has gone
    100,000 steps and 1,000 for each of its candidates without progress, or ``max_steps`` in all; then the picks depend
    on the input and the seed alone. When the clock ends it they depend on the machine's speed too: for picks that
    repeat pass ``max_steps`` and ``time_budget_s=math.inf``. It runs on the CPU wherever ``covers`` is.

    References
    ----------
    .. [1] C. Gao, T. Weise, J. Li, "An efficient local search heuristic with row weighting for the unicost set covering
       problem", European Journal of Operational Research 246, 2015.

    Examples
    --------
    >>> covers = torch.tensor(
    ...     [[True, True, True, True, False, False], [True, True, False, False, True, False],
    ...      [False, False, True, True, False, True]])
    >>> greedy_set_cover(covers), refined_set_cover(covers)
    (tensor([0, 1, 2]), tensor([1, 2]))
    """
    matrix = _matrix(covers)
    picks = refined_set_cover_packed(
        [_whole(matrix.cpu())], time_budget_s=time_budget_s, seed=seed, max_steps=max_steps
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
    all_listed = [_ListedBlock.of(block) for block in blocks]
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
    odd_cycle = _ListedBlock.of(_whole(torch.tensor([[True, True, False], [False, True, True], [True, False, True]])))
    cover = odd_cycle.constructed()
    _, components = odd_cycle.reduced(math.inf)
    search_components(components, deadline=math.inf, seed=0, max_steps=1)
    _most_useful_first([odd_cycle], [cover])


@dataclass(frozen=True)
class _ListedBlock:
    """A block with the lists of its set bits."""

    block: CoverBlock
    rows: Words
    cover: Listed

    @classmethod
    def of(cls, block: CoverBlock) -> _ListedBlock:
        rows = as_words(block.words.cpu())
        return cls(block, rows, listed(*sparse_rows(rows), len(block.examples)))

    def constructed(self) -> Ints:
        """The smaller of the greedy and the rarest-example-first cover, without what they do not need."""
        order = np.argsort(np.diff(self.cover.column_starts), kind="stable")
        greedy, _ = greedy_rows(self.rows, _all_open(self.rows), 1, _NO_LIMIT, _NO_LIMIT)
        rarest = rarest_first(self.cover, order)
        return min((reverse_delete(self.cover, picks) for picks in (greedy, rarest)), key=len)

    def reduced(self, deadline: float) -> tuple[Ints, list[Component]]:
        """Forced picks and what is left to search."""
        return reduce_cover(self.rows, self.cover, deadline=deadline)


def _most_useful_first(blocks: Sequence[_ListedBlock], chosen: Sequence[Ints]) -> Tensor:
    """The chosen candidates of all blocks in the order in which a greedy would take them."""
    picks, gains = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    for one, found in zip(blocks, chosen, strict=True):
        ids = np.sort(found)
        rows = one.rows[ids]
        order, gains_there = greedy_rows(rows, _all_open(rows), 1, _NO_LIMIT, _NO_LIMIT)
        picks.append(one.block.candidates.cpu()[torch.from_numpy(ids[order])])
        gains.append(torch.from_numpy(gains_there))
    all_picks = torch.cat(picks)
    return all_picks[_greedy_order(all_picks, torch.cat(gains))]


def _greedy_order(picks: Tensor, gains: Tensor) -> Tensor:
    """Order by gain, largest first, then by index."""
    order = picks.argsort()
    return order[gains[order].argsort(descending=True, stable=True)]


def _all_open(rows: Words) -> Words:
    """Words for which no example is covered yet."""
    return np.full(rows.shape[1], np.iinfo(np.uint64).max, np.uint64)


def _whole(matrix: Tensor) -> CoverBlock:
    """A whole matrix as one block."""
    return CoverBlock(
        label=0,
        candidates=torch.arange(matrix.shape[0], device=matrix.device),
        examples=torch.arange(matrix.shape[1], device=matrix.device),
        words=pack_bits(matrix),
    )


def _on_cpu(blocks: Sequence[CoverBlock]) -> bool:
    """Whether the lazy greedy can be taken, the fastest there."""
    return blocks[0].words.device.type == "cpu"


def _greedy_block(block: CoverBlock, *, min_gain: int, max_slots: int, target: int) -> tuple[Tensor, Tensor]:
    """Picks (places in the whole set) and gains of one class, on the CPU."""
    rows = as_words(block.words)
    picks, gains = greedy_rows(rows, _all_open(rows), min_gain, max_slots, target)
    return block.candidates[torch.from_numpy(picks)], torch.from_numpy(gains)


def _greedy_blocks_rounds(blocks: Sequence[CoverBlock], min_gain: int) -> tuple[Tensor, Tensor]:
    """Picks and gains of all classes at once, in parallel rounds."""
    if has_fused_kernels(blocks[0].words.device):
        return _fused_rounds(blocks, min_gain)
    pairs = [unpack_bits(block.words, len(block.examples)).nonzero() for block in blocks]
    candidates = torch.cat([block.candidates[pair[:, 0]] for block, pair in zip(blocks, pairs, strict=True)])
    examples = torch.cat([block.examples[pair[:, 1]] for block, pair in zip(blocks, pairs, strict=True)])
    n_candidates = 1 + max((int(block.candidates.max()) for block in blocks if len(block.candidates)), default=-1)
    n_examples = 1 + max((int(block.examples.max()) for block in blocks if len(block.examples)), default=-1)
    return greedy_rounds(candidates, examples, n_candidates=n_candidates, n_examples=n_examples, min_gain=min_gain)


def _fused_rounds(blocks: Sequence[CoverBlock], min_gain: int) -> tuple[Tensor, Tensor]:
    """`_greedy_blocks_rounds` by the kernels of a GPU, on the packed bits."""
    from slots.cover.triton_rounds import PackedRows

    gains = PackedRows([block.words for block in blocks]).greedy(min_gain)
    picked = gains.nonzero()[:, 0]
    return torch.cat([block.candidates for block in blocks])[picked], gains[picked]


def _matrix(covers: Covers | npt.NDArray[np.bool_]) -> Tensor:
    """The matrix as a tensor, checked."""
    matrix = covers if isinstance(covers, Tensor) else torch.from_numpy(np.ascontiguousarray(covers))
    if matrix.ndim != 2 or matrix.dtype != torch.bool:
        raise ValueError(
            f"`covers` must be a bool matrix (candidate, example), got {matrix.dtype} of shape {tuple(matrix.shape)}. "
            "Compare scores with thresholds first."
        )
    return matrix


def check_limits(max_slots: int | None, min_gain: int, coverage: float) -> None:
    """Raise for limits outside their range."""
    if max_slots is not None and max_slots < 1:
        raise ValueError(f"`max_slots` must be at least 1, got {max_slots}. Leave it out for no bound.")
    if min_gain < 1:
        raise ValueError(f"`min_gain` must be at least 1, got {min_gain}. A pick that covers nothing new helps nobody.")
    if not 0 < coverage <= 1:
        raise ValueError(f"`coverage` must lie in (0, 1], got {coverage}. 1.0 covers all that can be covered.")


def check_search(time_budget_s: float, seed: int, max_steps: int | None) -> None:
    """Raise for numbers of the search outside their range."""
    if not time_budget_s >= 0:
        raise ValueError(f"`time_budget_s` must be at least 0, got {time_budget_s}. 0 means no search.")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}. Any other whole number will do.")
    if max_steps is not None and max_steps < 0:
        raise ValueError(f"`max_steps` must be at least 0, got {max_steps}. Leave it out for no bound.")


def _target(coverage: float, n_examples: int) -> int:
    """Number of examples to cover; the smallest that is a share of at least ``coverage``."""
    return math.ceil(coverage * n_examples - 1e-9 * n_examples)  # 0.07 * 100 is a little more than 7
