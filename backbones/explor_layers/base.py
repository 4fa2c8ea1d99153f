"""What the ExplOR layers share: weights, logits and the scores by which a neuron chooses among its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_sharpness
from backbones.explor_layers.gates import KEY_LIMIT, chances_and_values, inverse_rms
from backbones.explor_layers.projective_plane import dobble_sets
from backbones.explor_layers.smooth_maxima import log_sum_exp, power_mean
from backbones.grp import AbstractGatedLayer

KEYS: Final = ("rms", "detached", "batchnorm", "raw")
LOGITS: Final = ("random", "dobble", "zeros")
FORMS: Final = ("average", "lse", "pnorm")
_SMALLEST_DENOMINATOR: Final = {torch.float32: 1e-20, torch.float64: 1e-200}


class Choice(TypedDict, total=False):
    """The options that say how a neuron chooses, the same for each layer; see `AbstractExplor`."""

    a_x: float
    a_l: float
    key: str
    logits: str
    null_score: float | None
    form: str


class AbstractExplor(AbstractGatedLayer):
    """Weights, logits and scores that the ExplOR layers share.

    Parameters
    ----------
    shape : tuple of int
        Shape (neuron, input, ...) of the logits.
    a_x : float
        Sharpness of the choice by the input (>= 0). 0: the same weights for every input; large: the largest wins.
    a_l : float
        Sharpness of the choice by the logits (>= 0). 0: all inputs alike; large: the one with the largest logit.
    key : {"rms", "detached", "batchnorm", "raw"}
        ``"rms"``: the input over its root mean square (of a sample; of a location over its channels). ``"detached"``:
        the same value, without gradient. ``"batchnorm"``: the batch normalisation of each channel, without gradient.
        These two are the *key-value* form: keys make the choice, and the gradient goes through the values alone.
        ``"raw"``: the input itself; its full gradient does not explain the value.
    logits : {"random", "dobble", "zeros"}
        First logits: normal with deviation 0.5, 1 on a dobble set of inputs and 0 elsewhere, or 0.
    null_score : float, optional
        Score of choosing no input. Default: there is no such choice.
    form : {"average", "lse", "pnorm"}
        How the chosen inputs become a value. ``"average"``: the *weighted disjunction*, the average of ``w_ij x_i`` by
        their shares in the choice; each input has a weight. ``"lse"``: the soft maximum
        ``T / a_x log sum_i p_ij exp(a_x x_i / T)`` with ``p_j`` the softmax of ``a_l l_j`` and ``T`` the root mean
        square of the inputs, a soft tropical product. ``"pnorm"``: ``(sum_i p_ij x_i^p)^(1/p)`` of the positive parts,
        ``p`` = ``1 + a_x``. Both lie between the mean by ``p_j`` (``a_x = 0``) and the largest input, and each neuron
        has one weight, which multiplies the result.

    Notes
    -----
    ``"lse"`` and ``"pnorm"`` have no gate that could be held: they do not change with the input's scale as a whole, so
    their full gradient explains the value, `detached_gates` or not. ``"lse"`` owes it to the temperature ``T``; with
    ``key="raw"``, ``T = 1``, it is lost. They know no other keys.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        a_x: float = 2.0,
        a_l: float = 4.0,
        key: str = "rms",
        logits: str = "random",
        null_score: float | None = None,
        form: str = "average",
    ) -> None:
        super().__init__()
        for name, sharpness in (("a_x", a_x), ("a_l", a_l)):
            check_sharpness(name, sharpness)
        check_choice("form", form, FORMS)
        check_choice("key", key, KEYS if form == "average" else ("rms", "raw"))
        check_choice("logits", logits, LOGITS)
        self.a_x, self.a_l, self.key, self.null_score, self.form = a_x, a_l, key, null_score, form
        # Deviation sqrt 2: the mean of n values with gates of order 1 / n is small, and half of it is gated away.
        self.weight = nn.Parameter(torch.randn(shape if form == "average" else shape[:1]) * math.sqrt(2.0))
        self.logits = nn.Parameter(initial_logits(logits, shape))
        # No gain and no offset: without a gradient they could not be learned, and `a_x` is the gain.
        self.norm = nn.BatchNorm1d(shape[1], affine=False) if key == "batchnorm" else None

    def rows(self, parameter: Float[Tensor, "neuron input ..."]) -> Float[Tensor, "neuron input"]:
        """Weights or logits with one row for each softmax."""
        return parameter

    def choose(
        self,
        x: Float[Tensor, "... channel"],
        *,
        dims: tuple[int, ...] = (-1,),
        product: Callable[[Tensor, Tensor], Tensor] = functional.linear,
    ) -> Float[Tensor, "... neuron"]:
        """The neurons' values: ``product(e * x, E * w) / product(e, E)``.

        ``dims`` are the axes of ``x`` over which its scores have a common shift; no softmax may reach beyond them,
        since each entry along the others has its own shift.
        """
        if self.form != "average":
            return self._soft_maximum(x.flatten(3) if x.ndim == 5 else x)
        chances, values, x_shift = self._chances(x, dims)
        odds, l_shift = self._odds()
        numerator = product(values, odds * self.rows(self.weight))
        return self._ratio(numerator, product(chances, odds), x_shift + l_shift.view(-1))

    def _soft_maximum(self, x: Float[Tensor, "... input"]) -> Float[Tensor, "... neuron"]:
        """The forms without gates."""
        scores = self.a_l * self.rows(self.logits)
        null = None if self.null_score is None else float(self.null_score)
        if self.form == "pnorm":
            best = power_mean(x, scores, 1.0 + self.a_x, null_score=null)
        else:
            best = log_sum_exp(x, scores, self.a_x, relative=self.key == "rms", null_score=null)
        # Where a kernel position has its own rows, positions come first.
        return best * self.weight.repeat(best.shape[-1] // len(self.weight))

    def _chances(self, x: Float[Tensor, "... channel"], dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor | float]:
        """``e = exp(a_x k(x) - shift)``, ``e * x``, and the shift: the maximum over the given axes; or 0."""
        is_sharp = self.a_x * KEY_LIMIT > 40  # exp(40) and its square are far from the largest float32
        if self.key == "rms" and not self.hold_gate and not is_sharp:
            return *chances_and_values(x, self.a_x), 0.0
        held = x.detach() if self.hold_gate or self.key in {"detached", "batchnorm"} else x
        if self.norm is not None:
            key = self.norm(held.reshape(-1, held.shape[-1])).view_as(held)
        else:
            key = held if self.key == "raw" else held * inverse_rms(held)
        scores = self.a_x * key.clamp(-KEY_LIMIT, KEY_LIMIT)
        shift = scores.detach().amax(dims, keepdim=True) if is_sharp else 0.0
        chances = (scores - shift).exp()
        return chances, chances * x, shift.flatten(3) if isinstance(shift, Tensor) and x.ndim == 5 else shift

    def _odds(self) -> tuple[Float[Tensor, "row input"], Float[Tensor, "row 1"]]:
        """``E = exp(a_l l - shift)``, and the shift: the maximum of each row."""
        scores = self.a_l * self.rows(self.logits)
        shift = scores.detach().amax(1, keepdim=True)
        return (scores - shift).exp(), shift

    def _ratio(self, numerator: Tensor, denominator: Tensor, shift: Tensor) -> Tensor:
        """``numerator / (denominator + exp(s0))``, both of which were made smaller by ``exp(shift)``."""
        if self.null_score is not None:
            # 80: the null option has then all of the weight in float32, and the gradient stays finite.
            denominator = denominator + (self.null_score - shift).clamp_max(80.0).exp()
        return numerator / denominator.clamp_min(_SMALLEST_DENOMINATOR[denominator.dtype])


def initial_logits(kind: str, shape: tuple[int, ...]) -> Float[Tensor, "neuron input ..."]:
    """First logits of a layer (see `AbstractExplor`)."""
    if kind == "random":
        return 0.5 * torch.randn(shape)
    if kind == "zeros":
        return torch.zeros(shape)
    sets = dobble_sets(shape[1], shape[0]).T.float()
    return sets.view(shape[0], shape[1], *[1] * (len(shape) - 2)).expand(shape).clone()
