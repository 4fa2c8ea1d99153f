"""The scales of a model's distances from its slots, and what the classes of a fit add to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.source import FeatureSource, first_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import feature_lengths, normalize
from slots.novelty.classes_left_out import FOLDS, Kinds, halfway
from slots.novelty.distances import Distances, NoveltyMetric, distances
from slots.novelty.gaussians import ClassGaussians, fit_gaussians
from slots.novelty.tails import Tails
from slots.novelty.weighting import Values, WeightedScore, fit_score, weighted
from slots.progress import Progress
from slots.shapes import Ids, ViewFeatures

MEASURES = ("angle", "pattern", "size", "class", "class")
"""The reason that each measure stands for: the distances of `slots.novelty.distances`, then relative distance and
energy (`slots.novelty.gaussians`)."""

_STORED = ("mean", "whitening", "places", "between")
_METRIC_EXAMPLES = 20_000
_SHRINKAGE = 0.05
_EXAMPLES = 20_000  # that the Gaussians are made of
_FOLD_EXAMPLES = 5_000  # in each fold, which gives weights alone
_FOREIGN = 1_000  # examples of classes left out in each fold


@dataclass(frozen=True)
class SlotClasses:
    """The classes of a fit, and the score made of all measures.

    Parameters
    ----------
    gaussians : ClassGaussians
        Of the training examples, the first view of each; only what separates the classes.
    combine : WeightedScore
        From the measures named by `MEASURES`.
    """

    gaussians: ClassGaussians
    combine: WeightedScore

    def score(self, features: ViewFeatures, several: Sequence[Distances]) -> list[tuple[Values, npt.NDArray[np.str_]]]:
        """Scores of inputs and their reasons, by each of several distances.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features.
        several : sequence of Distances
            Theirs from each of one or more sets of slots.
        """
        first = measured(features, several[0], self.gaussians)  # what the classes say is the same for all
        others = [np.concatenate([found.values[:, :3].cpu().numpy(), first[:, 3:]], 1) for found in several[1:]]
        scores, measures = self.combine(np.concatenate([first, *others]))
        reasons, n = np.array(MEASURES)[measures], len(several)
        return list(zip(np.split(scores, n), np.split(reasons, n), strict=True))

    def to(self, device: torch.device | str) -> SlotClasses:
        """The same on another device."""
        there = self.gaussians.to(device)
        return self if there is self.gaussians else replace(self, gaussians=there)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values to store."""
        made, combine = self.gaussians, self.combine
        tensors = {
            name: getattr(made, name).float().contiguous() for name in ("mean", "whitening", "places", "between")
        }
        return tensors, {
            "knots": combine.tails.quantiles.tolist(),
            "excess": combine.tails.mean_excess.tolist(),
            "weights": combine.weights.tolist(),
            "total_knots": combine.total.quantiles.tolist(),
            "total_excess": combine.total.mean_excess.tolist(),
        }

    @staticmethod
    def from_state(tensors: dict[str, Tensor], values: dict[str, Any]) -> SlotClasses:
        """What `state` gave."""
        mean, whitening, places, between = (
            tensors[name].double() for name in ("mean", "whitening", "places", "between")
        )
        tails = Tails(np.array(values["knots"]), np.array(values["excess"]))
        total = Tails(np.array(values["total_knots"]), np.array(values["total_excess"]))
        combine = WeightedScore(tails, np.array(values["weights"]), total)
        return SlotClasses(_of_state(mean, whitening, places, between), combine)


def slot_metric(
    source: FeatureSource, head: IncrementalNeuralHashing, fitted: Ids, progress: Progress
) -> NoveltyMetric:
    """How far examples lie from their nearest slots, direction by direction; without tails.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        The slots.
    fitted : int64 array
        Examples that training saw.
    progress : callable
        ``progress("novelty", share)``, told the progress.

    Returns
    -------
    NoveltyMetric
    """
    ids = fitted[:: max(1, -(-len(fitted) // _METRIC_EXAMPLES))]

    def work(rows: slice) -> tuple[Tensor, Tensor]:
        progress("novelty", rows.stop / len(ids))
        features = source(ids[rows]).float()
        unit = normalize(features)
        scores = (unit @ head.centres.T).flatten(1)
        best = scores.argmax(1)
        view = best // head.n_slots
        here = unit[torch.arange(len(unit), device=unit.device), view]
        return here - head.centres[best % head.n_slots], feature_lengths(features[:, 0])

    residuals, norms = (
        torch.cat(it) for it in zip(*source.each_block(len(ids), work, columns=head.n_slots), strict=True)
    )
    return NoveltyMetric.of(residuals, norms, shrinkage=_SHRINKAGE)


def measured(features: ViewFeatures, found: Distances, gaussians: ClassGaussians) -> Values:
    """The measures named by `MEASURES`, of shape (example, measure).

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features; the classes see the first view.
    found : Distances
        Theirs from the slots.
    gaussians : ClassGaussians
        Made by `ClassGaussians.separating`.
    """
    of_class = gaussians.evidence(features[:, 0])[:, [0, 2]]
    together: Values = torch.cat([found.values[:, :3], of_class], 1).cpu().numpy()
    return together


@torch.no_grad()
def learn_classes(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    metric: NoveltyMetric,
    y: Ids,
    *,
    fitted: Ids,
    scaling: Ids,
) -> SlotClasses:
    """Classes, weights and tails from the training data.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Its slots must come from ``fitted`` alone.
    metric : NoveltyMetric
        Scales of the distances from slots.
    y : int64 array of shape (example,)
        Labels of the training data.
    fitted, scaling : int64 arrays
        Examples that training saw; those that set the tails, which it did not see.

    Returns
    -------
    SlotClasses

    Notes
    -----
    For the weights a quarter of the classes is left out at a time, their slots with them, as
    `slots.novelty.class_detector` does; the examples of ``scaling`` of the other classes are familiar.
    """
    rng, parts = np.random.default_rng(0), list[Kinds]()
    folds = _known_classes(y[fitted], rng)
    gaussians, of_folds = class_gaussians(source, y, fitted, folds)
    for fold, made in zip(folds, of_folds, strict=True):
        kept = scaling[np.isin(y[scaling], fold)]
        parts.append(without_classes(source, head, metric, y, fold, made=made, fitted=fitted, kept=kept, rng=rng))
    own = measures_of(source, scaling, head.centres, metric, gaussians)
    weights = Kinds.joined(parts).weights()
    return SlotClasses(gaussians, fit_score(own) if weights is None else weighted(own, weights))


def without_classes(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    metric: NoveltyMetric,
    y: Ids,
    known: Ids,
    *,
    made: ClassGaussians | None,
    fitted: Ids,
    kept: Ids,
    rng: np.random.Generator,
) -> Kinds:
    """Measures of familiar and of foreign examples where only some of the classes are known.

    Parameters
    ----------
    source, head, metric, y
        As in `learn_classes`.
    known : int64 array of shape (class,)
        The classes that are not left out.
    made : ClassGaussians or None
        What separates them (`class_gaussians`).
    fitted, kept : int64 arrays
        Examples that training saw, and those of the known classes that it did not see.
    rng : numpy Generator
        Draws foreign examples.

    Returns
    -------
    Kinds
        Of no examples where there are too few.
    """
    slots = torch.isin(head.labels, torch.from_numpy(known).to(head.labels.device))
    left = fitted[~np.isin(y[fitted], known)]
    if len(kept) < 2 or not bool(slots.any()) or made is None or len(left) == 0:
        return Kinds.none()
    centres = head.centres[slots]
    familiar = measures_of(source, kept, centres, metric, made)
    new = measures_of(source, rng.permutation(left)[:_FOREIGN], centres, metric, made)
    middle = halfway(source(kept), y[kept], rng)
    return Kinds(familiar, new, measured(middle, distances(middle, centres, metric), made))


def _known_classes(labels: Ids, rng: np.random.Generator) -> list[Ids]:
    """Of each fold the classes that are not left out."""
    classes = np.unique(labels)
    fold = rng.permutation(len(classes)) % FOLDS
    return [classes[fold != number] for number in range(min(FOLDS, len(classes)))] if len(classes) > 1 else []


def class_gaussians(
    source: FeatureSource, y: Ids, fitted: Ids, folds: Sequence[Ids] = ()
) -> tuple[ClassGaussians, list[ClassGaussians | None]]:
    """What separates the classes of a fit, and the classes of each fold; several processes share the work.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    y : int64 array of shape (example,)
        Labels of the training data.
    fitted : int64 array
        Examples that training saw.
    folds : sequence of int64 arrays of shape (class,)
        Some of the classes each.

    Returns
    -------
    all : ClassGaussians
    folds : list of ClassGaussians or None
        None for a fold of which training saw no example.
    """
    few = _some(fitted, _FOLD_EXAMPLES)
    learned = [_some(fitted, _EXAMPLES), *(few[np.isin(y[few], fold)] for fold in folds)]

    def work(ids: Ids) -> tuple[Tensor, ...]:
        made = _gaussians(source, y, ids).separating()
        return made.mean, made.whitening, made.places, made.between

    found = iter(source.ranks.each([ids for ids in learned if len(ids)], work))
    made = [_of_state(*next(found)) if len(ids) else None for ids in learned]
    assert made[0] is not None  # a fit has examples
    return made[0], made[1:]


def _of_state(mean: Tensor, whitening: Tensor, places: Tensor, between: Tensor) -> ClassGaussians:
    """As `ClassGaussians.separating` made it."""
    return ClassGaussians(mean, None, whitening, 0.0, places, between)


def _gaussians(source: FeatureSource, y: Ids, ids: Ids) -> ClassGaussians:
    first = first_views(source, ids)
    known = torch.from_numpy(np.unique(y[ids], return_inverse=True)[1].astype(np.int64))
    return fit_gaussians(first, known.to(first.device))


def measures_of(
    source: FeatureSource, ids: Ids, centres: Tensor, metric: NoveltyMetric, gaussians: ClassGaussians
) -> Values:
    """The measures named by `MEASURES` of some examples, of shape (example, measure)."""

    def work(rows: slice) -> tuple[Tensor]:
        features = source(ids[rows])
        return (torch.from_numpy(measured(features, distances(features, centres, metric), gaussians)),)

    found = source.each_block(len(ids), work, columns=len(centres))
    return np.concatenate([np.zeros((0, len(MEASURES))), *(values.numpy() for (values,) in found)])


def _some(ids: Ids, most: int) -> Ids:
    return ids[:: max(1, -(-len(ids) // most))]
