"""Wrong labels that are put in on purpose, so that it is known which they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]

PAIRS: Final[Mapping[str, tuple[tuple[int, int], ...]]] = {
    "mnist": ((4, 9), (3, 5), (1, 7), (0, 6), (2, 8)),
    "fashion_mnist": ((0, 6), (2, 4), (7, 9), (1, 3), (5, 8)),
}
"""Classes that people confuse, by data set."""

KINDS = ("uniform", "pairs")


@dataclass(frozen=True)
class Noisy:
    """Labels with injected errors, and which they are.

    Parameters
    ----------
    y : int64 array of shape (example,)
        As given, errors included.
    wrong : bool array of shape (example,)
        Which were changed.
    """

    y: Labels
    wrong: npt.NDArray[np.bool_]


def add_noise(y: Labels, kind: str, seed: int, *, share: float, partners: Labels, n_classes: int) -> Noisy:
    """Inject label noise: change a share of the labels.

    Parameters
    ----------
    y : int64 array of shape (example,)
        From 0 to ``n_classes - 1``.
    kind : {"uniform", "pairs"}
        To any other class alike, or to the class's partner.
    seed : int
        The changed examples are the same for both kinds.
    share : float in (0, 1)
        Of the examples, whose labels are changed.
    partners : int64 array of shape (class,)
        Used by ``pairs``; a class that is its own partner keeps its labels.
    n_classes : int
        Number of classes (count, >= 2).

    Notes
    -----
    ``rng = default_rng(1000 + seed)``; the sorted choice of ``round(share n)`` examples; then, for ``uniform``,
    ``(y + rng.integers(1, n_classes, n)) % n_classes``.
    """
    rng = np.random.default_rng(1000 + seed)
    chosen = np.sort(rng.choice(len(y), round(share * len(y)), replace=False))
    given = y.copy()
    if kind == "uniform":
        given[chosen] = (y[chosen] + rng.integers(1, n_classes, len(chosen))) % n_classes
    elif kind == "pairs":
        given[chosen] = partners[y[chosen]]
    else:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}. Choose one of them.")
    return Noisy(given, given != y)


def partners_of(name: str, features: npt.NDArray[np.float32], y: Labels, n_classes: int) -> Labels:
    """The class that each class is confused with: the known pairs of the data, else the nearest class means.

    Parameters
    ----------
    name : str
        Of the data set.
    features : float array of shape (example, feature)
        Class means are compared in these.
    y : int64 array of shape (example,)
        True labels, each class at least once.
    n_classes : int
        Number of classes (count, >= 2).

    Returns
    -------
    int64 array of shape (class,)
        Pairs of classes, each other's partner; with an odd number of classes one is its own.

    Notes
    -----
    Elsewhere the two classes whose means of unit features have the smallest distance become partners, then the two
    nearest among the rest, and so on.

    Examples
    --------
    >>> x = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], np.float32)
    >>> partners_of("", x, np.array([0, 1, 2, 3]), 4)
    array([2, 3, 0, 1])
    """
    partners = np.arange(n_classes, dtype=np.int64)
    pairs = PAIRS.get(name)
    if pairs is None:
        flat = features.reshape(len(features), -1).astype(np.float64)
        unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
        means = np.stack([unit[y == label].mean(0) for label in range(n_classes)])
        first, second = np.triu_indices(n_classes, 1)
        gaps = np.linalg.norm(means[first] - means[second], axis=1)
        pairs, free = (), set(range(n_classes))
        for at in np.argsort(gaps, kind="stable"):
            one, other = int(first[at]), int(second[at])
            if {one, other} <= free:
                pairs, free = (*pairs, (one, other)), free - {one, other}
    for one, other in pairs:
        partners[one], partners[other] = other, one
    return partners
