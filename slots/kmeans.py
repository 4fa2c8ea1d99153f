"""k-means as the slots need it: centres that are directions, owners that are numbered from the largest.

scikit-learn's, with what must be cleaned up around it. Three relatives are no users of it, since their steps differ:
`slot_graph_means.spherical_means` keeps its centres of unit length in every pass and looks at a sample, so that a
thousand cost seconds; `placing.settle` keeps labelled examples to the slots of their label; and
`continual_growing` starts from the rows that the present slots explain badly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

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
    count : int
        In [1, number of different rows].
    seed : int
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
    count : int
        In [1, number of rows].
    seed : int
    minibatch : bool, default False
        As in `centres`.
    starts : int, optional
        The best of so many runs to the end (count, >= 1). Default: one run of the passes that `centres` takes.

    Returns
    -------
    int64 array of shape (example,)
    """
    found = KMeans(count, n_init=starts, random_state=seed) if starts else _estimator(count, seed, minibatch=minibatch)
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


def _estimator(count: int, seed: int, *, minibatch: bool) -> KMeans | MiniBatchKMeans:
    if minibatch:
        return MiniBatchKMeans(count, batch_size=_BATCH, n_init=1, max_iter=30, random_state=seed)
    return KMeans(count, n_init=1, max_iter=10, random_state=seed)
