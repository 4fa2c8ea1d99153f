"""`explor`: convolutions that add, and ExplOR layers that choose one feature at a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count, check_widths
from backbones.explor_layers.base import Choice
from backbones.explor_layers.layers import ExplOR2d
from backbones.explor_layers.pooling import ExplORPool2d
from backbones.layers.residual import Residual
from backbones.layers.silu_batchnorm import SiLUBatchNorm
from backbones.layers.whitening_stem import WhiteningStem

WINDOW: Final = 2
BLOCKS: Final = ("conv", "pool", "exclusive")


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
    key : {"rms", "detached", "batchnorm"}
        ``"rms"``: training sends a gradient through the keys; ``"detached"``: it does not. ``"batchnorm"`` (without
        ``block="pool"``): keys are batch normalisations, without a gradient.
    gate : {"full", "detached"}
        Whether training sends a gradient through the gates of `SiLUBatchNorm`.
    stem : {"convolution", "whitening"}
        ``"whitening"``: a `WhiteningStem` and ReLU instead, looked up in the training images; all ``widths`` are then
        those of blocks.
    block : {"conv", "pool", "exclusive"}
        ``"pool"``: a 3x3 convolution that widens, the choice, `SiLUBatchNorm`, a 3x3 convolution and
        `SiLUBatchNorm`. The choice is `ExplORPool2d`, within each channel; in the last ``across`` blocks it is
        `ExplOR2d`, across channels too. ``"exclusive"``: `ExplOR2d` in windows that overlap (step 1), so that one
        feature is active at a location, then a 3x3 convolution whose dilation is the window, so that it adds locations
        that share nothing, and `SiLUBatchNorm`; it halves the picture by its step of 2.
    across : int
        See ``block`` (count, >= 0).
    residual : int
        Pairs of 3x3 convolutions, each with its `SiLUBatchNorm`, after each block, whose result is added to what they
        start from (count, >= 0). For wide and deep nets on a GPU.
    pooling : {"mean", "max"}
        How the last maps become features.
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
        stem: str = "convolution",
        block: str = "conv",
        across: int = 1,
        residual: int = 0,
        pooling: str = "mean",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        check_choice("key", key, ("rms", "detached", "batchnorm"))
        check_choice("stem", stem, ("convolution", "whitening"))
        check_choice("block", block, BLOCKS)
        check_choice("pooling", pooling, ("mean", "max"))
        check_count("across", across, least=0)
        check_count("residual", residual, least=0)
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
            "stem": stem,
            "block": block,
            "across": across,
            "residual": residual,
            "pooling": pooling,
        }
        super().__init__(input_shape, feature_dim=chosen[-1], options=options, claims_grp=True)
        blocks = _Blocks(gate, Choice(a_x=a_x, a_l=a_l, logits=logits, key=key))
        first: nn.Conv2d
        if stem == "whitening":
            first = WhiteningStem(channels, stem_kernel, stride)
            layers: list[nn.Module] = [first, nn.ReLU()]
        else:
            first = nn.Conv2d(channels, chosen[0], stem_kernel, stride=stride, padding=stem_kernel // 2, bias=False)
            layers = [first, SiLUBatchNorm(chosen[0], gate=gate)]
        through = [first.out_channels, *chosen[stem == "convolution" :]]
        levels = len(through) - 1
        for level, (before, after) in enumerate(pairwise(through)):
            if block == "conv":
                layers += blocks.conv(before, after, is_first=level == 0)
            elif block == "exclusive":
                layers += blocks.exclusive(before, after)
            else:
                layers += blocks.pool(before, after, is_across=level >= levels - across)
            layers += [Residual(blocks.pair(after)) for _ in range(residual)]
        if block == "conv" and levels:
            layers += blocks.convolution(chosen[-1], chosen[-1])
        # Convolutions on a CPU are several times faster when the channels of a place lie side by side.
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Mean or largest value over all places of the last maps."""
        maps: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return maps.amax((2, 3)) if self.options["pooling"] == "max" else maps.mean((2, 3))

    @torch.no_grad()
    def prepare_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take the filters of a whitening stem from training inputs."""
        if isinstance(self.layers[0], WhiteningStem):
            self.layers[0].learn_(x)


@dataclass(frozen=True)
class _Blocks:
    """The layers of each kind of block."""

    gate: str
    choice: Choice

    def convolution(self, before: int, after: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
        """A 3x3 convolution and its gate."""
        added = nn.Conv2d(before, after, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        return [added, SiLUBatchNorm(after, gate=self.gate)]

    def pair(self, channels: int) -> list[nn.Module]:
        """Two convolutions with their gates."""
        return self.convolution(channels, channels) + self.convolution(channels, channels)

    def conv(self, before: int, after: int, *, is_first: bool) -> list[nn.Module]:
        """The stem is the convolution of the first block."""
        start = [] if is_first else self.convolution(before, before)
        return [*start, ExplOR2d(before, after, WINDOW, **self.choice)]

    def pool(self, before: int, after: int, *, is_across: bool) -> list[nn.Module]:
        """Widen, choose, and look again."""
        wide, gated = self.convolution(before, after)
        choice: nn.Module
        if is_across:
            choice = ExplOR2d(after, after, WINDOW, **self.choice)
        else:
            a_x, a_l, key = self.choice["a_x"], self.choice["a_l"], self.choice["key"]
            choice = ExplORPool2d(after, WINDOW, a_x=a_x, a_l=a_l, key=key)
        return [wide, choice, gated, *self.convolution(after, after)]

    def exclusive(self, before: int, after: int) -> list[nn.Module]:
        """One feature at a location; locations that share nothing add."""
        local = ExplOR2d(before, before, WINDOW, stride=1, **self.choice)
        return [local, *self.convolution(before, after, stride=2, dilation=WINDOW)]


def default_widths(first: int, side: int) -> list[int]:
    """``first``, doubled for each halving of the side while it is at least 8."""
    widths = [first]
    while side >= 8:
        widths.append(2 * widths[-1])
        side //= WINDOW
    return widths
