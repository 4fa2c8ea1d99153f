"""Novelty of a model's inputs: the slots are the prototypes, so what is learned later is no longer novel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.errors import UsageError
from slots.features.featurizer import Featurizer
from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.novelty.assessment import SHARES, Novelty, assess_scores
from slots.novelty.distances import Distances, NoveltyMetric, distances
from slots.novelty.slot_classes import SlotClasses, learn_classes
from slots.novelty.tails import bonferroni_score, fit_tails
from slots.progress import Progress
from slots.shapes import Ids, RawInputs, ViewFeatures

_METRIC_EXAMPLES = 20_000
_SHRINKAGE = 0.05


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
        Scores of the same examples against the slots of the closed model, so that they are exchangeable with those of
        familiar inputs; a slot made of an example after the calibration lets such score lower. None where the examples
        could have become slots themselves, and in models stored by older versions.
    n_slots : int, default 0
        Slots that ``familiar`` was measured against (count).
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
    ids = fitted[:: max(1, -(-len(fitted) // _METRIC_EXAMPLES))]
    residuals, norms = [], []
    for rows in source.blocks(len(ids), columns=head.n_slots):
        progress("novelty", rows.stop / len(ids))
        features = source(ids[rows]).float()
        unit = normalize(features)
        scores = (unit @ head.centres.T).flatten(1)
        best = scores.argmax(1)
        view = best // head.n_slots
        here = unit[torch.arange(len(unit), device=unit.device), view]
        residuals.append(here - head.centres[best % head.n_slots])
        norms.append(features[:, 0].norm(dim=1))
    metric = NoveltyMetric.of(torch.cat(residuals), torch.cat(norms), shrinkage=_SHRINKAGE)
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
    return np.sort(
        assess(source.take(ids, keep=False), head, replace(novelty, calibration=np.zeros(1)), rate=0.5).scores
    )


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
    there = novelty.to(head.centres.device)
    scored = [score_block(source(rows), head, there) for rows in source.blocks(columns=head.n_slots)]
    return judge(scored, novelty, rate=rate)


@dataclass(frozen=True)
class Scored:
    """Scores of one block of inputs, all of shape (example,): higher = more novel, why, and the nearest slot."""

    scores: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.str_]
    nearest: Ids


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
    found = distances(features, head.centres, novelty.metric)
    nearest = found.nearest.cpu().numpy()
    if novelty.classes is None:
        return Scored(*bonferroni_score(found, novelty.metric), nearest)
    scores, reasons = novelty.classes.score(features, found)
    later = head.generations > 0
    if bool(later.any()):
        since = distances(features, head.centres[later], novelty.metric)
        others, why = bonferroni_score(since, novelty.metric)
        reasons = np.where(others < scores, why, reasons)
        scores = np.minimum(scores, others)
    return Scored(scores, reasons, nearest)


def judge(scored: list[Scored], novelty: ModelNovelty, *, rate: float) -> Novelty:
    """P-values and decisions for consecutive blocks.

    Parameters
    ----------
    scored : list of Scored
        May be empty.
    novelty : ModelNovelty
        Whose calibration counts.
    rate : float in (0, 1)
        Largest share of familiar inputs that may be called novel.

    Returns
    -------
    Novelty
    """
    blank = Scored(np.zeros(0), np.zeros(0, "<U7"), np.zeros(0, np.int64))
    parts = scored or [blank]
    scores, reasons, nearest = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "reasons", "nearest")
    )
    return assess_scores(scores, reasons, nearest, novelty.calibration, rate=rate)


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
    source = FeatureSource(model.featurizer, x, keep=False)
    scores = assess(source, model.head, replace(model.novelty, calibration=np.zeros(1)), rate=0.5).scores
    scores = np.sort(scores)
    return replace(model.novelty, calibration=scores, familiar=scores, n_slots=model.head.n_slots)


def _distances(source: FeatureSource, head: IncrementalNeuralHashing, metric: NoveltyMetric) -> Distances:
    """Of all inputs of a source, block by block."""
    blocks = source.blocks(columns=head.n_slots)
    return stack_distances([distances(source(rows), head.centres, metric) for rows in blocks])


def stack_distances(parts: list[Distances]) -> Distances:
    """The distances of consecutive blocks; no parts give none."""
    if not parts:
        return Distances(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long))
    return Distances(torch.cat([part.values for part in parts]), torch.cat([part.nearest for part in parts]))
