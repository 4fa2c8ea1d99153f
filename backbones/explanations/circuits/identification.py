"""Visualisation by identification: a picture made for a unit should be known as its own among those made for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import evaluating
from backbones.checks import check_count
from backbones.explanations.circuits.examples import auroc
from backbones.explanations.circuits.nulls import Result, against
from backbones.explanations.circuits.stimuli import blank_of, present, shown_on
from backbones.explanations.circuits.units import BATCH, Recording, outputs
from backbones.explanations.pullbacks import pullback

STARTS: Final = 3
STEPS: Final = 16
_STEP: Final = 0.5  # of the picture's norm; it falls to nothing over the steps


@dataclass(frozen=True)
class Identification:
    """Pictures made for units, and whose they are taken for.

    Parameters
    ----------
    units : tuple of int
        Those that pictures were made for; units that say the same to all inputs are left out.
    pictures : float tensor of shape (unit, start, channel, height, width)
        Deviations from the blank, of one norm and of the field's size.
    answers : float array of shape (unit, unit, start)
        What unit i says to each picture made for j, standardised over all pictures.
    top1 : float
        Share of the pictures to which the unit they were made for answers most strongly.
    """

    units: tuple[int, ...]
    pictures: Float[Tensor, "unit start channel height width"]
    answers: Float[np.ndarray, "unit other start"]
    top1: float

    def of(self, unit: int, *, permutations: int = 199, seed: int = 0) -> Result:
        """Whether a unit answers more strongly to its own pictures than to others.

        Parameters
        ----------
        unit : int
            One of ``units``.
        permutations : int, default 199
            Draws of the null, in which pictures are shuffled among the units (count, >= 1).
        seed : int, default 0
            Of the shuffles.

        Returns
        -------
        Result
            The statistic is the share of pairs (own, other) that are told apart: 0.5 by guessing, 1 at best.
        """
        at = self.units.index(unit)
        said = self.answers[at]
        own = np.zeros(said.shape, bool)
        own[at] = True
        generator = np.random.default_rng(seed)
        flat, mine = said.ravel(), own.ravel()
        null = []
        for _ in range(permutations):
            other = generator.permutation(mine)
            null.append(auroc(flat[other], flat[~other]))
        return against(auroc(flat[mine], flat[~mine]), null)


def identification(
    model: nn.Module,
    recording: Recording,
    units: Sequence[int],
    x: Float[Tensor, "sample channel height width"],
    *,
    starts: int = STARTS,
    steps: int = STEPS,
    seed: int = 0,
) -> Identification:
    """Make pictures for units by gradient ascent, and ask all of these units which are whose.

    Parameters
    ----------
    model : nn.Module
        Any network on images; run in evaluation mode.
    recording : Recording
        Of the layer, for ``x``.
    units : sequence of int
        At least two that are not dead; a picture is told from those of the others.
    x : float tensor of shape (sample, channel, height, width)
        Natural images: they give the blank, and the norm of the pictures.
    starts : int, default 3
        Pictures for each unit, from different noise (count, >= 1).
    steps : int, default 16
        Of the ascent (count, >= 1).
    seed : int, default 0
        Of the noise.

    Returns
    -------
    Identification

    Raises
    ------
    ValueError
        If ``x`` holds no images, or fewer than two units are alive.

    Notes
    -----
    Pictures are patches of the size of the unit's field on a blank, with the norm of strong natural patches; steps go
    along gradients through soft gates (`backbones.pullback`), which exist where a ReLU is shut. All settings are the
    same for all units. Values are not kept in the range of images: they show what a unit computes and not a photograph.
    """
    check_count("starts", starts)
    check_count("steps", steps)
    if not recording.field.height:
        raise ValueError("Its inputs are no images, so that no picture can be made.")
    alive = [it for it in units if bool((recording.sampled[:, it] != recording.sampled[0, it]).any())]
    if len(alive) < 2:
        raise ValueError(f"`units` must name two or more units that are not dead, got {len(alive)}. Name more.")
    field = recording.field
    blank = blank_of(x)
    size = field.crop(x - blank, recording.at).flatten(1).norm(dim=1).quantile(0.9)
    shape = (len(alive) * starts, x.shape[1], field.height, field.width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(x)
    asked = torch.tensor(alive, device=x.device).repeat_interleave(starts)
    made = torch.cat(
        [
            _climb(model, recording, it, unit, blank, size=size, steps=steps)
            for it, unit in zip(noise.split(BATCH), asked.split(BATCH), strict=True)
        ]
    )
    said = present(model, recording.layer, made, blank, field=field, grid=recording.grid)[:, alive]
    answers = said.double().cpu().numpy()
    spread = answers.std(0)
    answers = (answers - answers.mean(0)) / np.where(spread > 0, spread, 1)
    owners = np.repeat(np.arange(len(alive)), starts)
    top1 = float((answers.argmax(1) == owners).mean())
    by_unit = answers.T.reshape(len(alive), len(alive), starts)
    return Identification(tuple(alive), made.view(len(alive), starts, *shape[1:]), by_unit, top1)


def _climb(
    model: nn.Module,
    recording: Recording,
    start: Tensor,
    units: Tensor,
    blank: Tensor,
    *,
    size: Tensor,
    steps: int,
) -> Float[Tensor, "picture channel height width"]:
    """Patches of one norm, each moved uphill for its unit."""
    patches = size * _normed(start)
    row, column = recording.grid[0] // 2, recording.grid[1] // 2
    for step in range(steps):
        with evaluating(model), torch.enable_grad(), pullback(model):
            leaf = patches.detach().requires_grad_()
            shown = shown_on(leaf, blank, field=recording.field, grid=recording.grid)
            maps = outputs(model, recording.layer, shown)
            (uphill,) = torch.autograd.grad(maps[:, :, row, column].gather(1, units[:, None]).sum(), leaf)
        length = _STEP * size * (1 - step / steps)
        patches = size * _normed(patches + length * _normed(uphill))
    return patches.detach()


def _normed(patches: Tensor) -> Tensor:
    """Patches of norm 1; those that are 0 stay so."""
    norms = patches.flatten(1).norm(dim=1).clamp_min(1e-20)
    unit: Tensor = patches / norms.view(-1, 1, 1, 1)
    return unit
