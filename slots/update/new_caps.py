"""Caps of new slots, over the examples that they came from and what the model remembers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from slots.features.exemplars import nearest_members
from slots.features.source import FeatureSource
from slots.head.caps import SlotCaps, free_radius
from slots.head.similarities import best_view, normalize
from slots.head.slot_table import N_EXEMPLARS
from slots.head.thresholds import precision_thresholds, support_thresholds
from slots.rounding import FLOAT32_GAP, full_product, strictly_above, strictly_below
from slots.shapes import SlotVectors, Thresholds
from slots.update.drafting.draft import Prototypes

_HELD = 1 << 26  # scores over all unmatched examples held at once: 256 MB


@dataclass(frozen=True)
class Caps:
    """Thresholds of new slots, and who lies nearest to each.

    Parameters
    ----------
    precision, support : float tensors of shape (slot,)
        Cosines that a match must exceed: with the slot's weight, and with its centre.
    exemplars : int64 tensor of shape (slot, 4)
        Places among the unmatched, the nearest members first; -1 pads.
    members : int64 tensor of shape (slot,)
        Unmatched examples nearest to each slot, of its label as far as that is known.
    """

    precision: Thresholds
    support: Thresholds
    exemplars: Int[Tensor, "slot exemplar"]
    members: Int[Tensor, " slot"]


@torch.no_grad()
def make_caps(
    source: FeatureSource,
    weights: SlotVectors,
    prototypes: Prototypes,
    labels: Tensor,
    *,
    known: Tensor,
    old: SlotCaps,
    memory: tuple[Tensor, Tensor],
    precision: float,
    radius: float,
    disjoint: bool,
) -> Caps:
    """Precision and support thresholds of new slots from the unmatched examples and the old slots' memory.

    Parameters
    ----------
    source : FeatureSource
        The unmatched examples.
    weights : float tensor of shape (slot, feature)
        Refined unit vectors.
    prototypes : Prototypes
        Where the slots began, with their labels.
    labels : int64 tensor of shape (example,)
        Labels of the unmatched, asked or taken from the nearest slot.
    known : int64 tensor of shape (example,)
        The asked ones alone, -1 elsewhere: no cap holds one of another label.
    old : SlotCaps
        The present slots, which ``disjoint`` keeps clear of.
    memory : pair of tensors of shape (memory, feature) and (memory,)
        Unit features and labels of support examples: no cap holds one of another label.
    precision : float
        Share of the taken labels above the threshold that must be the slot's.
    radius : float
        Largest support radius.
    disjoint : bool
        Cut support caps so that they meet no old slot of another label.

    Returns
    -------
    Caps
    """
    limits = []
    closeness, owner = weights.new_full((len(source),), -2.0), torch.zeros_like(labels)
    for part in _slots_at_once(len(source), len(weights)):
        by_weight, by_centre = _scores(source, weights[part], prototypes.centres[part])
        limit = precision_thresholds(by_weight, prototypes.labels[part], labels, precision=precision)
        features, marks = memory
        for values, truth in ((by_weight, known), (full_product(features, weights[part].T), marks)):
            foreign = (truth[:, None] >= 0) & (truth[:, None] != prototypes.labels[part])
            if len(values):
                worst = values.masked_fill(~foreign, -1.0).amax(0)
                limit = torch.maximum(limit, strictly_above(worst.double() + FLOAT32_GAP))
        limits.append(limit.clamp_min(-1.0))
        best = by_centre.masked_fill(labels[:, None] != prototypes.labels[part], -2.0).max(1)
        nearer = best.values > closeness
        closeness = torch.where(nearer, best.values, closeness)
        owner = torch.where(nearer, best.indices + part.start, owner)
    mine = closeness > -2.0
    reach = support_thresholds(closeness[mine], owner[mine], len(weights), quantile=0.05)
    angle = torch.where(reach > 1, torch.zeros_like(reach), (reach - FLOAT32_GAP).clamp(-1, 1).arccos()).double()
    angle = angle.clamp(max=radius)
    if disjoint:
        stored = normalize(prototypes.centres)  # as the head does; the last bits of a centre decide here
        angle = torch.minimum(angle, free_radius(stored, prototypes.labels, old)).clamp_min(0.0)
    return Caps(
        precision=torch.cat(limits).float(),
        support=strictly_below(angle.cos()) if not disjoint else strictly_above(angle.cos()),
        exemplars=nearest_members(closeness, owner.masked_fill(~mine, -1), len(weights), count=N_EXEMPLARS),
        members=torch.bincount(owner[mine], minlength=len(weights)),
    )


def _slots_at_once(n_examples: int, n_slots: int) -> Iterator[slice]:
    """Slots whose scores over all examples are held together; one slice at least."""
    step = max(1, _HELD // max(1, n_examples))
    for start in range(0, max(1, n_slots), step):
        yield slice(start, min(n_slots, start + step))


def _scores(source: FeatureSource, weights: SlotVectors, centres: SlotVectors) -> tuple[Tensor, Tensor]:
    """Best view's cosines of all examples to some slots' weights and centres, both of shape (example, slot)."""
    by_weight, by_centre = [], []
    for rows in source.blocks(columns=len(weights)):
        unit = normalize(source(rows).float())
        by_weight.append(best_view(full_product(unit, weights.T))[0])
        by_centre.append(best_view(full_product(unit, centres.T))[0])
    return torch.cat(by_weight), torch.cat(by_centre)
