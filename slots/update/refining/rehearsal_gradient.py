"""The gradient of a refinement's loss, written out: a step costs a fraction of what autograd takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from slots.head.pooling import class_groups
from slots.head.similarities import normalize
from slots.shapes import Labels, SlotLabels, SlotVectors


@dataclass(frozen=True)
class RehearsalGradient:
    """Cross-entropy of the pooled scores of slots that stay and slots that move, as a slope for those that move.

    Parameters
    ----------
    old : float tensor of shape (old slot, feature)
        Unit vectors of the slots that stay.
    groups : int64 tensor of shape (class, member)
        Slots of each class, old ones first, padded with -1 (`class_groups`); no class is empty.
    places : int64 tensor of shape (moving slot,)
        Where each slot that moves stands in the flattened groups.
    scale, beta : float
        Of the head.
    """

    old: Tensor
    groups: Tensor
    places: Tensor
    scale: float
    beta: float

    @classmethod
    def of(
        cls, old: SlotVectors, old_labels: SlotLabels, labels: SlotLabels, *, scale: float, beta: float
    ) -> RehearsalGradient:
        """Beside old slots, for slots that move and have these labels."""
        every = torch.cat([old_labels, labels])
        groups = class_groups(every, every.unique())
        places = torch.empty(len(every), dtype=torch.long, device=groups.device)
        filled = (groups.flatten() >= 0).nonzero()[:, 0]
        places[groups.flatten()[filled]] = filled
        return cls(old, groups, places[len(old) :], scale, beta)

    @torch.no_grad()
    def __call__(
        self,
        unit: Float[Tensor, "example view feature"],
        moving: SlotVectors,
        wanted: Labels,
        lead: Float[Tensor, " example"],
    ) -> SlotVectors:
        """Slope of the mean loss of some examples.

        Parameters
        ----------
        unit : float tensor of shape (example, view, feature)
            Unit features of the views of each.
        moving : float tensor of shape (moving slot, feature)
            Of any length but 0.
        wanted : int64 tensor of shape (example,)
            Row of ``groups`` that is right.
        lead : float tensor of shape (example,)
            Cosine by which it must lead.

        Returns
        -------
        float tensor of shape (moving slot, feature)

        Notes
        -----
        With ``s_k`` the largest cosine of slot ``k`` over the views, ``a`` the softmax of ``beta s`` within a class and
        ``z = sum_k a_k s_k``, ``dz / ds_k = a_k (1 + beta (s_k - z))``. The slope in a direction loses its part along
        the direction, and is divided by the length of the vector.
        """
        directions, outside = normalize(moving), self.groups < 0
        viewed = torch.cat([unit @ self.old.T, unit @ directions.T], -1)
        scores, best = viewed.max(1)
        members = scores.index_select(1, self.groups.clamp_min(0).flatten()).unflatten(1, self.groups.shape)
        members.masked_fill_(outside, 0.0)
        attention = (self.beta * members).masked_fill_(outside, -torch.inf).softmax(-1)
        pooled = (attention * members).sum(-1)
        right = functional.one_hot(wanted, len(self.groups)).to(pooled)
        slope = (self.scale * (pooled - lead[:, None] * right)).softmax(-1) - right
        slope = (self.scale / len(unit) * slope)[:, :, None] * attention
        slope *= 1 + self.beta * (members - pooled[:, :, None])
        along = slope.flatten(1)[:, self.places]
        if unit.shape[1] > 1:
            best = best[:, None, len(self.old) :]
            along = viewed.new_zeros(*unit.shape[:2], len(moving)).scatter_(1, best, along[:, None]).flatten(0, 1)
        found: Tensor = along.T @ unit.flatten(0, 1)
        found -= directions * (directions * found).sum(1, keepdim=True)
        return found.div_(moving.norm(dim=1, keepdim=True))
