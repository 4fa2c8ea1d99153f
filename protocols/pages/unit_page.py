"""The page of ``slots explain``: what was measured of some units, beside what each unit looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from markupsafe import Markup
from torch import Tensor, nn

from backbones.explanations.circuits import Recording, Tuning, UnitCard, diagram, record, spectrum
from protocols.pages.cards import Picture, picture
from protocols.pages.environment import render_page
from protocols.pages.pictures import diverging, signed_sum
from protocols.pages.plots.circuit import circuit
from protocols.pages.plots.strips import strip
from protocols.pages.plots.svg import Axis, frame, line, ticks
from protocols.summaries.units import ArgumentRow, Asked

SHOWN: Final = 9
"""Images along the spectrum of a unit."""

CIRCUITS: Final = 8
"""Units of a page, at most, for circuits to be drawn: each takes as long as all else."""

_KERNELS: Final = 8
_OF_A_GROUP: Final = 8


@dataclass(frozen=True)
class UnitView:
    """One unit with its measured arguments.

    Parameters
    ----------
    card : UnitCard
        What was measured.
    rows : tuple of ArgumentRow
        The same as it is printed.
    """

    card: UnitCard
    rows: tuple[ArgumentRow, ...]


@dataclass(frozen=True)
class _Example:
    """An image of the spectrum: what the unit says, the whole, and the part it looked at where that is smaller."""

    says: str
    whole: Picture
    part: Picture | None


def unit_page(
    network: nn.Module,
    x: Tensor,
    raw: npt.NDArray[Any],
    views: Sequence[UnitView],
    *,
    title: str,
    data: str,
    names: Mapping[str, str],
    asked: Asked,
) -> str:
    """A page of units: their arguments beside the nulls, examples from most to least, tuning and kernels.

    Parameters
    ----------
    network : nn.Module
        The network they are units of.
    x : float tensor of shape (sample, ...)
        Inputs they were measured on, scaled.
    raw : array of shape (sample, ...)
        The same as they came: uint8 images are shown, features are not.
    views : sequence of UnitView
        Units in the order they are shown.
    title, data : str
        Names of model and data.
    names : mapping of str to str
        What a unit is known as, where it is; by its own name.
    asked : Asked
        How it was measured.

    Returns
    -------
    str
        HTML that asks for no other file and no network.
    """
    recordings: dict[str, Recording] = {}
    shown = []
    for view in views:
        unit = view.card.unit
        if unit.layer not in recordings:
            recordings[unit.layer] = record(network, unit.layer, x, seed=asked.seed)
        recording = recordings[unit.layer]
        shown.append(
            {
                "name": str(unit),
                "id": f"unit-{unit.layer}-{unit.index}".replace(".", "-"),
                "known_as": names.get(str(unit), ""),
                "field": (recording.field.height, recording.field.width) if recording.grid != (1, 1) else None,
                "arguments": [(row, strip(row)) for row in view.rows],
                "examples": _examples(recording, unit.index, raw),
                "tuning": None if view.card.tuning is None else _tuning(view.card.tuning),
                "kernels": _kernels(network, view.card),
                "made_of": view.card.implementation,
                "circuit": _circuit(network, view.card, x, asked.seed) if len(views) <= CIRCUITS else None,
                "picture": _made(view.card),
                "family": _family(recording, view.card, raw),
                "split": None if view.card.facets is None else view.card.facets.found,
                "facets": _facets(recording, view.card, raw),
            }
        )
    return render_page("units.html", units=shown, title=title, data=data, asked=asked, n_images=len(x))


def _examples(recording: Recording, index: int, raw: npt.NDArray[Any]) -> list[_Example]:
    """Images along all that a unit says."""
    if raw.ndim != 4:
        return []
    found = []
    rows = spectrum(recording.peaks[:, index], SHOWN).tolist()
    for row in rows:
        value = float(recording.peaks[row, index])
        part = None
        if recording.grid != (1, 1):
            part = _seen(recording, row, index, raw, f"What the unit saw in image {row}")
        whole = picture(raw[row], f"Image {row}, at which the unit says {value:.2f}", shown_side=84)
        found.append(_Example(f"{value:.2f}", whole, part))
    return found


def _seen(recording: Recording, row: int, index: int, raw: npt.NDArray[Any], alt: str) -> Picture:
    """What a unit saw in an image, or all of it."""
    if recording.grid == (1, 1):
        return picture(raw[row], alt, shown_side=56)
    channels_first = torch.from_numpy(np.ascontiguousarray(raw[row : row + 1].transpose(0, 3, 1, 2)))
    crop = recording.field.crop(channels_first, recording.places[row, index][None].cpu())
    return picture(crop[0].permute(1, 2, 0).numpy(), alt, shown_side=56)


def _circuit(network: nn.Module, card: UnitCard, x: Tensor, seed: int) -> Markup | None:
    """The circuit of a unit with weights of its own, in pixels."""
    module = network.get_submodule(card.unit.layer)
    if x.ndim != 4 or not isinstance(module, (nn.Conv2d, nn.Linear)):
        return None
    return circuit(diagram(network, card.unit, x, seed=seed))


def _made(card: UnitCard) -> Picture | None:
    """The picture made for a unit."""
    if card.picture is None:
        return None
    return picture(diverging(signed_sum(card.picture.cpu().numpy())), "Picture made for the unit: red more, blue less")


def _family(recording: Recording, card: UnitCard, raw: npt.NDArray[Any]) -> list[tuple[str, str, Picture]]:
    """Members with their offsets from this unit, and what excites each most."""
    if card.family is None or raw.ndim != 4:
        return []
    units, offsets = card.family.units, card.family.offsets
    own = offsets[units.index(card.unit.index)]
    found = []
    for unit, offset in sorted(zip(units, offsets, strict=True), key=lambda it: (it[1] - own) % 360):
        row = int(recording.peaks[:, unit].argmax())
        turned = f"{(offset - own) % 360:.0f}°"
        shown = _seen(recording, row, unit, raw, f"What unit {unit} saw in its top image")
        found.append((f"{card.unit.layer}:{unit}", turned, shown))
    return found


def _facets(recording: Recording, card: UnitCard, raw: npt.NDArray[Any]) -> list[tuple[float, list[Picture]]]:
    """Share and top examples of each group, where there are several."""
    split = card.facets
    if split is None or not split.is_several or raw.ndim != 4:
        return []
    return [
        (
            split.shares[group],
            [
                _seen(recording, int(row), card.unit.index, raw, f"Image {row}, of group {group + 1}")
                for row in split.top[split.groups == group][:_OF_A_GROUP]
            ],
        )
        for group in (0, 1)
    ]


def _tuning(tuned: Tuning) -> Markup:
    """The curve of a unit's answers to gratings of each angle."""
    degrees = [math.degrees(it) for it in tuned.angles] + [180.0]
    values = [*tuned.curve.tolist(), float(tuned.curve[0])]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    across, up = Axis.across(0, 180), Axis.up(low, high)
    marks = frame(
        [(across(it), f"{it}°") for it in (0, 45, 90, 135, 180)],
        [(up(it), f"{it:g}") for it in ticks(low, high, most=4)],
        below="angle of the grating",
        beside="largest answer",
    )
    return marks + line([(across(x), up(y)) for x, y in zip(degrees, values, strict=True)], "tested")


def _kernels(network: nn.Module, card: UnitCard) -> list[Picture]:
    """Weights of the edges that make a convolution's unit, the most important first."""
    module = network.get_submodule(card.unit.layer)
    if not isinstance(module, nn.Conv2d) or max(module.kernel_size) == 1:
        return []
    weight = module.weight.detach()[card.unit.index].cpu().numpy()
    order = range(len(weight))
    made = card.implementation
    if made is not None and made.n_edges == len(weight):
        order = made.kept[:_KERNELS].tolist()
    return [
        picture(diverging(weight[at]), f"Kernel on input {at}: red for, blue against", shown_side=56)
        for at in list(order)[:_KERNELS]
    ]
