"""`class_cover`: from features and labels to the fewest caps around examples that cover each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from slots.cover.bits import CoverBlock, unpack_bits
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.fused import has_fused_kernels
from slots.cover.greedy import check_limits, greedy_set_cover_packed
from slots.cover.refined import check_search, refined_set_cover_packed
from slots.shapes import Features, Labels, Thresholds

_ROWS_UNPACKED = 256


@dataclass(frozen=True)
class CoverResult:
    """A cover of labelled examples by caps around some of them.

    Parameters
    ----------
    picked : int64 tensor of shape (slot,)
        The examples that became slots, in the order of picking.
    thresholds : float32 tensor of shape (slot,)
        Cosine above which each slot matches; no example of another label reaches it.
    covered : bool tensor of shape (example,)
        Which examples some slot of their label matches.
    contradictions : int64 tensor
        Examples that not even the cap around themselves covers: the same features stand under another label, or are
        zero.
    """

    picked: Int[Tensor, " slot"]
    thresholds: Thresholds
    covered: Bool[Tensor, " example"]
    contradictions: Int[Tensor, " contradiction"]

    @property
    def n_covered(self) -> int:
        """Number of examples covered."""
        return int(self.covered.sum())


def class_cover(
    features: Features,
    labels: Labels,
    *,
    mode: Literal["greedy", "refined"] = "greedy",
    time_budget_s: float = 1.0,
    seed: int = 0,
    max_slots: int | None = None,
    min_gain: int = 1,
    coverage: float = 1.0,
    block: int | None = None,
) -> CoverResult:
    """Choose few examples whose caps match every example of their label and none of another.

    The cap of an example reaches to just short of the most similar example of another label. The coverage of each class
    by itself is made tile by tile, as packed bits; no matrix of scores is held.

    Parameters
    ----------
    features : float array or tensor of shape (example, feature)
        Raw features; normalised here, scores are cosines.
    labels : int array or tensor of shape (example,)
        Label of each example.
    mode : {"greedy", "refined"}
        `greedy_set_cover` or `refined_set_cover`.
    time_budget_s, seed
        For ``"refined"``; the time is for all classes together, and counts from when the coverage is known.
    max_slots, min_gain, coverage
        For ``"greedy"``, as in `greedy_set_cover`.
    block : int, optional
        Rows and columns of a tile (count, >= 64); it changes the memory needed, never the result. Default: by device.

    Returns
    -------
    CoverResult

    Raises
    ------
    ValueError
        If a number is out of its range, the shapes disagree, the mode is unknown, or ``"refined"`` is asked to stop
        early.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0]])
    >>> class_cover(x, torch.tensor([0, 0, 1, 1])).picked
    tensor([0, 2])
    """
    features, labels = torch.as_tensor(features), torch.as_tensor(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"`features` must have shape (example, feature) with a label each, got {tuple(features.shape)} and "
            f"{tuple(labels.shape)} labels. Flatten images first."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"`labels` must be whole numbers, got {labels.dtype}. Number the classes.")
    check_limits(max_slots, min_gain, coverage)
    if mode not in ("greedy", "refined"):
        raise ValueError(f"`mode` must be 'greedy' or 'refined', got {mode!r}. Choose one of the two.")
    if mode == "refined" and (max_slots is not None or min_gain > 1 or coverage < 1):
        raise ValueError("`mode` must be 'greedy' for a cover with limits, got 'refined'. It covers everything.")
    check_search(time_budget_s, seed, None)
    if has_fused_kernels(features.device) and len(features):
        from slots.cover.fused.coverage import fused_class_coverage

        thresholds, blocks = fused_class_coverage(features, labels)
    else:
        thresholds = cap_thresholds(features, labels, features, labels, block=block)
        blocks = coverage_bits(features, labels, thresholds, features, labels, block=block)
    if mode == "refined":
        picked = refined_set_cover_packed(blocks, time_budget_s=time_budget_s, seed=seed).to(labels.device)
    else:
        picked = greedy_set_cover_packed(blocks, max_slots=max_slots, min_gain=min_gain, coverage=coverage)
    covered, selfless = _outcome(blocks, picked, len(labels))
    return CoverResult(picked, thresholds[picked], covered, selfless.nonzero()[:, 0])


def _outcome(blocks: Sequence[CoverBlock], picked: Tensor, n_examples: int) -> tuple[Tensor, Tensor]:
    """Which examples the picks cover, and which do not cover themselves; candidates are the examples."""
    if has_fused_kernels(picked.device):
        return _fused_outcome(blocks, picked, n_examples)
    chosen = torch.zeros(n_examples, dtype=torch.bool, device=picked.device)
    chosen[picked] = True
    covered, selfless = torch.zeros_like(chosen), torch.zeros_like(chosen)
    for block in blocks:
        rows = block.words[chosen[block.candidates]]
        for part in rows.split(_ROWS_UNPACKED):
            covered[block.examples] |= unpack_bits(part, len(block.examples)).any(0)
        place = torch.arange(len(block.examples), device=picked.device)
        own = (block.words[place, place // 64] >> (place % 64)) & 1
        selfless[block.examples] = own == 0
    return covered, selfless


def _fused_outcome(blocks: Sequence[CoverBlock], picked: Tensor, n_examples: int) -> tuple[Tensor, Tensor]:
    """`_outcome` by the kernels of a GPU, all classes at once."""
    from slots.cover.fused.rounds import PackedRows

    rows = PackedRows([block.words for block in blocks])
    ids = torch.cat([block.candidates for block in blocks])
    place = torch.empty(n_examples, dtype=torch.long, device=picked.device)
    place[ids] = torch.arange(len(ids), device=picked.device)
    covered, selfless = torch.zeros(2, n_examples, dtype=torch.bool, device=picked.device)
    covered[ids] = rows.bits_of(rows.union(place[picked]))
    selfless[ids] = ~rows.own_bits()
    return covered, selfless
