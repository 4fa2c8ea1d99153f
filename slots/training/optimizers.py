"""The optimisers of a fit: which parameter takes which kind of step, and how rates change over the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from slots.head.hashing import IncrementalNeuralHashing
from slots.training.config import TrainConfig
from slots.training.muon import Muon, matrices
from slots.training.slot_adam import SlotAdam

_WARM_UP = 0.2
"""Share of the training in which AdamW's rate of the backbone rises: early features are worth no large steps."""


class Optimizer(Protocol):
    """What a fit needs of an optimiser; torch's are some."""

    param_groups: list[dict[str, Any]]
    state: Any

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> Any:
        """Take one step along them."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def load_state_dict(self, document: Any, /) -> None:
        """Go on from there."""


def make_optimizers(head: IncrementalNeuralHashing, backbone: nn.Module, config: TrainConfig) -> Sequence[Optimizer]:
    """AdamW for the slots and the backbone; with ``config.matrix_lr`` Muon for the backbone's filters and matrices.

    The slots are the first parameter of the first group of the first optimiser. Each group carries what `set_rates`
    needs: ``peak``, ``warm`` (share of the training), ``linear``.
    """
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    moved = matrices(backbone) if config.matrix_lr else []
    ids = {id(parameter) for parameter in moved}
    rest = [parameter for parameter in learning if id(parameter) not in ids]
    groups: list[dict[str, Any]] = [_group([head.weights], config.slot_lr, weight_decay=0.0)]
    if rest:
        groups.append(_group(rest, config.backbone_lr, warm=_WARM_UP, weight_decay=config.weight_decay))
    elif not moved and head.weights.device.type == "cpu":
        return [SlotAdam({**groups[0], "lr": config.slot_lr})]
    fused = head.weights.device.type == "cuda"  # one kernel instead of dozens
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.slot_lr, fused=fused)]
    if moved:
        optimizers.append(Muon([_group(moved, config.matrix_lr, linear=True)]))
    return optimizers


def _group(params: list[nn.Parameter], peak: float, *, warm: float = 0.0, linear: bool = False, **more: Any) -> Any:
    return {"params": params, "peak": peak, "warm": warm, "linear": linear, **more}


def follow(optimizers: Sequence[Optimizer], head: IncrementalNeuralHashing) -> None:
    """Hand the optimiser the slot weights that growing or pruning replaced."""
    params = optimizers[0].param_groups[0]["params"]
    if params[0] is not head.weights:
        optimizers[0].state.pop(params[0], None)
        params[0] = head.weights


def make_capturable(optimizers: Sequence[Optimizer]) -> None:
    """Keep rates on the device, where a recorded step reads them at each replay."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            device = group["params"][0].device
            group["lr"] = torch.tensor(float(group.get("lr", group["peak"])), dtype=torch.float32, device=device)
            group["capturable"] = True


def set_rates(optimizers: Sequence[Optimizer], progress: float) -> None:
    """Rates for a share of the training done: each group's peak, warmed up linearly, then decayed to 0.

    AdamW's groups decay by a half cosine, Muon's linearly: its steps all have the same length, so they must have shrunk
    well before the end.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            warm = group["warm"]
            if progress < warm:
                share = max(progress / warm, 0.01)
            elif group["linear"]:
                share = 1 - progress
            else:
                share = 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))
            rate = group["peak"] * share
            if group.get("fused"):
                rate = float(np.float32(rate))  # as which a recorded step reads it
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
