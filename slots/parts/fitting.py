"""A slot model of parts: train, choose the parts, and train the slots on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from slots.distributed import ALONE, Ranks
from slots.errors import UsageError
from slots.features.training_data import training_data
from slots.labels import check_labels
from slots.model.slot_model import SlotModel
from slots.parts.backbone import check_parts_backbone
from slots.parts.choosing import ChosenParts, PartConfig, choose_parts
from slots.parts.training import part_epochs, train_on_parts
from slots.progress import Log, Progress, part, silent
from slots.shapes import RawInputs
from slots.training.config import TrainConfig
from slots.training.fitting import FitResult, drop_checkpoint, fit

_FINAL_EPOCHS = 12
_TRAINING = 0.8  # of the progress that is shown


@dataclass(frozen=True)
class PartsResult:
    """What a fit with parts did.

    Parameters
    ----------
    losses : tuple of float
        Mean loss of each epoch of the network's training, before the choice; those of a bag of patches
        (`PartConfig.bag`) first, unless a resume began after them.
    interrupted : bool
        Whether ``stop`` ended that training.
    parts : ChosenParts
        The patches that became parts.
    fit : FitResult
        Of the slots on the chosen parts.
    elapsed_s : float
        Seconds of all three.
    """

    losses: tuple[float, ...]
    interrupted: bool
    parts: ChosenParts
    fit: FitResult
    elapsed_s: float


def fit_parts(
    x: RawInputs,
    y: npt.ArrayLike | None = None,
    *,
    backbone: nn.Module,
    config: TrainConfig,
    parts: PartConfig | None = None,
    class_names: tuple[str, ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    keep_checkpoint: bool = False,
    progress: Progress | None = None,
    log: Log | None = None,
    stop: Callable[[], bool] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[SlotModel, PartsResult]:
    """Fit slots of a few parts each, every part a patch of a training image.

    Parameters
    ----------
    x : uint8 array of shape (example, height, width[, channel])
        Images, or a data set of them (`slots.sources.read_source`).
    y : array of shape (example,), optional
        Labels, as `slots.fit` takes them.
    backbone : PartsBackbone
        ``backbones.build("parts", input_shape=...)``; it is trained, then frozen.
    config : TrainConfig
        Of the training. ``features_per_slot`` says how many parts a slot may have, each with a place; ``parts`` may
        say another number for the slots that are trained at the end.
    parts : PartConfig, optional
        How the parts are chosen.
    class_names, checkpoint, resume, keep_checkpoint, progress, log, stop, ranks
        See `slots.fit`; the checkpoint is that of the training.

    Returns
    -------
    model : SlotModel
    result : PartsResult

    Raises
    ------
    DataError, UsageError
        As `slots.fit` and `choose_parts`; and if the backbone has no parts, or views are asked for.

    Notes
    -----
    Three steps: backbone and slots are trained together on channels that compete (before that, for `PartConfig.bag` of
    the epochs, the layers below them as a bag of patches); the fewest training patches that
    show every image are put in the channels' place (`choose_parts`); the slots are trained anew on these, with the
    backbone frozen, and closed as always. Chosen parts need no projection onto patches, after which accuracy drops:
    they are patches when the slots are trained.
    """
    started = time.monotonic()
    progress, parts = progress or silent, parts or PartConfig()
    net = check_parts_backbone(backbone)
    if config.views != "none":
        raise UsageError(f"`views` must be none with parts, got {config.views!r}: a part has one place. Leave it out.")
    x, y, class_names = training_data(x, y, class_names)
    labels = check_labels(x, y, n_names=len(class_names))
    kept = None if checkpoint is None else Path(checkpoint)
    trained = train_on_parts(
        x,
        labels,
        backbone=backbone,
        config=config,
        bag=parts.bag,
        checkpoint=kept,
        resume=resume,
        progress=part(progress, 0.0, _TRAINING),
        log=log,
        stop=stop,
        ranks=ranks,
    )

    def inputs(ids: npt.NDArray[np.int64]) -> Tensor:
        return trained.model.preprocessing(x[ids], trained.model.device)

    late = part(progress, _TRAINING, 1.0)
    chosen = choose_parts(net, inputs, labels, parts, among=trained.fitted, progress=late)
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(config.seed)
    final = final_config(config, parts)
    model, result = fit(
        x, labels, backbone=backbone, config=final, class_names=class_names, progress=late, stop=stop, ranks=ranks
    )
    if kept is not None and not keep_checkpoint and ranks.is_first:
        drop_checkpoint(kept)
    return model, PartsResult(trained.losses, trained.interrupted, chosen, result, time.monotonic() - started)


def final_config(config: TrainConfig, parts: PartConfig) -> TrainConfig:
    """How slots are trained on the chosen parts.

    Parameters
    ----------
    config : TrainConfig
        Of the network's training.
    parts : PartConfig
        Its ``features_per_slot`` and ``slots_per_class`` take the place of the training's.
    """
    return replace(
        config,
        augment="none",
        epochs=max(part_epochs(config, parts.bag), _FINAL_EPOCHS),
        features_per_slot=parts.features_per_slot or config.features_per_slot,
        slots_per_class=parts.slots_per_class or config.slots_per_class,
    )
