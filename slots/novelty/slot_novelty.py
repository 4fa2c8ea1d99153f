"""Novelty of a model's inputs: the slots are the prototypes, so what is learned later is no longer novel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from torch import Tensor

from slots.errors import UsageError
from slots.features.featurizer import Featurizer
from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.novelty.assessment import SHARES, Novelty, assess_scores
from slots.novelty.distances import Distances, NoveltyMetric, distances, stack_distances
from slots.novelty.slot_classes import SlotClasses, learn_classes, slot_metric
from slots.novelty.tails import bonferroni_score, fit_tails
from slots.progress import Progress
from slots.shapes import Ids, RawInputs, ViewFeatures


@dataclass(frozen=True)
class ModelNovelty:
    """What a model needs to judge novelty, beside its slots.

    Parameters
    ----------
    metric : NoveltyMetric
        Distances and their scales, from the training data.
    calibration : float64 array of shape (calibration example,)
        Scores of held-out training examples against the trained slots, before any slot was made of an example.
    classes : SlotClasses, optional
        The classes of the fit; models stored by older versions have none.
    familiar : float64 array of shape (calibration example,), optional
        Scores of the same examples against the slots of the fit as they were closed, so that they are exchangeable with
        `Scored.scores_by_fit` of familiar inputs; a slot made of an example after the calibration lets such score
        lower. None where the examples could have become slots themselves, and in models stored by older versions.
    n_slots : int, default 0
        Slots of the fit that ``familiar`` was measured against (count).
    """

    metric: NoveltyMetric
    calibration: npt.NDArray[np.float64]
    classes: SlotClasses | None = None
    familiar: npt.NDArray[np.float64] | None = None
    n_slots: int = 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values to store, under the names that stored models have."""
        metric = self.metric
        tensors = {
            "basis": metric.basis.contiguous(),
            "stretch": metric.inverse_scales,
            "calibration": torch.from_numpy(self.calibration),
        }
        values: dict[str, Any] = {
            "rest": metric.residual_inverse_scale,
            "middle": metric.median_log_norm,
            "knots": [list(row) for row in metric.quantiles],
            "excess": list(metric.mean_excess),
            "shares": list(metric.shares),
        }
        if self.familiar is not None:
            tensors["familiar"] = torch.from_numpy(self.familiar.copy())  # no two tensors of a file may share memory
            values["slots"] = self.n_slots
        if self.classes is not None:
            stored, values["classes"] = self.classes.state()
            tensors |= {f"classes.{name}": value for name, value in stored.items()}
        return tensors, values

    @staticmethod
    def from_state(tensors: dict[str, Tensor], values: dict[str, Any]) -> ModelNovelty:
        """What `state` gave."""
        metric = NoveltyMetric(
            basis=tensors["basis"],
            inverse_scales=tensors["stretch"],
            residual_inverse_scale=float(values["rest"]),
            median_log_norm=float(values["middle"]),
            quantiles=tuple(tuple(row) for row in values["knots"]),
            mean_excess=tuple(values["excess"]),
            shares=tuple(values["shares"]),
        )
        classes = None
        if "classes" in values:
            of_classes = {name.removeprefix("classes."): value for name, value in tensors.items() if "." in name}
            classes = SlotClasses.from_state(of_classes, values["classes"])
        familiar = tensors["familiar"].numpy() if "familiar" in tensors else None
        return ModelNovelty(metric, tensors["calibration"].numpy(), classes, familiar, values.get("slots", 0))

    def to(self, device: torch.device | str) -> ModelNovelty:
        """The same on another device."""
        metric, classes = self.metric.to(device), None if self.classes is None else self.classes.to(device)
        there = metric is self.metric and classes is self.classes
        return self if there else replace(self, metric=metric, classes=classes)


class HasNovelty(Protocol):
    """What novelty is judged by: a `SlotModel`, or the `Snapshot` of one."""

    @property
    def featurizer(self) -> Featurizer:
        """From raw inputs to features."""

    @property
    def head(self) -> IncrementalNeuralHashing:
        """The slots."""

    @property
    def novelty(self) -> ModelNovelty | None:
        """Metric and calibration; None where too few examples were held out at the fit."""


@torch.no_grad()
def learn_novelty(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: Ids,
    *,
    fitted: Ids,
    held_out: Ids,
    progress: Progress,
) -> ModelNovelty | None:
    """Metric, scales and calibration from the training data.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Its slots must come from ``fitted`` alone.
    y : int64 array of shape (example,)
        Labels of the training data.
    fitted, held_out : int64 arrays
        Examples that training saw; those it did not see: every other one sets the scales, the rest calibrates.
    progress : callable
        ``progress("novelty", share)``, told the progress.

    Returns
    -------
    ModelNovelty or None
        None where fewer than 20 examples were held out.
    """
    if len(held_out) < 20:
        return None
    metric = slot_metric(source, head, fitted, progress)
    scaling, last = _halves(held_out)
    metric = fit_tails(metric, _distances(source.take(scaling, keep=False), head, metric), SHARES)
    classes = learn_classes(source, head, metric, y, fitted=fitted, scaling=scaling)
    made = ModelNovelty(metric, np.zeros(1), classes)
    calibration = _sorted_scores(source, head, made, last)
    return replace(made, calibration=calibration, familiar=calibration, n_slots=head.n_slots)


def measure_familiar(
    source: FeatureSource, head: IncrementalNeuralHashing, novelty: ModelNovelty, held_out: Ids | None
) -> ModelNovelty:
    """The same with ``familiar`` measured against a head that has other slots than at the calibration.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Its slots as they stay.
    novelty : ModelNovelty
        As `learn_novelty` gave it.
    held_out : int64 array, optional
        As it was given then; None where slots may have been made of such examples.

    Returns
    -------
    ModelNovelty
    """
    if head.n_slots == novelty.n_slots:
        return novelty
    if held_out is None:
        return replace(novelty, familiar=None, n_slots=0)
    scores = _sorted_scores(source, head, novelty, _halves(held_out)[1])
    return replace(novelty, familiar=scores, n_slots=head.n_slots)


def _halves(held_out: Ids) -> tuple[Ids, Ids]:
    """Held-out examples that set the scales, and those that calibrate."""
    order = np.random.default_rng(0).permutation(held_out)
    return order[::2], order[1::2]


def _sorted_scores(
    source: FeatureSource, head: IncrementalNeuralHashing, novelty: ModelNovelty, ids: Ids
) -> npt.NDArray[np.float64]:
    return np.sort(_scored(source.take(ids, keep=False), head, novelty).scores)


@torch.no_grad()
def _scored(source: FeatureSource, head: IncrementalNeuralHashing, novelty: ModelNovelty) -> Scored:
    """Scores of all inputs of a source, block by block."""
    there = novelty.to(head.centres.device)
    return joined([score_block(source(rows), head, there) for rows in source.blocks(columns=head.n_slots)])


@torch.no_grad()
def assess(source: FeatureSource, head: IncrementalNeuralHashing, novelty: ModelNovelty, *, rate: float) -> Novelty:
    """Out-of-distribution scores and p-values of inputs, with the slots as prototypes.

    Parameters
    ----------
    source : FeatureSource
        The inputs.
    head : IncrementalNeuralHashing
        Its slots are the prototypes.
    novelty : ModelNovelty
        Metric and calibration.
    rate : float in (0, 1)
        Largest share of familiar inputs that may be called novel.

    Returns
    -------
    Novelty
    """
    return judge(_scored(source, head, novelty), novelty, rate=rate)


@dataclass(frozen=True)
class Scored:
    """Scores of one block of inputs; all arrays have shape (example,).

    Parameters
    ----------
    scores : float64 array
        Higher = more novel.
    reasons : array of str
        Why.
    nearest : int64 array
        The slot of smallest angle.
    scores_by_fit : float64 array
        The scores where the slots of the fit alone judge: no update changes them, nor does it make what was learned
        since less novel. NaN where none of those slots is left.
    """

    scores: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.str_]
    nearest: Ids
    scores_by_fit: npt.NDArray[np.float64]


def score_block(features: ViewFeatures, head: IncrementalNeuralHashing, novelty: ModelNovelty) -> Scored:
    """Novelty scores of inputs, not yet calibrated.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features.
    head : IncrementalNeuralHashing
        The slots.
    novelty : ModelNovelty
        On the device of the head.

    Returns
    -------
    Scored

    Notes
    -----
    The classes of the fit know nothing of slots that an update made. So those slots judge alone as well, by the
    distances from them, and the lower score holds: what was learned is novel no longer.
    """
    later = head.generations > 0
    before, since = (_from_slots(features, head, which, novelty) for which in (~later, later))
    sets = [it for it in (before, since) if it is not None]
    found = sets[0] if before is None or since is None else before.nearer(since)
    judged = _judged(features, [found, *sets[: len(sets) - 1]], novelty)
    scores, reasons = judged[0]
    by_fit = np.full(len(features), np.nan) if before is None else judged[-1][0]
    if since is not None and novelty.classes is not None:
        others, why = bonferroni_score(since, novelty.metric)
        reasons = np.where(others < scores, why, reasons)
        scores = np.minimum(scores, others)
    return Scored(scores, reasons, found.nearest.cpu().numpy(), by_fit)


def _from_slots(
    features: ViewFeatures, head: IncrementalNeuralHashing, which: Bool[Tensor, " slot"], novelty: ModelNovelty
) -> Distances | None:
    """Distances from some slots, the nearest by its number in the head; None where there are none."""
    slots = which.nonzero()[:, 0]
    if not len(slots):
        return None
    first, end = int(slots[0]), int(slots[-1]) + 1
    # Later slots stand behind the others, so that either kind lies side by side and nothing is copied.
    centres = head.centres[first:end] if end - first == len(slots) else head.centres[slots]
    found = distances(features, centres, novelty.metric)
    return replace(found, nearest=slots[found.nearest])


def _judged(
    features: ViewFeatures, several: list[Distances], novelty: ModelNovelty
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]]:
    """Scores and reasons of the same inputs by each of several distances."""
    if novelty.classes is None:
        return [bonferroni_score(found, novelty.metric) for found in several]
    return novelty.classes.score(features, several)


def joined(scored: list[Scored]) -> Scored:
    """The scores of consecutive blocks; of none there are none."""
    blank = Scored(np.zeros(0), np.zeros(0, "<U7"), np.zeros(0, np.int64), np.zeros(0))
    return Scored(*map(np.concatenate, zip(*(vars(part).values() for part in scored or [blank]), strict=True)))


def judge(scored: Scored, novelty: ModelNovelty, *, rate: float) -> Novelty:
    """P-values and decisions.

    Parameters
    ----------
    scored : Scored
        The scores.
    novelty : ModelNovelty
        Whose calibration counts.
    rate : float in (0, 1)
        Largest share of familiar inputs that may be called novel.

    Returns
    -------
    Novelty
    """
    return assess_scores(scored.scores, scored.reasons, scored.nearest, novelty.calibration, rate=rate)


def calibrated(novelty: ModelNovelty | None) -> ModelNovelty:
    """What a model judges novelty by, or a `UsageError` that says how to get it."""
    if novelty is None:
        raise UsageError(
            "The model must have held-out scores to judge novelty by, and has none. Fit it again with held_out > 0 "
            "and at least 20 held-out examples."
        )
    return novelty


@torch.no_grad()
def recalibrate(model: HasNovelty, x: RawInputs) -> ModelNovelty:
    """The same metric, calibrated on other familiar inputs, which the model was never shown.

    Parameters
    ----------
    model : SlotModel
        Left as it is.
    x : array of shape (example, ...)
        Familiar inputs, at least as many as one over the false-alarm rate.

    Returns
    -------
    ModelNovelty
        Put it into ``model.novelty``.

    Raises
    ------
    DataError
        If ``x`` is not what the model was fitted on.
    UsageError
        If the model has no metric.
    """
    if model.novelty is None:
        raise UsageError(
            "The model must have a novelty metric, and has none. Fit it again with more held-out examples."
        )
    model.featurizer.preprocessing.check(x)
    scored = _scored(FeatureSource(model.featurizer, x, keep=False), model.head, model.novelty)
    n_slots = int((model.head.generations == 0).sum())
    familiar = np.sort(scored.scores_by_fit) if n_slots else None
    return replace(model.novelty, calibration=np.sort(scored.scores), familiar=familiar, n_slots=n_slots)


def _distances(source: FeatureSource, head: IncrementalNeuralHashing, metric: NoveltyMetric) -> Distances:
    """Of all inputs of a source, block by block."""
    blocks = source.blocks(columns=head.n_slots)
    return stack_distances([distances(source(rows), head.centres, metric) for rows in blocks])
