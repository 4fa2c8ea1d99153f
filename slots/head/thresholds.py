"""Precision and support thresholds of a batch."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.shapes import Labels, Similarities, SlotLabels, Thresholds


def precision_thresholds(
    scores: Similarities, slot_labels: SlotLabels, labels: Labels, *, precision: float = 1.0
) -> Thresholds:
    """Smallest threshold above which a share ``precision`` of the examples has the slot's own label.

    Parameters
    ----------
    scores : float tensor of shape (example, slot)
        Similarity of each reference example to each slot.
    slot_labels : int64 tensor of shape (slot,)
        Label of each slot.
    labels : int64 tensor of shape (example,)
        Label of each example.
    precision : float in (0, 1], default 1.0
        Below 1 a slot tolerates that share of other labels: the tool against label noise.

    Returns
    -------
    float tensor of shape (slot,)
        A slot fires on ``score > threshold``. Where nothing limits it, minus infinity; where no threshold reaches
        the wanted precision, the slot's largest score, so that it never fires on the reference.

    Raises
    ------
    ValueError
        If ``precision`` is outside (0, 1] or the shapes disagree.

    Notes
    -----
    With ``precision = 1`` this is the largest score of any example with another label (design: precision threshold,
    ours; the class cover catch digraph's radius, Priebe et al. 2003). Sorting costs O(example log example) a slot.

    Examples
    --------
    >>> s = torch.tensor([[0.9], [0.8], [0.7], [0.1]])
    >>> y = torch.tensor([1, 1, 0, 1])
    >>> precision_thresholds(s, torch.tensor([1]), y)
    tensor([0.7000])
    >>> precision_thresholds(s, torch.tensor([1]), y, precision=0.75)
    tensor([-inf])
    """
    if not 0 < precision <= 1:
        raise ValueError(f"`precision` must lie in (0, 1], got {precision}. Pass 1.0 for no tolerance.")
    if scores.shape != (len(labels), len(slot_labels)):
        raise ValueError(
            f"`scores` must have shape ({len(labels)}, {len(slot_labels)}), got {tuple(scores.shape)}. "
            "Rows are examples, columns are slots."
        )
    own = labels[:, None] == slot_labels
    lowest = torch.full((1, len(slot_labels)), -math.inf, dtype=scores.dtype, device=scores.device)
    if precision == 1.0:
        return torch.cat([torch.where(own, lowest, scores), lowest]).amax(0)
    order = scores.argsort(dim=0, descending=True)
    ranked = torch.cat([scores.gather(0, order), lowest])
    hits = own.gather(0, order).cumsum(0)
    share_ok = hits >= precision * torch.arange(1, len(labels) + 1, device=scores.device)[:, None]
    boundary = ranked[:-1] > ranked[1:]  # a threshold cannot part equal scores
    rows = torch.arange(len(labels), device=scores.device)[:, None]
    last = torch.where(share_ok & boundary, rows, -1).amax(0) if len(labels) else torch.full_like(slot_labels, -1)
    return ranked.gather(0, (last + 1)[None])[0]


def support_thresholds(
    scores: Float[Tensor, " example"],
    owners: Int[Tensor, " example"],
    n_slots: int,
    *,
    quantile: float = 0.01,
    slack: float = 0.0,
) -> Thresholds:
    """How far a slot's centre reaches: a low quantile of its own examples' scores, less a slack.

    Parameters
    ----------
    scores : float tensor of shape (example,)
        Cosine of each example to the centre of the slot that owns it, in [-1, 1].
    owners : int64 tensor of shape (example,)
        The slot that owns each example.
    n_slots : int
        Number of slots, also of those that own nothing.
    quantile : float in [0, 1), default 0.01
        Share of a slot's own examples that may stay outside; the ``floor(quantile * n)`` lowest are left out.
    slack : float, default 0.0
        Radians added to the angular radius.

    Returns
    -------
    float tensor of shape (slot,)
        An example is inside when its cosine is ``>= threshold``; a slot that owns nothing gets 2: it never matches.

    Raises
    ------
    ValueError
        If ``quantile`` is outside [0, 1).

    Examples
    --------
    >>> support_thresholds(torch.tensor([0.9, 0.5, 0.8]), torch.tensor([0, 0, 2]), 3, quantile=0.0)
    tensor([0.5000, 2.0000, 0.8000])
    """
    if not 0 <= quantile < 1:
        raise ValueError(f"`quantile` must lie in [0, 1), got {quantile}. 0.01 leaves the outermost 1 % outside.")
    by_score = scores.argsort()
    order = by_score[owners[by_score].argsort(stable=True)]  # by slot, then by score
    counts = torch.bincount(owners, minlength=n_slots)
    starts = counts.cumsum(0) - counts
    picks = starts + (quantile * counts.double()).floor().long()
    thresholds = torch.full((n_slots,), 2.0, dtype=scores.dtype, device=scores.device)
    owned = counts > 0
    thresholds[owned] = scores[order][picks[owned]]
    if slack:
        wider = (thresholds.double().clamp(-1, 1).arccos() + slack).clamp(max=math.pi).cos().to(scores.dtype)
        thresholds = torch.where(owned, wider, thresholds)
    return thresholds
