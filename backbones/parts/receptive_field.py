"""The pixels that an output of a network depends on, found by its gradient rather than by arithmetic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from backbones.base import evaluating


class Field(NamedTuple):
    """A rectangle of pixels: rows ``top <= row < bottom`` and columns ``left <= column < right``."""

    top: int
    left: int
    bottom: int
    right: int


def receptive_field(
    network: nn.Module, input_shape: tuple[int, int, int], place: tuple[int, int], *, draws: int = 4, seed: int = 0
) -> Field:
    """Smallest rectangle that holds every pixel on which the maps of a network depend at one place.

    Parameters
    ----------
    network : nn.Module
        From (batch, channel, height, width) to maps of shape (batch, channel, rows, columns).
    input_shape : tuple of three int
        Channels, height and width of one input.
    place : tuple of two int
        Row and column of the maps.
    draws : int, default 4
        Inputs of noise to look at (count, >= 1). Where a gate is closed for one of them nothing is seen through it.
    seed : int, default 0
        Of the noise.

    Returns
    -------
    Field
        Empty (all 0) where the maps depend on no pixel.

    Raises
    ------
    ValueError
        If the network gives no maps, or they have no such place.

    Notes
    -----
    The support of a derivative is what the value depends on, up to chance: a derivative of 0 at all draws. Padding,
    strides, dilation and branches need no rule of their own. Sizes that papers state are those of the arithmetic, and
    a heat map that is scaled up from 7 x 7 places hides how much larger they are (Carmichael et al. 2024, PixPNet).

    Examples
    --------
    >>> receptive_field(nn.Conv2d(1, 2, 3, stride=2), (1, 9, 9), (1, 2))
    Field(top=2, left=4, bottom=5, right=7)
    """
    generator = torch.Generator().manual_seed(seed)
    like = next((parameter for parameter in network.parameters()), torch.zeros(()))
    x = torch.randn(draws, *input_shape, generator=generator, dtype=torch.float64).to(like).requires_grad_()
    with evaluating(network), torch.inference_mode(False), torch.enable_grad():
        maps = network(x)
        if maps.ndim != 4 or not all(0 <= at < size for at, size in zip(place, maps.shape[2:], strict=False)):
            raise ValueError(
                f"`place` must be a row and a column of the network's maps, got {place} for an output of shape "
                f"{tuple(maps.shape)}. Pass the part of the network that makes maps."
            )
        weights = torch.randn(maps.shape[1], generator=generator, dtype=torch.float64).to(maps)
        (gradient,) = torch.autograd.grad((maps[:, :, place[0], place[1]] * weights).sum(), x, allow_unused=True)
    return _bounds(torch.zeros(x.shape[2:], dtype=torch.bool) if gradient is None else (gradient != 0).any(0).any(0))


def _bounds(touched: Tensor) -> Field:
    rows, columns = touched.any(1).nonzero()[:, 0].tolist(), touched.any(0).nonzero()[:, 0].tolist()
    if not rows:
        return Field(0, 0, 0, 0)
    return Field(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
