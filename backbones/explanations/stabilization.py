"""The stability regulariser: what a direction of the features looks for should not depend on the input.

A slot's template is the gradient of its score in the input. In an ordinary network each input opens other gates, and
the template changes with it; where it is the same for noise and for any picture, the template can be shown once and
holds for all inputs. No label is needed: the loss compares the templates of one direction for two inputs, and its
gradient in the weights is taken through both (double backpropagation). Two templates are alike where they say the same
of the images: patterns that no image contains, such as a fine chequerboard, count for nothing. A plain cosine of
templates rewards them; networks then learn one that drowns all else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import evaluating
from backbones.checks import check_count, check_inputs, check_learnable
from backbones.grp import detached_gates
from backbones.precision import full_precision


@dataclass(frozen=True)
class Stabilization:
    """Stability loss of one batch, with the features it was taken beside.

    Parameters
    ----------
    loss : float tensor without axes
        Mean of ``1 - agreement``; add it to your loss.
    features : float tensor of shape (batch, feature)
        For your head.
    agreement : float tensor of shape (pair,)
        Of the two templates of each direction, in [-1, 1], without gradient.
    """

    loss: Float[Tensor, ""]
    features: Float[Tensor, "batch feature"]
    agreement: Float[Tensor, " pair"]


def stabilize(
    backbone: nn.Module,
    x: Float[Tensor, "batch ..."],
    *,
    pairs: int = 16,
    generator: torch.Generator | None = None,
) -> Stabilization:
    """Compute features, and how far templates change from one input to another.

    The directions are the features of the first ``pairs`` examples less the mean of the batch: slots will lie there,
    and what all slots have in common decides nothing. The template of each is the gradient of the features along it;
    once for Gaussian noise, with each channel's root mean square in the batch as its deviation, and once for another
    example. Their agreement is the correlation, over the batch, of their inner products with the inputs: a cosine of
    the templates in the metric of the inputs' covariance.

    Parameters
    ----------
    backbone : nn.Module
        From (batch, ...) to (batch, feature), in the mode you train it in. It must have second derivatives, as all
        layers here have.
    x : float tensor of shape (batch, ...)
        Inputs in random order; the second axis is the channel.
    pairs : int
        Templates compared, at most one an example (count, >= 1).
    generator : torch.Generator, optional
        Draws the noise. Default: the global one of the CPU.

    Returns
    -------
    Stabilization

    Raises
    ------
    ValueError
        If the batch is empty, ``pairs`` is out of range, or the features do not depend on the input.

    Notes
    -----
    Templates are those of evaluation with gates held fixed, as `AbstractBackbone.template` draws them; the features
    come in the backbone's own mode. A direction without length has agreement 0, which no training changes.

    Examples
    --------
    >>> import backbones
    >>> net = backbones.build("positive", input_shape=(1, 8, 8), widths=[4, 8])
    >>> found = stabilize(net, torch.rand(5, 1, 8, 8))
    >>> found.loss.backward()
    >>> found.agreement.shape
    torch.Size([5])
    """
    check_count("pairs", pairs)
    check_inputs(x)
    with torch.enable_grad():
        features = backbone(x)
        check_learnable(features)
        with full_precision(features.detach()) as known:
            directions = _apart(known)[:pairs]
        others = x.detach().roll(-1, 0)[: len(directions)]
        inputs = torch.cat([_noise_like(x.detach(), len(directions), generator), others]).requires_grad_()
        with evaluating(backbone), detached_gates(backbone):
            along = (backbone(inputs) * directions.repeat(2, 1)).sum()
        (templates,) = torch.autograd.grad(along, inputs, create_graph=True)
        with full_precision(templates.flatten(1)) as drawn:
            seen = x.detach().flatten(1).to(drawn.dtype)
            on_noise, on_others = (drawn @ (seen - seen.mean(0)).T).chunk(2)
            agreement = nn.functional.cosine_similarity(on_noise, on_others, dim=1)
    return Stabilization((1 - agreement).mean(), features, agreement.detach())


def _apart(features: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch feature"]:
    """What each example has more than the mean, as unit vectors; 0 where that is only rounding."""
    apart = features - features.mean(0)
    size, rounding = apart.norm(dim=1, keepdim=True), 16 * torch.finfo(features.dtype).eps
    has_length = size > rounding * features.norm(dim=1, keepdim=True)
    return torch.where(has_length, apart / torch.where(has_length, size, 1.0), 0.0)


def _noise_like(x: Float[Tensor, "batch ..."], count: int, generator: torch.Generator | None) -> Float[Tensor, ...]:
    """Gaussian noise around 0, as large as the inputs in each channel."""
    axes = [axis for axis in range(x.ndim) if axis != 1] if x.ndim > 2 else [0]
    size = x.square().mean(axes, keepdim=True).sqrt()
    drawn = torch.randn((count, *x.shape[1:]), generator=generator, dtype=x.dtype).to(x.device)
    return drawn * size
