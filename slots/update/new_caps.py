"""Caps of new slots, over the examples that they came from and what the model remembers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.cover.coverage import CoverBlock, pack_bits
from slots.cover.greedy import greedy_set_cover, greedy_set_cover_packed
from slots.features.source import FeatureSource
from slots.head.caps import free_radius
from slots.head.decision import SlotCaps
from slots.head.similarities import best_view, normalize, precision_thresholds, support_thresholds
from slots.rounding import FLOAT32_GAP, add_by_owner_, full_product, strictly_above, strictly_below
from slots.shapes import SlotLabels, SlotVectors, Thresholds

Ids = npt.NDArray[np.int64]
_SEEDS_AT_ONCE = 2000
_HELD = 1 << 26  # scores over all unmatched examples held at once: 256 MB


@dataclass(frozen=True)
class Placed:
    """New slots before they join the head, over the unmatched examples that they came from.

    Parameters
    ----------
    seeds : int64 tensor of shape (slot,)
        Place of each slot's seed among the unmatched.
    centres : float tensor of shape (slot, feature)
        Unit mean of the slot's members.
    labels : int64 tensor of shape (slot,)
    voters : bool tensor of shape (slot,)
        Slots that stand for enough examples to move, to be refined and to vote on what nothing matches. The others
        remember one labelled example as it is, and answer for what lies close to it.
    """

    seeds: Int[Tensor, " slot"]
    centres: SlotVectors
    labels: SlotLabels
    voters: Bool[Tensor, " slot"]


def thin_seeds(unit: Float[Tensor, "example feature"], labels: Ids, radius: float) -> Ids:
    """The fewest labelled examples whose caps hold all labelled ones, each cap free of other labels.

    Parameters
    ----------
    unit : float tensor of shape (example, feature)
        Unit features of the unmatched.
    labels : int64 array of shape (example,)
        -1 where unknown.
    radius : float
        Largest radius of a cap.

    Returns
    -------
    int64 array
        Places, those that cover most first within each label.
    """
    known = np.flatnonzero((labels >= 0) & (unit != 0).any(1).cpu().numpy())
    rows, marks = unit[torch.from_numpy(known).to(unit.device)], torch.from_numpy(labels[known]).to(unit.device)
    picked = [np.zeros(0, np.int64)]
    for label in np.unique(labels[known]):
        mine = (marks == int(label)).nonzero()[:, 0]
        tried = mine[:: max(1, -(-len(mine) // _SEEDS_AT_ONCE))]
        scores = full_product(rows[tried], rows.T)
        others = scores[:, marks != int(label)]
        limit = torch.full((len(tried),), float(np.cos(radius)), device=rows.device)
        if others.shape[1]:
            limit = torch.maximum(limit, others.amax(1))
        covers = scores[:, mine] > limit[:, None]
        covers[torch.arange(len(tried)), torch.searchsorted(mine, tried)] = True
        picked.append(known[tried[greedy_set_cover(covers).to(tried.device)].cpu().numpy()])
    return np.concatenate(picked)


@torch.no_grad()
def find_voters(
    source: FeatureSource,
    unit: Float[Tensor, "example feature"],
    known: Tensor,
    *,
    seeds: Tensor,
    labels: SlotLabels,
    radius: float,
) -> Bool[Tensor, " slot"]:
    """Which seeds stand for enough of the unmatched: greedy cover again, among the seeds alone.

    Parameters
    ----------
    source : FeatureSource
        The unmatched examples.
    unit : float tensor of shape (example, feature)
        Unit features of the examples themselves.
    known : int64 tensor of shape (example,)
        Labels, -1 where unknown.
    seeds, labels : int64 tensors of shape (slot,)
    radius : float

    Returns
    -------
    bool tensor of shape (slot,)
        True for a gain of at least 1 in 500 of the examples (and 2), and for the most useful seed of each label.

    Notes
    -----
    New slots must be about as coarse as the old ones: of two classes the one with the finer slots wins wherever
    nothing matches, whatever is true. On MNIST (fitted on 0-7, then all ten, 500 labels) a vote for every label gives
    95.5 %, this rule 96.3.
    """
    words, sizes = [torch.zeros(len(seeds), 0, dtype=torch.int64)], torch.zeros(len(seeds), dtype=torch.long)
    step = next((rows.stop for rows in source.blocks(len(unit), columns=len(seeds))), 1)
    step = 64 * -(-step // 64)  # a block begins with a word
    for start in range(0, len(unit), step):
        rows = slice(start, min(len(unit), start + step))
        inside = np.cos(radius) < full_product(normalize(source(rows).float()), unit[seeds].T).amax(1).T
        truth = known[rows]
        covers = (inside & ((truth < 0) | (truth == labels[:, None]))).cpu()
        own = ((seeds >= rows.start) & (seeds < rows.stop)).nonzero()[:, 0].cpu()
        covers[own, seeds.cpu()[own] - rows.start] = True
        words.append(pack_bits(covers))
        sizes += covers.sum(1)
    block = CoverBlock(0, torch.arange(len(seeds)), torch.arange(len(unit)), torch.cat(words, 1))
    picks = greedy_set_cover_packed([block], min_gain=max(2, len(unit) // 500))
    voters = torch.zeros(len(seeds), dtype=torch.bool, device=unit.device)
    voters[picks.to(unit.device)] = True
    sizes = sizes.to(unit.device)
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        if not bool(voters[mine].any()):
            voters[mine[sizes[mine].argmax()]] = True
    return voters


@torch.no_grad()
def settle(unit: Float[Tensor, "example feature"], known: Tensor, placed: Placed, *, moves: int) -> Placed:
    """Move each voter to the mean of the examples nearest to it, a few times; labelled ones count for their label only.

    Parameters
    ----------
    unit : float tensor of shape (example, feature)
    known : int64 tensor of shape (example,)
        Labels, -1 where unknown.
    placed : Placed
    moves : int
        Few: with many the slots drift away from the examples whose labels they carry.

    Returns
    -------
    Placed
    """
    labels_of, seeds, centres = placed.labels[placed.voters], placed.seeds[placed.voters], placed.centres[placed.voters]
    for _ in range(moves):
        total = torch.zeros_like(centres, dtype=torch.float64)
        for i in range(0, len(unit), 4096):
            rows, labels = unit[i : i + 4096], known[i : i + 4096]
            scores = full_product(rows, centres.T)
            foreign = (labels[:, None] >= 0) & (labels[:, None] != labels_of)
            owner = scores.masked_fill(foreign, -2.0).argmax(1)
            fits = ~foreign[torch.arange(len(rows)), owner]
            add_by_owner_(total, owner[fits], rows[fits].double())
        total += unit[seeds].double()
        empty = (total == 0).all(1, keepdim=True)
        centres = torch.where(empty, centres, normalize(total).float())
    moved = placed.centres.clone()
    moved[placed.voters] = centres
    return Placed(placed.seeds, moved, placed.labels, placed.voters)


@dataclass(frozen=True)
class Caps:
    """Thresholds of new slots, and who lies nearest to each.

    Parameters
    ----------
    precision, support : float tensors of shape (slot,)
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
    placed: Placed,
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
    placed : Placed
    labels : int64 tensor of shape (example,)
        Labels of the unmatched, asked or taken from the nearest slot.
    known : int64 tensor of shape (example,)
        The asked ones alone, -1 elsewhere: no cap holds one of another label.
    old : SlotCaps
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
        by_weight, by_centre = _scores(source, weights[part], placed.centres[part])
        limit = precision_thresholds(by_weight, placed.labels[part], labels, precision=precision)
        features, marks = memory
        for values, truth in ((by_weight, known), (full_product(features, weights[part].T), marks)):
            foreign = (truth[:, None] >= 0) & (truth[:, None] != placed.labels[part])
            if len(values):
                worst = values.masked_fill(~foreign, -1.0).amax(0)
                limit = torch.maximum(limit, strictly_above(worst.double() + FLOAT32_GAP))
        limits.append(limit.clamp_min(-1.0))
        best = by_centre.masked_fill(labels[:, None] != placed.labels[part], -2.0).max(1)
        nearer = best.values > closeness
        closeness = torch.where(nearer, best.values, closeness)
        owner = torch.where(nearer, best.indices + part.start, owner)
    mine = closeness > -2.0
    reach = support_thresholds(closeness[mine], owner[mine], len(weights), quantile=0.05)
    angle = torch.where(reach > 1, torch.zeros_like(reach), (reach - FLOAT32_GAP).clamp(-1, 1).arccos()).double()
    angle = angle.clamp(max=radius)
    if disjoint:
        stored = normalize(placed.centres)  # as the head does; the last bits of a centre decide here
        angle = torch.minimum(angle, free_radius(stored, placed.labels, old)).clamp_min(0.0)
    return Caps(
        precision=torch.cat(limits).float(),
        support=strictly_below(angle.cos()) if not disjoint else strictly_above(angle.cos()),
        exemplars=_nearest(closeness, owner.masked_fill(~mine, -1), len(weights)),
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


def _nearest(closeness: Tensor, owner: Tensor, n_slots: int, count: int = 4) -> Tensor:
    """The few members nearest to each slot, -1 where there are fewer, by the score of each to its owner (-1: none)."""
    exemplars = torch.full((n_slots, count), -1, dtype=torch.long, device=closeness.device)
    rows = (owner >= 0).nonzero()[:, 0]
    own = closeness[rows]
    order = own.argsort(descending=True, stable=True)
    order = order[owner[rows][order].argsort(stable=True)]
    rows, slots = rows[order], owner[rows][order]
    counts = torch.bincount(slots, minlength=n_slots)
    rank = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[slots]
    first = rank < count
    exemplars[slots[first], rank[first]] = rows[first]
    return exemplars
