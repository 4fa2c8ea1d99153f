"""Gradients of a score in the input, and a few steps along them: what would make a picture more of something.

Step by step ``x <- x + alpha * g / |g|``, with ``g`` a plain gradient or a pullback (`backbones.pullback`). The
difference to the start, ``x_K - x_0``, explains the score better than one gradient: steps after the first look at
pictures in which what was missing has begun to appear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import evaluating
from backbones.checks import check_count
from backbones.explanations.pullbacks import pullback

Score = int | Tensor | Callable[[Tensor], Tensor]
"""What of a model's output (batch, unit) is meant: a unit; a tensor of a unit for each input, int64 of shape (batch,);
a direction, float of shape (unit,) or (batch, unit), whose inner product with the output counts, for example a slot's
weight; or a function from the output to (batch,)."""

_STEP_RMS: Final = 20 / math.sqrt(224 * 224 * 3)
"""Root mean square of a published step, a value: 20 in length for pictures of 224 x 224 x 3 in [-1, 1]."""


@dataclass(frozen=True)
class Ascent:
    """Result of a gradient ascent in input space.

    Parameters
    ----------
    inputs : float tensor of shape (batch, ...)
        The last inputs; clipped where a range was given.
    attribution : float tensor of shape (batch, ...)
        Last inputs minus first, never clipped.
    scores : float tensor of shape (step + 1, batch)
        The score at the start and after each step, before clipping.
    """

    inputs: Float[Tensor, "batch ..."]
    attribution: Float[Tensor, "batch ..."]
    scores: Float[Tensor, "step batch"]


def gradient(
    model: nn.Module, x: Float[Tensor, "batch ..."], score: Score, *, kind: str = "soft", softness: float = 1.0
) -> Float[Tensor, "batch ..."]:
    """The gradient of a score in the input; `SoftPullback` with ``kind="soft"``.

    Parameters
    ----------
    model : nn.Module
        From (batch, ...) to (batch, unit), each row from its own input. Run in evaluation mode; its mode and the
        gradients of its parameters stay as they were.
    x : float tensor of shape (batch, ...)
        Inputs at which it is taken; each row is explained by itself.
    score : int, tensor or callable
        See `Score`.
    kind, softness
        See `pullback`.

    Returns
    -------
    float tensor of the inputs' shape
        Carries no gradient.

    Raises
    ------
    ValueError
        If the score does not fit the output.
    """
    return _step(model, x, score, kind, softness)[0]


def ascend(
    model: nn.Module,
    x: Float[Tensor, "batch ..."],
    score: Score,
    *,
    steps: int = 5,
    alpha: float | None = None,
    kind: str = "soft",
    softness: float = 1.0,
    clip: tuple[float, float] | None = None,
) -> Ascent:
    """Climb a score in the input, by steps of one length.

    Parameters
    ----------
    model, x, score, kind, softness
        See `gradient`.
    steps : int
        Number of steps (count, >= 1).
    alpha : float, optional
        Length of a step (L2, units of the input, > 0). Default: 0.0515 times the root of the number of values of an
        input, which is 20 for 224 x 224 x 3, 2.86 for 32 x 32 x 3 and 1.44 for 28 x 28; for inputs in [-1, 1] or of
        deviation 1.
    clip : two floats, optional
        Range of ``inputs`` in the result, for pictures. Default: none.

    Returns
    -------
    Ascent

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    An input whose gradient is 0 stays where it is.
    """
    check_count("steps", steps)
    length = _STEP_RMS * math.sqrt(x[0].numel()) if alpha is None and len(x) else alpha or 0.0
    if alpha is not None and not 0 < alpha < math.inf:
        raise ValueError(f"`alpha` must be a finite length above 0, got {alpha!r}. Leave it out for the default.")
    if clip is not None and not clip[0] < clip[1]:
        raise ValueError(f"`clip` must be a range (low, high), got {clip!r}. Pictures in [-1, 1] have (-1, 1).")
    start = x.detach()
    here, scores = start, []
    for _ in range(steps):
        uphill, value = _step(model, here, score, kind, softness)
        scores.append(value)
        size = uphill.flatten(1).norm(dim=1).clamp_min(torch.finfo(uphill.dtype).tiny)
        here = here + length * uphill / size.view(-1, *[1] * (here.ndim - 1))
    with evaluating(model), torch.no_grad():
        scores.append(_values(model(here), score))
    inputs = here if clip is None else here.clamp(*clip)
    return Ascent(inputs=inputs, attribution=here - start, scores=torch.stack(scores))


def accentuate(
    model: nn.Module,
    x: Float[Tensor, "batch ..."],
    *,
    steps: int = 5,
    alpha: float | None = None,
    kind: str = "soft",
    clip: tuple[float, float] | None = None,
) -> Ascent:
    """Make each input more of what the model sees in it: climb the unit that is the largest at the start.

    Parameters
    ----------
    model, x, steps, alpha, kind, clip
        See `ascend`.

    Returns
    -------
    Ascent
    """
    with evaluating(model), torch.no_grad():
        found = model(x.detach()).argmax(1)
    return ascend(model, x, found, steps=steps, alpha=alpha, kind=kind, clip=clip)


def counterfactual(
    model: nn.Module,
    x: Float[Tensor, "batch ..."],
    toward: Score,
    *,
    steps: int = 5,
    alpha: float | None = None,
    kind: str = "soft",
    clip: tuple[float, float] | None = None,
) -> Ascent:
    """What would have to change for the model to see something else: climb towards another class or slot.

    Parameters
    ----------
    toward : int, tensor or callable
        A class as a unit of the output, a slot's weight as a direction of the features, or any other `Score`.
    model, x, steps, alpha, kind, clip
        See `ascend`.

    Returns
    -------
    Ascent
        ``attribution`` is what was added and taken away.
    """
    return ascend(model, x, toward, steps=steps, alpha=alpha, kind=kind, clip=clip)


def _step(model: nn.Module, x: Tensor, score: Score, kind: str, softness: float) -> tuple[Tensor, Tensor]:
    """Gradient and value of the score."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        with pullback(model, kind, softness=softness):
            output = model(leaf)
        values = _values(output, score)
        return torch.autograd.grad(values.sum(), leaf)[0], values.detach()


def _values(output: Tensor, score: Score) -> Float[Tensor, " batch"]:
    """The score of each row of a model's output."""
    if output.ndim != 2:
        raise ValueError(f"`model` must give (batch, unit), got shape {tuple(output.shape)}. Average or flatten it.")
    if isinstance(score, int):
        if not -output.shape[1] <= score < output.shape[1]:
            raise ValueError(f"`score` must be one of {output.shape[1]} units, got {score}. Units count from 0.")
        return output[:, score]
    if isinstance(score, Tensor):
        if not score.is_floating_point() and score.shape == output.shape[:1]:
            return output.gather(1, score.clone()[:, None]).squeeze(1)  # may stem from inference mode
        if score.is_floating_point() and score.shape in {output.shape[1:], output.shape}:
            return (output * score.clone()).sum(1)
        raise ValueError(
            f"`score` must have shape ({len(output)},) of int64, or ({output.shape[1]},) or {tuple(output.shape)} of "
            f"floats, got {score.dtype} of shape {tuple(score.shape)}. Pass a unit for each input, or a direction."
        )
    values = score(output)
    if values.shape != output.shape[:1]:
        raise ValueError(f"`score` must return shape ({len(output)},), got {tuple(values.shape)}. One value an input.")
    return values
