"""Stand-ins for what is new: classes left out of the training data, and points between the known ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from slots.novelty.weighting import Values, fit_score
from slots.shapes import Ids

FOLDS = 4
"""Folds of classes, each of them left out once."""

_BETWEEN = 0.25  # share of the foreign examples that lie between known classes; the others are of classes left out


@dataclass(frozen=True)
class Kinds:
    """Measures of examples where some classes were left out; all of shape (example, measure).

    Parameters
    ----------
    familiar : float64 array
        Of examples that made nothing, of the classes that were not left out.
    new : float64 array
        Of the classes left out.
    between : float64 array
        Of points halfway between familiar examples.
    """

    familiar: Values
    new: Values
    between: Values

    @classmethod
    def none(cls) -> Kinds:
        """Of no examples."""
        return cls(*(np.zeros((0, 0)) for _ in range(3)))

    @classmethod
    def joined(cls, parts: Sequence[Kinds]) -> Kinds:
        """Of all folds together."""
        parts = [part for part in parts if len(part.familiar)] or [cls.none()]
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("familiar", "new", "between"))
        )

    def weights(self) -> Values | None:
        """What each measure is worth; None where no class could be left out."""
        if not len(self.familiar):
            return None
        kinds = ((self.new, 1 - _BETWEEN), (self.between, _BETWEEN))
        return fit_score(self.familiar, tuple((values, share) for values, share in kinds if len(values))).weights


def fold_of_classes(labels: Ids, number: int) -> Ids | None:
    """The classes that are not left out of one fold; None where it leaves out none, or all.

    Parameters
    ----------
    labels : int64 array of shape (example,)
        Any ids.
    number : int
        Which of the folds, >= 0; beyond `FOLDS` they come again.
    """
    classes = np.unique(labels)
    fold = np.random.default_rng(0).permutation(len(classes)) % FOLDS
    kept = classes[fold != number % FOLDS]
    return kept if 0 < len(kept) < len(classes) else None


def folds(labels: Ids, rng: np.random.Generator) -> Iterator[tuple[Ids, Ids, Ids]]:
    """Examples to learn from, those kept aside of the same classes, and those of the classes left out.

    Parameters
    ----------
    labels : int64 array of shape (example,)
        Any ids.
    rng : numpy Generator
        Draws the folds.

    Yields
    ------
    tuple of three int64 arrays
        Ids of examples; none is left out where there is one class.
    """
    _, known = np.unique(labels, return_inverse=True)
    n_classes = int(known.max()) + 1
    fold_of_class = rng.permutation(n_classes) % FOLDS if n_classes > 1 else np.full(1, FOLDS)
    order = rng.permutation(len(known))
    order = order[np.argsort(known[order], kind="stable")]  # class after class, so each fold has its share of each
    fold = np.empty(len(known), np.int64)
    fold[order] = np.arange(len(known)) % FOLDS
    for number in range(FOLDS):
        left = fold_of_class[known] == number
        kept = (fold == number) & ~left
        learned = ~left & ~kept
        if learned.any() and kept.any():
            yield np.flatnonzero(learned), np.flatnonzero(kept), np.flatnonzero(left)


def halfway(features: Tensor, labels: Ids, rng: np.random.Generator) -> Tensor:
    """Points halfway between two familiar examples of different classes.

    Parameters
    ----------
    features : float tensor of shape (example, ...)
        Raw features.
    labels : int64 array of shape (example,)
        Their classes.
    rng : numpy Generator
        Draws the pairs.

    Returns
    -------
    float tensor of shape (point, ...)
        As many as examples; fewer where the draw met one class too often.
    """
    first, second = rng.integers(0, len(labels), (2, 2 * len(labels)))
    unlike = np.flatnonzero(labels[first] != labels[second])[: len(labels)]
    return (features[first[unlike]] + features[second[unlike]]) / 2


def foreign_kinds(left_out: list[Values], between: list[Values]) -> tuple[tuple[Values, float], ...]:
    """Measures of both kinds over all folds and the share each counts, for `slots.novelty.weighting.fit_score`."""
    kinds = ((left_out, 1 - _BETWEEN), (between, _BETWEEN))
    return tuple((np.concatenate(values), share) for values, share in kinds if values)
