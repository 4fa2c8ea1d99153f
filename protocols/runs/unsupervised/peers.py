"""What a user would cluster with instead: scikit-learn's and FAISS's clusterings, and GCD's semi-supervised k-means."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.shapes import Ids

Features = npt.NDArray[np.float32]
_BLOCK = 4096


@dataclass(frozen=True)
class Clustering:
    """Clusters of some points, and the rule for others.

    Parameters
    ----------
    labels : int64 array of shape (example,)
        From 0; -1 for noise.
    assign : callable
        From features to clusters.
    seconds : float
        Of the clustering.
    """

    labels: Ids
    assign: Callable[[Features], Ids]
    seconds: float


def kmeans(x: Features, k: int, seed: int) -> Clustering:
    """scikit-learn's `KMeans` with its defaults (k-means++, one start)."""
    from sklearn.cluster import KMeans

    started = time.perf_counter()
    found = KMeans(k, n_init=1, random_state=seed).fit(x)
    return _from_centres(x, found.cluster_centers_, started)


def minibatch_kmeans(x: Features, k: int, seed: int) -> Clustering:
    """scikit-learn's `MiniBatchKMeans` with its defaults (three starts), batches of 4,096."""
    from sklearn.cluster import MiniBatchKMeans

    started = time.perf_counter()
    found = MiniBatchKMeans(k, n_init=3, batch_size=4096, random_state=seed).fit(x)
    return _from_centres(x, found.cluster_centers_, started)


def faiss_kmeans(x: Features, k: int, seed: int, *, spherical: bool = False) -> Clustering:
    """FAISS's `Kmeans` on all points, the best of three starts; ``spherical`` for unit rows and unit means."""
    import faiss

    started = time.perf_counter()
    rows = _unit(x) if spherical else np.ascontiguousarray(x)
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(x)}
    found = faiss.Kmeans(x.shape[1], k, niter=25, nredo=3, seed=seed, spherical=spherical, **limits)
    found.train(rows)
    if not spherical:
        return _from_centres(x, np.array(found.centroids), started)
    centres = np.array(found.centroids)
    labels = (rows @ centres.T).argmax(1)
    return Clustering(labels, lambda it: (_unit(it) @ centres.T).argmax(1), time.perf_counter() - started)


def birch(x: Features, counts: Sequence[int], threshold: float) -> list[Clustering]:
    """scikit-learn's `Birch` at one threshold, its subclusters joined by Ward's method into each of some numbers.

    `Birch(n_clusters=k)` joins them likewise; here the tree of both steps serves all numbers at once.
    """
    from scipy.cluster.hierarchy import fcluster, ward
    from sklearn.cluster import Birch

    started = time.perf_counter()
    found = Birch(threshold=threshold, n_clusters=None).fit(x)
    centres = np.asarray(found.subcluster_centers_, np.float32)
    tree = ward(centres.astype(np.float64)) if len(centres) > 1 else None
    seconds = time.perf_counter() - started
    own = nearest(x, centres)
    made = []
    for k in counts:
        groups = np.zeros(1, np.int64) if tree is None else fcluster(tree, k, "maxclust").astype(np.int64) - 1
        made.append(Clustering(groups[own], _grouped(centres, groups), seconds))
    return made


def birch_thresholds(x: Features, seed: int, shares: Sequence[float]) -> list[float]:
    """Shares of the median distance to the nearest other of up to 5,000 points; Birch's own default knows no scale."""
    from sklearn.neighbors import NearestNeighbors

    some = x[np.random.default_rng(seed).permutation(len(x))[:5000]]
    usual = float(np.median(NearestNeighbors(n_neighbors=2).fit(some).kneighbors(some)[0][:, 1]))
    return [share * usual if usual > 0 else 0.5 for share in shares]


def hdbscan(x: Features, min_cluster_size: int, *, components: int = 30, seed: int = 0) -> Clustering:
    """scikit-learn's `HDBSCAN` on up to 30 principal components; others join the cluster of the nearest point."""
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import PCA

    started = time.perf_counter()
    few = PCA(min(components, *x.shape), random_state=seed).fit(x)
    rows = few.transform(x).astype(np.float32)
    labels = HDBSCAN(min_cluster_size=min(min_cluster_size, len(x)), copy=True).fit_predict(rows).astype(np.int64)
    seconds = time.perf_counter() - started
    return Clustering(labels, lambda it: labels[nearest(few.transform(it).astype(np.float32), rows)], seconds)


def semi_supervised_kmeans(x: Features, given: Ids, k: int, seed: int, *, iterations: int = 100) -> Clustering:
    """k-means whose labelled points stay in the cluster of their class.

    Parameters
    ----------
    x : float32 array of shape (example, feature)
        Points, labelled or not.
    given : int64 array of shape (example,)
        Classes from 0, -1 where unknown.
    k : int
        Clusters, at least the number of classes with labels.
    seed : int
        Draws the first centres of clusters without labels.
    iterations : int, default 100
        Most of them.

    Returns
    -------
    Clustering
        Cluster ``i`` is class ``i`` where that has labels.

    Notes
    -----
    Vaze, Han, Vedaldi and Zisserman 2022, "Generalized category discovery", section 3.2: the means of the labelled
    classes, the other centres by k-means++ among the unlabelled, then assignment and means in turn.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    known = given >= 0
    n_known = int(given.max(initial=-1)) + 1
    centres = [x[given == label].mean(0) for label in range(n_known)]
    free = x[~known]
    while len(centres) < k:
        far = np.full(len(free), 1.0) if not centres else _squares(free, np.array(centres)).min(1)
        total = float(far.sum())
        centres.append(free[rng.choice(len(free), p=far / total if total > 0 else None)])
    middles, labels = np.array(centres, np.float32), np.full(len(x), -1, np.int64)
    for _ in range(iterations):
        fresh = np.where(known, given, nearest(x, middles))
        if np.array_equal(fresh, labels):
            break
        labels = fresh
        for cluster in np.unique(labels):
            middles[cluster] = x[labels == cluster].mean(0)
    return Clustering(labels, lambda it: nearest(it, middles), time.perf_counter() - started)


def nearest(x: Features, centres: Features) -> Ids:
    """Number of the nearest centre by Euclidean distance; ties go to the lowest."""
    parts = [_squares(x[i : i + _BLOCK], centres).argmin(1) for i in range(0, len(x), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _squares(x: Features, centres: Features) -> Features:
    found: Features = np.maximum(np.square(x).sum(1)[:, None] + np.square(centres).sum(1) - 2 * x @ centres.T, 0)
    return found


def _from_centres(x: Features, centres: npt.NDArray[np.floating[Any]], started: float) -> Clustering:
    middles = np.asarray(centres, np.float32)
    return Clustering(nearest(x, middles), lambda it: nearest(it, middles), time.perf_counter() - started)


def _grouped(centres: Features, groups: Ids) -> Callable[[Features], Ids]:
    return lambda it: groups[nearest(it, centres)]


def _unit(x: Features) -> Features:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.ascontiguousarray(x / np.where(norms > 0, norms, 1), np.float32)
