"""The training of a network of parts: as a bag of patches first, then on parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from slots.parts.bag import train_bag
from slots.parts.network import NetworkTraining, train_network
from slots.progress import Log, Progress, part
from slots.shapes import RawInputs
from slots.training.checkpoint import is_checkpoint_of
from slots.training.config import TrainConfig

_GENTLER = 0.2
"""Of the network's rates after a bag: full rates undo in an epoch what the bag has learnt."""


def train_on_parts(
    x: RawInputs,
    y: npt.NDArray[np.int64],
    *,
    backbone: nn.Module,
    config: TrainConfig,
    bag: float,
    checkpoint: Path | None,
    resume: bool,
    progress: Progress,
    log: Log | None,
    **how: Any,
) -> NetworkTraining:
    """Train a network of parts.

    Parameters
    ----------
    x, y, progress, checkpoint, resume
        See `train_network`. Both trainings use one checkpoint, which knows by its config whose it is.
    backbone : PartsBackbone
        The network, which learns in place.
    config : TrainConfig
        Of both; ``epochs`` are those of both together.
    bag : float
        Share of the epochs that is a bag's, in [0, 1).
    log : callable, optional
        Told the losses of both, one after the other.
    **how
        ``stop`` and ``ranks``, see `train_network`.

    Returns
    -------
    NetworkTraining
        The model of the second; the losses of both, of those that ran.
    """
    later = replace(config, epochs=part_epochs(config, bag))
    before = config.epochs - later.epochs
    how |= {"backbone": backbone, "checkpoint": checkpoint}
    if not before:
        return train_network(x, y, config=later, resume=resume, progress=progress, log=log, **how)
    slower = _GENTLER * config.backbone_lr, _GENTLER * config.matrix_lr
    later = replace(later, backbone_lr=slower[0], matrix_lr=slower[1])
    past = resume and checkpoint is not None and is_checkpoint_of(checkpoint, later, torch.from_numpy(y))
    share = before / config.epochs
    losses: tuple[float, ...] = ()
    interrupted = False
    if not past:
        own, shown = replace(config, epochs=before), part(progress, 0.0, share)
        first = train_bag(x, y, config=own, resume=resume, progress=shown, log=log, **how)
        losses, interrupted = first.losses, first.interrupted

    def said(name: str, value: float, step: int) -> None:
        if log is not None:
            log(name, value, step + before)

    second = train_network(x, y, config=later, resume=past, progress=part(progress, share, 1.0), log=said, **how)
    return replace(second, losses=losses + second.losses, interrupted=interrupted or second.interrupted)


def part_epochs(config: TrainConfig, bag: float) -> int:
    """Epochs that are left for parts, at least one where there is any.

    Parameters
    ----------
    config : TrainConfig
        Whose ``epochs`` are those of both.
    bag : float
        Share of the bag, in [0, 1).
    """
    return config.epochs - min(round(bag * config.epochs), max(config.epochs - 1, 0))
