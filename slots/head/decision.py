"""Exact decisions: float32 proposes, float64 decides.

``X @ W.T`` of the same row differs in the last bits between batch sizes and devices. Whatever lies within `TOLERANCE`
of changing a decision is therefore computed again in float64, pair by pair, so that an input gets the same answer
alone, in a batch, on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.head.caps import SlotCaps, margins
from slots.head.deciding.exact import PAIR_ELEMENTS, exact_margins, exact_scores
from slots.head.deciding.on_device import (
    BLOCK_ELEMENTS,
    DeviceSlots,
    quick_in_float64,
    settled,
)
from slots.head.kernels import Answers, CapArrays, Scored, arrays_of, contenders, settle
from slots.head.pooled_answers import PooledSlots, nearest_of_best_labels
from slots.head.pooling import class_groups, softmax_pool
from slots.head.prediction import Prediction
from slots.head.recalling.recall import Recall
from slots.head.recalling.recalled_answers import recalled
from slots.head.similarities import normalize
from slots.rounding import full_product
from slots.shapes import SlotVectors, ViewFeatures

Rows = npt.NDArray[np.int64]

TOLERANCE = 1e-5
"""Largest difference, in cosine, between a float32 product and the exact score (4e-6 seen at 2,048 features)."""

_TIMES_DEARER = 64  # a product of one pair alone, beside its share of the product of all on a CPU: roughly


@dataclass(frozen=True)
class MatchedPairs:
    """Example-view-slot triples and their exact margins (radians), all of shape (pair,)."""

    examples: Int[Tensor, " pair"]
    views: Int[Tensor, " pair"]
    slots: Int[Tensor, " pair"]
    margins: Float[Tensor, " pair"]


@dataclass(frozen=True)
class CandidatePairs:
    """Every triple that may match, and more, with scores that need not be exact; all of shape (pair,).

    Parameters
    ----------
    examples, views, slots : int64 tensors of shape (pair,)
        Rows of the inputs, their views, and the slots that these may match.
    weight_scores, centre_scores : float64 tensors of shape (pair,)
        Cosines to the slot's weight and centre.
    tolerance : float, default TOLERANCE
        Largest error of a score.
    """

    examples: Int[Tensor, " pair"]
    views: Int[Tensor, " pair"]
    slots: Int[Tensor, " pair"]
    weight_scores: Float[Tensor, " pair"]
    centre_scores: Float[Tensor, " pair"]
    tolerance: float = TOLERANCE


def candidate_pairs(features: ViewFeatures, caps: SlotCaps) -> CandidatePairs:
    """Triples that may match, from float32 products with every slot (`slots.index` finds them with fewer).

    On a CPU the centres are looked at only where the precision cap fires, where that is seldom.
    """
    unit, n_slots = normalize(features.float()), len(caps.labels)
    weight_scores = full_product(unit, caps.weights.T)
    fires = weight_scores > caps.precision - TOLERANCE
    if unit.device.type == "cpu":
        place = fires.flatten().nonzero()[:, 0]
        if len(place) == 0:
            return CandidatePairs(place, place, place, none := weight_scores.new_zeros(0, dtype=torch.float64), none)
        if len(place) * _TIMES_DEARER < fires.numel():
            slot, rows = place % n_slots, unit.flatten(0, 1)
            centre_scores = _scores_of(rows, place // n_slots, caps.centres, slot)
            near = (centre_scores > caps.support[slot] - TOLERANCE).nonzero()[:, 0]
            return _candidates(weight_scores, place[near], centre_scores[near])
    centre_scores = full_product(unit, caps.centres.T)
    near = fires & (centre_scores > caps.support - TOLERANCE)
    place = near.flatten().nonzero()[:, 0]
    return _candidates(weight_scores, place, centre_scores.flatten().index_select(0, place))


def _candidates(weight_scores: Tensor, place: Tensor, centre_scores: Tensor) -> CandidatePairs:
    """Candidates at places of the flattened scores."""
    _, n_views, n_slots = weight_scores.shape
    row = place // n_slots
    by_weight = weight_scores.flatten().index_select(0, place).double()
    return CandidatePairs(row // n_views, row % n_views, place % n_slots, by_weight, centre_scores.double())


def _scores_of(rows: Tensor, of_row: Tensor, vectors: SlotVectors, of_vector: Tensor) -> Tensor:
    """Float32 products of single pairs of rows and vectors."""
    step = max(1, PAIR_ELEMENTS // max(1, rows.shape[1]))
    found = [
        torch.linalg.vecdot(rows.index_select(0, a), vectors.index_select(0, b))
        for a, b in zip(of_row.split(step), of_vector.split(step), strict=True)
    ]
    return torch.cat([rows[:0, 0], *found])


@torch.no_grad()
def matching_pairs(
    features: ViewFeatures, caps: SlotCaps, *, candidates: CandidatePairs | None = None
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Every (example, slot) that match, by the exact rule.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features; any scale.
    caps : SlotCaps
        The slots.
    candidates : CandidatePairs, optional
        Default: those of `candidate_pairs`. Whatever finds them, the pairs are the same.

    Returns
    -------
    examples, slots : int64 tensors of shape (pair,)
        Sorted by example, then slot; each pair once however many views match.
    """
    found = candidate_pairs(features, caps) if candidates is None else candidates
    example, view, slot = found.examples, found.views, found.slots
    weight_scores, centre_scores, tolerance = found.weight_scores, found.centre_scores, found.tolerance
    precision, support = caps.precision[slot].double(), caps.support[slot].double()
    fires = (weight_scores > precision) & (centre_scores > support)
    unsure = ((weight_scores - precision).abs() <= tolerance) | ((centre_scores - support).abs() <= tolerance)
    if unsure.any():
        fires[unsure] = exact_margins(features, caps, (example[unsure], view[unsure], slot[unsure])) > 0
    key = torch.unique(example[fires] * len(caps.labels) + slot[fires])
    return key // max(1, len(caps.labels)), key % max(1, len(caps.labels))


@torch.no_grad()
def best_pairs(features: ViewFeatures, caps: SlotCaps, *, candidates: CandidatePairs | None = None) -> MatchedPairs:
    """The match of largest margin for each example, generation and label, by the exact rule.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features; any scale.
    caps : SlotCaps
        The slots.
    candidates : CandidatePairs, optional
        Default: those of `candidate_pairs`. Whatever finds them, the best is the same.

    Returns
    -------
    MatchedPairs
        Only triples with a positive margin. Near ties are kept; the caller takes the first by (margin, slot).
    """
    found = candidate_pairs(features, caps) if candidates is None else candidates
    example, view, slot = found.examples, found.views, found.slots
    weight_scores, centre_scores, tolerance = found.weight_scores, found.centre_scores, found.tolerance
    precision, support = caps.precision[slot].double(), caps.support[slot].double()
    lower = margins(weight_scores - tolerance, centre_scores - tolerance, precision, support)
    upper = margins(weight_scores + tolerance, centre_scores + tolerance, precision, support)
    rows = torch.stack([example, caps.generations[slot], caps.labels[slot]])
    groups, group = rows.unique(dim=1, return_inverse=True)
    best = torch.full((groups.shape[1],), -math.inf, dtype=torch.float64, device=features.device)
    best.scatter_reduce_(0, group, lower, "amax")
    contends = (upper >= best[group]) & (upper > 0)  # only these can be the best of their group
    example, view, slot = example[contends], view[contends], slot[contends]
    exact = exact_margins(features, caps, (example, view, slot))
    inside = exact > 0
    return MatchedPairs(example[inside], view[inside], slot[inside], exact[inside])


@torch.no_grad()
def decide(
    features: ViewFeatures,
    caps: SlotCaps,
    *,
    candidates: CandidatePairs | None = None,
    pooled: PooledSlots | None = None,
) -> Prediction:
    """Answer each input: the slot that fires, or the best pooled label, flagged as unmatched.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features; any scale.
    caps : SlotCaps
        At least one slot.
    candidates : CandidatePairs, optional
        Default: those of `candidate_pairs`.
    pooled : PooledSlots, optional
        Those of these slots, where they are at hand. Default: taken from ``caps.kept`` or made when an input is
        unmatched.

    Returns
    -------
    Prediction

    Notes
    -----
    Matched: the oldest generation that has a slot which fires answers, alone: the slot of largest margin in it, ties
    to the lowest slot; ambiguous when slots of two labels *of that generation* fire. So a later generation can never
    change any part of an answer that an earlier one gave, for no input whatever. Unmatched: the best label by the
    pooled score, or by ``caps.recall`` where that is set.
    """
    out = _nothing_known(len(features))
    if len(features) == 0:
        return out
    if candidates is None and quick_in_float64(features.device):
        _answer_there(features, caps, out)
    else:
        _answer_pairs(features, caps, candidates, pooled, out)
    unmatched = np.flatnonzero(~out.matched)
    if len(unmatched) and caps.recall is not None:
        _answer_by_recall(features, caps, caps.recall, unmatched, out)
    return out


def _nothing_known(n: int) -> Prediction:
    """Columns of so many inputs, to be filled in."""
    return Prediction(
        labels=np.zeros(n, np.int64),
        answers=np.zeros(n, np.int8),
        slots=np.full(n, -1, np.int64),
        margins=np.full(n, -np.inf),
        runner_up_slots=np.full(n, -1, np.int64),
        runner_up_margins=np.full(n, -np.inf),
    )


def _answer_there(features: ViewFeatures, caps: SlotCaps, out: Prediction) -> None:
    """Fill in all inputs on their device, and what is in doubt then on the CPU."""
    columns = [it for it in vars(caps).values() if isinstance(it, Tensor)]
    make = partial(DeviceSlots.of, caps)
    slots: DeviceSlots = make() if caps.kept is None else caps.kept(*columns, make=make, shares=True)
    *found, doubtful = arrays_of(*vars(settled(features, caps, slots)).values())
    for column, values in zip(vars(out).values(), found, strict=True):
        column[:] = values
    if doubtful.any():
        rows = np.flatnonzero(doubtful)
        block = features.index_select(0, torch.from_numpy(rows).to(features.device)).cpu()
        again = _nothing_known(len(rows))
        _answer_pairs(block, replace(slots.on_host, beta=caps.beta), None, None, again)
        for column, values in zip(vars(out).values(), vars(again).values(), strict=True):
            column[rows] = values


def _answer_pairs(
    features: ViewFeatures,
    caps: SlotCaps,
    candidates: CandidatePairs | None,
    pooled: PooledSlots | None,
    out: Prediction,
) -> None:
    """Fill in all inputs by the pairs that may match, those that no slot matches by the pooled score."""
    found = candidate_pairs(features, caps) if candidates is None else candidates
    of_slots = caps.precision, caps.support, caps.labels, caps.generations, caps.pooled
    of_pairs = found.examples, found.slots, found.weight_scores, found.centre_scores
    *columns, pooling, examples, slots, by_weight, by_centre = arrays_of(*of_slots, *of_pairs)  # in one copy
    if len(examples):
        scored = Scored(examples, slots, by_weight, by_centre, found.tolerance)
        _answer_matched(features, caps, found, scored, CapArrays(*columns), out)
    unmatched = np.flatnonzero(~out.matched)
    if len(unmatched) and features.device.type == "cpu":
        _answer_unmatched(features, caps, _pooled(caps) if pooled is None else pooled, unmatched, out)
    elif len(unmatched):
        _answer_unmatched_anywhere(features, caps, columns[2], pooling, unmatched, out)


def _pooled(caps: SlotCaps) -> PooledSlots:
    """The slots whose scores are pooled: those that were kept, where no slot has changed since."""
    columns = caps.weights, caps.labels, caps.pooled
    if caps.kept is None:
        return PooledSlots.of(*columns)
    found: PooledSlots = caps.kept(*columns, make=lambda: PooledSlots.of(*columns), shares=True)
    return found


def _answer_matched(  # noqa: PLR0917 - the pairs twice: there and here
    features: ViewFeatures, caps: SlotCaps, found: CandidatePairs, scored: Scored, columns: CapArrays, out: Prediction
) -> None:
    """Fill in the inputs that some slot matches."""
    kept = contenders(scored, columns, len(out))
    places = torch.from_numpy(kept).to(features.device)
    exact = exact_margins(features, caps, (found.examples[places], found.views[places], found.slots[places]))
    (depths,) = arrays_of(exact)
    settle(scored.examples[kept], scored.slots[kept], depths, columns, Answers(**vars(out)))


def _answer_unmatched(features: ViewFeatures, caps: SlotCaps, pooled: PooledSlots, rows: Rows, out: Prediction) -> None:
    """Fill in inputs that no slot matches by the pooled score, as float64 throughout would."""
    found = nearest_of_best_labels(features, rows, pooled, caps.beta)
    example, view, slot = (torch.from_numpy(v) for v in (rows[found.places // 2], found.views, found.slots))
    sizes = np.bincount(found.places, minlength=2 * len(rows))
    sizes = sizes[sizes > 0]
    first = np.cumsum(sizes) - sizes
    if (sizes > 1).any():
        several = np.flatnonzero(np.repeat(sizes > 1, sizes))
        picked = torch.from_numpy(several)
        scores = exact_scores(features, caps.weights, (example[picked], view[picked], slot[picked])).numpy()
        order = several[np.lexsort((several, -scores, found.places[several]))]  # of equals the lowest slot, then view
        first[sizes > 1] = order[np.unique(found.places[order], return_index=True)[1]]
    chosen = torch.from_numpy(first)
    margin = exact_margins(features, caps, (example[chosen], view[chosen], slot[chosen])).numpy()
    places, slots = found.places[first], found.slots[first]
    best, second = places % 2 == 0, places % 2 == 1
    out.labels[rows] = found.labels
    out.slots[rows], out.margins[rows] = slots[best], margin[best]
    with_second = rows[places[second] // 2]
    out.runner_up_slots[with_second], out.runner_up_margins[with_second] = slots[second], margin[second]


def _answer_unmatched_anywhere(  # noqa: PLR0917 - two columns of the slots that are here already
    features: ViewFeatures, caps: SlotCaps, labels: Rows, pooled: npt.NDArray[np.bool_], rows: Rows, out: Prediction
) -> None:
    """The same on any device, in float64 throughout; answers stay there until all are known."""
    pooled = pooled if pooled.any() else np.ones_like(pooled)
    classes = np.unique(labels[pooled])
    of_class = torch.from_numpy(np.where(pooled, labels, labels.min() - 1))
    members = class_groups(of_class, torch.from_numpy(classes)).to(features.device)
    weights = normalize(caps.weights.double())
    step = max(1, BLOCK_ELEMENTS // max(1, features.shape[1] * len(weights)))
    found = [
        _nearest_of_ranked(features[places], caps, weights, members)
        for places in torch.from_numpy(rows).to(features.device).split(step)
    ]
    ranked, slots, margin = arrays_of(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    out.labels[rows] = classes[ranked[:, 0]]
    out.slots[rows], out.margins[rows] = slots[:, 0], margin[:, 0]
    if ranked.shape[1] > 1:
        out.runner_up_slots[rows], out.runner_up_margins[rows] = slots[:, 1], margin[:, 1]


def _answer_by_recall(features: ViewFeatures, caps: SlotCaps, recall: Recall, rows: Rows, out: Prediction) -> None:
    """Put the guesses of what is remembered in the place of the pooled score's, which they take into account."""
    block = features[torch.from_numpy(rows).to(features.device)]
    found = recalled(block, caps.weights, caps.labels, recall, out.labels[rows])
    if found is None:
        return
    here = torch.arange(len(rows), device=features.device)
    labels, slots, *depths = arrays_of(
        found.labels,
        found.slots,
        *(
            exact_margins(block, caps, (here, found.views[:, place], found.slots[:, place]))
            for place in range(found.labels.shape[1])
        ),
    )
    out.labels[rows], out.slots[rows], out.margins[rows] = labels[:, 0], slots[:, 0], depths[0]
    out.runner_up_slots[rows], out.runner_up_margins[rows] = -1, -np.inf
    if labels.shape[1] > 1:
        out.runner_up_slots[rows], out.runner_up_margins[rows] = slots[:, 1], depths[1]


def _nearest_of_ranked(
    block: ViewFeatures, caps: SlotCaps, weights: SlotVectors, members: Int[Tensor, "group member"]
) -> tuple[Int[Tensor, "example place"], Int[Tensor, "example place"], Float[Tensor, "example place"]]:
    """The two best classes of some inputs by their pooled scores, the nearest slot of each, and its margin."""
    scores, views = (normalize(block.double()) @ weights.T).max(1)
    ranked = softmax_pool(scores, members, beta=caps.beta).argsort(dim=1, descending=True, stable=True)[:, :2]
    here = torch.arange(len(block), device=block.device)
    slots, depths = [], []
    for place in range(ranked.shape[1]):
        group = members[ranked[:, place]]
        closest = scores.gather(1, group.clamp_min(0)).masked_fill(group < 0, -math.inf).argmax(1)
        slots.append(group[here, closest])
        depths.append(exact_margins(block, caps, (here, views[here, slots[-1]], slots[-1])))
    return ranked, torch.stack(slots, 1), torch.stack(depths, 1)
