"""`explor`: convolutions that add, and ExplOR layers that choose one feature at a place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count, check_widths
from backbones.explor_layers import ExplOR2d
from backbones.silu_batchnorm import SiLUBatchNorm

WINDOW = 2


class Explor(AbstractBackbone):
    """Blocks of a bias-free 3x3 convolution, `SiLUBatchNorm` and `ExplOR2d` (window 2, stride 2), then the mean.

    A stem convolution makes the first maps; each block halves the picture and widens the channels; a last convolution
    with its `SiLUBatchNorm` follows, and the mean over all places is the feature vector.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    widths : list of int, optional
        Channels after the stem and after each block. Default: 24, doubled for each halving while the shorter side is at
        least 8, so [24, 48, 96, 192] for 32x32.
    stem_kernel : int
        Side of the stem's kernel (pixels, >= 1).
    stem_stride : int, optional
        Step of the stem (pixels, >= 1). Default: 1 up to a shorter side of 32, 2 above.
    a_x, a_l : float
        Sharpness of the choice by the input and by the logits (>= 0).
    logits : {"random", "dobble", "zeros"}
        First logits.
    key : {"rms", "detached"}
        Whether training sends a gradient through the keys.
    gate : {"full", "detached"}
        Whether training sends a gradient through the gates of `SiLUBatchNorm`.
    """

    name: ClassVar[str] = "explor"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        widths: Sequence[int] | None = None,
        stem_kernel: int = 3,
        stem_stride: int | None = None,
        a_x: float = 2.0,
        a_l: float = 4.0,
        logits: str = "random",
        key: str = "rms",
        gate: str = "full",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        check_choice("key", key, ("rms", "detached"))
        side = min(height, width)
        stride = stem_stride if stem_stride is not None else 1 + (side > 32)
        check_count("stem_kernel", stem_kernel)
        check_count("stem_stride", stride)
        side = (side + 2 * (stem_kernel // 2) - stem_kernel) // stride + 1  # of the stem's maps
        chosen = check_widths(default_widths(24, side) if widths is None else widths, side=side)
        options = {
            "widths": chosen,
            "stem_kernel": stem_kernel,
            "stem_stride": stride,
            "a_x": a_x,
            "a_l": a_l,
            "logits": logits,
            "key": key,
            "gate": gate,
        }
        super().__init__(input_shape, feature_dim=chosen[-1], options=options, claims_grp=True)
        stem = nn.Conv2d(channels, chosen[0], stem_kernel, stride=stride, padding=stem_kernel // 2, bias=False)
        layers: list[nn.Module] = [stem]
        for before, after in pairwise(chosen):
            if len(layers) > 1:
                layers.append(_convolution(before))
            layers.append(SiLUBatchNorm(before, gate=gate))
            layers.append(ExplOR2d(before, after, WINDOW, a_x=a_x, a_l=a_l, logits=logits, key=key))
        if len(layers) > 1:
            layers.append(_convolution(chosen[-1]))
        layers.append(SiLUBatchNorm(chosen[-1], gate=gate))
        # Convolutions on a CPU are several times faster when the channels of a place lie side by side.
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Mean over all places of the last maps."""
        maps: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3))


def _convolution(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def default_widths(first: int, side: int) -> list[int]:
    """``first``, doubled for each halving of the side while it is at least 8."""
    widths = [first]
    while side >= 8:
        widths.append(2 * widths[-1])
        side //= WINDOW
    return widths
