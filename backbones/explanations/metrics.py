"""Numbers that say how good explanations are: what a picture of a score has to do with the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_count

Scores = Callable[[Tensor], Float[Tensor, " batch"]]
"""From inputs (batch, ...) to one score an input; for inputs in a fixed order, so that each may have its own class."""


def alignment(
    attribution: Float[Tensor, "batch ..."], reference: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Cosine of each attribution with what it should look like, for example the mean image of its class.

    Parameters
    ----------
    attribution, reference : float tensors of one shape (batch, ...)
        Compared value by value, with their signs; their size does not count.

    Returns
    -------
    float tensor of shape (batch,)
        In [-1, 1]; 0 where either is 0.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if attribution.shape != reference.shape:
        raise ValueError(
            f"`reference` must have shape {tuple(attribution.shape)}, got {tuple(reference.shape)}. "
            "Give one for each attribution."
        )
    return nn.functional.cosine_similarity(attribution.flatten(1), reference.flatten(1), dim=1)


def stability(templates: Float[Tensor, "sample ..."]) -> float:
    """Mean cosine of all pairs of templates that one unit or slot has for different inputs.

    Parameters
    ----------
    templates : float tensor of shape (sample, ...)
        At least two. One that is 0 has cosine 0 with all others.

    Returns
    -------
    float
        1: always the same picture, whatever the input; 0: unrelated pictures.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    n = len(templates)
    if n < 2:
        raise ValueError(f"`templates` must hold at least 2, got {n}. Take the templates of several inputs.")
    unit = nn.functional.normalize(templates.flatten(1).double(), dim=1)
    pairs = unit.sum(0).square().sum() - unit.square().sum()  # (sum u)^2 without each with itself
    return float(pairs / (n * (n - 1)))


@dataclass(frozen=True)
class Curves:
    """Scores while pixels are taken away, or put back, the most important first.

    Parameters
    ----------
    deletion, insertion : float tensor of shape (batch, step + 1)
        From the whole input to the baseline, and from the baseline to the whole input.
    """

    deletion: Float[Tensor, "batch step"]
    insertion: Float[Tensor, "batch step"]

    @property
    def deletion_auc(self) -> Float[Tensor, " batch"]:
        """Mean height of the deletion curve (trapezia); low for a good explanation."""
        return _area(self.deletion)

    @property
    def insertion_auc(self) -> Float[Tensor, " batch"]:
        """Mean height of the insertion curve; high for a good explanation."""
        return _area(self.insertion)


@torch.no_grad()
def deletion_and_insertion(
    scores: Scores,
    x: Float[Tensor, "batch channel height width"],
    saliency: Float[Tensor, "batch height width"],
    *,
    baseline: Float[Tensor, ...] | float = 0.0,
    steps: int = 16,
) -> Curves:
    """Take the pixels away in the order of their importance, and put them back in the same order.

    Parameters
    ----------
    scores : callable
        From inputs to one score each, for example the probability of the class that was found.
    x : float tensor of shape (batch, channel, height, width)
        Inputs that were explained; every channel of a pixel goes and comes back with it.
    saliency : float tensor of shape (batch, height, width)
        Importance of each pixel; of equal ones the first counts as more important.
    baseline : float or tensor that fits ``x``
        What a pixel that was taken away is replaced with.
    steps : int
        Number of steps of about equal size (count, >= 1).

    Returns
    -------
    Curves

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    Petsiuk, Das, Saenko: RISE. BMVC 2018.
    """
    check_count("steps", steps)
    if x.ndim != 4 or saliency.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"`saliency` must have shape (batch, height, width) of `x`, got {tuple(saliency.shape)} for "
            f"{tuple(x.shape)}. Sum an attribution's sizes over the channels."
        )
    order = saliency.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).view_as(saliency)[:, None]
    empty = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
    deletion, insertion = [], []
    for step in range(steps + 1):
        moved = rank < round(rank[0].numel() * step / steps)
        deletion.append(scores(torch.where(moved, empty, x)))
        insertion.append(scores(torch.where(moved, x, empty)))
    return Curves(torch.stack(deletion, 1), torch.stack(insertion, 1))


@dataclass(frozen=True)
class Perturbed:
    """Inputs with noise taken away from them, and what that did to the scores.

    Parameters
    ----------
    noise : float tensor of shape (sample, batch, ...)
        ``I``.
    drops : float tensor of shape (sample, batch)
        ``f(x) - f(x - I)``.
    """

    noise: Float[Tensor, "sample batch ..."]
    drops: Float[Tensor, "sample batch"]


@torch.no_grad()
def perturb(
    scores: Scores, x: Float[Tensor, "batch ..."], *, deviation: float, samples: int = 16, seed: int = 0
) -> Perturbed:
    """Measure what normal noise does to the scores; any number of attributions can be judged by it.

    Parameters
    ----------
    scores : callable
        From inputs to one score each.
    x : float tensor of shape (batch, ...)
        Inputs that were explained.
    deviation : float
        Of the noise, in units of the input (> 0).
    samples : int
        Noises for each input (count, >= 1).
    seed : int
        Of the noise; equal seeds give equal noise for inputs of equal shape.

    Returns
    -------
    Perturbed
    """
    check_count("samples", samples)
    if not deviation > 0:
        raise ValueError(f"`deviation` must be above 0, got {deviation!r}. A fifth of the input's own is usual.")
    generator = torch.Generator().manual_seed(seed)
    noise = deviation * torch.randn(samples, *x.shape, generator=generator, dtype=x.dtype).to(x.device)
    start = scores(x)
    return Perturbed(noise, torch.stack([start - scores(x - part) for part in noise]))


def infidelity(
    attribution: Float[Tensor, "batch ..."], perturbed: Perturbed, *, rescale: bool = False
) -> Float[Tensor, " batch"]:
    """How badly an attribution predicts what a change of the input does: mean ``(<I, a> - (f(x) - f(x - I)))^2``.

    Parameters
    ----------
    attribution : float tensor of shape (batch, ...)
        Explanations of the inputs that ``perturbed`` was measured on, in the same order.
    perturbed : Perturbed
        Noise and drops of the scores, from `perturb`.
    rescale : bool
        Multiply each attribution by the factor that serves it best first: for attributions whose size means nothing.

    Returns
    -------
    float tensor of shape (batch,)
        At least 0, lower is better. Rescaled it is at most the mean of the squared drops, which an attribution of 0
        has.

    Notes
    -----
    The same as captum's ``infidelity`` with the same noise, and rescaled as its ``normalize=True``.

    References
    ----------
    Yeh, Hsieh, Suggala, Inouye, Ravikumar: On the (In)fidelity and Sensitivity of Explanations. NeurIPS 2019.
    """
    predicted = (perturbed.noise * attribution).flatten(2).sum(2)
    if rescale:
        factor = (predicted * perturbed.drops).sum(0) / predicted.square().sum(0).clamp_min(1e-30)
        predicted = predicted * factor
    return (predicted - perturbed.drops).square().mean(0)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch ..."],
    *,
    radius: float,
    samples: int = 10,
    seed: int = 0,
) -> Float[Tensor, " batch"]:
    """The largest relative change of an attribution when the input changes a little: ``max |a(y) - a(x)| / |a(x)|``.

    Parameters
    ----------
    explain : callable
        From inputs to their attributions, both of shape (batch, ...).
    x : float tensor of shape (batch, ...)
        Inputs whose explanations are asked to be stable.
    radius : float
        Each value of ``y`` is uniform within this distance of that of ``x`` (units of the input, > 0).
    samples : int
        Number of ``y`` (count, >= 1). More find larger changes, so compare only equal numbers.
    seed : int
        Of the changes; equal seeds try equal ones.

    Returns
    -------
    float tensor of shape (batch,)
        At least 0, lower is better; inf where an attribution of 0 becomes another, 0 where it stays.

    Notes
    -----
    The same as captum's ``sensitivity_max`` with the same noise, but for an attribution of 0, whose change that returns
    undivided.

    References
    ----------
    See `infidelity`.
    """
    check_count("samples", samples)
    if not radius > 0:
        raise ValueError(f"`radius` must be above 0, got {radius!r}. A hundredth of the input's range is usual.")
    generator = torch.Generator().manual_seed(seed)
    start = explain(x).flatten(1)
    largest = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for _ in range(samples):
        noise = (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1).to(x.device)
        change = (explain(x + radius * noise).flatten(1) - start).norm(dim=1)
        largest = torch.maximum(largest, change)
    return torch.where(largest == 0, largest, largest / start.norm(dim=1))


def _area(curve: Float[Tensor, "batch step"]) -> Float[Tensor, " batch"]:
    return (curve[:, 1:] + curve[:, :-1]).mean(1) / 2
