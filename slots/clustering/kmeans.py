"""k-means as the slots need it: centres that are directions, owners that are numbered from the largest.

scikit-learn's, with what must be cleaned up around it. Three relatives are no users of it, since their steps differ:
`kmeans.spherical_means` keeps its centres of unit length in every pass and looks at a sample, so that a
thousand cost seconds; `seeded_slots.constrained_kmeans` keeps labelled examples to the slots of their label; and
`slots.continual.growth` starts from the rows that the present slots explain badly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.clustering.unit_rows import Unit
from slots.head.similarities import normalize
from slots.progress import Progress
from slots.rounding import add_by_owner_, full_product
from slots.shapes import Ids, SlotVectors

if TYPE_CHECKING:
    from sklearn.cluster import KMeans, MiniBatchKMeans

SCORES_HELD = 1 << 24
"""Scores held at once in a pass over all inputs (64 MiB in float32)."""

_SAMPLE = 25  # inputs a slot that the first passes look at; the last looks at all
Rows = npt.NDArray[np.float32]
_BATCH = 4096  # rows a step of the mini-batch form


def directions(unit: Rows, most: int, *, seed: int) -> Rows:
    """Up to ``most`` centres of unit rows; the different rows where they are no more. Zero rows take no part.

    Parameters
    ----------
    unit : float32 array of shape (example, feature)
        Rows of length 1 or 0.
    most : int
        Centres wanted (count, >= 1).
    seed : int
        Of the first centres.

    Returns
    -------
    float32 array of shape (centre, feature)
        None of them 0; centres are shorter than 1, rows in lexicographic order. Empty where no row takes part.
    """
    rows = unit[(unit != 0).any(1)]
    distinct = np.unique(rows, axis=0)
    return distinct if len(distinct) <= most else centres(rows, most, seed=seed)


def centres(rows: Rows, count: int, *, seed: int, minibatch: bool = False) -> Rows:
    """Centres of k-means, without those that are 0: opposite rows have no direction between them.

    Parameters
    ----------
    rows : float32 array of shape (example, feature)
        Any rows; those of length 1 give centres shorter than 1.
    count : int
        In [1, number of different rows].
    seed : int
        Of the first centres and of the batches.
    minibatch : bool, default False
        Batches of 4,096 rows and up to 30 passes (Sculley 2010), for many centres; otherwise up to 10 passes over all
        rows (Lloyd), since more move the centres little.

    Returns
    -------
    float32 array of shape (centre, feature)
        At most ``count``.
    """
    found = _estimator(count, seed, minibatch=minibatch).fit(rows)
    middle: Rows = np.asarray(found.cluster_centers_, np.float32)
    return np.compress((middle != 0).any(1), middle, axis=0)


def owners(rows: Rows, count: int, *, seed: int, minibatch: bool = False, starts: int | None = None) -> Ids:
    """Number of its centre for each row.

    Parameters
    ----------
    rows : float32 array of shape (example, feature)
        Any rows.
    count : int
        In [1, number of rows].
    seed : int
        Of the first centres and of the batches.
    minibatch : bool, default False
        As in `centres`.
    starts : int, optional
        The best of so many runs to the end (count, >= 1). Default: one run of the passes that `centres` takes.

    Returns
    -------
    int64 array of shape (example,)
    """
    found = _estimator(count, seed, minibatch=minibatch, starts=starts)
    return np.asarray(found.fit(rows).labels_, np.int64)


def by_size(ids: Ids, sizes: npt.NDArray[np.float64] | None = None) -> Ids:
    """Number clusters anew from the largest, without gaps; of equal ones the lower number stays first.

    Parameters
    ----------
    ids : int64 array of shape (item,)
        Cluster of each item.
    sizes : float64 array of shape (item,), optional
        What each item counts (>= 0). Default: 1.

    Returns
    -------
    int64 array of shape (item,)

    Examples
    --------
    >>> by_size(np.array([7, 2, 2, 9]))
    array([1, 0, 0, 2])
    """
    _, ids = np.unique(ids, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(-np.bincount(ids, sizes), kind="stable"))[ids], np.int64)


def _estimator(
    count: int, seed: int, *, minibatch: bool = False, starts: int | None = None
) -> KMeans | MiniBatchKMeans:
    from sklearn.cluster import KMeans, MiniBatchKMeans  # here, since answering needs none of it

    if starts:
        return KMeans(count, n_init=starts, random_state=seed)
    if minibatch:
        return MiniBatchKMeans(count, batch_size=_BATCH, n_init=1, max_iter=30, random_state=seed)
    return KMeans(count, n_init=1, max_iter=10, random_state=seed)


@torch.no_grad()
def spherical_means(unit: Unit, n_slots: int, *, passes: int, seed: int, progress: Progress) -> SlotVectors:
    """Spherical k-means: unit vectors, each the normalised mean of the inputs that are nearer to it than to any other.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    n_slots : int
        >= 1.
    passes : int
        >= 1; all but the last are on 25 inputs a slot.
    seed : int
        Of the sample and of the first slots in it.
    progress : callable
        ``progress(step, share)``, told after each pass.

    Returns
    -------
    float tensor of shape (slot, feature)
        At most ``n_slots``: a slot that wins nothing takes the place of the worst matched input, and goes if it wins
        nothing in the last pass either.

    Notes
    -----
    Dhillon and Modha 2001.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(unit), generator=generator).to(unit.device)
    sample: Unit = unit[order[: max(n_slots, _SAMPLE * n_slots)]]
    weights: Tensor = sample[:n_slots].clone()
    for step in range(passes):
        last = step + 1 == passes
        x = unit if last else sample
        scores, owners = nearest_slots(x, weights, 1)
        wins = torch.bincount(owners[:, 0], minlength=len(weights))
        weights = normalize(sums_by_owner(x, owners[:, 0], len(weights)))
        if last:
            weights = weights[wins > 0]
        else:
            empty = (wins == 0).nonzero()[:, 0]
            weights[empty] = x[scores[:, 0].argsort(stable=True)[: len(empty)]]
        progress(f"slots, pass {step + 1}/{passes}", (step + 1) / passes)
    return weights


@torch.no_grad()
def nearest_slots(
    unit: Unit, weights: SlotVectors, count: int, *, held: int | None = None
) -> tuple[Float[Tensor, "example near"], Int[Tensor, "example near"]]:
    """Cosines and numbers of the slots nearest to each input, the nearest first; ties go to the lowest.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    weights : float tensor of shape (slot, feature)
        Unit vectors, at least one.
    count : int
        Slots wanted (>= 1), at most their number.
    held : int, optional
        Scores held at once (count). Default: `SCORES_HELD`.

    Returns
    -------
    scores : float tensor of shape (example, count)
    slots : int64 tensor of shape (example, count)
    """
    scores = torch.empty(len(unit), count, dtype=unit.dtype, device=unit.device)
    slots = torch.empty(len(unit), count, dtype=torch.long, device=unit.device)
    for rows in blocks(len(unit), max(weights.shape), held):
        near = full_product(unit[rows], weights.T)
        for place in range(count):
            scores[rows, place], slots[rows, place] = near.max(1)
            if place + 1 < count:
                near.scatter_(1, slots[rows, place, None], -torch.inf)
    return scores, slots


def sums_by_owner(unit: Unit, owners: Int[Tensor, " example"], n: int) -> Float[Tensor, "owner feature"]:
    """Sum of the rows of each owner, in the order of the rows.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    owners : int64 tensor of shape (example,)
        In [0, n).
    n : int
        Number of owners.

    Returns
    -------
    float tensor of shape (owner, feature)
    """
    sums = torch.zeros(n, unit.shape[1], dtype=unit.dtype, device=unit.device)
    if isinstance(unit, Tensor):
        return add_by_owner_(sums, owners, unit)
    for rows in blocks(len(unit), unit.shape[1]):
        add_by_owner_(sums, owners[rows], unit[rows])
    return sums


def blocks(n: int, columns: int, held: int | None = None) -> Iterator[slice]:
    """Slices of ``n`` rows whose scores are no more than ``held``, by default `SCORES_HELD`."""
    step = max(1, (held or SCORES_HELD) // max(1, columns))
    for first in range(0, n, step):
        yield slice(first, min(n, first + step))
