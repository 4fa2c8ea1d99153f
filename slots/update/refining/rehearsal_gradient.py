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

_MOSTLY_EMPTY = 2
"""When one table of all classes has so many times more places than there are slots, classes go by their sizes."""


@dataclass(frozen=True)
class ClassesOfASize:
    """Classes that have about as many slots.

    Parameters
    ----------
    classes : int64 tensor of shape (class,)
        Which of all classes.
    groups : int64 tensor of shape (member, class)
        Slots of each, old ones first, padded with -1; none is empty. Members come first, since a softmax over a few
        that stand side by side takes ten times as long as one over a few rows.
    moving : int64 tensor of shape (moving slot of these classes,)
        Which of all slots that move.
    places : int64 tensor of the same shape
        Where each of them stands in the flattened groups.
    own : int64 tensor of the same shape
        The class of each, among these.
    """

    classes: Tensor
    groups: Tensor
    moving: Tensor
    places: Tensor
    own: Tensor

    @classmethod
    def of(cls, labels: SlotLabels, n_old: int, names: Labels, classes: Tensor) -> ClassesOfASize:
        """These of all classes (by their place in ``names``), among slots of which the first stay."""
        groups = class_groups(labels, names[classes]).T.contiguous()
        places = torch.full((len(labels),), -1, dtype=torch.long, device=groups.device)
        filled = (groups.flatten() >= 0).nonzero()[:, 0]
        places[groups.flatten()[filled]] = filled
        moving = (places[n_old:] >= 0).nonzero()[:, 0]
        places = places[n_old:][moving]
        return cls(classes, groups, moving, places, places % len(classes))

    def pooled(self, scores: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled scores of the classes, the share that each member has in them, and the members' scores."""
        outside = self.groups < 0
        members = scores.index_select(1, self.groups.clamp_min(0).flatten()).unflatten(1, self.groups.shape)
        members.masked_fill_(outside, 0.0)
        attention = (beta * members).masked_fill_(outside, -torch.inf).softmax(1)
        return (attention * members).sum(1), attention, members


def classes_by_size(labels: SlotLabels, n_old: int) -> list[ClassesOfASize]:
    """All classes at once, or by the power of two of their sizes where most places of one table would stay empty."""
    names, sizes = labels.unique(return_counts=True)
    if len(sizes) * int(sizes.max()) <= _MOSTLY_EMPTY * len(labels):
        return [ClassesOfASize.of(labels, n_old, names, torch.arange(len(names), device=names.device))]
    power = sizes.double().log2().floor().long()
    return [ClassesOfASize.of(labels, n_old, names, (power == it).nonzero()[:, 0]) for it in power.unique()]


@dataclass(frozen=True)
class RehearsalGradient:
    """Cross-entropy of the pooled scores of slots that stay and slots that move, as a slope for those that move.

    Parameters
    ----------
    old : float tensor of shape (old slot, feature)
        Unit vectors of the slots that stay.
    parts : list of ClassesOfASize
        The classes, each in one of them.
    n_classes : int
        How many there are.
    scale, beta : float
        Of the head.
    """

    old: Tensor
    parts: list[ClassesOfASize]
    n_classes: int
    scale: float
    beta: float

    @classmethod
    def of(
        cls, old: SlotVectors, old_labels: SlotLabels, labels: SlotLabels, *, scale: float, beta: float
    ) -> RehearsalGradient:
        """Beside old slots, for slots that move and have these labels."""
        parts = classes_by_size(torch.cat([old_labels, labels]), len(old))
        return cls(old, parts, sum(len(part.classes) for part in parts), scale, beta)

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
            Which class is right, of all in the order of their labels.
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
        directions = normalize(moving)
        viewed = torch.cat([unit @ self.old.T, unit @ directions.T], -1)
        scores, best = viewed.max(1)
        found = [part.pooled(scores, self.beta) for part in self.parts]
        pooled = scores.new_empty(len(unit), self.n_classes)
        for part, (together, _, _) in zip(self.parts, found, strict=True):
            pooled[:, part.classes] = together
        right = functional.one_hot(wanted, self.n_classes).to(pooled)
        slope = (self.scale * (pooled - lead[:, None] * right)).softmax(-1) - right
        slope *= self.scale / len(unit)
        along = scores.new_empty(len(unit), len(moving))
        for part, (together, attention, members) in zip(self.parts, found, strict=True):
            if len(part.moving):
                share, score = attention.flatten(1)[:, part.places], members.flatten(1)[:, part.places]
                share *= 1 + self.beta * (score - together[:, part.own])
                along[:, part.moving] = share * slope[:, part.classes[part.own]]
        if unit.shape[1] > 1:
            best = best[:, None, len(self.old) :]
            along = viewed.new_zeros(*unit.shape[:2], len(moving)).scatter_(1, best, along[:, None]).flatten(0, 1)
        down: Tensor = along.T @ unit.flatten(0, 1)
        down -= directions * (directions * down).sum(1, keepdim=True)
        return down.div_(moving.norm(dim=1, keepdim=True))
