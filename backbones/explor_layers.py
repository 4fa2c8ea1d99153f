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

from backbones.dobble import dobble_sets
from backbones.grp import AbstractGatedLayer

KEYS: Final = ("rms", "detached", "raw")
LOGITS: Final = ("random", "dobble", "zeros")
KEY_LIMIT: Final = 8.0
_SMALLEST_DENOMINATOR: Final = {torch.float32: 1e-20, torch.float64: 1e-200}


def rms_key(x: Float[Tensor, "batch input ..."]) -> Float[Tensor, "batch input ..."]:
    """``x`` over its root mean square along axis 1; does not change when ``x`` is scaled, and is 0 where ``x`` is."""
    # A floor, not an added epsilon: above it the key is exactly independent of the input's scale.
    return x * x.square().mean(1, keepdim=True).clamp_min(1e-12).rsqrt()


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

    def chances(self, x: Float[Tensor, "batch input ..."]) -> tuple[Tensor, Tensor | float]:
        """``e = exp(a_x k(x) - shift)`` of the shape of ``x``, and the shift: of shape (batch, 1, ...), or 0."""
        held = x.detach() if self.hold_gate or self.key == "detached" else x
        key = held if self.key == "raw" else rms_key(held)
        scores = self.a_x * key.clamp(-KEY_LIMIT, KEY_LIMIT)
        if self.a_x * KEY_LIMIT <= 40:  # exp(40) and its square are far from the largest float32: nothing to subtract
            return scores.exp(), 0.0
        shift = scores.detach().amax(tuple(range(1, x.ndim)), keepdim=True)
        return (scores - shift).exp(), shift

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
            chance, x_shift = self.chances(wide)
            odds, l_shift = self.odds((1,))
            numerator = functional.linear(chance * wide, odds * self.weight)
            return self.ratio(numerator, functional.linear(chance, odds), x_shift + l_shift.T)


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
            chance, x_shift = self.chances(wide)
            odds, l_shift = self.odds((1, 2, 3))
            numerator = self._convolve(chance * wide, odds * self.weight)
            denominator = self._convolve(chance, odds)
            return self.ratio(numerator, denominator, x_shift + l_shift.view(1, -1, 1, 1))

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(x, weight, stride=self.stride, padding=self.padding)


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
            chance, x_shift = self.chances(wide)
            odds, l_shift = self.odds((1,))
            numerator = functional.conv2d(chance * wide, _as_pointwise(odds * self.weight))
            denominator = functional.conv2d(chance, _as_pointwise(odds))
            chosen = self.ratio(numerator, denominator, x_shift + _as_pointwise(l_shift).view(1, -1, 1, 1))
        return self._gather(chosen)

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


def _as_pointwise(kernel: Float[Tensor, "neuron input row column"]) -> Float[Tensor, "position_neuron input 1 1"]:
    """One pointwise neuron for each position and neuron of a kernel, positions first."""
    return kernel.permute(2, 3, 0, 1).reshape(-1, kernel.shape[1], 1, 1)


def initial_logits(kind: str, shape: tuple[int, ...]) -> Float[Tensor, "neuron input ..."]:
    """First logits of a layer (see `AbstractExplor`)."""
    if kind == "random":
        return 0.5 * torch.randn(shape)
    if kind == "zeros":
        return torch.zeros(shape)
    sets = dobble_sets(shape[1], shape[0]).T.float()
    return sets.view(shape[0], shape[1], *[1] * (len(shape) - 2)).expand(shape).clone()


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}. Choose one of them.")


def check_sharpness(name: str, value: object) -> None:
    """Raise a ValueError unless the value is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}. 2 is a good start.")
