"""Every class alike: scores of familiar examples as they would be if no class had more of them than another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from slots.shapes import Ids

Scores = npt.NDArray[np.float64]

THINNED = (1, 3)
"""Examples of a class that are left of it, to see how new ones of so small a class are scored."""

_NEAREST = 20  # scores that speak for a class
_ROUNDING = 1e-9
_SHARE = 0.25  # of the classes thinned at once: more would spoil what all classes share


def uneven(sizes: npt.NDArray[np.int64]) -> bool:
    """Whether some class has fewer than half of the examples of the mean class.

    Parameters
    ----------
    sizes : int64 array of shape (class,)
        Examples of each.
    """
    return bool(2 * sizes.min() < sizes.mean())


def thinned(labels: Ids, rng: np.random.Generator) -> Iterator[tuple[Ids, Ids]]:
    """Examples to learn from, with few of some classes, and the others of these classes.

    Parameters
    ----------
    labels : int64 array of shape (example,)
        Any ids.
    rng : numpy Generator
        Draws classes and examples.

    Yields
    ------
    learned, kept : int64 arrays
        Ids of examples; one pair for each number of `THINNED` that is as much as the smallest class has.
    """
    classes, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    for few in THINNED:
        large = np.flatnonzero(sizes > few)
        if sizes.min() > few or len(large) == 0:
            continue
        chosen = rng.permutation(large)[: max(1, round(_SHARE * len(classes)))]
        order = rng.permutation(len(labels))
        order = order[np.argsort(place[order], kind="stable")]
        rank = np.empty(len(labels), np.int64)
        rank[order] = np.arange(len(labels)) - np.searchsorted(place[order], place[order])
        kept = np.isin(place, chosen) & (rank >= few)
        yield np.flatnonzero(~kept), np.flatnonzero(kept)


def known_of(labels: Ids, learned: Ids, kept: Ids) -> npt.NDArray[np.int64]:
    """How many examples of its class were learned, for each that was kept aside."""
    counts = np.bincount(labels[learned], minlength=int(labels.max()) + 1)
    return np.asarray(counts[labels[kept]], np.int64)


def alike(scores: Scores, known: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> Scores:
    """Scores to calibrate with where every class comes as often as another.

    Parameters
    ----------
    scores : float64 array of shape (example,)
        Of familiar examples that had no part in making the score.
    known : int64 array of shape (example,)
        How many examples of its class had.
    sizes : int64 array of shape (class,)
        How many examples each class has.

    Returns
    -------
    float64 array of shape (some,)
        Ascending; none where no score is of a class of which anything was known.

    Notes
    -----
    Ours. For a class of ``n`` examples speak the scores of the twenty examples, and of all that are as near, of whose
    class next to ``n`` were known: what is left of them is the same whatever the class (conformal prediction by
    categories, Vovk et al. 2003, the category being the size). Each class counts the same, and the weighted scores
    become as many equal ones as they are worth (Kish 1965), each a weighted quantile.

    Examples
    --------
    >>> float(alike(np.array([5.0, 6.0, 1.0, 2.0]), np.array([1, 1, 50, 50]), np.array([1, 50, 50]))[-1])
    6.0
    """
    some = known > 0
    scores, known = scores[some], known[some]
    if len(scores) == 0:
        return scores
    weights = np.zeros(len(scores))
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        gap = np.abs(np.log(known / size))
        nearest = gap <= np.sort(gap)[min(_NEAREST, len(gap)) - 1]
        weights[nearest] += count / nearest.sum()
    order = np.argsort(scores, kind="stable")
    total = np.cumsum(weights[order])
    n = max(1, int(total[-1] ** 2 / (weights**2).sum() + _ROUNDING))
    wanted = ((np.arange(n) + 0.5) / n - _ROUNDING) * total[-1]
    return np.asarray(scores[order][np.minimum(np.searchsorted(total, wanted), len(order) - 1)])
