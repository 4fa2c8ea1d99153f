"""SiLU of a batch normalisation whose value is not centred, so that a gradient can explain it."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice
from backbones.grp import AbstractGatedLayer

GATES: Final = ("full", "detached")


class SiLUBatchNorm(AbstractGatedLayer):
    """``y = g x / sqrt(var + eps) * sigmoid(BatchNorm(x))``: mean and offset only decide how open the gate is.

    Parameters
    ----------
    channels : int
        Maps of the input (count, >= 1), each with statistics of its own.
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
        # The kernel below trusts its caller: other shapes would write outside of its memory.
        if x.ndim != 4 or x.shape[1] != self.norm.num_features:
            raise ValueError(
                f"`x` must have shape (batch, {self.norm.num_features}, height, width), got {tuple(x.shape)}. "
                "The layer was made for another number of channels."
            )
        if self.norm.training and x.numel() <= x.shape[1]:
            raise ValueError(
                f"`x` must hold more than one value a channel in training, got shape {tuple(x.shape)}. "
                "Train on larger batches, or call eval()."
            )
        held = x.detach() if self.hold_gate or self.gate == "detached" else x
        gate, inverse_deviation = self._normalise(held)
        scale = self.norm.weight * inverse_deviation
        return torch.sigmoid(gate) * (x * scale.view(1, -1, 1, 1).to(x.dtype))

    def _normalise(self, x: Tensor) -> tuple[Tensor, Float[Tensor, " channel"]]:
        """Batch normalisation, and the ``1 / sqrt(var + eps)`` it used: its kernel has both, so one pass less."""
        norm = self.norm
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        if torch.onnx.is_in_onnx_export():  # which does not know the kernel below by its name
            normal = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
            return normal, torch.rsqrt(norm.running_var + norm.eps)
        if norm.training:
            norm.num_batches_tracked.add_(1)
        normal, _, inverse_deviation = torch.native_batch_norm(
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.training, norm.momentum, norm.eps
        )
        if not norm.training:
            return normal, torch.rsqrt(norm.running_var + norm.eps)
        return normal, inverse_deviation.detach()
