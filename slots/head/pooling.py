"""Scores of classes pooled over their slots."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.shapes import SlotLabels


def softmax_pool(
    scores: Float[Tensor, "*batch slot"], groups: Int[Tensor, "group member"], *, beta: float = 20.0
) -> Float[Tensor, "*batch group"]:
    """SoftMaxPool: the softmax-weighted mean of the scores in each group, a differentiable maximum.

    Parameters
    ----------
    scores : float tensor of shape (..., slot)
        Cosines, or other scores of which larger is better.
    groups : int64 tensor of shape (group, member)
        Slot indices of each group, padded with -1 (`class_groups` makes it).
    beta : float, default 20.0
        Inverse temperature: 0 gives the mean, infinity the maximum.

    Returns
    -------
    float tensor of shape (..., group)
        ``sum_k softmax(beta s_k) s_k``; minus infinity for an empty group.

    Notes
    -----
    The derivative is ``a_i (1 + beta (s_i - z))``: negative for scores far below the pool, so that slots of one
    class specialise.
    """
    places = groups.clamp_min(0)
    members: Tensor = scores.index_select(-1, places.flatten()).unflatten(-1, places.shape)  # quicker backwards
    outside = groups < 0
    attention = (beta * members).masked_fill(outside, -math.inf)
    empty = outside.all(-1)
    attention = attention.masked_fill(empty[:, None], 0.0).softmax(-1)
    pooled = (attention * members.masked_fill(outside, 0.0)).sum(-1)
    return pooled.masked_fill(empty, -math.inf)


def max_pool(
    scores: Float[Tensor, "*batch slot"], groups: Int[Tensor, "group member"]
) -> Float[Tensor, "*batch group"]:
    """Largest score in each group; minus infinity for an empty group.

    Parameters
    ----------
    scores : float tensor of shape (..., slot)
        Cosines, or other scores of which larger is better.
    groups : int64 tensor of shape (group, member)
        Slot indices of each group, padded with -1.

    Returns
    -------
    float tensor of shape (..., group)
    """
    return scores[..., groups.clamp_min(0)].masked_fill(groups < 0, -math.inf).amax(-1)


def class_groups(slot_labels: SlotLabels, classes: Int[Tensor, " group"]) -> Int[Tensor, "group member"]:
    """Slot indices of each class, padded with -1 to the longest class.

    Parameters
    ----------
    slot_labels : int64 tensor of shape (slot,)
        Label of each slot.
    classes : int64 tensor of shape (group,)
        The labels to group by, in the order of the result.

    Returns
    -------
    int64 tensor of shape (group, member)
        At least one column, so that pooling is defined for a head without slots.

    Examples
    --------
    >>> class_groups(torch.tensor([1, 0, 1]), torch.tensor([0, 1, 5]))
    tensor([[ 1, -1],
            [ 0,  2],
            [-1, -1]])
    """
    of_class = slot_labels[None] == classes[:, None]
    width = max(1, int(of_class.sum(1).max())) if of_class.numel() else 1
    groups = torch.full((len(classes), width), -1, dtype=torch.long, device=slot_labels.device)
    group, slot = of_class.nonzero(as_tuple=True)
    rank = of_class.long().cumsum(1)[group, slot] - 1
    groups[group, rank] = slot
    return groups
