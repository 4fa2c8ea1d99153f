"""Caps of the closing pass: who owns which example, support angles and the precision on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slots.features.exemplars import nearest_members
from slots.features.source import FeatureSource
from slots.head.decision import matching_pairs
from slots.head.exact_thresholds import PrecisionAccumulator, precision_thresholds_over
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import best_view, normalize
from slots.head.slot_table import N_EXEMPLARS
from slots.head.thresholds import support_thresholds
from slots.progress import Progress
from slots.rounding import FLOAT32_GAP, ExactSums, full_precision, full_product, strictly_below
from slots.shapes import Ids


def slack_for(outside: Float[Tensor, " example"], share: float) -> float:
    """Smallest widening of all support caps that keeps a share of held-out examples inside.

    Parameters
    ----------
    outside : float tensor of shape (example,)
        How far each held-out example lies outside the nearest support cap of its own label, in radians; negative
        inside.
    share : float in (0, 1)
        Wanted share inside on new data.

    Returns
    -------
    float
        Radians, >= 0; 0 when there is nothing to learn from.

    Notes
    -----
    The ``ceil((n + 1) share)``-th smallest value: split conformal prediction's quantile (Vovk et al. 2005), so the
    share holds for new exchangeable data, not only for these examples. With too few of them, the largest is taken.

    Examples
    --------
    >>> slack_for(torch.tensor([-0.2, 0.25, 0.3]), 0.5)
    0.25
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` must lie in (0, 1), got {share}. 0.99 keeps all but one in a hundred.")
    n = len(outside)
    if n == 0:
        return 0.0
    rank = min(n, math.ceil((n + 1) * share))
    return max(0.0, round(float(outside.double().sort().values[rank - 1]), 9))


@dataclass(frozen=True)
class Reference:
    """The training data and the slots as the closing pass walks through them."""

    head: IncrementalNeuralHashing
    source: FeatureSource
    y: Tensor
    progress: Progress

    def blocks(self, ids: Ids, step: str) -> Iterator[tuple[Ids, Tensor, Tensor]]:
        """Ids, view features and labels, block by block."""
        for rows in self.source.blocks(len(ids), columns=self.head.n_slots):
            yield self._block(ids, step, rows)

    def each_block(
        self, ids: Ids, step: str, work: Callable[[int, Ids, Tensor, Tensor], tuple[Tensor, ...]]
    ) -> list[tuple[Tensor, ...]]:
        """What some work gives for each of the `blocks`; several processes share it (`FeatureSource.each_block`).

        It is told where the block begins among the ids, then what `blocks` gives.
        """
        return self.source.each_block(
            len(ids), lambda rows: work(rows.start, *self._block(ids, step, rows)), columns=self.head.n_slots
        )

    def _block(self, ids: Ids, step: str, rows: slice) -> tuple[Ids, Tensor, Tensor]:
        part = ids[rows]
        self.progress(step, rows.stop / len(ids))
        return part, self.source(part), self.y[torch.from_numpy(part).to(self.y.device)]


def assign_owners(data: Reference, ids: Ids) -> Tensor:
    """Owner of each example (best slot of its label, -1 for none); sets centres and precision thresholds."""
    head = data.head
    accumulator = PrecisionAccumulator(head.weights.detach(), head.labels)
    owned = ExactSums((head.n_slots, head.feature_dim), head.weights.device)

    def work(first: int, _part: Ids, features: Tensor, labels: Tensor) -> tuple[Tensor]:
        unit = normalize(features.float())
        best = best_view(full_product(unit, head.weights.detach().T))
        accumulator.update(features, labels, best, first=first)
        own, owner = best[0].masked_fill(labels[:, None] != head.labels, -math.inf).max(1)
        known = (own > -math.inf).nonzero()[:, 0]
        view = best[1].gather(1, owner[:, None])[:, 0]
        owned.add(owner[known], unit[known, view[known]])
        return (torch.where(own > -math.inf, owner, -1),)

    found = data.each_block(ids, "thresholds", work)
    owners = torch.full((len(data.y),), -1, dtype=torch.long, device=head.labels.device)
    owners[torch.from_numpy(ids).to(owners.device)] = torch.cat([owners[:0], *(owner for (owner,) in found)])
    sums = owned.value(data.source.ranks)
    empty = (sums == 0).all(1)  # a slot that owns nothing keeps its weight as its centre
    head.centres = torch.where(empty[:, None], head.weights.detach(), normalize(sums).float())
    head.precision_thresholds = _precision(data, ids, accumulator)
    return owners


def _precision(data: Reference, ids: Ids, accumulator: PrecisionAccumulator) -> Tensor:
    """Thresholds of the head's wanted precision over the examples ``ids`` (which the accumulator has seen)."""
    head = data.head
    if head.precision == 1.0:
        return accumulator.thresholds(data.source.ranks)
    return precision_thresholds_over(
        lambda: ((features, labels) for _, features, labels in data.blocks(ids, "thresholds")),
        head.weights.detach(),
        head.labels,
        precision=head.precision,
        n_examples=len(ids),
    )


def owned_scores(data: Reference, ids: Ids, owners: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each owned example: id, owner, best centre score of the views that fire the owner's precision cap, and of all.

    Minus infinity where no view fires.
    """
    head = data.head

    def work(_first: int, part: Ids, features: Tensor, _labels: Tensor) -> tuple[Tensor, ...]:
        example = torch.from_numpy(part).to(owners.device)
        rows = (owners[example] >= 0).nonzero()[:, 0]
        owner = owners[example[rows]]
        unit = normalize(features[rows].float())
        both = torch.stack([head.weights.detach()[owner], head.centres[owner]], 2)
        with full_precision():
            weight_scores, centre_scores = torch.bmm(unit, both).unbind(2)
        fires = weight_scores > head.precision_thresholds[owner][:, None]
        inside = centre_scores.masked_fill(~fires, -math.inf).amax(1)
        return example[rows], owner, inside, centre_scores.amax(1)

    found = data.each_block(ids, "support", work)
    example, owner, inside, near = (torch.cat(column) for column in zip(*found, strict=True))
    return example, owner, inside, near


def pick_exemplars(data: Reference, example: Tensor, owner: Tensor, score: Tensor) -> None:
    """Exemplars of each slot: the owned examples nearest its centre."""
    head = data.head
    places = nearest_members(score, owner, head.n_slots, count=N_EXEMPLARS)
    owns = places[:, 0] >= 0
    head.exemplars[owns] = torch.where(places[owns] >= 0, example[places[owns]], -1)


def set_support_caps(
    data: Reference, own: tuple[Tensor, Tensor], held_out: Ids, *, quantile: float, share: float
) -> float:
    """Set the support thresholds from owners and scores; returns the slack held-out data asked for (radians)."""
    head = data.head
    owner, scores = own
    reach = support_thresholds(scores, owner, head.n_slots, quantile=quantile)

    def work(_first: int, _part: Ids, features: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (_angle_outside(data, features, labels, reach),)

    outside = data.each_block(held_out, "held-out", work)
    slack = slack_for(torch.cat([angles for (angles,) in outside]), share) if outside else 0.0
    wide = support_thresholds(scores, owner, head.n_slots, quantile=quantile, slack=slack)
    head.support_thresholds = torch.where(
        wide > 1, torch.full_like(wide, 2.0), strictly_below(wide - FLOAT32_GAP)
    )  # the outermost example stays inside
    return slack


def _angle_outside(data: Reference, features: Tensor, labels: Tensor, reach: Tensor) -> Tensor:
    """Radians outside the nearest support cap among own-label slots whose precision cap fires (those that have one)."""
    head = data.head
    unit = normalize(features.float())
    fires = (full_product(unit, head.weights.detach().T) > head.precision_thresholds) & (reach <= 1)
    fires &= (labels[:, None] == head.labels)[:, None]
    depth = reach.clamp(-1, 1).arccos() - full_product(unit, head.centres.T).double().clamp(-1, 1).arccos()
    nearest = depth.masked_fill(~fires, -math.inf).amax((1, 2))
    return -nearest[nearest > -math.inf]


def measure_precision(data: Reference, held_out: Ids) -> None:
    """Count each slot's held-out matches, right and all; none of these examples has set its caps alone."""
    head = data.head
    head.held_out.zero_()

    def work(_first: int, _part: Ids, features: Tensor, labels: Tensor) -> tuple[Tensor]:
        example, slot = matching_pairs(features, head.caps())
        right = labels[example] == head.labels[slot]
        counts = [torch.bincount(it, minlength=head.n_slots) for it in (slot, slot[right])]
        return (torch.stack(counts, 1),)

    for (counts,) in data.each_block(held_out, "held-out", work):
        head.held_out += counts


def limits_of(data: Reference, held_out: Ids, accumulator: PrecisionAccumulator) -> Tensor:
    """Precision thresholds that held-out examples ask for, by a fresh accumulator."""

    def work(first: int, _part: Ids, features: Tensor, labels: Tensor) -> tuple[()]:
        accumulator.update(features, labels, first=first)
        return ()

    data.each_block(held_out, "held-out", work)
    return accumulator.thresholds(data.source.ranks)


def fold_in(data: Reference, held_out: Ids) -> None:
    """Let the held-out examples narrow the precision caps too: from here on no training example is let in wrongly."""
    head = data.head
    if len(held_out) == 0:
        return
    weights = head.weights.detach()
    if head.precision == 1.0:
        accumulator = PrecisionAccumulator(weights, head.labels)
        limits = limits_of(data, held_out, accumulator)
    else:
        everyone = np.arange(len(data.y))
        limits = _precision(data, everyone, PrecisionAccumulator(weights, head.labels))
    head.precision_thresholds = torch.maximum(head.precision_thresholds, limits)
