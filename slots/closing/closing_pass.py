"""The closing pass: exact caps over the whole training set, then only the slots that earn their place.

After training the thresholds of the last batches are thrown away. (1) The fit part gives each slot its precision
threshold, its owned examples, its centre. (2) Owned examples and the held-out part give the support caps. (3) The
held-out part gives each slot its precision on data it was not fitted to; then those examples are folded in. (4) A set
cover among the slots drops what nobody needs, and a cover of the unmatched adds what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.closing.residual_cover import complete
from slots.closing.shrinkage import tighten
from slots.cover.greedy import greedy_set_cover
from slots.errors import UsageError
from slots.features.preprocessing import RawInputs
from slots.features.source import FeatureSource
from slots.head.decision import decide, matching_pairs
from slots.head.exact_thresholds import PrecisionAccumulator, precision_thresholds_over, slack_for
from slots.head.hashing import N_EXEMPLARS, IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.head.similarities import best_view, normalize, support_thresholds
from slots.novelty.slot_novelty import ModelNovelty, learn_novelty
from slots.progress import Progress
from slots.rounding import FLOAT32_GAP, add_by_owner_, full_precision, full_product, strictly_below

Ids = npt.NDArray[np.int64]

THUMBNAIL = 64
"""Longest side of a remembered image, pixels; larger ones are averaged down."""


@dataclass(frozen=True)
class ClosingConfig:
    """How a fit is closed.

    Parameters
    ----------
    closing : {"compact", "full"}
        ``compact``: a slot stays if the cover needs it or it owns at least ``min_gain`` examples, and a new one must
        match that many that nobody matched. ``full``: every training example is matched, at precision 1.
    quantile : float, default 0.01
        Share of a slot's own examples left outside its support cap; ``full`` leaves none.
    support_share : float, default 0.97
        Share of held-out data, of that inside a precision cap of its own label, which the support caps must keep.
    min_gain : int, optional
        Default: 1 in 5,000 training examples, at least 2.
    max_candidates : int, default 500
        Unmatched examples tried as new slots by ``compact``; ``full`` tries all.
    reach : float in (0, 1], default 1.0
        Share of the matches that is kept when, at the end, all support caps are made smaller by one angle: less is
        matched, and less of a class that comes later is swallowed. 0.8 suits a model that will meet new classes.
    """

    closing: Literal["compact", "full"] = "compact"
    quantile: float = 0.01
    support_share: float = 0.97
    min_gain: int | None = None
    max_candidates: int = 500
    reach: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.reach <= 1:
            raise UsageError(f"`reach` must lie in (0, 1], got {self.reach}. 0.8 gives up one match in five.")


@dataclass(frozen=True)
class ClosingReport:
    """What the closing pass did.

    Parameters
    ----------
    n_dropped, n_added : int
        Slots removed as redundant, and added for what was unmatched.
    slack : float
        Radians by which held-out data widened the support caps.
    contradictions : int64 array
        Ids of examples that no cap can match at precision 1: the same features stand under another label, or are
        zero.
    labels : int64 array of shape (example,)
        Answers of the closed model on the training data.
    matched : bool array of shape (example,)
        Training examples that some slot matches.
    """

    n_dropped: int
    n_added: int
    slack: float
    contradictions: Ids
    labels: Ids
    matched: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Closed:
    """What the closing pass gives beside the head, which it changes: the other parts of a fitted model.

    Parameters
    ----------
    report : ClosingReport
    novelty : ModelNovelty or None
        None where too few examples were held out.
    exemplar_features : float16 tensor of shape (slot, exemplar, feature)
        As `support_features` gives them.
    exemplar_images : uint8 array of shape (slot, exemplar, height, width, channel) or None
        As `thumbnails` gives them; None for features.
    """

    report: ClosingReport
    novelty: ModelNovelty | None
    exemplar_features: Tensor
    exemplar_images: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Reference:
    """The training data and the slots as the closing pass walks through them."""

    head: IncrementalNeuralHashing
    source: FeatureSource
    y: Tensor
    report: Progress

    def blocks(self, ids: Ids, step: str) -> Iterator[tuple[Ids, Tensor, Tensor]]:
        """Ids, view features and labels, block by block."""
        for rows in self.source.blocks(len(ids), columns=self.head.n_slots):
            part = ids[rows]
            self.report(step, rows.stop / len(ids))
            yield part, self.source(part), self.y[torch.from_numpy(part).to(self.y.device)]


@torch.no_grad()
def close(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    *,
    held_out: Ids,
    config: ClosingConfig,
    report: Progress,
) -> Closed:
    """Close a fit: see the module's head.

    Parameters
    ----------
    source : FeatureSource
        The whole training set, held-out part included.
    head : IncrementalNeuralHashing
        Trained; changed in place.
    y : int64 array of shape (example,)
        Labels of the training set.
    held_out : int64 array
        Ids of the examples that training did not see; may be empty.
    config : ClosingConfig
    report : callable
        Told the progress.

    Returns
    -------
    Closed
    """
    data = _Reference(head, source.fill(report), torch.from_numpy(y).to(head.labels.device), report)
    fitted = np.setdiff1d(np.arange(len(y)), held_out)
    full = config.closing == "full"
    owners, accumulator = _survey(data, fitted)
    example, owner, inside, near = _own_pass(data, fitted, owners)
    _remember(data, example, owner, near)
    fires = inside > -math.inf
    quantile = 0.0 if full else config.quantile
    slack = _support(data, (owner[fires], inside[fires]), held_out, quantile=quantile, share=config.support_share)
    _judge(data, held_out, accumulator)
    min_gain = max(2, len(y) // 5000) if config.min_gain is None else config.min_gain
    counts = torch.bincount(owners[owners >= 0], minlength=head.n_slots)
    matched, foreign, dropped = _drop_redundant(data, np.arange(len(y)), counts >= min_gain)
    novelty = learn_novelty(source, head, fitted, held_out, report)  # before examples become slots
    matched_before = matched.copy()
    added, contradictions = complete(
        source,
        head,
        y,
        matched=matched,
        min_gain=1 if full else min_gain,
        max_candidates=len(y) if full else config.max_candidates,
        slack=slack,
        report=report,
    )
    remembered = support_features(source, head.centres, head.exemplars)
    has_images = source.featurizer.preprocessing.kind == "images"
    images = thumbnails(source.x, head.exemplars.cpu().numpy()) if has_images else None
    labels = y.copy()
    unsure = np.flatnonzero(~matched_before | foreign)  # all others have matches, and of their own label alone
    if config.reach < 1:
        tighten(source, head, held_out, reach=config.reach, report=report)
        unsure = np.arange(len(y))
    answers = answer(source, head, unsure, report)
    labels[unsure] = answers.labels
    matched = np.ones(len(y), bool)
    matched[unsure] = answers.matched
    return Closed(ClosingReport(dropped, added, slack, contradictions, labels, matched), novelty, remembered, images)


def answer(source: FeatureSource, head: IncrementalNeuralHashing, ids: Ids, report: Progress) -> Prediction:
    """The slots' answers to some examples of a source; ``report("measuring", share)`` is told the progress."""
    caps, parts = head.caps(), []
    for rows in source.blocks(len(ids), columns=head.n_slots):
        report("measuring", rows.stop / len(ids))
        parts.append(decide(source(ids[rows]), caps))
    return Prediction.concatenate(parts)


def _survey(data: _Reference, ids: Ids) -> tuple[Tensor, PrecisionAccumulator]:
    """Owner of each example (best slot of its label, -1 for none), centres, and precision thresholds."""
    head = data.head
    accumulator = PrecisionAccumulator(head.weights.detach(), head.labels)
    owners = torch.full((len(data.y),), -1, dtype=torch.long, device=head.labels.device)
    sums = torch.zeros(head.weights.shape, dtype=torch.float64, device=head.weights.device)
    for part, features, labels in data.blocks(ids, "thresholds"):
        unit = normalize(features.float())
        best = best_view(full_product(unit, head.weights.detach().T))
        accumulator.update(features, labels, best)
        own, owner = best[0].masked_fill(labels[:, None] != head.labels, -math.inf).max(1)
        known = (own > -math.inf).nonzero()[:, 0]
        view = best[1].gather(1, owner[:, None])[:, 0]
        add_by_owner_(sums, owner[known], unit[known, view[known]].double())
        owners[torch.from_numpy(part).to(owners.device)[known]] = owner[known]
    empty = (sums == 0).all(1)  # a slot that owns nothing keeps its weight as its centre
    head.centres = torch.where(empty[:, None], head.weights.detach(), normalize(sums).float())
    head.precision_thresholds = _precision(data, ids, accumulator)
    return owners, accumulator


def _precision(data: _Reference, ids: Ids, accumulator: PrecisionAccumulator) -> Tensor:
    """Thresholds of the head's wanted precision over the examples ``ids`` (which the accumulator has seen)."""
    head = data.head
    if head.precision == 1.0:
        return accumulator.thresholds()
    return precision_thresholds_over(
        lambda: ((features, labels) for _, features, labels in data.blocks(ids, "thresholds")),
        head.weights.detach(),
        head.labels,
        precision=head.precision,
        n_examples=len(ids),
    )


def _own_pass(data: _Reference, ids: Ids, owners: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each owned example: id, owner, best centre score of the views that fire the owner's precision cap, and of all.

    Minus infinity where no view fires.
    """
    head = data.head
    found: list[tuple[Tensor, ...]] = []
    for part, features, _ in data.blocks(ids, "support"):
        example = torch.from_numpy(part).to(owners.device)
        rows = (owners[example] >= 0).nonzero()[:, 0]
        owner = owners[example[rows]]
        unit = normalize(features[rows].float())
        both = torch.stack([head.weights.detach()[owner], head.centres[owner]], 2)
        with full_precision():
            weight_scores, centre_scores = torch.bmm(unit, both).unbind(2)
        fires = weight_scores > head.precision_thresholds[owner][:, None]
        inside = centre_scores.masked_fill(~fires, -math.inf).amax(1)
        found.append((example[rows], owner, inside, centre_scores.amax(1)))
    example, owner, inside, near = (torch.cat(column) for column in zip(*found, strict=True))
    return example, owner, inside, near


def _remember(data: _Reference, example: Tensor, owner: Tensor, score: Tensor) -> None:
    """Exemplars of each slot: the owned examples nearest its centre."""
    head = data.head
    order = score.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    example, owner = example[order], owner[order]
    counts = torch.bincount(owner, minlength=head.n_slots)
    rank = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    first = rank < N_EXEMPLARS
    head.exemplars[counts > 0] = -1
    head.exemplars[owner[first], rank[first]] = example[first]


def _support(data: _Reference, own: tuple[Tensor, Tensor], held_out: Ids, *, quantile: float, share: float) -> float:
    """Set the support thresholds from owners and scores; returns the slack held-out data asked for (radians)."""
    head = data.head
    owner, scores = own
    reach = support_thresholds(scores, owner, head.n_slots, quantile=quantile)
    outside = [_outside(data, features, labels, reach) for _, features, labels in data.blocks(held_out, "held-out")]
    slack = slack_for(torch.cat(outside), share) if outside else 0.0
    wide = support_thresholds(scores, owner, head.n_slots, quantile=quantile, slack=slack)
    head.support_thresholds = torch.where(
        wide > 1, torch.full_like(wide, 2.0), strictly_below(wide - FLOAT32_GAP)
    )  # the outermost example stays inside
    return slack


def _outside(data: _Reference, features: Tensor, labels: Tensor, reach: Tensor) -> Tensor:
    """Radians outside the nearest support cap among own-label slots whose precision cap fires (those that have one)."""
    head = data.head
    unit = normalize(features.float())
    fires = (full_product(unit, head.weights.detach().T) > head.precision_thresholds) & (reach <= 1)
    fires &= (labels[:, None] == head.labels)[:, None]
    depth = reach.clamp(-1, 1).arccos() - full_product(unit, head.centres.T).double().clamp(-1, 1).arccos()
    nearest = depth.masked_fill(~fires, -math.inf).amax((1, 2))
    return -nearest[nearest > -math.inf]


def _judge(data: _Reference, held_out: Ids, accumulator: PrecisionAccumulator) -> None:
    """Count each slot's held-out matches, right and all; then fold the held-out examples into the thresholds.

    The slots were not trained on these examples; the one number taken from them before is the common slack.
    """
    head = data.head
    head.held_out.zero_()
    for _, features, labels in data.blocks(held_out, "held-out"):
        example, slot = matching_pairs(features, head.caps())
        head.held_out[:, 0] += torch.bincount(slot, minlength=head.n_slots)
        right = labels[example] == head.labels[slot]
        head.held_out[:, 1] += torch.bincount(slot[right], minlength=head.n_slots)
        accumulator.update(features, labels)
    if len(held_out):
        head.precision_thresholds = _precision(data, np.arange(len(data.y)), accumulator)


def _drop_redundant(
    data: _Reference, ids: Ids, needed: Tensor
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], int]:
    """Drop slots that neither the cover needs nor enough examples own.

    Returns who is matched by a slot of its own label, who by one of another (none at precision 1), and how many went.
    """
    head = data.head
    covered: list[tuple[Tensor, Tensor]] = []
    foreign = np.zeros(len(ids), bool)
    head.hits.zero_()
    for part, features, labels in data.blocks(ids, "matching"):
        example, slot = matching_pairs(features, head.caps())
        own = labels[example] == head.labels[slot]
        foreign[part[example[~own].cpu().numpy()]] = True
        covered.append((torch.from_numpy(part).to(example.device)[example[own]], slot[own]))
    example, slot = torch.cat([c[0] for c in covered]), torch.cat([c[1] for c in covered])
    head.hits += torch.bincount(slot, minlength=head.n_slots)
    keep = needed.clone()
    for label in head.labels.unique():
        mine = (head.labels == label).nonzero()[:, 0]
        of_label = head.labels[slot] == label
        rows, column = example[of_label].unique(return_inverse=True)
        covers = torch.zeros(len(mine), len(rows), dtype=torch.bool, device=mine.device)
        covers[torch.searchsorted(mine, slot[of_label]), column] = True
        keep[mine[greedy_set_cover(covers).to(mine.device)]] = True
        if not bool(keep[mine].any()):
            keep[mine[0]] = True  # a label once learned keeps at least one slot to be named by
    matched = np.zeros(len(ids), bool)
    matched[example.cpu().numpy()] = True
    head.drop_slots(keep)
    return matched, foreign, int((~keep).sum())


@torch.no_grad()
def support_features(source: FeatureSource, centres: Tensor, exemplars: Tensor) -> Tensor:
    """Unit features of remembered examples, each by its view nearest the slot's centre.

    Parameters
    ----------
    source : FeatureSource
        The data that ``exemplars`` counts in.
    centres : float tensor of shape (slot, feature)
        The slots' centres.
    exemplars : int64 tensor of shape (slot, exemplar)
        Ids; -1 for none.

    Returns
    -------
    float16 tensor of shape (slot, exemplar, feature)
        On the CPU; zero rows where there is no example. Half precision is 5e-4 of a component: enough to refine new
        slots on, and these rounded vectors are what "remembered" means.
    """
    kept = torch.zeros(*exemplars.shape, centres.shape[1], dtype=torch.float16)
    slot, place = (exemplars >= 0).nonzero(as_tuple=True)
    ids = exemplars[slot, place].cpu().numpy()
    for rows in source.blocks(len(ids)):
        unit = normalize(source(ids[rows]).float())
        with full_precision():
            nearest = torch.einsum("evf,ef->ev", unit, centres[slot[rows]]).argmax(1)
        best = unit[torch.arange(len(unit), device=unit.device), nearest]
        kept[slot[rows].cpu(), place[rows].cpu()] = best.half().cpu()
    return kept


def thumbnails(x: RawInputs, exemplars: Ids) -> npt.NDArray[np.uint8]:
    """Remembered images, shape (slot, exemplar, height, width, channel), at most 64 pixels a side; black where none."""
    images = torch.as_tensor(np.asarray(x[np.maximum(exemplars, 0).ravel()]))
    images = images[..., None] if images.ndim == 3 else images
    images = torch.where(
        torch.from_numpy(exemplars.ravel() >= 0)[:, None, None, None], images, torch.zeros_like(images)
    )
    longest = max(images.shape[1:3])
    if longest > THUMBNAIL:
        size = [max(1, round(side * THUMBNAIL / longest)) for side in images.shape[1:3]]
        planes = images.permute(0, 3, 1, 2).float()
        planes = torch.nn.functional.interpolate(planes, size=size, mode="area")
        images = planes.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return images.reshape(*exemplars.shape, *images.shape[1:]).contiguous().numpy()
