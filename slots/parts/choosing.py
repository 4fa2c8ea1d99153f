"""Which patches of the training images become parts: as few as show every image in several places."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from slots.errors import DataError, UsageError
from slots.parts.backbone import PartsBackbone
from slots.parts.multi_cover import MOST_CELLS, greedy_multi_cover, packed_cells
from slots.progress import Progress, silent

Inputs = Callable[[npt.NDArray[np.int64]], Tensor]
"""Scaled inputs of the examples with these ids, as the backbone takes them."""

_BATCH = 250  # images whose patches are looked at together
_CHUNK = 1 << 24  # similarities held at once
_GRID = math.isqrt(MOST_CELLS)  # places a side that are told apart where the whole picture is one cell
_LEAST = 10  # images of a class that are looked at, where it has so many


@dataclass(frozen=True)
class PartConfig:
    """How parts are chosen.

    Parameters
    ----------
    max_parts : int, default 100
        Most parts (count, >= 1).
    times : int, default 8
        Cells in which an image should show a part that speaks for its class (count, >= 1); places, where the whole
        picture is one cell.
    likeness : float, default 0.8
        Cosine from which on a patch shows a part, in (0, 1).
    threshold : float, default 0.6
        Cosine from which on a part responds once it is chosen, in [0, 1). Larger ones make patches that are found look
        more like the part, and cost accuracy.
    elsewhere : float, default 0.1
        A part speaks for a class in a cell if at most this share of the other classes' images shows it there; in
        [0, 1]. With 0 a part belongs to one class, above it classes share parts.
    apart : float, default 0.95
        Two patches of larger cosine are one part: only one of them is chosen; in (0, 1].
    examples : int, default 3000
        Images to cover, the same number of each class (count, >= 1).
    candidates : int, default 3000
        Patches to choose among (count, >= 1).
    quiet : float, default 0.5
        Share of the patches, of those with the shortest vectors, that show nothing and are no candidates; in [0, 1).
    features_per_slot, slots_per_class : int, optional
        Of the slots that are trained on the chosen parts (counts, >= 1). Default: as before the choice. A network
        learns better under slots of more features than its answers need in the end.
    bag : float, default 0
        Share of the training's epochs, in [0, 1), in which the network learns as a bag of patches before it learns
        parts: on photographs it learns much faster so.
    seed : int, default 0
        Of the images and candidates.

    Raises
    ------
    UsageError
        If a number is out of its range.
    """

    max_parts: int = 100
    times: int = 8
    likeness: float = 0.8
    threshold: float = 0.6
    elsewhere: float = 0.1
    apart: float = 0.95
    examples: int = 3000
    candidates: int = 3000
    quiet: float = 0.5
    features_per_slot: int | None = None
    slots_per_class: int | None = None
    bag: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_parts", "times", "examples", "candidates", "features_per_slot", "slots_per_class"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"`{name}` must be >= 1, got {value}. Pass a larger number.")
        if not 0 < self.likeness < 1:
            raise UsageError(f"`likeness` must lie in (0, 1), got {self.likeness}. 0.8 is a cosine that parts share.")
        if not 0 < self.apart <= 1:
            raise UsageError(f"`apart` must lie in (0, 1], got {self.apart}. 0.95 keeps parts that look different.")
        if not 0 <= self.threshold < 1:
            raise UsageError(f"`threshold` must lie in [0, 1), got {self.threshold}. 0 lets every patch respond.")
        if not 0 <= self.bag < 1:
            raise UsageError(f"`bag` must lie in [0, 1), got {self.bag}. 0.6 leaves two fifths of the epochs to parts.")
        if not 0 <= self.elsewhere <= 1 or not 0 <= self.quiet < 1:
            raise UsageError(
                f"`elsewhere` must lie in [0, 1] and `quiet` in [0, 1), got {self.elsewhere} and {self.quiet}. Try 0.1 "
                "and 0.5."
            )


@dataclass(frozen=True)
class ChosenParts:
    """What was chosen.

    Parameters
    ----------
    sources : int64 array of shape (part, 3)
        Training example, and row and column of the patch in the backbone's `locations`; in the order of the choice.
    examples : int64 array of shape (example,)
        Ids of the images that were to be covered.
    covered : int64 array of shape (example,)
        In how many cells each shows a part that speaks for its class.
    served : float
        Share of the images with at least ``times`` such cells.
    """

    sources: npt.NDArray[np.int64]
    examples: npt.NDArray[np.int64]
    covered: npt.NDArray[np.int64]
    served: float


@torch.no_grad()
def choose_parts(
    backbone: PartsBackbone,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    config: PartConfig | None = None,
    *,
    among: npt.NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> ChosenParts:
    """Choose few training patches that show every training image in several places, and make them the parts.

    Parameters
    ----------
    backbone : PartsBackbone
        In evaluation mode; its parts are replaced.
    inputs : callable
        Gives the scaled inputs of examples by their ids.
    labels : int64 array of shape (example,)
        Of all examples.
    config : PartConfig, optional
        How. Default: its own numbers.
    among : int64 array, optional
        Ids that may be looked at. Default: all.
    progress : callable, optional
        Told the progress.

    Returns
    -------
    ChosenParts

    Raises
    ------
    DataError
        If no patch shows anything.
    UsageError
        If the backbone has more than 64 cells.

    Notes
    -----
    A patch shows a part where the cosine of their vectors reaches ``likeness``. The parts are picked by
    `greedy_multi_cover`: an image is served when parts that speak for its class were found in ``times`` different
    cells. So the number of parts is an outcome, with a bound on how far it is from the smallest. Where the whole
    picture is one cell, places count in place of cells: a part is at the place that looks most like it.
    """
    config, progress = config or PartConfig(), progress or silent
    if math.prod(backbone.cells) > MOST_CELLS:
        raise UsageError(f"The backbone must have at most {MOST_CELLS} cells, got {backbone.cells}. Use larger ones.")
    ids = _examples(labels, np.arange(len(labels)) if among is None else among, config)
    seen = _Seen.of(backbone, inputs, ids, config, progress)
    generator = torch.Generator().manual_seed(config.seed)
    loud = seen.loud.nonzero()
    if not len(loud):
        raise DataError("The images must show something to have parts, got none whose patches do. Check the data.")
    drawn = loud[torch.randperm(len(loud), generator=generator)[: config.candidates]]
    vectors = seen.unit[drawn[:, 0], drawn[:, 1]]
    fires = _fires(seen, vectors, torch.from_numpy(labels[ids]), backbone, config, progress=progress)
    picks, covered = greedy_multi_cover(
        fires, times=config.times, max_picks=config.max_parts, vectors=vectors.numpy(), apart=config.apart
    )
    if not len(picks):
        raise DataError(
            "Some patches must speak for a class to become parts, got none. Allow parts elsewhere, or less likeness."
        )
    chosen = torch.from_numpy(picks)
    columns = seen.columns
    places = torch.stack([drawn[:, 1] // columns, drawn[:, 1] % columns], 1)[chosen]
    sources = torch.cat([torch.from_numpy(ids)[drawn[chosen, 0]][:, None], places], 1)
    patches = _patches(backbone, inputs, sources)
    backbone.take_parts(vectors[chosen], sources, patches, threshold=config.threshold)
    return ChosenParts(sources.numpy(), ids, covered, float((covered >= config.times).mean()))


@dataclass(frozen=True)
class _Seen:
    """Patches of the images to cover: unit vectors of shape (example, place, channels), and which show something."""

    unit: Tensor
    loud: Tensor
    rows: int
    columns: int

    @classmethod
    def of(
        cls, backbone: PartsBackbone, inputs: Inputs, ids: npt.NDArray[np.int64], config: PartConfig, progress: Progress
    ) -> _Seen:
        parts = []
        for start in range(0, len(ids), _BATCH):
            parts.append(backbone.locations(inputs(ids[start : start + _BATCH])).float().cpu())
            progress("parts: patches", start / len(ids))
        maps = torch.cat(parts)
        flat = maps.flatten(2).transpose(1, 2)
        lengths = flat.norm(dim=2)
        floor = np.quantile(lengths.numpy(), config.quiet)
        loud = (lengths >= floor) & (lengths > 0)
        return cls(functional.normalize(flat, dim=2), loud, *maps.shape[2:])


def _examples(labels: npt.NDArray[np.int64], among: npt.NDArray[np.int64], config: PartConfig) -> npt.NDArray[np.int64]:
    """As many ids of each class, drawn by the seed."""
    rng = np.random.default_rng(config.seed)
    classes = np.unique(labels[among])
    each = max(_LEAST, config.examples // len(classes))
    return np.concatenate([rng.permutation(among[labels[among] == label])[:each] for label in classes])


def _fires(
    seen: _Seen, vectors: Tensor, labels: Tensor, backbone: PartsBackbone, config: PartConfig, *, progress: Progress
) -> npt.NDArray[np.uint64]:
    """Cells in which each candidate speaks for each image, a bit a cell."""
    n, places, width = seen.unit.shape
    classes, of_class = labels.unique(return_inverse=True)
    members = functional.one_hot(of_class, len(classes)).float()
    others = (n - members.sum(0)).clamp_min(1)
    flat = torch.where(seen.loud[:, :, None], seen.unit, 0.0).reshape(-1, width)
    words = np.zeros((len(vectors), n), np.uint64)
    step = max(1, _CHUNK // (n * places))
    for start in range(0, len(vectors), step):
        here = vectors[start : start + step]
        maps = (here @ flat.T).reshape(len(here) * n, 1, seen.rows, seen.columns)
        cells = functional.max_pool2d(maps, backbone.window, backbone.stride).reshape(len(here), n, -1)
        fires = cells >= config.likeness
        counts = torch.einsum("kbc,by->kyc", fires.float(), members)
        elsewhere = (counts.sum(1, keepdim=True) - counts) / others[None, :, None]
        speaks = (elsewhere <= config.elsewhere)[:, of_class]
        found = fires & speaks
        if found.shape[2] == 1:
            found = found & _best_places(maps).reshape(len(here), n, -1)
        words[start : start + step] = packed_cells(found.numpy())
        progress("parts: candidates", start / len(vectors))
    return words


def _best_places(maps: Tensor) -> Tensor:
    """Which of a grid of at most 8 x 8 places has the largest value, the first of equal ones: bool (map, place)."""
    rows, columns = maps.shape[2:]
    best = maps.flatten(1).argmax(1)
    down, across = min(rows, _GRID), min(columns, _GRID)
    place = (best // columns) * down // rows * across + (best % columns) * across // columns
    return functional.one_hot(place, down * across).bool()


def _patches(backbone: PartsBackbone, inputs: Inputs, sources: Tensor) -> Tensor:
    """The pixels of the parts, as the network saw them."""
    found = []
    for example, row, column in sources.tolist():
        field = backbone.field((row, column))
        image = inputs(np.array([example]))[0]
        found.append(image[:, field.top : field.bottom, field.left : field.right])
    return torch.stack(found)
