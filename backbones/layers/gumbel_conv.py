"""`GumbelConv2d`: a convolution that looks at one channel, or a few, at each position of its kernel."""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_count

HOT: Final = 2.0

COLD: Final = 0.1
"""Temperatures at which the training begins and ends."""


class GumbelConv2d(nn.Module):
    """A bias-free convolution with the kernel ``weight * gate``; the gate chooses channels at each position.

    While training the choice is drawn: the ``top`` channels of ``logits / tau + noise`` with Gumbel noise, that is
    (for ``top=1``) channels with the probabilities ``softmax(logits / tau)``. In evaluation it is the ``top`` largest
    logits. As the temperature falls the draws become the choice of the evaluation.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        (count or pixels, >= 1).
    top : int
        Channels at each position of each kernel (count, 1 to ``in_channels``). More than one makes units harder to
        read.
    stride, padding : int
        As in `torch.nn.Conv2d` (pixels).

    Attributes
    ----------
    tau : float tensor
        Temperature; falls from 2 to 0.1 (`anneal_`). Saved with the weights.

    Notes
    -----
    Straight-through: the kernel has exact zeros, the gradient is that of ``top * softmax(logits / tau + noise)``.
    Logits start normal with deviation 0.01; weights as those of an ordinary convolution times ``sqrt(in_channels)``,
    since only one channel in ``in_channels`` is heard. For a given kernel the layer is linear.

    References
    ----------
    Jang, Gu, Poole: Categorical Reparameterization with Gumbel-Softmax. ICLR 2017.
    Kool, van Hoof, Welling: Stochastic Beams and Where to Find Them (Gumbel top-k). ICML 2019.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, top: int = 1, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size, "stride": stride}
        for name, value in sizes.items():
            check_count(name, value)
        check_count("padding", padding, least=0)
        check_top(top, in_channels)
        self.top, self.stride, self.padding = top, stride, padding
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        with torch.no_grad():
            self.weight.mul_(math.sqrt(in_channels))
        self.logits = nn.Parameter(0.01 * torch.randn(shape))
        self.register_buffer("tau", torch.tensor(HOT))

    tau: Tensor

    @torch.no_grad()
    def anneal_(self, progress: float) -> None:
        """Set the temperature: geometrically from 2 to 0.1.

        Parameters
        ----------
        progress : float
            Share of the training that is done, in [0, 1].

        Raises
        ------
        ValueError
            If it lies outside.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"`progress` must lie in [0, 1], got {progress}. Pass the share of the training done.")
        self.tau.fill_(HOT * (COLD / HOT) ** progress)

    def gate(self) -> Float[Tensor, "neuron channel row column"]:
        """Which channels each neuron hears at each position: 0 or 1, ``top`` ones; drawn anew while training."""
        scores: Tensor = self.logits
        if self.training:
            noise = -torch.empty_like(scores).exponential_().log()
            scores = scores / self.tau + noise
        if torch.onnx.is_in_onnx_export():  # its TopK takes the first of equals
            chosen = scores.detach().topk(self.top, dim=1).indices
        else:  # a stable sort, since topk leaves open here which of two equals it takes
            chosen = scores.detach().sort(dim=1, descending=True, stable=True).indices[:, : self.top]
        hard = torch.zeros_like(scores).scatter(1, chosen, 1.0)
        if not self.training:
            return hard
        soft = self.top * scores.softmax(1)
        return hard + (soft - soft.detach())  # in this order the value is exactly 0 or 1

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch neuron row column"]:
        """The neurons' values at each place of the window."""
        return functional.conv2d(x, self.weight * self.gate(), stride=self.stride, padding=self.padding)


def check_top(top: object, channels: int) -> None:
    """Raise a ValueError unless the value is an int from 1 to the number of channels."""
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= channels:
        raise ValueError(f"`top` must be an integer from 1 to {channels}, the channels, got {top!r}. 1 is usual.")
