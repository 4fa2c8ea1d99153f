"""The reconstruction regulariser: a unit that wins for an input should have a gradient that looks like that input.

No label is needed. With ``G`` the gradient of the winning unit in the input, the loss is ``1 - corr(G, x)``, and its
gradient in the weights is taken through ``G`` (double backpropagation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_count, check_inputs, check_learnable

_ROUNDING: Final = 16


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruction loss of one batch, with the features and gradients it is made of.

    Parameters
    ----------
    loss : float tensor without axes
        Mean of ``1 - correlation``; add it to your loss.
    features : float tensor of shape (batch, feature)
        For your head; without gradient where the head is detached.
    templates : float tensor of shape (batch, ...)
        Gradient in the input of the winning units, with a graph.
    correlation : float tensor of shape (batch,)
        Between templates and inputs, in [-1, 1], without gradient.
    """

    loss: Float[Tensor, ""]
    features: Float[Tensor, "batch feature"]
    templates: Float[Tensor, "batch ..."]
    correlation: Float[Tensor, " batch"]


def reconstruct(
    backbone: nn.Module,
    x: Float[Tensor, "batch ..."],
    *,
    top: int = 1,
    balanced: bool = False,
    ignore_background: bool = False,
    detach: bool = False,
) -> Reconstruction:
    """Compute features, and how much the winning units' gradients look like the inputs.

    Parameters
    ----------
    backbone : nn.Module
        From (batch, ...) to (batch, feature), in the mode you train it in. It must have second derivatives, as all
        layers here have.
    x : float tensor of shape (batch, ...)
        Inputs to be drawn by the gradients; what comes before them gets no gradient from the loss.
    top : int
        The template is that of the sum of so many features, the largest (count, >= 1).
    balanced : bool
        Features compete after standardisation over the batch, so that no unit wins everywhere and others never learn.
    ignore_background : bool
        Weigh each pixel by the template's size there (taken as given), in mean, deviation and correlation: what the
        template leaves out then neither helps nor harms. Default: all pixels count the same.
    detach : bool
        Return features without gradient: a head on them learns, and the backbone learns from the reconstruction alone.

    Returns
    -------
    Reconstruction

    Raises
    ------
    ValueError
        If the batch is empty, ``top`` is out of range, or the features do not depend on the input.

    Notes
    -----
    Both pictures are standardised over the pixels of an input, so that brightness and contrast do not count; a picture
    without contrast has correlation 0.

    Examples
    --------
    >>> import backbones
    >>> net = backbones.build("positive", input_shape=(1, 8, 8), widths=[4, 8])
    >>> found = reconstruct(net, torch.rand(5, 1, 8, 8), detach=True)
    >>> found.loss.backward()
    """
    check_count("top", top)
    check_inputs(x)
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        features = backbone(leaf)
        check_learnable(features)
        if top > features.shape[1]:
            raise ValueError(
                f"`top` must be at most the number of features, got {top} for features {tuple(features.shape)}. "
                "Pass less."
            )
        rivals = features.detach()
        if balanced:
            deviation = rivals.std(0, correction=0).clamp_min(torch.finfo(rivals.dtype).tiny)
            rivals = (rivals - rivals.mean(0)) / deviation
        winners = features.gather(1, rivals.topk(top, dim=1).indices)
        (templates,) = torch.autograd.grad(winners.sum(), leaf, create_graph=True)
        correlation = _correlation(templates.flatten(1), leaf.detach().flatten(1), ignore_background)
        loss = (1 - correlation).mean()
    return Reconstruction(loss, features.detach() if detach else features, templates, correlation.detach())


def _correlation(
    template: Float[Tensor, "batch pixel"], x: Float[Tensor, "batch pixel"], ignore_background: bool
) -> Float[Tensor, " batch"]:
    """Correlation of each row with its partner; 0 where one of them is flat."""
    weights = template.detach().abs() if ignore_background else torch.ones_like(template)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    first = template - (weights * template).sum(1, keepdim=True)
    second = x - (weights * x).sum(1, keepdim=True)
    shared = (weights * first * second).sum(1)
    sizes = [(weights * part.square()).sum(1) for part in (first, second)]
    # What rounding leaves of a flat picture is no contrast.
    least = [_ROUNDING * torch.finfo(x.dtype).eps * part.detach().abs().amax(1) for part in (template, x)]
    is_flat = (sizes[0] <= least[0].square()) | (sizes[1] <= least[1].square())
    # The root has no slope at 0: replace before, not after, or the gradient is NaN.
    return torch.where(
        is_flat, torch.zeros_like(shared), shared / torch.where(is_flat, 1.0, sizes[0] * sizes[1]).sqrt()
    )
