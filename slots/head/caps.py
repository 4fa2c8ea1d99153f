"""Slots as caps on the sphere, and when two can never match one input: the geometry behind *no forgetting*."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slots.head.recalling.recall import Recall
from slots.head.similarities import normalize
from slots.kept import Kept
from slots.shapes import SlotLabels, SlotVectors, Thresholds

SAFETY = 1e-7
"""Radians taken off a free radius. Angles here are good to 1e-15, but the match rule compares float64 cosines, and next
to 0 and pi a cosine that is off by 1e-15 is an angle that is off by 5e-8."""

_PAIRS = 1 << 20  # (new, old) pairs whose angles are held at once


@dataclass(frozen=True)
class SlotCaps:
    """Slots as pairs of spherical caps: what the match rule needs of them.

    Parameters
    ----------
    weights, centres : float tensors of shape (slot, feature)
        Unit up to float32 rounding; the exact direction is the float64-normalised row.
    precision, support : float tensors of shape (slot,)
        Thresholds on the cosine to the weight and to the centre; a match is strictly above both.
    labels, generations : int64 tensors of shape (slot,)
        Of each slot. The oldest generation (the smallest number) that has a slot which fires answers alone.
    pooled : bool tensor of shape (slot,)
        Slots that take part in the pooled score of unmatched inputs.
    beta : float
        Inverse temperature of the pooled score.
    recall : Recall, optional
        What guesses where nothing matches, beside the pooled score. Default: the pooled score alone.
    kept : Kept, optional
        Where what answers need of these slots is kept between calls, of unmatched inputs on the CPU and of all on a
        device; it looks whether they are still the same. Default: it is made anew by each call.
    """

    weights: SlotVectors
    centres: SlotVectors
    precision: Thresholds
    support: Thresholds
    labels: SlotLabels
    generations: SlotLabels
    pooled: Bool[Tensor, " slot"]
    beta: float
    recall: Recall | None = field(default=None, repr=False, compare=False)
    kept: Kept[Any] | None = field(default=None, repr=False, compare=False)


def exact_angles(a: SlotVectors, b: SlotVectors) -> Float[Tensor, "row column"]:
    """Angles between unit vectors in float64, good to 1e-15 also near 0 and pi.

    Parameters
    ----------
    a, b : float tensors of shape (row, feature) and (column, feature)
        Normalised here, in float64.

    Returns
    -------
    float64 tensor of shape (row, column)
        Radians, in [0, pi].

    Notes
    -----
    ``2 atan2(|u - v|, |u + v|)`` (Kahan, "How Futile are Mindless Assessments of Roundoff", 2006, section 12); the
    norms come from the cosine except near 0 and pi, where that would lose half of the digits.
    """
    u, v = normalize(a.double()), normalize(b.double())
    cosine = (u @ v.T).clamp(-1, 1)
    angle = cosine.arccos()
    row, column = (cosine.abs() > 0.999).nonzero(as_tuple=True)
    near = 2 * torch.atan2((u[row] - v[column]).norm(dim=1), (u[row] + v[column]).norm(dim=1))
    angle[row, column] = near
    return angle


@torch.no_grad()
def free_radius(centres: SlotVectors, labels: SlotLabels, caps: SlotCaps) -> Float[Tensor, " slot"]:
    """How far a new cap may reach so that it meets no slot of another label.

    Parameters
    ----------
    centres : float tensor of shape (new slot, feature)
        Centres of the new support caps.
    labels : int64 tensor of shape (new slot,)
        Their labels; slots in ``caps`` of the same label do not limit them.
    caps : SlotCaps
        The old slots.

    Returns
    -------
    float64 tensor of shape (new slot,)
        Radians; negative where the centre itself lies in a slot of another label, pi where nothing limits it.

    Notes
    -----
    Two balls on the sphere are disjoint when the angle between their axes is at least the sum of their radii. An old
    slot lies inside both of its balls (weight ``w_k``, radius ``q_k``; centre ``c_k``, radius ``r_k``), so it is
    enough to stay clear of one of them: ``min over k of max(angle(c, w_k) - q_k, angle(c, c_k) - r_k)``. An input that
    matches nothing lies outside at least one ball of every slot, so around it the result is never negative.
    """
    room = torch.full((len(centres),), math.pi, dtype=torch.float64, device=centres.device)
    precision = caps.precision.double().clamp(-1, 1).arccos()
    support = caps.support.double().clamp(-1, 1).arccos()
    support = torch.where(caps.support > 1, torch.full_like(support, -math.inf), support)  # such a slot matches nothing
    step = max(1, _PAIRS // max(1, len(caps.labels)))
    for i in range(0, len(centres), step):
        rows = slice(i, i + step)
        by_weight = exact_angles(centres[rows], caps.weights) - precision
        by_centre = exact_angles(centres[rows], caps.centres) - support
        clear = torch.maximum(by_weight, by_centre) - SAFETY
        clear = clear.masked_fill(labels[rows, None] == caps.labels, math.inf)
        if clear.shape[1]:
            room[rows] = clear.amin(1).clamp(max=math.pi)
    return room


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
    support_inside = (_angle(support) - _angle(centre_scores)).masked_fill(support > 1, -math.inf)
    return torch.minimum(inside, support_inside)


def _angle(cosine: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Angle in radians; rounding beyond [-1, 1] is cut."""
    return cosine.clamp(-1.0, 1.0).arccos()
