"""Families: units of a layer that are turned or mirrored copies of each other, and circuits that turn with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import evaluating
from backbones.checks import check_choice
from backbones.explanations.circuits.nulls import Result, against
from backbones.explanations.circuits.stimuli import present
from backbones.explanations.circuits.units import BATCH, Recording, outputs, shuffled

GROUPS: Final[dict[str, tuple[float, ...]]] = {
    "rot4": (90.0, 180.0, 270.0),
    "rot8": tuple(45.0 * k for k in range(1, 8)),
    "flip": (math.inf,),
}
"""Turns of each group in degrees, without the identity; infinity stands for the mirror image, left for right."""

_QUANTILE: Final = 0.999
_DRAWS: Final = 5
_EXAMPLES: Final = 4
_OTHERS: Final = 16  # further units that random groups are drawn from


@dataclass(frozen=True)
class Family:
    """Units of which each is a copy of the first.

    Parameters
    ----------
    units : tuple of int
        At least two, by growing offset; the first is the lowest index among those of offset 0.
    offsets : tuple of float
        What the first one's favourite picture must be turned by to be this one's (degrees, in [0, 360); for mirror
        images 0 or infinity).
    """

    units: tuple[int, ...]
    offsets: tuple[float, ...]


@dataclass(frozen=True)
class Families:
    """All families of a layer.

    Parameters
    ----------
    families : tuple of Family
        The largest first.
    likeness : float array of shape (turn, unit, other)
        Correlation of ``a_i(g x)``, turned back, with ``a_j(x)``.
    threshold : float
        99.9 % quantile of the largest likeness over all turns of a unit and one with shuffled weights.
    turns : tuple of float
        Of the group, the identity (0) first.
    """

    families: tuple[Family, ...]
    likeness: Float[np.ndarray, "turn unit other"]
    threshold: float
    turns: tuple[float, ...]

    def of(self, unit: int) -> Family | None:
        """The family of a unit, or None."""
        return next((it for it in self.families if unit in it.units), None)


def turn(
    x: Float[Tensor, "sample channel height width"], degrees: float
) -> Float[Tensor, "sample channel height width"]:
    """Turn pictures against the clock about their middle; infinity mirrors them left for right.

    Parameters
    ----------
    x : float tensor of shape (sample, channel, height, width)
        Deviations from a blank: what comes in from beyond the border is 0.
    degrees : float
        Right angles are exact for square pictures; others are interpolated.
    """
    if math.isinf(degrees):
        return x.flip(3)
    quarter, rest = divmod(degrees, 90)
    if rest == 0 and (x.shape[2] == x.shape[3] or int(quarter) % 2 == 0):
        return torch.rot90(x, int(quarter) % 4, (2, 3))
    angle, (height, width) = math.radians(degrees), x.shape[2:]
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]], dtype=x.dtype)
    grid = functional.affine_grid(matrix.to(x.device).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def disc(height: int, width: int, share: float = 1.0) -> Float[Tensor, "height width"]:
    """1 inside of the largest circle, times ``share``, and 0 outside: what is in the picture however it is turned."""
    y = torch.arange(height) - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    radius = share * min(height, width) / 2
    inside = (y.square()[:, None] + x.square() <= radius**2).float()
    return inside if bool(inside.any()) else torch.ones(height, width)


def families(
    model: nn.Module, layer: str, x: Float[Tensor, "sample channel height width"], *, group: str = "rot8", seed: int = 0
) -> Families:
    """Find the units of a layer that are turned or mirrored copies of each other.

    Parameters
    ----------
    model : nn.Module
        Any network on images; run in evaluation mode.
    layer : str
        Name of one of its modules.
    x : float tensor of shape (sample, channel, height, width)
        Natural images, at least 8.
    group : {"rot4", "rot8", "flip"}
        Turns by 90 or 45 degrees, or mirror images.
    seed : int, default 0
        Of the shuffled weights of the null.

    Returns
    -------
    Families

    Raises
    ------
    ValueError
        If the group is unknown, or ``x`` holds no images.

    Notes
    -----
    ``rho_g(i, j) = corr(a_i(g x), a_j(x))`` over images and matching places within a disc. Unit j is a copy of i by the
    turn of largest ``rho`` if it, and its inverse from j to i, lie above the threshold. Places match exactly for layers
    whose grid is centred in the picture; strides and poolings of even size shift it by a part of a step.
    """
    check_choice("group", group, tuple(GROUPS))
    if x.ndim != 4 or len(x) < 8:
        raise ValueError(f"`x` must hold 8 or more images, got shape {tuple(x.shape)}. Rows cannot be turned.")
    turns = (0.0, *GROUPS[group])
    shown = (x - x.mean((0, 2, 3), keepdim=True)) * disc(*x.shape[2:]).to(x)
    blank = x.mean((0, 2, 3), keepdim=True)
    turned = [_standard_maps(model, layer, shown, blank, it) for it in turns]
    others = [_standard_maps(shuffled(model, seed=seed + it), layer, shown, blank, 0.0) for it in range(_DRAWS)]
    real, *null = (np.stack([(it @ other.T).cpu().numpy() for it in turned]) for other in (turned[0], *others))
    threshold = float(np.quantile(np.concatenate([it.max(0).ravel() for it in null]), _QUANTILE))
    return Families(_grouped(real, turns, threshold), real, threshold, turns)


def _standard_maps(
    model: nn.Module, layer: str, shown: Tensor, blank: Tensor, degrees: float
) -> Float[Tensor, "unit value"]:
    """Values of each unit at the places of a disc, for turned images, turned back; of mean 0 and norm 1."""
    parts = []
    with evaluating(model), torch.no_grad():
        for part in shown.split(BATCH):
            maps = outputs(model, layer, turn(part, degrees) + blank)
            back = maps if maps.shape[2:] == (1, 1) else turn(maps, degrees if math.isinf(degrees) else -degrees % 360)
            inside = disc(back.shape[2], back.shape[3], 0.8).to(back.device) > 0
            parts.append(back[:, :, inside])
    rows = torch.cat(parts).transpose(0, 1).flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return unit


def _grouped(
    likeness: Float[np.ndarray, "turn unit other"], turns: Sequence[float], threshold: float
) -> tuple[Family, ...]:
    """Connected units, with the offset of each from the first, along the strongest edges first."""
    best = likeness.argmax(0)
    strength = likeness.max(0)
    n = len(strength)
    edges = [
        (strength[i, j], i, j)
        for i in range(n)
        for j in range(n)
        if i != j and min(strength[i, j], strength[j, i]) > threshold
    ]
    family = list(range(n))
    offset = np.zeros(n)
    mirrored = len(turns) == 2
    for _, i, j in sorted(edges, reverse=True):
        if family[i] == family[j]:
            continue
        # a_j(x) = a_i(g x): the favourite of j is that of i turned by the inverse of g.
        step = float(mirrored and math.isinf(turns[best[i, j]])) if mirrored else -turns[best[i, j]]
        moved = [it for it in range(n) if family[it] == family[j]]
        shift = offset[i] + step - offset[j]
        for it in moved:
            offset[it] = (offset[it] + shift) % (2 if mirrored else 360)
            family[it] = family[i]
    found = []
    for name in sorted(set(family)):
        members = [it for it in range(n) if family[it] == name]
        if len(members) > 1:
            relative = [(offset[it] - offset[members[0]]) % (2 if mirrored else 360) for it in members]
            ordered = sorted(zip(relative, members, strict=True))
            offsets = tuple((math.inf if it else 0.0) if mirrored else float(it) for it, _ in ordered)
            found.append(Family(tuple(it for _, it in ordered), offsets))
    return tuple(sorted(found, key=lambda it: (-len(it.units), it.units)))


def joint_tuning(
    model: nn.Module,
    recording: Recording,
    family: Family,
    x: Float[Tensor, "sample channel height width"],
    *,
    permutations: int = 199,
    seed: int = 0,
) -> Result:
    """Whether a family answers its members' own examples, turned, each at its own offset.

    Parameters
    ----------
    model : nn.Module
        The network; run in evaluation mode.
    recording : Recording
        Of the layer, for ``x``; the images should not be those that found the family.
    family : Family
        By turns, not by mirror images.
    x : float tensor of shape (sample, channel, height, width)
        Images.
    permutations : int, default 199
        Random groups of the same size with the same offsets, for the null (count, >= 1): of the members and up to 16
        other units.
    seed : int, default 0
        Of the groups.

    Returns
    -------
    Result
        The statistic is the mean correlation, over pairs of members, of what one says to the other's examples turned
        by each angle with what the other says itself, shifted by their offsets.

    Raises
    ------
    ValueError
        If the family is one of mirror images, or the layer has fewer than three units.
    """
    if any(math.isinf(it) for it in family.offsets) or recording.n_units < 3:
        raise ValueError("A family must be one of turns, in a layer of three or more units. Find it by rot4 or rot8.")
    step = 45 if any(it % 90 for it in family.offsets) else 90
    generator = np.random.default_rng(seed)
    others = [it for it in generator.permutation(recording.n_units).tolist() if it not in family.units]
    pool = [*family.units, *others[:_OTHERS]]
    curves = _turned_answers(model, recording, x, pool, [float(it) for it in range(0, 360, step)])
    steps = [round(it / step) for it in family.offsets]

    def agreement(units: Sequence[int]) -> float:
        found = []
        for first, a in zip(units, steps, strict=True):
            for second, b in zip(units, steps, strict=True):
                if first != second:
                    found.append(float(np.roll(curves[first, first], b - a) @ curves[first, second]))
        return float(np.mean(found))

    null = [agreement(generator.permutation(len(pool))[: len(steps)].tolist()) for _ in range(permutations)]
    return against(agreement(range(len(steps))), null)


def _turned_answers(
    model: nn.Module, recording: Recording, x: Tensor, units: Sequence[int], angles: Sequence[float]
) -> Float[np.ndarray, "unit other angle"]:
    """What units say to each one's top examples, turned by each angle; of mean 0 and norm 1 over the angles."""
    blank = x.mean((0, 2, 3), keepdim=True)
    field, grid, shape = recording.field, recording.grid, x.shape[1:]
    mask = disc(field.height, field.width).to(x)
    curves = []
    for unit in units:
        top = recording.peaks[:, unit].argsort(descending=True, stable=True)[:_EXAMPLES]
        patches = field.crop(x[top] - blank, recording.places[top, unit]) * mask
        shown = torch.cat([turn(patches, angle) for angle in angles])
        said = present(model, recording.layer, shown, blank[0].expand(shape), field=field, grid=grid)
        curves.append(said[:, list(units)].view(len(angles), len(top), -1).mean(1).T.double().cpu().numpy())
    found = np.stack(curves)
    found = found - found.mean(2, keepdims=True)
    unit_curves: Float[np.ndarray, "unit other angle"] = found / np.maximum(
        np.linalg.norm(found, axis=2, keepdims=True), 1e-12
    )
    return unit_curves


def equivariance_error(
    weight: Float[Tensor, "out in height width"], later: Sequence[int], earlier: Sequence[int]
) -> float:
    """How far a circuit between two families is from turning as a whole: 0 if it does, about 1 to 1.4 if not.

    Parameters
    ----------
    weight : float tensor of shape (out, in, height, width)
        Of a convolution with square kernels.
    later, earlier : sequences of 4 int
        Units of two families whose offsets are 0, 90, 180 and 270 degrees.

    Returns
    -------
    float
        ``|W(g i, g j) - g W(i, j)| / |W|`` over all quarter turns g and members.

    Raises
    ------
    ValueError
        If a family has not 4 members, or the kernels are not square.
    """
    if len(later) != 4 or len(earlier) != 4 or weight.shape[2] != weight.shape[3]:
        raise ValueError(
            f"`later` and `earlier` must be 4 units each, and kernels square, got {len(later)}, {len(earlier)} and "
            f"{tuple(weight.shape[2:])}. Take families of group rot4."
        )
    kernels = weight.detach()[list(later)][:, list(earlier)].double()
    gap = size = 0.0
    for quarter in (1, 2, 3):
        turned = torch.rot90(kernels, quarter, (2, 3))
        moved = kernels.roll((-quarter, -quarter), (0, 1))
        gap += float((moved - turned).square().sum())
        size += float(kernels.square().sum())
    return math.sqrt(gap / size) if size else 0.0
