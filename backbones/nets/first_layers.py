"""What a backbone can begin with: normalisations of the input, and first layers of 5x5 windows."""

from __future__ import annotations

from typing import Final

from torch import nn

from backbones.checks import check_choice
from backbones.layers.branches import NegativeBranch, Parallel
from backbones.layers.input_norms import IterativeWhitening, PercentileNorm
from backbones.layers.l2_conv import L2Conv2d
from backbones.layers.view_convs import PerspectiveConv2d, ProjectedConv2d, ScaledConv2d

INPUTS: Final = ("none", "batch", "percentile", "whitening")
FIRSTS: Final = ("convolution", "l2", "scaled", "perspective", "projected", "branches", "negative")
_WINDOWS: Final = (3, 5, 7)


def input_layer(kind: str, channels: int) -> nn.Module:
    """The normalisation of raw inputs in front of a network.

    Parameters
    ----------
    kind : {"none", "batch", "percentile", "whitening"}
        The input as it is, `torch.nn.BatchNorm2d` without a learned scale, `PercentileNorm` or `IterativeWhitening`.
    channels : int
        Channels of the input (count, >= 1).

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    check_choice("inputs", kind, INPUTS)
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=False)
    if kind == "percentile":
        return PercentileNorm(channels)
    return IterativeWhitening(channels) if kind == "whitening" else nn.Identity()


def first_layer(kind: str, channels: int, width: int) -> nn.Module:
    """The first convolution of a network, 5x5 windows, which keeps the size of the picture.

    Parameters
    ----------
    kind : {"convolution", "l2", "scaled", "perspective", "projected", "branches", "negative"}
        ``"branches"``: a third of the filters each with 3x3, 5x5 and 7x7 windows. ``"negative"``: half of the filters,
        each with its negative.
    channels : int
        Channels of the input.
    width : int
        Channels that come out.

    Raises
    ------
    ValueError
        If the kind is unknown, or the width cannot be divided as it asks.
    """
    check_choice("first", kind, FIRSTS)
    if kind == "negative":
        if width % 2:
            raise ValueError(f"`widths` must begin with an even number for negatives, got {width}. Add one.")
        return NegativeBranch(_convolution(channels, width // 2, 5))
    if kind == "branches":
        if width < len(_WINDOWS):
            raise ValueError(f"`widths` must begin with at least 3 for three branches, got {width}. Add some.")
        shares = [(width + place) // len(_WINDOWS) for place in range(len(_WINDOWS))]
        return Parallel(*(_convolution(channels, n, window) for n, window in zip(shares, _WINDOWS, strict=True)))
    if kind == "l2":
        return L2Conv2d(channels, width, 5, padding=2)
    invariant = {"scaled": ScaledConv2d, "perspective": PerspectiveConv2d, "projected": ProjectedConv2d}
    return invariant[kind](channels, width, 5) if kind in invariant else _convolution(channels, width, 5)


def _convolution(channels: int, width: int, window: int) -> nn.Module:
    return nn.Conv2d(channels, width, window, padding=window // 2, bias=False)
