"""Harder sets made of each data set: thin, unbalanced, merged, many classes, weak features, mixed domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from protocols.runs.transfer.domains import IMAGE_DOMAINS, turned
from protocols.runs.transfer.sources import Source
from slots.shapes import Ids

Features = npt.NDArray[np.float32]
Inputs = npt.NDArray[Any]

_WIDE = 784  # numbers of a picture; larger ones are halved until they fit
_DIRECTIONS = 16
_TURNS = (0.0, 45.0, 90.0, 135.0)
_RATIO = 100.0
_LEAST = 25


@dataclass(frozen=True)
class Task:
    """One set of the suite, as every method sees it.

    Parameters
    ----------
    name : str
        Source and variant.
    x, x_test : float32 arrays of shape (example, feature)
        Rows to learn from, and to be judged by.
    y, y_test : int64 arrays of shape (example,)
        Classes from 0, each of them in the training part.
    foreign : mapping of str to float32 array of shape (example, feature)
        Rows of no class, made like the test part; ``x_out`` are an archive's own.
    pictures : pair of uint8 arrays of shape (example, height, width, channel), optional
        What the rows of both parts were made of, where they are pictures.
    """

    name: str
    x: Features
    y: Ids
    x_test: Features
    y_test: Ids
    foreign: Mapping[str, Features] = field(default_factory=dict)
    pictures: tuple[Inputs, Inputs] | None = None

    @property
    def n_classes(self) -> int:
        """Classes in the training part."""
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Part:
    """Inputs and labels, images or rows; negative labels are of foreign rows, which change like the others."""

    x: Inputs
    y: Ids

    def take(self, rows: Ids) -> Part:
        """Some of the examples, in this order."""
        return Part(self.x[rows], self.y[rows])


Change = Callable[[Part, Part, np.random.Generator], tuple[Part, Part] | None]
"""Training and test part to those of a variant; None where the data do not allow it."""


def rows_of(x: Inputs) -> Features:
    """Feature rows: pixels in [0, 1], of pictures halved until they have at most 784 numbers; rows as they are."""
    if x.ndim == 2:
        return np.ascontiguousarray(x, np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float() / 255
    while pixels[0].numel() > _WIDE and min(pixels.shape[2:]) > 1:
        pixels = F.avg_pool2d(pixels, 2)
    found: Features = pixels.flatten(1).numpy()
    return found


def task_name(source: str, variant: str) -> str:
    """Name of a variant in tables and for ``--option sets``."""
    return source if variant == next(iter(VARIANTS)) else f"{source}: {variant}"


def make_task(
    source: Source,
    variant: str,
    seed: int,
    *,
    examples: int,
    tests: int,
    foreign: Mapping[str, Inputs] | None = None,
) -> Task | None:
    """A variant of a data set.

    Parameters
    ----------
    source : Source
        Images or feature rows.
    variant : str
        A key of `VARIANTS`.
    seed : int
        Draws the examples and everything that the variant draws.
    examples, tests : int
        Most training and test examples, before the variant is made; 0 for all. Of many classes it may be 25 training
        examples each, so that a set is thin by its variant, not by this.
    foreign : mapping of str to array, optional
        Inputs of no class, of the source's shape; at most half as many of each as ``tests``.

    Returns
    -------
    Task, optional
        None where the data do not allow the variant: no images to turn, too few examples to thin.
    """
    rng = np.random.default_rng([seed, list(VARIANTS).index(variant)])
    data = source.data
    most = max(examples, _LEAST * len(np.unique(data.y_train))) if examples else 0
    train = some(Part(data.x_train, data.y_train), most, rng)
    test = some(Part(data.x_test, data.y_test), tests, rng)
    others = {name: some(Part(x, np.zeros(len(x), np.int64)), tests // 2, rng).x for name, x in (foreign or {}).items()}
    if others:
        labels = [np.full(len(x), -1 - place) for place, x in enumerate(others.values())]
        test = Part(np.concatenate([test.x, *others.values()]), np.concatenate([test.y, *labels]))
    made = VARIANTS[variant](train, test, rng)
    if made is None:
        return None
    train, test = made
    classes = np.unique(train.y)
    apart = {name: rows_of(test.x[test.y == -1 - place]) for place, name in enumerate(others)}
    test = test.take(np.flatnonzero(np.isin(test.y, classes)))
    if len(classes) < 2 or not len(test.y):
        return None
    number = [np.searchsorted(classes, it.y).astype(np.int64) for it in (train, test)]
    pictures = (train.x, test.x) if train.x.ndim == 4 else None
    rows, tested = rows_of(train.x), rows_of(test.x)
    return Task(task_name(source.name, variant), rows, number[0], tested, number[1], apart, pictures)


def some(part: Part, count: int, rng: np.random.Generator) -> Part:
    """At most so many examples, drawn by chance, but at least one of each class."""
    if not count or len(part.y) <= count:
        return part
    order = rng.permutation(len(part.y))
    first = order[np.unique(part.y[order], return_index=True)[1]]  # one of each class
    rest = np.setdiff1d(order, first, assume_unique=True)
    rest = rng.permutation(rest)[: max(0, count - len(first))]
    return part.take(np.sort(np.concatenate([first, rest])))


def _thinned(count: int) -> Change:
    def change(train: Part, test: Part, rng: np.random.Generator) -> tuple[Part, Part] | None:
        sizes = np.bincount(train.y)
        if np.median(sizes[sizes > 0]) < 1.5 * count:
            return None
        return _kept(train, np.full(len(sizes), count), rng), test

    return change


def _unbalanced(train: Part, test: Part, rng: np.random.Generator) -> tuple[Part, Part] | None:
    """The n-th of the classes keeps a share that falls evenly, on a logarithmic scale, from all to one in a hundred."""
    sizes = np.bincount(train.y)
    classes = rng.permutation(np.flatnonzero(sizes))
    if len(classes) < 3 or np.median(sizes[classes]) < 20:
        return None
    wanted = np.zeros(len(sizes), np.int64)
    wanted[classes] = np.maximum(1, np.round(sizes[classes] * np.geomspace(1, 1 / _RATIO, len(classes))))
    return _kept(train, wanted, rng), test


def _kept(train: Part, wanted: Ids, rng: np.random.Generator) -> Part:
    """So many examples of each class."""
    order = rng.permutation(len(train.y))
    chosen = [order[train.y[order] == label][: wanted[label]] for label in np.unique(train.y)]
    return train.take(np.sort(np.concatenate(chosen)))


def _merged(train: Part, test: Part, rng: np.random.Generator) -> tuple[Part, Part] | None:
    """Two classes, drawn by the seed, become one."""
    n_classes = 1 + int(max(train.y.max(), test.y.max()))
    if n_classes < 6:
        return None
    number = rng.permutation(n_classes) // 2
    return Part(train.x, number[train.y]), Part(test.x, np.where(test.y < 0, test.y, number[test.y]))


def _weak(train: Part, test: Part, rng: np.random.Generator) -> tuple[Part, Part] | None:
    """Rows projected on few random directions."""
    x, x_test = rows_of(train.x), rows_of(test.x)
    if x.shape[1] < 2 * _DIRECTIONS:
        return None
    directions = rng.standard_normal((x.shape[1], _DIRECTIONS)) / np.sqrt(x.shape[1])
    return Part((x @ directions).astype(np.float32), train.y), Part((x_test @ directions).astype(np.float32), test.y)


def _mixed(train: Part, test: Part, rng: np.random.Generator) -> tuple[Part, Part] | None:
    """Every example is left as it is or put into one of the other domains, by chance."""
    if train.x.ndim != 4:
        return None

    def mix(part: Part) -> Part:
        x, domain = part.x.copy(), rng.integers(0, 1 + len(IMAGE_DOMAINS), len(part.y))
        for place, change in enumerate(IMAGE_DOMAINS.values(), start=1):
            x[domain == place] = change(part.x[domain == place])
        return Part(x, part.y)

    return mix(train), mix(test)


def _many(train: Part, test: Part, rng: np.random.Generator) -> tuple[Part, Part] | None:
    """Each class in four turns is four classes."""
    if train.x.ndim != 4:
        return None

    def turn(part: Part) -> Part:
        x, which = part.x.copy(), rng.integers(0, len(_TURNS), len(part.y))
        for place, degrees in enumerate(_TURNS):
            x[which == place] = turned(part.x[which == place], degrees)
        return Part(x, np.where(part.y < 0, part.y, part.y * len(_TURNS) + which))

    return turn(train), turn(test)


VARIANTS: Final[Mapping[str, Change]] = {
    "as it is": lambda train, test, _: (train, test),
    "5 a class": _thinned(5),
    "15 a class": _thinned(15),
    "50 a class": _thinned(50),
    "1 to 100": _unbalanced,
    "classes merged": _merged,
    "16 directions": _weak,
    "mixed domains": _mixed,
    "turned classes": _many,
}
"""Name to what it makes of a training and a test part."""
