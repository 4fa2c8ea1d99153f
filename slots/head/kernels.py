"""Compiled loops of a decision: who may still be the answer, by scores known to be a little off, and who is it."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.jit import compiled

Indices = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_NONE = np.iinfo(np.int64).max
_NUMPY: Final = {torch.bool: np.bool_, torch.int64: np.int64, torch.float32: np.float32, torch.float64: np.float64}


def arrays_of(*tensors: Tensor) -> tuple[npt.NDArray[Any], ...]:
    """Contiguous arrays on the CPU, as the compiled loops want them; from a device all come in one copy.

    Parameters
    ----------
    tensors : tensors of bools, int64, float32 or float64
        On one device.
    """
    if all(it.device.type == "cpu" for it in tensors):
        return tuple(np.ascontiguousarray(it.detach().numpy()) for it in tensors)
    wide = [(it.double().view(torch.int64) if it.is_floating_point() else it.long()).flatten() for it in tensors]
    parts = np.split(torch.cat(wide).numpy(force=True), np.cumsum([len(it) for it in wide])[:-1])
    return tuple(
        (part.view(np.float64) if it.is_floating_point() else part).astype(_NUMPY[it.dtype]).reshape(it.shape)
        for part, it in zip(parts, tensors, strict=True)
    )


class CapArrays(NamedTuple):
    """What the rule needs of each slot beside its vectors."""

    precision: Singles
    support: Singles
    labels: Indices
    generations: Indices


class Scored(NamedTuple):
    """Proposed pairs with cosines that are off by at most ``tolerance``."""

    examples: Indices
    slots: Indices
    weight_scores: Doubles
    centre_scores: Doubles
    tolerance: float


class Margins(NamedTuple):
    """Pairs of one slot each, and their exact margins."""

    slots: Indices
    margins: Doubles


class Depths(NamedTuple):
    """Lower and upper bounds of the depth of an example's pairs."""

    lower: Doubles
    upper: Doubles


class Answers(NamedTuple):
    """Arrays of a `slots.head.Prediction`, written in place."""

    labels: Indices
    answers: npt.NDArray[np.int8]
    slots: Indices
    margins: Doubles
    runner_up_slots: Indices
    runner_up_margins: Doubles


@compiled
def by_example(examples: Indices, n: int) -> tuple[Indices, Indices]:
    """Places sorted by example, and where each example's begin."""
    starts = np.zeros(n + 1, np.int64)
    for e in examples:
        starts[e + 1] += 1
    for e in range(n):
        starts[e + 1] += starts[e]
    free, order = starts[:-1].copy(), np.empty(len(examples), np.int64)
    for place in range(len(examples)):
        order[free[examples[place]]] = place
        free[examples[place]] += 1
    return starts, order


@compiled
def _angle(cosine: float) -> float:
    """Angle in radians; rounding beyond [-1, 1] is cut."""
    return math.acos(min(1.0, max(-1.0, cosine)))


@compiled
def _depth(weight_score: float, centre_score: float, precision: float, support: float) -> float:
    """How deep inside both caps."""
    return min(precision - _angle(weight_score), support - _angle(centre_score))


@compiled
def contenders(found: Scored, caps: CapArrays, n: int) -> Indices:
    """Places of the pairs that may be an example's answer or its runner-up, by example.

    The oldest generation in which a slot fires for sure bounds the generations. In it, of the label that leads stays
    what may be its best, of all others what may be theirs. Pairs that may or may not fire stay in older generations.
    """
    starts, order = by_example(found.examples, n)
    longest = 0
    for e in range(n):
        longest = max(longest, starts[e + 1] - starts[e])
    lower, upper = np.empty(longest), np.empty(longest)
    kept, n_kept = np.empty(len(order), np.int64), 0
    for e in range(n):
        pairs = order[starts[e] : starts[e + 1]]
        oldest, possible = _oldest_firing(found, caps, pairs, lower)
        if possible > 1:
            lead, leader, rival = _bound_depths(found, caps, pairs, oldest, Depths(lower, upper))
        for place in range(len(pairs)):
            if possible > 1:
                least = lead if caps.labels[found.slots[pairs[place]]] == leader else rival
                stays = upper[place] > -np.inf and upper[place] >= least
            else:
                stays = lower[place] >= -found.tolerance
            kept[n_kept] = pairs[place]
            n_kept += stays
    return kept[:n_kept].copy()


@compiled
def _oldest_firing(found: Scored, caps: CapArrays, pairs: Indices, clear: Doubles) -> tuple[int, int]:
    """Oldest generation in which a slot fires for sure, and how many pairs may; writes how clear each is."""
    oldest, possible = _NONE, 0
    for place in range(len(pairs)):
        p, k = pairs[place], found.slots[pairs[place]]
        above = found.weight_scores[p] - np.float64(caps.precision[k])
        clear[place] = min(above, found.centre_scores[p] - np.float64(caps.support[k]))
        possible += clear[place] >= -found.tolerance
        if clear[place] > found.tolerance:
            oldest = min(oldest, caps.generations[k])
    return oldest, possible


@compiled
def _bound_depths(
    found: Scored, caps: CapArrays, pairs: Indices, oldest: int, depths: Depths
) -> tuple[float, np.int64, float]:
    """Bounds of the depth of each pair that may fire in the oldest generation or before, over what ``lower`` held.

    Returns the largest lower bound, its label, and the largest lower bound of any other label, of pairs that fire for
    sure. A pair that cannot speak gets minus infinity as its upper bound, one of an older generation infinity.
    """
    tolerance, lead, leader = found.tolerance, -np.inf, np.int64(-1)
    for place in range(len(pairs)):
        p, k = pairs[place], found.slots[pairs[place]]
        clear, depths.upper[place], depths.lower[place] = depths.lower[place], -np.inf, -np.inf
        if clear < -tolerance or caps.generations[k] > oldest:
            continue
        depths.upper[place] = np.inf
        if caps.generations[k] < oldest:
            continue
        w, c = found.weight_scores[p], found.centre_scores[p]
        limit, reach = _angle(np.float64(caps.precision[k])), _angle(np.float64(caps.support[k]))
        depths.upper[place] = _depth(w + tolerance, c + tolerance, limit, reach)
        if clear > tolerance:
            depths.lower[place] = _depth(w - tolerance, c - tolerance, limit, reach)
            if depths.lower[place] > lead:
                lead, leader = depths.lower[place], caps.labels[k]
    rival = -np.inf
    for place in range(len(pairs)):
        if caps.labels[found.slots[pairs[place]]] != leader:
            rival = max(rival, depths.lower[place])
    return lead, leader, rival


@compiled
def settle(examples: Indices, slots: Indices, margins: Doubles, caps: CapArrays, out: Answers) -> None:
    """Fill in the inputs that some slot matches, from exact margins; pairs of an example stand together.

    The oldest generation with a margin above zero speaks: largest margin, then lowest slot; the runner-up is the same
    among its slots of other labels.
    """
    a = 0
    while a < len(examples):
        e, b, oldest = examples[a], a, _NONE
        while b < len(examples) and examples[b] == e:
            if margins[b] > 0:
                oldest = min(oldest, caps.generations[slots[b]])
            b += 1
        if oldest != _NONE:
            best = _best(slice(a, b), Margins(slots, margins), caps, oldest, -1)
            out.labels[e], out.answers[e] = caps.labels[slots[best]], 2
            out.slots[e], out.margins[e] = slots[best], margins[best]
            rival = _best(slice(a, b), Margins(slots, margins), caps, oldest, best)
            if rival >= 0:
                out.answers[e] = 1
                out.runner_up_slots[e], out.runner_up_margins[e] = slots[rival], margins[rival]
        a = b


@compiled
def _best(places: slice, pairs: Margins, caps: CapArrays, generation: int, other_than: int) -> int:
    """Place of the largest margin, the lowest slot of equals, of one generation; of other labels than a place's."""
    best, slots, margins = -1, pairs.slots, pairs.margins
    for place in range(places.start, places.stop):
        k = slots[place]
        if margins[place] <= 0 or caps.generations[k] != generation:
            continue
        if other_than >= 0 and caps.labels[k] == caps.labels[slots[other_than]]:
            continue
        if best < 0 or margins[place] > margins[best] or (margins[place] == margins[best] and k < slots[best]):
            best = place
    return best
