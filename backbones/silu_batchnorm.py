"""SiLU of a batch normalisation whose value is not centred, so that a gradient can explain it."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.explor_layers import check_choice
from backbones.grp import AbstractGatedLayer

GATES: Final = ("full", "detached")


class SiLUBatchNorm(AbstractGatedLayer):
    """``y = g x / sqrt(var + eps) * sigmoid(BatchNorm(x))``: mean and offset only decide how open the gate is.

    Parameters
    ----------
    channels : int
    gate : {"full", "detached"}
        Whether training sends a gradient through the gate. The value is the same.
    momentum : float
        Share of the newest batch in the running statistics, in (0, 1].

    Notes
    -----
    In evaluation and with the gate held fixed, ``<dy, x> = y``; SiLU of the ordinary, centred normalisation loses a
    third of its value there. Training differentiates the gate's statistics, but not the value's scale.
    """

    def __init__(self, channels: int, *, gate: str = "full", momentum: float = 0.1) -> None:
        super().__init__()
        check_choice("gate", gate, GATES)
        self.gate = gate
        self.norm = nn.BatchNorm2d(channels, momentum=momentum)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Gate and scale a batch of maps."""
        norm = self.norm
        held = x.detach() if self.hold_gate or self.gate == "detached" else x
        if norm.training:
            variance = x.detach().float().var((0, 2, 3), unbiased=False)
        else:
            assert norm.running_var is not None
            variance = norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return torch.sigmoid(norm(held)) * (x * scale.view(1, -1, 1, 1).to(x.dtype))
