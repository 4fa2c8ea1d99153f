"""ExplOR: each neuron averages its own weighted choice of inputs, the largest counting most: a differentiable OR.

For inputs ``x``, weights ``w`` and logits ``l`` of shape (input, neuron) and a key ``k(x)``, with ``s0`` the score of
an optional input "none of them"::

    score_ij = a_x k_i(x) + a_l l_ij
    A_ij     = exp(score_ij) / (exp(s0) + sum_i' exp(score_i'j))
    f_j(x)   = sum_i A_ij w_ij x_i

Scores are sums, so the softmax factors and no (batch, input, neuron) tensor is needed. With ``e = exp(a_x k)`` and
``E = exp(a_l l)``: ``f = ((e * x) @ (E * w)) / (e @ E + exp(s0))``, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_sharpness
from backbones.dobble import dobble_sets
from backbones.explor_chances import KEY_LIMIT, chances_and_values, inverse_rms
from backbones.grp import AbstractGatedLayer

KEYS: Final = ("rms", "detached", "raw")
LOGITS: Final = ("random", "dobble", "zeros")
_SMALLEST_DENOMINATOR: Final = {torch.float32: 1e-20, torch.float64: 1e-200}


@contextmanager
def full_precision(x: Tensor) -> Iterator[Tensor]:
    """Within the block autocast is off; the yielded tensor is ``x`` in float32 if it was of half precision."""
    wide = x.float() if x.dtype in {torch.float16, torch.bfloat16} else x
    if x.device.type == "meta":
        yield wide
    else:
        with torch.autocast(x.device.type, enabled=False):
            yield wide


class AbstractExplor(AbstractGatedLayer):
    """Weights, logits and scores that the ExplOR layers share.

    Parameters
    ----------
    shape : tuple of int
        Shape (neuron, input, ...) of weights and logits.
    a_x : float
        Sharpness of the choice by the input (>= 0). 0: the same weights for every input; large: the largest wins.
    a_l : float
        Sharpness of the choice by the logits (>= 0). 0: all inputs alike; large: the one with the largest logit.
    key : {"rms", "detached", "raw"}
        ``"rms"``: the input over its root mean square (of a sample; of a location over its channels). ``"detached"``:
        the same value, without gradient. ``"raw"``: the input itself; its full gradient does not explain the value.
    logits : {"random", "dobble", "zeros"}
        First logits: normal with deviation 0.5, 1 on a dobble set of inputs and 0 elsewhere, or 0.
    null_score : float, optional
        Score of choosing no input. Default: there is no such choice.
    """

    def __init__(
        self, shape: tuple[int, ...], *, a_x: float, a_l: float, key: str, logits: str, null_score: float | None
    ) -> None:
        super().__init__()
        for name, sharpness in (("a_x", a_x), ("a_l", a_l)):
            check_sharpness(name, sharpness)
        check_choice("key", key, KEYS)
        check_choice("logits", logits, LOGITS)
        self.a_x, self.a_l, self.key, self.null_score = a_x, a_l, key, null_score
        # Deviation sqrt 2: the mean of n values with gates of order 1 / n is small, and half of it is gated away.
        self.weight = nn.Parameter(torch.randn(shape) * math.sqrt(2.0))
        self.logits = nn.Parameter(initial_logits(logits, shape))

    def chances(self, x: Float[Tensor, "... input"], dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor | float]:
        """``e = exp(a_x k(x) - shift)``, ``e * x``, and the shift: the maximum over the given axes, kept; or 0.

        No softmax may reach beyond the given axes, since each entry along the others has its own shift.
        """
        is_sharp = self.a_x * KEY_LIMIT > 40  # exp(40) and its square are far from the largest float32
        if self.key == "rms" and not self.hold_gate and not is_sharp:
            return *chances_and_values(x, self.a_x), 0.0
        held = x.detach() if self.hold_gate or self.key == "detached" else x
        key = held if self.key == "raw" else held * inverse_rms(held)
        scores = self.a_x * key.clamp(-KEY_LIMIT, KEY_LIMIT)
        shift = scores.detach().amax(dims, keepdim=True) if is_sharp else 0.0
        chances = (scores - shift).exp()
        return chances, chances * x, shift

    def odds(self, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """``E = exp(a_l l - shift)`` of the shape of the logits, and the shift: the maximum over the given axes."""
        scores = self.a_l * self.logits
        shift = scores.detach().amax(dims, keepdim=True)
        return (scores - shift).exp(), shift

    def ratio(self, numerator: Tensor, denominator: Tensor, shift: Tensor | float) -> Tensor:
        """``numerator / (denominator + exp(s0))``, both of which were made smaller by ``exp(shift)``."""
        if self.null_score is not None:
            score = torch.as_tensor(self.null_score - shift, dtype=denominator.dtype, device=denominator.device)
            # 80: the null option has then all of the weight in float32, and the gradient stays finite.
            denominator = denominator + score.clamp_max(80.0).exp()
        return numerator / denominator.clamp_min(_SMALLEST_DENOMINATOR[denominator.dtype])


class ExplORLinear(AbstractExplor):
    """ExplOR over all inputs of a sample.

    Parameters
    ----------
    in_features, out_features : int
        Number of inputs and of neurons.
    a_x, a_l, key, logits, null_score
        See `AbstractExplor`.

    Notes
    -----
    Limits: ``a_x`` to infinity is the largest of the neuron's inputs; ``a_x = a_l = 0`` the mean of ``w x``;
    ``a_x = 0`` a linear neuron with sparse weights; one input a neuron and a null score of 0 is SiLU (``a_x = 1``, raw
    key) and ReLU (``a_x`` to infinity).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        a_x: float = 2.0,
        a_l: float = 4.0,
        key: str = "rms",
        logits: str = "random",
        null_score: float | None = None,
    ) -> None:
        shape = (out_features, in_features)
        super().__init__(shape, a_x=a_x, a_l=a_l, key=key, logits=logits, null_score=null_score)

    def forward(self, x: Float[Tensor, "batch input"]) -> Float[Tensor, "batch neuron"]:
        """The neurons' values, of shape (batch, neuron)."""
        with full_precision(x) as wide:
            chances, values, x_shift = self.chances(wide, (1,))
            odds, l_shift = self.odds((1,))
            numerator = functional.linear(values, odds * self.weight)
            return self.ratio(numerator, functional.linear(chances, odds), x_shift + l_shift.T)


class ExplOR2d(AbstractExplor):
    """ExplOR over the channels and positions of a window: a max pooling that learns what to pool.

    Parameters
    ----------
    in_channels, out_channels : int
    window : int
        Side of the square window (pixels, >= 1).
    stride : int, optional
        Step of the window (pixels, >= 1). Default: the window.
    padding : int
        Border (pixels, >= 0), never chosen: it is added after the exponential.
    a_x, a_l, key, logits, null_score
        See `AbstractExplor`. Dobble sets are sets of channels, the same at each position of the window.

    Notes
    -----
    Two ordinary convolutions, ``conv2d(e * x, E * w) / conv2d(e, E)``. `MaxPool2d` is the limit of one channel
    a neuron, weight 1, the raw key and large ``a_x``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: int = 2,
        *,
        stride: int | None = None,
        padding: int = 0,
        a_x: float = 2.0,
        a_l: float = 4.0,
        key: str = "rms",
        logits: str = "random",
        null_score: float | None = None,
    ) -> None:
        shape = (out_channels, in_channels, window, window)
        super().__init__(shape, a_x=a_x, a_l=a_l, key=key, logits=logits, null_score=null_score)
        self.window, self.stride, self.padding = window, stride or window, padding

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch neuron row column"]:
        """The neurons' values at each place of the window."""
        with full_precision(x) as wide:
            # Tiles do not share inputs, so each has its own maximum; windows that overlap share their picture's.
            chances, values, x_shift = self.chances(self._gather(wide), (3, 4) if self._is_tiling else (1, 2, 3))
            if isinstance(x_shift, Tensor):
                x_shift = x_shift.flatten(3)
            odds, l_shift = self.odds((1, 2, 3))
            numerator = self._convolve(values, odds * self.weight)
            denominator = self._convolve(chances, odds)
            return self.ratio(numerator, denominator, x_shift + l_shift.view(-1)).permute(0, 3, 1, 2)

    @property
    def _is_tiling(self) -> bool:
        """Whether each input place belongs to one window only: then a convolution is one matrix product."""
        return self.stride == self.window and self.padding == 0

    def _gather(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """Channels last; if windows tile the input, of shape (batch, row, column, place in the window, channel)."""
        if not self._is_tiling:
            return x.permute(0, 2, 3, 1)
        rows, columns = x.shape[2] // self.window, x.shape[3] // self.window
        tiles = x[:, :, : rows * self.window, : columns * self.window].permute(0, 2, 3, 1)
        tiles = tiles.unflatten(2, (columns, self.window)).unflatten(1, (rows, self.window))
        gathered: Tensor = tiles.transpose(2, 3).flatten(3, 4)
        return gathered

    def _convolve(self, gathered: Tensor, weight: Float[Tensor, "neuron channel row column"]) -> Tensor:
        """The convolution of what `_gather` gave, of shape (batch, row, column, neuron)."""
        if self._is_tiling:
            return functional.linear(gathered.flatten(3), weight.permute(0, 2, 3, 1).flatten(1))
        maps = functional.conv2d(gathered.permute(0, 3, 1, 2), weight, stride=self.stride, padding=self.padding)
        return maps.permute(0, 2, 3, 1)


class ExplORConv2d(AbstractExplor):
    """ExplOR over the channels at each position of a kernel, summed over the positions: an AND of ORs.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int
        Side of the square kernel (pixels, >= 1).
    stride, padding, dilation : int
        As in `torch.nn.Conv2d` (pixels); a position outside of the input adds 0.
    a_x, a_l, key, logits, null_score
        See `AbstractExplor`. Dobble sets are the same at each position of the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        a_x: float = 2.0,
        a_l: float = 4.0,
        key: str = "rms",
        logits: str = "random",
        null_score: float | None = None,
    ) -> None:
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        super().__init__(shape, a_x=a_x, a_l=a_l, key=key, logits=logits, null_score=null_score)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch neuron row column"]:
        """The neurons' values at each place of the kernel."""
        with full_precision(x) as wide:
            chances, values, x_shift = self.chances(wide.permute(0, 2, 3, 1), (3,))
            odds, l_shift = self.odds((1,))
            numerator = functional.linear(values, _by_position(odds * self.weight))
            denominator = functional.linear(chances, _by_position(odds))
            chosen = self.ratio(numerator, denominator, x_shift + _by_position(l_shift).view(-1))
        return self._gather(chosen.permute(0, 3, 1, 2))

    def _gather(self, chosen: Tensor) -> Tensor:
        """Sum over kernel positions of their maps (batch, position * neuron, height, width), each at its place."""
        padded = functional.pad(chosen, [self.padding] * 4)
        reach = self.dilation * (self.kernel_size - 1)
        rows, columns = padded.shape[2] - reach, padded.shape[3] - reach
        total: Tensor | None = None
        for position, maps in enumerate(padded.chunk(self.kernel_size**2, dim=1)):
            top, left = (self.dilation * side for side in divmod(position, self.kernel_size))
            here = maps[:, :, top : top + rows : self.stride, left : left + columns : self.stride]
            total = here if total is None else total + here
        assert total is not None
        return total


def _by_position(kernel: Float[Tensor, "neuron input row column"]) -> Float[Tensor, "position_neuron input"]:
    """One row for each position and neuron of a kernel, positions first."""
    return kernel.permute(2, 3, 0, 1).reshape(-1, kernel.shape[1])


def initial_logits(kind: str, shape: tuple[int, ...]) -> Float[Tensor, "neuron input ..."]:
    """First logits of a layer (see `AbstractExplor`)."""
    if kind == "random":
        return 0.5 * torch.randn(shape)
    if kind == "zeros":
        return torch.zeros(shape)
    sets = dobble_sets(shape[1], shape[0]).T.float()
    return sets.view(shape[0], shape[1], *[1] * (len(shape) - 2)).expand(shape).clone()
