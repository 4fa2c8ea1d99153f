"""The similarity of features and slots, as pure functions.

A slot has two caps, balls on the unit sphere: the *precision cap* around its weight and the *support cap* around its
centre. An input matches a slot when one of its views lies inside both. Every rule of matching is written a second time,
slowly and literally, in ``tests/support/reference.py``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.shapes import Labels, Similarities, SlotLabels, SlotVectors, Thresholds

Metric = Literal["cosine", "l2"]


def normalize(x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
    """Scale each row to unit length; a zero row stays zero, and so matches nothing.

    Parameters
    ----------
    x : float tensor of shape (..., feature)
        Any finite values.

    Returns
    -------
    float tensor of shape (..., feature)
        Rows of Euclidean length 1 or 0.

    Examples
    --------
    >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


def similarity(
    features: Float[Tensor, "*batch feature"], slots: SlotVectors, *, metric: Metric = "cosine"
) -> Float[Tensor, "*batch slot"]:
    """Similarity of every input to every slot, higher = closer.

    Parameters
    ----------
    features : float tensor of shape (..., feature)
        Raw features; for ``"cosine"`` they are normalised here.
    slots : float tensor of shape (slot, feature)
        Slot vectors, of unit length for ``"cosine"``.
    metric : {"cosine", "l2"}
        ``"cosine"``: the inner product, in [-1, 1]. ``"l2"``: the negative squared distance, <= 0.

    Returns
    -------
    float tensor of shape (..., slot)

    Raises
    ------
    ValueError
        If the feature counts differ or the metric is unknown.
    """
    if features.shape[-1] != slots.shape[-1]:
        raise ValueError(
            f"`features` must have {slots.shape[-1]} features, got {tuple(features.shape)}. "
            f"The slots were built for another backbone; pass feature_dim={features.shape[-1]}."
        )
    if metric == "cosine":
        return normalize(features) @ slots.T
    if metric == "l2":
        squares = features.square().sum(-1, keepdim=True) + slots.square().sum(-1)
        return -(squares - 2 * features @ slots.T).clamp_min(0)  # rounding must not make a distance negative
    raise ValueError(f"`metric` must be 'cosine' or 'l2', got {metric!r}. Choose one of the two.")


def best_view(
    similarities: Float[Tensor, "example view slot"],
) -> tuple[Similarities, Int[Tensor, "example slot"]]:
    """Keep, for each slot, the view of each input that is most similar to it.

    Parameters
    ----------
    similarities : float tensor of shape (example, view, slot)

    Returns
    -------
    values : float tensor of shape (example, slot)
    views : int64 tensor of shape (example, slot)
        Ties go to the lowest view.
    """
    values, views = similarities.max(dim=1)
    return values, views


def precision_thresholds(
    scores: Similarities, slot_labels: SlotLabels, labels: Labels, *, precision: float = 1.0
) -> Thresholds:
    """Smallest threshold above which a share ``precision`` of the examples has the slot's own label.

    Parameters
    ----------
    scores : float tensor of shape (example, slot)
        Similarity of each reference example to each slot.
    slot_labels : int64 tensor of shape (slot,)
    labels : int64 tensor of shape (example,)
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


def margins(
    weight_scores: Float[Tensor, "*batch"],
    centre_scores: Float[Tensor, "*batch"],
    precision: Float[Tensor, "*slots"],
    support: Float[Tensor, "*slots"],
) -> Float[Tensor, "*batch"]:
    """How deep inside both caps, in radians: positive inside, negative outside.

    Parameters
    ----------
    weight_scores, centre_scores : float tensors, broadcast against the thresholds
        Cosines to the slot's weight and centre.
    precision, support : float tensors
        The slot's thresholds. Minus infinity is a cap that is the whole sphere.

    Returns
    -------
    float tensor
        ``min(r_w - angle_w, r_c - angle_c)`` with ``r = arccos(threshold)``. A support threshold above 1 (a slot
        that owns nothing) gives minus infinity.

    Notes
    -----
    In float32 an angle near 0 is good to 3e-4 rad only; pass float64 scores where that matters.
    """
    inside = _angle(precision) - _angle(weight_scores)
    support_inside = _angle(support) - _angle(centre_scores)
    support_inside = torch.where(support > 1, torch.full_like(support_inside, -math.inf), support_inside)
    return torch.minimum(inside, support_inside)


def _angle(cosine: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Angle in radians; rounding beyond [-1, 1] is cut."""
    return cosine.clamp(-1.0, 1.0).arccos()


def softmax_pool(
    scores: Float[Tensor, "*batch slot"], groups: Int[Tensor, "group member"], *, beta: float = 20.0
) -> Float[Tensor, "*batch group"]:
    """SoftMaxPool: the softmax-weighted mean of the scores in each group, a differentiable maximum.

    Parameters
    ----------
    scores : float tensor of shape (..., slot)
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
    members = scores[..., groups.clamp_min(0)]
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
