"""The smooth maxima that need no gate: a log of a sum of exponentials, and a power mean.

For inputs ``x`` of a row and shares ``p_j = softmax(scores_j)`` of neuron ``j`` (and of an optional input "none of
them", whose value is 0)::

    log_sum_exp : T / a log sum_i p_ij exp(a x_i / T),   T the root mean square of the row
    power_mean  : (sum_i p_ij max(x_i, 0)^p)^(1 / p)

Both factor into one matrix product, since a power or exponential of ``x`` does not depend on the neuron.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from backbones.explor_layers.gates import inverse_rms

_SMALLEST: Final = {torch.float32: 1e-37, torch.float64: 1e-300}


def log_sum_exp(
    x: Float[Tensor, "... input"],
    scores: Float[Tensor, "neuron input"],
    sharpness: float,
    *,
    relative: bool = True,
    null_score: float | None = None,
) -> Float[Tensor, "... neuron"]:
    """Soft maximum of the inputs of each neuron: their mean at sharpness 0, the largest at infinity.

    Parameters
    ----------
    x : float tensor of shape (..., input)
        Rows of inputs, of any sign; every neuron sees the whole row.
    scores : float tensor of shape (neuron, input)
        Logarithms of the shares, up to a common number.
    sharpness : float
        >= 0.
    relative : bool
        Whether the temperature is the root mean square of the row, so that the result scales with the input; else 1.
    null_score : float, optional
        Score of one more input, which is 0.

    Returns
    -------
    float tensor of shape (..., neuron)
        Inputs more than about 80 (float32) below the largest, in units of temperature over sharpness, are not seen.
    """
    shares, null = _shares(scores, null_score)
    if sharpness == 0:
        return functional.linear(x, shares)
    inverse = sharpness * (inverse_rms(x) if relative else torch.ones_like(x[..., :1]))
    exponents = x * inverse
    # Taken out before and put back after: any number would do, so no gradient has to flow through it.
    largest = exponents.detach().amax(-1, keepdim=True).clamp_min(-torch.inf if null is None else 0.0)
    total = functional.linear((exponents - largest).exp(), shares)
    if null is not None:
        total = total + null * (-largest).exp()
    return (total.clamp_min(_SMALLEST[x.dtype]).log() + largest) / inverse


def power_mean(
    x: Float[Tensor, "... input"],
    scores: Float[Tensor, "neuron input"],
    exponent: float,
    *,
    null_score: float | None = None,
) -> Float[Tensor, "... neuron"]:
    """Power mean of the positive parts of each neuron's inputs: their mean at exponent 1, the largest at infinity.

    Parameters
    ----------
    x : float tensor of shape (..., input)
        Rows of inputs; what is negative counts as 0.
    scores : float tensor of shape (neuron, input)
        Logarithms of the shares, up to a common number.
    exponent : float
        >= 1.
    null_score : float, optional
        Score of one more input, which is 0.

    Returns
    -------
    float tensor of shape (..., neuron)
        0, with gradient 0, where no input with a share is positive.
    """
    shares, _ = _shares(scores, null_score)
    positive = x.clamp_min(0.0)
    # In exact arithmetic the scale cancels, so it can be held; the powers then lie in [0, 1].
    scale = positive.detach().amax(-1, keepdim=True).clamp_min(1e-6)
    total = functional.linear((positive / scale).pow(exponent), shares)
    smallest = _SMALLEST[x.dtype]
    root = total.clamp_min(smallest).pow(1.0 / exponent)
    return scale * torch.where(total > smallest, root, torch.zeros_like(root))


def _shares(
    scores: Float[Tensor, "neuron input"], null_score: float | None
) -> tuple[Float[Tensor, "neuron input"], Float[Tensor, " neuron"] | None]:
    """Softmax of each row, and the share of the input that is 0."""
    if null_score is None:
        return scores.softmax(1), None
    with_null = functional.pad(scores, (0, 1), value=null_score).softmax(1)
    return with_null[:, :-1], with_null[:, -1]
