"""`ExplORPool2d`: a max pooling that learns which places of its window count, and how much the largest wins.

Of each window and channel, with inputs ``x_i`` at the places ``i`` of the window, keys ``k_i`` (the inputs over the
root mean square of all channels at their place), logits ``l_i`` and weights ``w_i`` of the channel::

    A_i = exp(a_x k_i + a_l l_i) / sum_i' exp(a_x k_i' + a_l l_i')
    y   = sum_i A_i w_i x_i

It is ExplOR (`backbones.explor_layers`) whose neurons choose within one channel: the choice over channels too is
`ExplOR2d`, which costs as much as two convolutions where this costs a few passes over memory.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_count, check_sharpness
from backbones.explor_layers.gates import KEY_LIMIT, inverse_rms
from backbones.grp import AbstractGatedLayer

KEYS: Final = ("detached", "rms")
_SAFE: Final = 40.0  # scores up to this need no shift: exp(40) is far from the largest float of half precision too


class ExplORPool2d(AbstractGatedLayer):
    """A learnable pooling over disjoint windows; rows and columns that fill no window are left out.

    Parameters
    ----------
    channels : int
        Number of channels (count, >= 1).
    window : int
        Side of the windows and distance between them (pixels, >= 1).
    a_x, a_l : float
        Sharpness of the choice by the input and by the logits (>= 0). With zero logits ``a_x = 0`` is average pooling,
        and a large ``a_x`` max pooling (of channels whose values are positive somewhere in the window).
    key : {"detached", "rms"}
        Whether training sends a gradient through the keys as well: ``"rms"`` does. The value is the same.

    Attributes
    ----------
    weight, logits : parameters of shape (channel, window, window)
        They start as ones and zeros.

    Notes
    -----
    Keys do not change with the scale of the input, so the layer is positively homogeneous, and with held gates it has
    the Gradient Representation Property exactly.

    Examples
    --------
    >>> pool = ExplORPool2d(1, a_x=0.0)
    >>> pool(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
    3.0
    """

    def __init__(
        self, channels: int, window: int = 2, *, a_x: float = 2.0, a_l: float = 1.0, key: str = "detached"
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("window", window)
        check_sharpness("a_x", a_x)
        check_sharpness("a_l", a_l)
        check_choice("key", key, KEYS)
        self.window, self.a_x, self.a_l, self.key = window, a_x, a_l, key
        self.weight = nn.Parameter(torch.ones(channels, window, window))
        self.logits = nn.Parameter(torch.zeros(channels, window, window))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel row column"]:
        """Pool a batch of maps.

        Raises
        ------
        ValueError
            If the maps have another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != len(self.weight):
            raise ValueError(
                f"`x` must have shape (batch, {len(self.weight)}, height, width), got {tuple(x.shape)}. "
                "The layer was made for another number of channels."
            )
        side = self.window
        rows, columns = x.shape[2] // side, x.shape[3] // side
        if x.shape[2:] != (rows * side, columns * side):
            # A copy: what follows is several times faster on maps without gaps.
            x = x[:, :, : rows * side, : columns * side].contiguous(memory_format=torch.channels_last)
        scores = self.a_l * self.logits
        odds = (scores - scores.detach().amax((1, 2), keepdim=True)).exp()
        tiles = [_tile(part.to(x.dtype), rows, columns) for part in (odds, self.weight)]
        if self.key == "detached" or self.hold_gate:
            pooled: Tensor = _Pool.apply(x, *tiles, (side, self.a_x))
            return pooled
        chances = _chances(x, side, self.a_x) * tiles[0]
        share = chances / _spread(_sums(chances, side), side)
        return _sums(share * tiles[1] * x, side)

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{len(self.weight)}, window={self.window}, a_x={self.a_x}, a_l={self.a_l}, key={self.key}"


def _tile(part: Tensor, rows: int, columns: int) -> Tensor:
    """A channel's window again and again, as a batch of one map that lies in memory as maps do."""
    return part.repeat(1, rows, columns)[None].contiguous(memory_format=torch.channels_last)


def _chances(x: Tensor, side: int, a_x: float) -> Tensor:
    """``exp(a_x k)``, each window's made smaller by a common factor where it could overflow."""
    inverse = inverse_rms(x.movedim(1, -1)).movedim(-1, 1)
    scores = a_x * (x * inverse).clamp(-KEY_LIMIT, KEY_LIMIT)
    if a_x * KEY_LIMIT > _SAFE:
        scores = scores - _spread(functional.max_pool2d(scores.detach(), side), side)
    return scores.exp()


def _sums(x: Tensor, side: int) -> Tensor:
    """Sum over each window."""
    return functional.avg_pool2d(x, side, divisor_override=1)


def _spread(x: Tensor, side: int) -> Tensor:
    """Each value to all places of its window."""
    return functional.interpolate(x, scale_factor=side, mode="nearest")


def _sum_of_batch(x: Tensor) -> Tensor:
    """Sum over the batch, as a batch of one: a matrix product, since a reduction over the first axis is slow."""
    rows = x.permute(0, 2, 3, 1)
    total = torch.ones(1, len(x), dtype=x.dtype, device=x.device) @ rows.reshape(len(x), -1)
    return total.view(1, *rows.shape[1:]).permute(0, 3, 1, 2)


class _Pool(torch.autograd.Function):
    """The pooling with its keys held: on a CPU passes over memory are what counts, and autograd makes twice as many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, odds: Tensor, weight: Tensor, settings: tuple[int, float]) -> Tensor:
        side, a_x = ctx.settings = settings
        share = _chances(x, side, a_x).mul_(odds)
        share.div_(_spread(_sums(share, side), side))
        value = share * weight
        pooled = _sums(value * x, side)
        ctx.save_for_backward(x, odds, weight, share, pooled)
        return pooled

    @staticmethod
    def backward(ctx: Any, to_pooled: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, odds, weight, share, pooled = ctx.saved_tensors
        side, a_x = ctx.settings
        if torch.is_grad_enabled():  # a second derivative is wanted: shares depend on the odds
            share = _chances(x.detach(), side, a_x) * odds
            share = share / _spread(_sums(share, side), side)
            pooled = _sums(share * weight * x, side)
        spread = _spread(to_pooled, side) * share
        # dy = A_i w_i dx_i + A_i x_i dw_i + A_i (w_i x_i - y) dE_i / E_i, with E the odds.
        to_x = spread * weight
        to_weight = to_odds = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            to_weight = _sum_of_batch(spread * x)
            centre = _sum_of_batch(share * _spread(to_pooled * pooled, side))
            to_odds = (weight * to_weight - centre) / odds
        return to_x, to_odds, to_weight, None
