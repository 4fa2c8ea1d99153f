"""Novelty of a model's inputs: the slots are the prototypes, so what is learned later is no longer novel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.errors import UsageError
from slots.matching import normalize
from slots.novelty_distances import Distances, NoveltyMetric, distances
from slots.novelty_tails import combine, with_tails
from slots.ood import SHARES, Novelty, judge

if TYPE_CHECKING:
    from slots.model import SlotModel
    from slots.preprocessing import RawInputs
    from slots.sources import FeatureSource

_METRIC_EXAMPLES = 20_000
_SHRINKAGE = 0.05


@dataclass(frozen=True)
class ModelNovelty:
    """What a model needs to judge novelty, beside its slots.

    Parameters
    ----------
    metric : NoveltyMetric
    calibration : float64 array of shape (calibration example,)
        Scores of held-out training examples against the trained slots, before any slot was made of an example.
    """

    metric: NoveltyMetric
    calibration: npt.NDArray[np.float64]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values to store."""
        metric = self.metric
        tensors = {
            "basis": metric.basis.contiguous(),
            "stretch": metric.stretch,
            "calibration": torch.from_numpy(self.calibration),
        }
        return tensors, {
            "rest": metric.rest,
            "middle": metric.middle,
            "knots": [list(knots) for knots in metric.knots],
            "excess": list(metric.excess),
            "shares": list(metric.shares),
        }

    @staticmethod
    def from_state(tensors: dict[str, Tensor], values: dict[str, Any]) -> ModelNovelty:
        """What `state` gave."""
        metric = NoveltyMetric(
            basis=tensors["basis"],
            stretch=tensors["stretch"],
            rest=float(values["rest"]),
            middle=float(values["middle"]),
            knots=tuple(tuple(knots) for knots in values["knots"]),
            excess=tuple(values["excess"]),
            shares=tuple(values["shares"]),
        )
        return ModelNovelty(metric, tensors["calibration"].numpy())


@torch.no_grad()
def learn_novelty(
    source: FeatureSource,
    fitted: npt.NDArray[np.int64],
    held_out: npt.NDArray[np.int64],
    report: Callable[[str, float], None],
) -> ModelNovelty | None:
    """Metric, scales and calibration from the training data.

    Parameters
    ----------
    source : FeatureSource
        The training data; the head's slots must come from ``fitted`` alone.
    fitted, held_out : int64 arrays
        Examples that training saw; those it did not see: every other one sets the scales, the rest calibrates.
    report : callable

    Returns
    -------
    ModelNovelty or None
        None where fewer than 20 examples were held out.
    """
    if len(held_out) < 20:
        return None
    model = source.model
    ids = fitted[:: max(1, -(-len(fitted) // _METRIC_EXAMPLES))]
    residuals, norms = [], []
    for rows in model.blocks(len(ids)):
        report("novelty", rows.stop / len(ids))
        features = source(ids[rows]).float()
        unit = normalize(features)
        scores = (unit @ model.head.centres.T).flatten(1)
        best = scores.argmax(1)
        view = best // model.head.n_slots
        here = unit[torch.arange(len(unit), device=unit.device), view]
        residuals.append(here - model.head.centres[best % model.head.n_slots])
        norms.append(features[:, 0].norm(dim=1))
    metric = NoveltyMetric.of(torch.cat(residuals), torch.cat(norms), shrinkage=_SHRINKAGE)
    order = np.random.default_rng(0).permutation(held_out)
    reference = _stack([_of(source, order[::2], rows, metric) for rows in model.blocks(len(order[::2]))])
    metric = with_tails(metric, reference, SHARES)
    last = _stack([_of(source, order[1::2], rows, metric) for rows in model.blocks(len(order[1::2]))])
    return ModelNovelty(metric, np.sort(combine(last, metric)[0]))


@torch.no_grad()
def assess(model: SlotModel, x: RawInputs, novelty: ModelNovelty, *, rate: float) -> Novelty:
    """Score, p-value, decision, nearest slot and reason of raw inputs."""
    model.preprocessing.check_form(x)
    model.eval()
    metric = novelty.metric.to(model.device)
    parts = []
    for rows in model.blocks(len(x)):
        block = model.preprocessing.check_finite(x[rows], rows.start)
        parts.append(distances(model.features(block), model.head.centres, metric))
    return judge(_stack(parts), metric, novelty.calibration, rate=rate)


@torch.no_grad()
def recalibrate(model: SlotModel, x: RawInputs) -> ModelNovelty:
    """The same metric with calibration scores from other familiar inputs, which the model was never shown.

    Parameters
    ----------
    model : SlotModel
    x : array of shape (example, ...)

    Returns
    -------
    ModelNovelty
        Put it into ``model.novelty``.

    Raises
    ------
    UsageError
        If the model has no metric.
    """
    if model.novelty is None:
        raise UsageError(
            "The model must have a novelty metric, and has none. Fit it again with more held-out examples."
        )
    scores = assess(model, x, ModelNovelty(model.novelty.metric, np.zeros(1)), rate=0.5).scores
    return ModelNovelty(model.novelty.metric, np.sort(scores))


def _of(source: FeatureSource, ids: npt.NDArray[np.int64], rows: slice, metric: NoveltyMetric) -> Distances:
    return distances(source(ids[rows]), source.model.head.centres, metric)


def _stack(parts: list[Distances]) -> Distances:
    if not parts:
        return Distances(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long))
    return Distances(torch.cat([part.values for part in parts]), torch.cat([part.nearest for part in parts]))
