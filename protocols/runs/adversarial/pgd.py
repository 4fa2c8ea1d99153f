"""Projected gradient descent on inputs: against a decision, against a detector as well, and noise as its control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
"""Images to one number each, differentiable; an attack makes it large, and has succeeded where it is above zero."""

Norm = Literal["linf", "l2"]


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Largest score of another class less the score of the own one: positive where the answer is wrong.

    Parameters
    ----------
    scores : float tensor of shape (example, class)
        Higher = more like the class.
    labels : int64 tensor of shape (example,)
        True labels, positions of the classes.

    Returns
    -------
    float tensor of shape (example,)

    Notes
    -----
    The loss of Carlini and Wagner 2017. Cross-entropy has no gradient left in float32 where a model is very sure, and
    an attack that sees no gradient proves nothing.
    """
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own


def pgd(
    images: Tensor,
    objective: Objective,
    *,
    eps: float | Tensor,
    steps: int,
    generator: torch.Generator,
    norm: Norm = "linf",
) -> Tensor:
    """Projected gradient descent: images near the given ones for which an objective is large.

    Parameters
    ----------
    images : float tensor of shape (example, channel, height, width)
        In [0, 1], and the attacked ones stay there.
    objective : callable
        See `Objective`.
    eps : float or tensor of shape (example,)
        Largest change: of a pixel for ``linf``, in Euclidean length for ``l2``.
    steps : int
        Gradient steps, each ``2.5 eps / steps`` long.
    generator : torch.Generator
        Draws the start, somewhere in the allowed region.
    norm : {"linf", "l2"}
        How a change is measured: by its largest pixel, or by its Euclidean length.

    Returns
    -------
    float tensor like ``images``
        Of each image the visited point, the image itself among them, where the objective was largest.

    Notes
    -----
    Madry et al. 2018, with random start.
    """
    return _ascend(
        images, lambda x: (objective(x),), lambda found: found[0], eps=eps, steps=steps, generator=generator, norm=norm
    )


def selective_pgd(
    images: Tensor,
    fool: Objective,
    detect: Objective,
    *,
    eps: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Selective projected gradient descent: images that a classifier gets wrong and a detector finds usual.

    Parameters
    ----------
    images : float tensor of shape (example, channel, height, width)
        In [0, 1], and the attacked ones stay there.
    fool : callable
        Positive where the answer is wrong.
    detect : callable
        The detector's score; higher = more suspicious.
    eps, steps, generator
        As for `pgd`.

    Returns
    -------
    float tensor like ``images``
        Of each image the least suspicious visited point with a wrong answer; where none was wrong, the nearest to it.

    Notes
    -----
    Bryniarski et al. 2021 (selective projected gradient descent): each step follows the first objective where the
    answer is still right, and the detector's score downwards where it is wrong, so no weight between the two is chosen.
    """

    def both(x: Tensor) -> tuple[Tensor, ...]:
        wrong = fool(x)
        return torch.where(wrong > 0, -detect(x), wrong), wrong

    def rank(found: tuple[Tensor, ...]) -> Tensor:
        step, wrong = found
        return torch.where(wrong > 0, _BEYOND + step, wrong.clamp(max=0))

    return _ascend(images, both, rank, eps=eps, steps=steps, generator=generator, norm="linf")


_BEYOND = 1e6  # larger than any detector's score, so that a wrong answer comes before a right one


def sign_noise(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Every pixel moved up or down by ``eps`` at random, cut to [0, 1]: as large as an attack, and without its aim."""
    up = torch.rand(images.shape, generator=generator) < 0.5
    return (images + torch.where(up.to(images.device), eps, -eps)).clamp(0, 1)


def _ascend(
    images: Tensor,
    objective: Callable[[Tensor], tuple[Tensor, ...]],
    rank: Callable[[tuple[Tensor, ...]], Tensor],
    *,
    eps: float | Tensor,
    steps: int,
    generator: torch.Generator,
    norm: Norm,
) -> Tensor:
    """Follow the gradient of the first number; keep the point of highest rank."""
    size = torch.as_tensor(eps, dtype=images.dtype, device=images.device).expand(len(images)).reshape(-1, 1, 1, 1)
    with torch.no_grad():
        best, best_rank = images.clone(), rank(objective(images))
    x = images + size * _start(images, generator, norm)
    for _ in range(steps + 1):
        x = x.clamp(0, 1).detach().requires_grad_()
        found = objective(x)
        with torch.no_grad():
            here = rank(found)
            better = here > best_rank
            best[better], best_rank[better] = x[better], here[better]
        gradient = torch.autograd.grad(found[0].sum(), x)[0]
        with torch.no_grad():
            x = _projected(x + 2.5 * size / max(1, steps) * _steepest(gradient, norm), images, size, norm)
    return best


def _start(images: Tensor, generator: torch.Generator, norm: Norm) -> Tensor:
    """A random point of the unit ball."""
    drawn = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
    return drawn if norm == "linf" else drawn / _length(drawn).clamp_min(1e-12)


def _steepest(gradient: Tensor, norm: Norm) -> Tensor:
    return gradient.sign() if norm == "linf" else gradient / _length(gradient).clamp_min(1e-20)


def _projected(x: Tensor, images: Tensor, size: Tensor, norm: Norm) -> Tensor:
    """The nearest point of the ball; cutting to [0, 1] never leads out of it, since its middle lies inside."""
    change = x - images
    if norm == "linf":
        return images + torch.maximum(torch.minimum(change, size), -size)
    return images + change * (size / _length(change).clamp_min(1e-12)).clamp(max=1)


def _length(x: Tensor) -> Tensor:
    found: Tensor = x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return found
