"""Our decisions and scores as differentiable functions of features, for attacks to follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.novelty.detector import NoveltyDetector
from slots.novelty.k_flats import squared_distances

_INSIDE = 1 - 1e-6  # the derivative of the arc cosine ends at 1


def pooled_scores(head: IncrementalNeuralHashing, n_classes: int) -> Callable[[Tensor], Tensor]:
    """Class scores of the trained slots, shape (example, class) by label: what unmatched inputs are answered by."""

    def scores(features: Tensor) -> Tensor:
        found: Tensor = head(features)
        out = found.new_full((len(found), n_classes), -1e3)
        return out.index_copy(1, head.classes, found)

    return scores


def soft_slot_margins(head: IncrementalNeuralHashing) -> Callable[[Tensor], Tensor]:
    """Margin of every slot in radians, shape (example, slot); a slot that owns nothing lies far outside."""
    caps = head.caps()
    weight_radius, centre_radius = (t.clamp(-1, 1).arccos() for t in (caps.precision, caps.support))
    weights, centres = normalize(caps.weights), normalize(caps.centres)
    dead = caps.support > 1

    def depth(features: Tensor) -> Tensor:
        unit = normalize(features)
        inside = weight_radius - (unit @ weights.T).clamp(-_INSIDE, _INSIDE).arccos()
        support = centre_radius - (unit @ centres.T).clamp(-_INSIDE, _INSIDE).arccos()
        return torch.minimum(inside, support).masked_fill(dead, -torch.pi)

    return depth


def class_margins(head: IncrementalNeuralHashing, n_classes: int) -> Callable[[Tensor], Tensor]:
    """Largest margin among each class's slots, shape (example, class): positive where the class matches."""
    depth, labels = soft_slot_margins(head), head.labels

    def margins(features: Tensor) -> Tensor:
        found = depth(features)
        columns = [found.masked_fill(labels != label, -torch.pi).amax(1) for label in range(n_classes)]
        return torch.stack(columns, dim=1)

    return margins


def centre_scores(head: IncrementalNeuralHashing, n_classes: int) -> Callable[[Tensor], Tensor]:
    """Largest cosine to a centre of each class, shape (example, class): the answer by memory alone, without weights."""
    centres, labels = normalize(head.centres), head.labels

    def scores(features: Tensor) -> Tensor:
        found = normalize(features) @ centres.T
        columns = [found.masked_fill(labels != label, -2.0).amax(1) for label in range(n_classes)]
        return torch.stack(columns, dim=1)

    return scores


def wrongly_matched(margins: Tensor, labels: Tensor) -> Tensor:
    """Above zero where a slot of a wrong label fires and no slot of the right one lies deeper."""
    own = margins.gather(1, labels[:, None])[:, 0]
    others = margins.scatter(1, labels[:, None], -torch.inf).amax(1)
    return others - own.clamp(min=0)


def disagreement(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """How much the second model's scores favour another class than the one that the first one names.

    Above zero where they disagree; differentiable in the scores of the second.
    """

    def score(x: Tensor) -> Tensor:
        named = first(x).detach().argmax(1)
        scores = second(x)
        own = scores.gather(1, named[:, None])[:, 0]
        return scores.scatter(1, named[:, None], -torch.inf).amax(1) - own

    return score


def novelty_score(detector: NoveltyDetector) -> Callable[[Tensor], Tensor]:
    """The score of a detector, differentiable; equal to its own up to float32.

    Parameters
    ----------
    detector : NoveltyDetector
        Fitted on features no wider than those of which its metric keeps every direction.
    """
    metric, known = detector.metric, normalize(detector.prototypes)
    whiten = metric.basis * metric.inverse_scales
    place = known @ whiten
    ranks = torch.linspace(0.0, 0.9, 10)

    def tests(features: Tensor) -> list[Tensor]:
        unit = normalize(features)
        near = (unit @ known.T).topk(min(metric.neighbours, len(known)), dim=1).values
        pattern = torch.cdist(unit @ whiten, place).amin(1)
        size = (features.norm(dim=1).clamp_min(1e-12).log() - metric.median_log_norm).abs()
        found = [near.clamp(-_INSIDE, _INSIDE).arccos().mean(1), pattern, size]
        if metric.flats is not None:
            squared = (squared_distances(unit, metric.flats) / metric.flats.spreads).amin(1)
            found.append(squared.clamp_min(1e-12).sqrt())
        return found

    def score(features: Tensor) -> Tensor:
        parts = []
        for value, knots, excess, share in zip(
            tests(features), metric.quantiles, metric.mean_excess, metric.shares, strict=True
        ):
            if share > 0:
                at = torch.tensor(knots)
                tail = -torch.log1p(-_interpolated(value, at, ranks)) + (value - at[-1]).clamp_min(0) / excess
                parts.append(float(np.log(share)) + tail)
        return torch.stack(parts).amax(0)

    return score


def _interpolated(value: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    """Piecewise linear between knots, flat outside."""
    place = torch.searchsorted(knots, value.detach()).clamp(1, len(knots) - 1)
    low, high = knots[place - 1], knots[place]
    share = ((value - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return heights[place - 1] + share * (heights[place] - heights[place - 1])
