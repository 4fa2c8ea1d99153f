"""The arguments for a unit, each measured beside its null, as one card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_count
from backbones.explanations.circuits.examples import Encoder, contrast, dataset_examples
from backbones.explanations.circuits.facets import Facets, facets
from backbones.explanations.circuits.families import Families, Family, families, joint_tuning
from backbones.explanations.circuits.handwriting import handwritten
from backbones.explanations.circuits.identification import Identification, identification
from backbones.explanations.circuits.nulls import Result
from backbones.explanations.circuits.stimuli import (
    Stimuli,
    Tuning,
    blank_of,
    draw_stimuli,
    present,
    synthetic_examples,
    tuning,
)
from backbones.explanations.circuits.units import Recording, Unit, record
from backbones.explanations.circuits.weights import (
    Implementation,
    edges_of,
    implementation,
    later_layer,
    use_by_later_units,
    weighted,
)

NULLS: Final = {
    "visualisation": "pictures shuffled among the units",
    "dataset examples": "values shuffled among the images",
    "synthetic examples": "answers shuffled among the stimuli",
    "joint tuning": "random groups of as many units",
    "implementation": "as many edges drawn at random",
    "use": "weights shuffled among the later units",
    "written by hand": "six random shapes in place of six written ones",
}
"""What is shuffled in the null of each argument."""


@dataclass(frozen=True)
class Argument:
    """One argument for a unit.

    Parameters
    ----------
    name : str
        One of `NULLS`.
    result : Result or None
        None where it could not be measured.
    why_not : str
        Then, the reason; else empty.
    """

    name: str
    result: Result | None
    why_not: str = ""


@dataclass(frozen=True)
class UnitCard:
    """All that was measured of one unit.

    Parameters
    ----------
    unit : Unit
        Which.
    arguments : tuple of Argument
        In the order of `NULLS`.
    tuning : Tuning or None
        To drawn gratings; None for inputs that are no images.
    implementation : Implementation or None
        Which edges make it.
    family : Family or None
        Units that are turned copies of it, found on half of the inputs.
    facets : Facets or None
        Its top examples in two groups; None for a dead unit.
    picture : float tensor of shape (channel, height, width) or None
        Made for it, as a deviation from the blank; None for a dead unit and for inputs that are no images.
    """

    unit: Unit
    arguments: tuple[Argument, ...]
    tuning: Tuning | None
    implementation: Implementation | None
    family: Family | None
    facets: Facets | None
    picture: Float[Tensor, "channel height width"] | None


@dataclass(frozen=True)
class _Layer:
    """What all units of a layer share."""

    model: nn.Module
    x: Tensor
    recording: Recording
    sampled: Tensor
    stimuli: Stimuli | None
    said: Tensor | None
    later: str | None
    blank: Tensor
    families: Families | None
    other_half: Recording | None
    pictures: Identification | None
    no_pictures: str
    jointly: dict[Family, Result]


def unit_cards(
    model: nn.Module,
    layer: str,
    indices: Sequence[int],
    x: Float[Tensor, "sample ..."],
    *,
    encoder: Encoder = contrast,
    permutations: int = 199,
    seed: int = 0,
) -> list[UnitCard]:
    """Measure the arguments for some units of a layer.

    Parameters
    ----------
    model : nn.Module
        Any network, called as ``model(x)``; run in evaluation mode, and left as it was.
    layer : str
        Name of one of its modules, which gives (sample, unit) or (sample, unit, row, column).
    indices : sequence of int
        Units of it.
    x : float tensor of shape (sample, channel, height, width) or (sample, feature)
        Natural inputs, scaled as the network takes them; at least 32, and better 500 or more.
    encoder : callable, default `contrast`
        Features in which dataset examples are compared; they must owe nothing to the network.
    permutations : int, default 199
        Draws of each null (count, >= 1); the smallest p-value is one over one more.
    seed : int, default 0
        Of all that is drawn.

    Returns
    -------
    list of UnitCard
        In the order of ``indices``. An argument that cannot be measured says why.

    Raises
    ------
    ValueError
        If there is no such layer or unit.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
    >>> card, = unit_cards(net, "0", [2], torch.rand(64, 1, 8, 8), permutations=19)
    >>> [it.name for it in card.arguments][:4]
    ['visualisation', 'dataset examples', 'synthetic examples', 'joint tuning']
    """
    check_count("permutations", permutations)
    shared = _look(model, layer, x, seed)
    for index in indices:
        if not 0 <= index < shared.recording.n_units:
            raise ValueError(
                f"`unit` must be one of the {shared.recording.n_units} units of {layer!r}, got {index}. "
                "Units count from 0."
            )
    drawn = np.random.default_rng(seed).permutation(shared.recording.n_units)[: max(0, _RIVALS - len(indices))]
    rivals = sorted({*indices, *drawn.tolist()})
    try:
        pictures = identification(model, shared.recording, rivals, x, seed=seed)
        shared = replace(shared, pictures=pictures)
    except ValueError as error:
        shared = replace(shared, no_pictures=str(error))
    return [_card(shared, Unit(layer, index), encoder, permutations, seed) for index in indices]


def _look(model: nn.Module, layer: str, x: Tensor, seed: int) -> _Layer:
    """Record a layer, and show it the stimuli."""
    recording = record(model, layer, x, seed=seed)
    is_images = bool(recording.field.height)
    blank = blank_of(x) if is_images else x.mean(0)
    stimuli = said = None
    deviation = recording.field.crop(x - blank, recording.at)
    if is_images:
        stimuli = draw_stimuli(x.shape[1], recording.field.height, recording.field.width)
        size = deviation.flatten(1).norm(dim=1).quantile(0.9)  # as strong as strong natural patches
        field, grid = recording.field, recording.grid
        said = present(model, layer, size * stimuli.patches.to(x), blank, field=field, grid=grid)
    found = half = None
    if recording.grid != (1, 1) and recording.n_units > 2:  # what sees the whole picture has one way up
        found, half = families(model, layer, x[::2], seed=seed), record(model, layer, x[1::2], seed=seed)
    later = later_layer(model, layer, x)
    return _Layer(model, x, recording, deviation, stimuli, said, later, blank, found, half, None, "", {})


def _card(shared: _Layer, unit: Unit, encoder: Encoder, permutations: int, seed: int) -> UnitCard:
    """Measure one unit."""
    recording, index = shared.recording, unit.index
    made: list[Implementation] = []
    values = recording.peaks[:, index]
    seen = recording.field.crop(shared.x - shared.blank, recording.places[:, index])
    family = None if shared.families is None else shared.families.of(index)

    def visualised() -> Result:
        if shared.pictures is None:
            raise ValueError(shared.no_pictures)
        if index not in shared.pictures.units:
            raise ValueError("A dead unit has no picture.")
        return shared.pictures.of(index, permutations=permutations, seed=seed)

    def examples() -> Result:
        return dataset_examples(values, seen, encoder=encoder, permutations=permutations, seed=seed)

    def synthetic() -> Result:
        if shared.stimuli is None or shared.said is None:
            raise ValueError("Its inputs are no images, so that nothing can be drawn.")
        answers, natural = shared.said[:, index], recording.sampled[:, index]
        return synthetic_examples(
            shared.stimuli, answers, shared.sampled, natural, permutations=permutations, seed=seed
        )

    def jointly() -> Result:
        if family is None or shared.other_half is None:
            raise ValueError("No other unit of its layer is a turned copy of it.")
        if family not in shared.jointly:  # all members share it
            shared.jointly[family] = joint_tuning(
                shared.model, shared.other_half, family, shared.x[1::2], permutations=permutations, seed=seed
            )
        return shared.jointly[family]

    def implemented() -> Result:
        weighted(shared.model, unit.layer)
        edges = edges_of(shared.model, unit, shared.x, recording.at)
        made.append(implementation(edges, permutations=permutations, seed=seed))
        return made[0].found

    def used() -> Result:
        if shared.later is None:
            raise ValueError("No convolution or linear layer takes its layer's units.")
        return use_by_later_units(
            shared.model, unit, shared.x[:_KNOCKED], shared.later, permutations=permutations, seed=seed
        )

    def replaced() -> Result:
        return handwritten(shared.model, unit, shared.x, recording.at, permutations=permutations, seed=seed)

    measures: list[Callable[[], Result]] = [visualised, examples, synthetic, jointly, implemented, used, replaced]
    arguments = tuple(_argument(name, measure) for name, measure in zip(NULLS, measures, strict=True))
    tuned = None
    if shared.stimuli is not None and shared.said is not None:
        tuned = tuning(shared.stimuli, shared.said[:, index])
    try:
        split = facets(values, seen, encoder=encoder, permutations=permutations, seed=seed)
    except ValueError:  # a dead unit
        split = None
    picture = None
    if shared.pictures is not None and index in shared.pictures.units:
        picture = shared.pictures.pictures[shared.pictures.units.index(index), 0]
    return UnitCard(unit, arguments, tuned, made[0] if made else None, family, split, picture)


_RIVALS: Final = 64  # units that pictures are told from
_KNOCKED: Final = 256  # inputs of a knock-out: its effects are means


def _argument(name: str, measure: Callable[[], Result]) -> Argument:
    """A measured argument, or why it cannot be measured."""
    try:
        return Argument(name, measure())
    except ValueError as error:
        return Argument(name, None, str(error))
