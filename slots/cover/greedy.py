"""Greedy set cover: few candidates that together match every example.

Greedy picks are canonical: integer gains, ties to the lowest index. So equal input gives equal output on a CPU, on a
GPU and on any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from slots.cover.bits import CoverBlock, as_words, pack_bits, unpack_bits
from slots.cover.fused import has_fused_kernels
from slots.cover.kernels import Words, greedy_rows
from slots.cover.parallel import greedy_rounds
from slots.shapes import Covers

NO_LIMIT = np.iinfo(np.int64).max
_ALL = np.uint64(np.iinfo(np.uint64).max)


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
    matrix = as_matrix(covers)
    return greedy_set_cover_packed([whole_block(matrix)], max_slots=max_slots, min_gain=min_gain, coverage=coverage)


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
    limit = NO_LIMIT if max_slots is None else max_slots
    if _on_cpu(blocks):
        return _greedy_blocks_on_cpu(blocks, min_gain, limit, target)
    picks, gains = _greedy_blocks_rounds(blocks, min_gain)
    order = greedy_order(picks, gains)
    picks, gains = picks[order][:limit], gains[order][:limit]
    return picks[gains.cumsum(0) - gains < target]


def greedy_order(picks: Tensor, gains: Tensor) -> Tensor:
    """Order by gain, largest first, then by index."""
    order = picks.argsort()
    return order[gains[order].argsort(descending=True, stable=True)]


def all_open(rows: Words) -> Words:
    """Words for which no example is covered yet."""
    return np.full(rows.shape[1], _ALL, np.uint64)


def whole_block(matrix: Tensor) -> CoverBlock:
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


def _greedy_blocks_on_cpu(blocks: Sequence[CoverBlock], min_gain: int, limit: int, target: int) -> Tensor:
    """The picks of all classes in order. In numpy: of small classes a call of torch takes longer than the greedy."""
    first_target = target if len(blocks) == 1 else NO_LIMIT
    found = []
    for block in blocks:
        rows = as_words(block.words)
        places, gains = greedy_rows(rows, all_open(rows), min_gain, limit, first_target)
        found.append((block.candidates.numpy()[places], gains))
    picks, gains = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((picks, -gains))[:limit]
    gains = gains[order]
    return torch.from_numpy(picks[order][gains.cumsum() - gains < target])


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
    from slots.cover.fused.rounds import PackedRows

    gains = PackedRows([block.words for block in blocks]).greedy(min_gain)
    picked = gains.nonzero()[:, 0]
    return torch.cat([block.candidates for block in blocks])[picked], gains[picked]


def as_matrix(covers: Covers | npt.NDArray[np.bool_]) -> Tensor:
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


def _target(coverage: float, n_examples: int) -> int:
    """Number of examples to cover; the smallest that is a share of at least ``coverage``."""
    return math.ceil(coverage * n_examples - 1e-9 * n_examples)  # 0.07 * 100 is a little more than 7
