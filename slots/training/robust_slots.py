"""A fit's slots trained for certificates, on inputs that are their own features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from slots.errors import DataError, UsageError
from slots.features.source import FeatureSource, unit_features
from slots.model.slot_model import SlotModel
from slots.robust.hinge import train_robust
from slots.training.config import TrainConfig
from slots.training.fixed_features import first_slots
from slots.training.loop import FitLoop

SHARP = 1e4
"""Inverse temperature of the pooled score after such a fit: it names the nearest slot, as certificates need it."""


def check_robust(model: SlotModel, config: TrainConfig) -> None:
    """Refuse what cannot be trained for certificates.

    Raises
    ------
    UsageError
        If features are not the inputs themselves, views have norms of their own, or an option does not go with it.
    """
    kept = isinstance(model.backbone, nn.Identity) or getattr(model.backbone, "keeps_inputs", False)
    if not kept or model.preprocessing.kind == "text" or config.whitening is not None:
        raise UsageError(
            "`robust` must come with features that are the inputs themselves, got a backbone or a whitening, behind "
            "which no radius holds. Choose the backbone pixels, or feature rows."
        )
    if model.views.n_views > 1 or config.standardize:
        raise UsageError(
            "`robust` must come without `views` and `standardize`: each view is divided by a norm of its own, and "
            "radii are meant in pixels. Leave them out; `augment` is allowed."
        )
    if config.slots_per_class == 0:
        raise UsageError("`slots_per_class` must be >= 1 with `robust`, got 0: no slot is grown. Try 100.")


@torch.no_grad()
def fit_robust_slots(run: FitLoop, *, resume: bool = False) -> tuple[list[float], bool]:
    """Train a run's slots by the hinge on their certified radius and give them to its head.

    Parameters
    ----------
    run : FitLoop
        Its model has no slots yet and ``config.robust`` is set.
    resume : bool, default False
        Refused: no checkpoint is written.

    Returns
    -------
    losses : list of float
        Mean of what radii lack, of each epoch that was completed.
    stopped : bool

    Raises
    ------
    DataError
        If the data has one class only: nothing could be mistaken for another.
    UsageError
        If asked to resume.
    """
    if resume:
        raise UsageError("`resume` must be left out with `robust`: such a fit takes minutes and begins anew.")
    config, head, robust = run.config, run.model.head, run.config.robust
    assert robust is not None
    source = FeatureSource(run.model.featurizer, run.x) if run.source is None else run.source
    labels = run.y[torch.from_numpy(run.fitted)]
    unit = unit_features(source, run.fitted)
    run.progress("initial slots", 0.0)
    start = first_slots(unit, labels, per_class=config.slots_per_class, seed=config.seed)
    if len(start.classes) < 2:
        raise DataError("`y` must have at least two classes with `robust`, got one. Leave `robust` out.")
    keep = start.there.T.reshape(-1)
    weights = start.weights.transpose(0, 1).flatten(0, 1)[keep]
    slot_labels = start.classes.repeat_interleave(len(start.there))[keep]

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _, ids, views in run.batches(epoch, plain=robust.plain):
            targets = run.y[torch.from_numpy(ids).to(run.y.device)]
            rows = views[:, 0] if run.source is not None else run.model.featurize(views)[:, 0]
            known = torch.isin(targets, start.classes)
            if bool(known.any()):
                yield rows[known].float(), targets[known]

    found = train_robust(
        weights,
        slot_labels,
        batches,
        robust,
        epochs=config.epochs,
        steps=int(np.ceil(len(run.fitted) / config.batch_size)),
        rate=config.slot_lr,
        progress=run.progress,
        log=run.log,
        stop=run.stop,
    )
    head.add_slots(found.weights, slot_labels)
    return list(found.losses), found.stopped
