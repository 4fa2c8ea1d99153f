"""Synthetic examples: drawn stimuli whose angle, frequency and curvature are known, and what units say to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor, nn

from backbones.base import evaluating
from backbones.explanations.circuits.examples import contrast
from backbones.explanations.circuits.nulls import Result, against
from backbones.explanations.circuits.units import BATCH, Field, outputs

ANGLES: Final = 12
CYCLES: Final = (0.5, 1.0, 1.5, 2.0)
PHASES: Final = 4
CURVATURES: Final = (-1.0, 0.0, 1.0)
_SHARPNESS: Final = 10.0
_CURVED: Final = 5


@dataclass(frozen=True)
class Stimuli:
    """Drawn patches, and what each shows.

    Parameters
    ----------
    patches : float tensor of shape (stimulus, channel, height, width)
        Deviations from the mean input, of norm 1.
    kinds : tuple of str
        ``grating``, ``line`` or ``plain``.
    angles : float array of shape (stimulus,)
        Direction across the bars (radians, in [0, pi) for gratings, [0, 2 pi) for lines; NaN for plain ones).
    """

    patches: Float[Tensor, "stimulus channel height width"]
    kinds: tuple[str, ...]
    angles: Float[np.ndarray, " stimulus"]


@dataclass(frozen=True)
class Tuning:
    """What a unit says to gratings of each angle.

    Parameters
    ----------
    angles : float array of shape (angle,)
        Radians, in [0, pi).
    curve : float array of shape (angle,)
        Largest value over frequencies and phases.
    selectivity : float
        Length of the mean of ``exp(2 i angle)``, weighted by the curve above its least value: 0 for none, 1 for one
        angle alone.
    """

    angles: Float[np.ndarray, " angle"]
    curve: Float[np.ndarray, " angle"]
    selectivity: float


def draw_stimuli(channels: int, height: int, width: int) -> Stimuli:
    """Gratings of 12 angles, 4 frequencies and 4 phases; bent and straight lines where there is room; plain patches.

    Parameters
    ----------
    channels : int
        Of an input; all are drawn alike.
    height, width : int
        Of a patch (pixels, >= 1).

    Returns
    -------
    Stimuli
    """
    rows = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    size = float(max(height, width))
    drawn, kinds, angles = [torch.ones_like(x), -torch.ones_like(x)], ["plain"] * 2, [math.nan] * 2
    for angle in np.arange(ANGLES) * math.pi / ANGLES:
        across = x * math.cos(angle) + y * math.sin(angle)
        for cycles in CYCLES:
            for phase in np.arange(PHASES) * 2 * math.pi / PHASES:
                drawn.append(torch.cos(2 * math.pi * cycles / size * across + phase))
                kinds.append("grating")
                angles.append(float(angle))
    if min(height, width) >= _CURVED:
        for angle in np.arange(ANGLES) * 2 * math.pi / ANGLES:
            across = x * math.cos(angle) + y * math.sin(angle)
            along = y * math.cos(angle) - x * math.sin(angle)
            for bend in CURVATURES:
                off = across - bend * along.square() / size
                drawn.append(torch.exp(-0.5 * (off / (size / 10)).square()))
                kinds.append("line")
                angles.append(float(angle))
    patches = torch.stack(drawn)[:, None].repeat(1, channels, 1, 1)
    norms = patches.flatten(1).norm(dim=1)
    kept = norms > 1e-3 * norms.max()  # a grating may vanish on few pixels
    patches = patches[kept] / norms[kept].view(-1, 1, 1, 1)
    return Stimuli(patches, tuple(k for k, ok in zip(kinds, kept.tolist(), strict=True) if ok), np.array(angles)[kept])


def present(
    model: nn.Module,
    layer: str,
    patches: Float[Tensor, "stimulus channel height width"],
    blank: Float[Tensor, "channel height width"],
    *,
    field: Field,
    grid: tuple[int, int],
) -> Float[Tensor, "stimulus unit"]:
    """What all units say at the middle of the grid when it sees a patch on a blank.

    Parameters
    ----------
    model, layer
        See `record`.
    patches : float tensor of shape (stimulus, channel, height, width)
        Deviations from the blank, of the field's size.
    blank : float tensor of shape (channel, height, width)
        The input that stands for nothing, such as the mean colour.
    field, grid
        Of the layer's `Recording`.

    Returns
    -------
    float tensor of shape (stimulus, unit)
    """
    row, column = grid[0] // 2, grid[1] // 2
    with evaluating(model), torch.no_grad():
        shown = (shown_on(part, blank, field=field, grid=grid) for part in patches.split(BATCH))
        return torch.cat([outputs(model, layer, it)[:, :, row, column] for it in shown])


def shown_on(
    patches: Float[Tensor, "stimulus channel height width"],
    blank: Float[Tensor, "channel rows columns"],
    *,
    field: Field,
    grid: tuple[int, int],
) -> Float[Tensor, "stimulus channel rows columns"]:
    """Blanks with a patch each, where the middle of a grid sees it; what lies beyond the border is cut off.

    Parameters
    ----------
    patches, blank, field, grid
        See `present`.
    """
    top, left = field.tops[grid[0] // 2], field.lefts[grid[1] // 2]
    height, width = blank.shape[1:]
    around = (left, width - left - field.width, top, height - top - field.height)
    return nn.functional.pad(patches, around) + blank


def blank_of(x: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "channel height width"]:
    """The input that stands for nothing: the mean colour everywhere."""
    return x.mean((0, 2, 3), keepdim=True)[0].expand(x.shape[1:])


def tuning(stimuli: Stimuli, said: Float[Tensor, " stimulus"]) -> Tuning:
    """How a unit's answer to gratings depends on their angle.

    Parameters
    ----------
    stimuli : Stimuli
        What was shown.
    said : float tensor of shape (stimulus,)
        What the unit said.
    """
    values = said.double().cpu().numpy()
    is_grating = np.array(stimuli.kinds) == "grating"
    angles = np.unique(stimuli.angles[is_grating])
    curve = np.array([values[is_grating & (stimuli.angles == angle)].max() for angle in angles])
    above = curve - curve.min()
    total = above.sum()
    return Tuning(angles, curve, float(abs((above * np.exp(2j * angles)).sum()) / total) if total > 0 else 0.0)


def synthetic_examples(
    stimuli: Stimuli,
    said: Float[Tensor, " stimulus"],
    patches: Float[Tensor, "sample channel height width"],
    values: Float[Tensor, " sample"],
    *,
    permutations: int = 199,
    seed: int = 0,
) -> Result:
    """Whether what a unit says to drawn stimuli predicts what it says to natural patches.

    Parameters
    ----------
    stimuli : Stimuli
        What was drawn.
    said : float tensor of shape (stimulus,)
        What the unit said to that.
    patches : float tensor of shape (sample, channel, height, width)
        Natural patches, as deviations from the mean input.
    values : float tensor of shape (sample,)
        What the unit said to those.
    permutations : int, default 199
        Draws of the null, in which answers are shuffled among the stimuli (count, >= 1).
    seed : int, default 0
        Of the shuffles.

    Returns
    -------
    Result
        The statistic is Spearman's correlation of the answers to natural patches with a prediction: the mean answer to
        the stimuli, weighted by ``exp(10 cos)`` of stimulus and patch, times the contrast of the patch.

    Raises
    ------
    ValueError
        If the unit says the same to all patches or to all stimuli.
    """
    alike = contrast(patches) @ contrast(stimuli.patches.to(patches)).T
    weights = torch.softmax(_SHARPNESS * alike, 1) * patches.flatten(1).norm(dim=1, keepdim=True)
    shares, answers = weights.double().cpu().numpy(), said.double().cpu().numpy()
    ranks = standard(rankdata(values.double().cpu().numpy())[None])[0]
    generator = np.random.default_rng(seed)
    if answers.std() == 0 or not ranks.any():
        raise ValueError("`said` and `values` must differ, got one answer to all. A dead unit is tuned to nothing.")
    answers = answers - answers.mean()
    shuffled = np.stack([answers, *(generator.permutation(answers) for _ in range(permutations))], 1)
    found = standard(rankdata(shares @ shuffled, axis=0).T) @ ranks
    return against(float(found[0]), found[1:])


def standard(rows: Float[np.ndarray, "row sample"]) -> Float[np.ndarray, "row sample"]:
    """Rows of mean 0 and norm 1, so that inner products are correlations; constant ones are 0."""
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: Float[np.ndarray, "row sample"] = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-12)
    return unit
