"""A model's novelty measured on examples that its slots were made without, fold by fold: more than are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.novelty.assessment import SHARES
from slots.novelty.classes_left_out import Kinds, fold_of_classes
from slots.novelty.distances import Distances
from slots.novelty.slot_classes import SlotClasses, class_gaussians, measures_of, slot_metric, without_classes
from slots.novelty.slot_novelty import ModelNovelty
from slots.novelty.tails import fit_tails
from slots.novelty.weighting import Values, fit_score, weighted
from slots.progress import Progress, silent
from slots.shapes import Ids

FEW = 100
"""Held-out examples below which those left out in turn judge instead."""

_FEWEST = 20


@dataclass(frozen=True)
class CrossMeasures:
    """Measures of examples by slots and classes that were made without them.

    Parameters
    ----------
    values : float64 array of shape (example, measure)
        Those named by `slots.novelty.slot_classes.MEASURES`.
    kinds : Kinds
        Measures where a part of the classes was left out too.
    """

    values: Values
    kinds: Kinds

    @classmethod
    def joined(cls, parts: Sequence[CrossMeasures]) -> CrossMeasures | None:
        """That of several fits, each without other examples; None of too few to judge novelty by."""
        if sum(len(part.values) for part in parts) < _FEWEST:
            return None
        return cls(np.concatenate([part.values for part in parts]), Kinds.joined([part.kinds for part in parts]))

    def scores(self, weights: Values) -> Values:
        """Scores of the examples, ascending, each by the tails of that half of them which it is not in.

        Parameters
        ----------
        weights : float64 array of shape (measure,)
            Of the measures.
        """
        half = np.random.default_rng(0).permutation(len(self.values)) % 2 == 0
        found = np.empty(len(self.values))
        for part in (half, ~half):
            found[part] = weighted(self.values[~part], weights)(self.values[part])[0]
        return np.sort(found)


@torch.no_grad()
def measure_left_out(
    source: FeatureSource, head: IncrementalNeuralHashing, y: Ids, *, fitted: Ids, left: Ids, number: int
) -> CrossMeasures:
    """Measure left-out examples by trained slots.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Its slots must come from ``fitted`` alone, and be trained ones.
    y : int64 array of shape (example,)
        Labels of the training data.
    fitted, left : int64 arrays
        Examples of the fit, and those left out; also of classes of which ``fitted`` has none.
    number : int
        Which of the folds; a part of the classes goes with each.

    Returns
    -------
    CrossMeasures
    """
    metric = slot_metric(source, head, fitted, silent)
    fold, kinds = fold_of_classes(y[fitted], number), Kinds.none()
    gaussians, of_fold = class_gaussians(source, y, fitted, [] if fold is None else [fold])
    if fold is not None:
        kept, rng = left[np.isin(y[left], fold)], np.random.default_rng(number)
        kinds = without_classes(source, head, metric, y, fold, made=of_fold[0], fitted=fitted, kept=kept, rng=rng)
    return CrossMeasures(measures_of(source, left, head.centres, metric, gaussians), kinds)


@torch.no_grad()
def learn_from_left_out(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: Ids,
    found: CrossMeasures,
    *,
    fitted: Ids,
    progress: Progress,
) -> ModelNovelty:
    """Novelty of a fit, with scales and calibration from other fits made in the same way, each without some examples.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Its slots must be trained ones.
    y : int64 array of shape (example,)
        Labels of the training data.
    found : CrossMeasures
        Of the other fits.
    fitted : int64 array
        Examples that this fit saw.
    progress : callable
        Told the progress.

    Returns
    -------
    ModelNovelty

    Notes
    -----
    Cross-conformal prediction with one score for all folds (Vovk 2015): an example left out is scored by the slots,
    metric and classes of the fit that had not seen it, and by the tails of the half of the examples that it is not in,
    so that none helps to judge itself. This fit knows more examples than those, which makes its scores lower and its
    alarms fewer, if anything. A long stream shows that difference, so that ``familiar`` is left out: drift is then
    judged by the stream itself.
    """
    metric = slot_metric(source, head, fitted, progress)
    weights = found.kinds.weights()
    if weights is None:
        weights = fit_score(found.values).weights
    values = torch.from_numpy(found.values[:, :3])
    metric = fit_tails(metric, Distances(values, torch.zeros(len(values), dtype=torch.long)), SHARES)
    classes = SlotClasses(class_gaussians(source, y, fitted)[0], weighted(found.values, weights))
    return ModelNovelty(metric, found.scores(weights), classes)
