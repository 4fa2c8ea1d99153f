"""Training of a network alone: slots lead it, and are left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from slots.distributed import ALONE, Ranks
from slots.labels import check_labels
from slots.model.slot_model import SlotModel
from slots.progress import Log, Progress, unlogged
from slots.shapes import RawInputs
from slots.training.config import TrainConfig
from slots.training.distributed.alike import check_alike
from slots.training.fitting import hold_out
from slots.training.loop import FitLoop
from slots.training.steps.assembling import assemble


@dataclass(frozen=True)
class NetworkTraining:
    """What a training without a closing pass did.

    Parameters
    ----------
    model : SlotModel
        The network and the slots that led it, without caps, exemplars or calibration.
    losses : tuple of float
        Mean loss of each epoch.
    interrupted : bool
        Whether ``stop`` ended it.
    fitted : int64 array of shape (example,)
        Ids of the examples that were trained on, in increasing order: all but those that a fit holds out.
    """

    model: SlotModel
    losses: tuple[float, ...]
    interrupted: bool
    fitted: npt.NDArray[np.int64]


def train_network(
    x: RawInputs,
    y: npt.NDArray[np.int64],
    *,
    backbone: nn.Module,
    config: TrainConfig,
    progress: Progress,
    log: Log | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> NetworkTraining:
    """Train a network under slots as `slots.fit` does, and stop before the slots are closed.

    Parameters
    ----------
    x : raw inputs
        Training examples, checked.
    y : int64 array of shape (example,)
        Labels.
    backbone : nn.Module
        The network, which learns in place.
    config : TrainConfig
        Of the training; examples that a fit would hold out train nothing here either.
    progress, log, stop, ranks
        See `slots.fit`.
    checkpoint : Path, optional
        File for the state after each epoch; it stays.
    resume : bool
        Go on from it.

    Raises
    ------
    UsageError
        If the checkpoint belongs to another training, or there are several processes and a network to train.
    """
    labels = check_labels(x, y)
    torch.manual_seed(config.seed)
    check_alike(x, labels, (config, None), backbone, ranks)
    model = assemble(x, backbone, config, ())
    fitted = np.setdiff1d(np.arange(len(labels)), hold_out(labels, config.held_out, config.seed))
    targets = torch.from_numpy(labels).to(model.device)
    said = unlogged if log is None or not ranks.is_first else log
    loop = FitLoop(model, x, targets, fitted, config, progress, ranks.agreed(stop), ranks=ranks, log=said)
    losses, interrupted = loop.train(checkpoint, resume=resume)
    model.eval()
    return NetworkTraining(model, tuple(losses), interrupted, fitted)
