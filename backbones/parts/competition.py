"""Channels compete for each place of the maps: what one of them sees clearly, the others do not see."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from backbones.checks import check_sharpness
from backbones.grp import AbstractGatedLayer

_LEAST = 1e-12
"""Added to mean squares: the power -3/2 of it, which the gradient of a blank patch meets, must be finite."""


class Competition(AbstractGatedLayer):
    """``y = max(0, x) * softmax(sharpness * x / rms(x))`` over the channels of a place.

    The softmax is a gate, which a gradient may hold fixed (`backbones.detached_gates`): then ``<dy, x> = y``. It looks
    at directions alone, so a place that is twice as bright gives twice the value and the same winner. A place whose
    winner is clear is close to a multiple of one channel's unit vector: the patches of one channel look alike to
    whatever compares directions.

    Parameters
    ----------
    sharpness : float
        >= 0. 0: no competition but ``max(0, x)`` over the number of channels. With 100 channels a place that moves one
        of them alone has ``x / rms(x) = 10`` there.

    Examples
    --------
    >>> Competition(2.0)(torch.tensor([4.0, 3.0, -5.0]).reshape(1, 3, 1, 1)).flatten()
    tensor([2.4618, 1.1312, 0.0000])
    """

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        check_sharpness("sharpness", sharpness)
        self.sharpness = sharpness

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Gate a batch of maps."""
        key = x.detach() if self.hold_gate else x
        least = max(_LEAST, torch.finfo(x.dtype).tiny)
        scale = torch.rsqrt(key.square().mean(1, keepdim=True) + least)
        return functional.relu(x) * (self.sharpness * key * scale).softmax(1)

    def extra_repr(self) -> str:
        """Shown by ``print(layer)``."""
        return f"sharpness={self.sharpness}"
