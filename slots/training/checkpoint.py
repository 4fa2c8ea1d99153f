"""The work of a fit so far, on disk after each epoch, so that a killed fit can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from slots.distributed import Ranks
from slots.errors import StorageError, UsageError
from slots.storage.atomic import write_file
from slots.training.optimizers import Optimizer


@dataclass(frozen=True)
class Checkpoint:
    """State of a fit after an epoch.

    Parameters
    ----------
    model : dict of tensors
        ``state_dict`` of the model.
    optimizer : dict of tensors
        State of the optimisers, keyed ``"optimiser.index.name"``.
    losses : tuple of float
        Mean loss of each epoch done; their number says where to go on.
    """

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    losses: tuple[float, ...]

    @staticmethod
    def of(model: nn.Module, optimizers: Sequence[Optimizer], losses: list[float]) -> Checkpoint:
        """Take the state of a running fit."""
        flat = {
            f"{place}.{index}.{name}": torch.as_tensor(value)
            for place, optimizer in enumerate(optimizers)
            for index, names in optimizer.state_dict()["state"].items()
            for name, value in names.items()
        }
        return Checkpoint(model.state_dict(), flat, tuple(losses))

    def restore(self, optimizers: Sequence[Optimizer]) -> None:
        """Give the optimisers their state back."""
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
        for key, value in self.optimizer.items():
            place, index, name = key.split(".", 2)
            states[int(place)].setdefault(int(index), {})[name] = value
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fingerprint(config: Any, y: Tensor) -> str:
    """Digest of what must agree between a fit and the checkpoint it goes on from."""
    settings = {key: value for key, value in asdict(config).items() if key not in ("closing", "device")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(y.cpu().numpy().tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, checkpoint: Checkpoint, config: Any, y: Tensor) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : Path
        File to write; one that is there is replaced.
    checkpoint : Checkpoint
        State after the last epoch that is done.
    config : TrainConfig
        Of the running fit; all of it but ``closing`` and ``device`` must agree at a resume.
    y : int64 tensor
        Training labels; with the config they say which fit this is.
    """
    named = {f"model/{key}": value for key, value in checkpoint.model.items()}
    named |= {f"optimizer/{key}": value for key, value in checkpoint.optimizer.items()}
    named["losses"] = torch.tensor(checkpoint.losses, dtype=torch.float64)
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in named.items()}
    write_file(path, safetensors.torch.save(tensors, {"fit": _fingerprint(config, y)}))


def read_checkpoint(path: Path, config: Any, y: Tensor) -> Checkpoint | None:
    """Read the checkpoint of this very fit; None when there is none.

    Raises
    ------
    UsageError
        If the checkpoint is damaged, or belongs to a fit with other data or options.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            fingerprint = (file.metadata() or {}).get("fit")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageError(f"The checkpoint {path} cannot be read: {error}. Fit without --resume.") from error
    if fingerprint != _fingerprint(config, y):
        raise UsageError(f"The checkpoint {path} belongs to a fit with other data or options. Fit without --resume.")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    for key, value in tensors.items():
        if key != "losses":
            kind, name = key.split("/", 1)
            parts[kind][name] = value
    return Checkpoint(parts["model"], parts["optimizer"], tuple(tensors["losses"].tolist()))


def is_checkpoint_of(path: Path, config: Any, y: Tensor) -> bool:
    """Whether a file holds the state of this very fit; no where it cannot be read.

    Parameters
    ----------
    path : Path
        The file.
    config : TrainConfig
        Of the fit.
    y : int64 tensor
        Training labels.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return bool((file.metadata() or {}).get("fit") == _fingerprint(config, y))
    except (safetensors.SafetensorError, OSError):
        return False


def shared_checkpoint(path: Path, config: Any, y: Tensor, ranks: Ranks) -> Checkpoint | None:
    """`read_checkpoint` of the first process, told to all: others need not see its disk.

    Parameters
    ----------
    path : Path
        The file.
    config : TrainConfig
        Of the running fit.
    y : int64 tensor
        Training labels.
    ranks : Ranks
        The processes.
    """
    stored = read_checkpoint(path, config, y) if ranks.is_first else None
    if ranks.size == 1:
        return stored
    told: list[Tensor] = []
    if stored is not None:
        header = json.dumps([list(stored.model), list(stored.optimizer)]).encode()
        losses = torch.tensor(stored.losses, dtype=torch.float64)
        told = [
            torch.tensor(list(header), dtype=torch.uint8),
            losses,
            *stored.model.values(),
            *stored.optimizer.values(),
        ]
    found = ranks.gather(told)[0]
    if not found:
        return None
    names, losses, *tensors = found
    of_model, of_optimizer = json.loads(bytes(names.tolist()))
    n = len(of_model)
    model, optimizer = zip(of_model, tensors[:n], strict=True), zip(of_optimizer, tensors[n:], strict=True)
    return Checkpoint(dict(model), dict(optimizer), tuple(losses.tolist()))


def remove_checkpoint(path: Path, *, saved: Path) -> None:
    """Remove the checkpoint of a fit whose model is saved.

    Parameters
    ----------
    path : Path
        The checkpoint; nothing happens where there is none.
    saved : Path
        Where the model lies, for the message.

    Raises
    ------
    StorageError
        If the checkpoint stays; it says that the model is in place.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"`{saved}` is in place, but the checkpoint of its fit, `{path}`, must be removable, got: "
            f"{error.strerror or error}. Remove it by hand: nothing needs it any more."
        ) from error
