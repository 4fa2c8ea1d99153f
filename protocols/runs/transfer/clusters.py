"""Question 3: groups when nobody says how many there are, and classes that nobody has named."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch

from protocols.harness.outcome import Row
from protocols.runs.transfer.attempts import attempt
from protocols.runs.transfer.variants import Features, Task
from protocols.runs.unsupervised import peers as found_by
from protocols.runs.unsupervised.discovery import discovery_figures, split_classes
from protocols.runs.unsupervised.metrics import agreement_figures
from slots.estimators.clusterer import SlotClusterer
from slots.graph.config import GraphConfig
from slots.graph.discovery import discover
from slots.graph.learning import learn_graph
from slots.shapes import Ids

GROUP, DISCOVERY = "clusters", "classes nobody has named"
GRAPH, CLUSTERER, DISCOVER = "learn_graph", "SlotClusterer", "discover"

_KNOWN, _LABELLED = 0.75, 0.1  # of the classes have labels, for this share of their examples
_TOLD, _NOT_TOLD = "Told the number of classes.", "Not told the number of classes."
_SMALLEST = 5  # points of an HDBSCAN cluster, as in its own default
_NEIGHBOURS = 15

Cluster = Callable[[Features, int, int], Ids]
"""Rows, number of classes (for those that are told) and seed to clusters."""


def cluster_rows(task: Task, seed: int, peers: Sequence[str]) -> list[Row]:
    """NMI, accuracy and number of the clusters of the training part.

    Parameters
    ----------
    task : Task
        Its labels only measure.
    seed : int
        Of all methods.
    peers : sequence of str
        Keys of `CLUSTERINGS`.

    Returns
    -------
    list of Row
        ``found``: number of clusters as a multiple of the number of classes.

    Raises
    ------
    ImportError
        If the library of a peer is not installed.
    """
    rows = []
    ours: dict[str, Cluster] = {GRAPH: _graph, CLUSTERER: _clusterer}
    methods = [(name, method, _NOT_TOLD, True) for name, method in ours.items()]
    methods += [(*CLUSTERINGS[key], False) for key in peers if key in CLUSTERINGS]
    for name, method, note, mine in methods:

        def figures(method: Cluster = method) -> dict[str, float]:
            started = time.process_time()
            found = agreement_figures(task.y, method(task.x, task.n_classes, seed))
            return {**found, "found": found["clusters"] / task.n_classes, "seconds": time.process_time() - started}

        rows.append(attempt(figures, name, ours=mine, group=GROUP, task=task.name, note=note))
    return rows


def discovery_rows(task: Task, seed: int, peers: Sequence[str]) -> list[Row]:
    """Classes of the other examples, where three quarters of the classes have labels for a tenth of theirs.

    Parameters
    ----------
    task : Task
        Its training part.
    seed : int
        Draws the classes and the examples with labels.
    peers : sequence of str
        ``kmeans`` stands for k-means with and without the labels, told the number of classes.

    Returns
    -------
    list of Row
        Figures of the examples without labels; none where fewer than four classes leave no new one.
    """
    n_old = round(_KNOWN * task.n_classes)
    if task.n_classes < 4 or n_old == task.n_classes:
        return []
    given, classes = split_classes(task.y, n_old=n_old, seed=seed, labelled=_LABELLED)
    methods: list[tuple[str, Callable[[], Ids], str]] = [
        (DISCOVER, lambda: _discovered(task.x, given, seed), _NOT_TOLD)
    ]
    if "kmeans" in peers:
        k = task.n_classes
        methods += [
            ("k-means", lambda: found_by.kmeans(task.x, k, seed).labels, _TOLD),
            (
                "semi-supervised k-means",
                lambda: found_by.semi_supervised_kmeans(task.x, given, k, seed).labels,
                _TOLD,
            ),
        ]
    rows = []
    for name, find, note in methods:

        def figures(find: Callable[[], Ids] = find) -> dict[str, float]:
            started = time.process_time()
            found = discovery_figures(given, classes, find(), n_old=n_old)
            return {**found, "found": found["clusters"] / task.n_classes, "seconds": time.process_time() - started}

        rows.append(attempt(figures, name, ours=name == DISCOVER, group=DISCOVERY, task=task.name, note=note))
    return rows


def _graph(x: Features, _k: int, seed: int) -> Ids:
    communities: Ids = learn_graph(torch.from_numpy(x), GraphConfig(seed=seed)).placement.communities.numpy()
    return communities


def _clusterer(x: Features, _k: int, seed: int) -> Ids:
    labels: Ids = SlotClusterer(random_state=seed).fit(x).labels_
    return labels


def _discovered(x: Features, given: Ids, seed: int) -> Ids:
    found = discover(torch.from_numpy(x), torch.from_numpy(given), GraphConfig(seed=seed))
    communities: Ids = found.placement.communities.numpy()
    return communities


def leiden(x: Features, _k: int, seed: int) -> Ids:
    """Communities of the graph of the 15 nearest neighbours by cosine, by modularity (Traag et al. 2019; igraph)."""
    import random

    import igraph
    from sklearn.neighbors import kneighbors_graph

    k = min(_NEIGHBOURS, len(x) - 1)
    near = kneighbors_graph(x, k, metric="cosine", include_self=False).tocoo()
    graph = igraph.Graph(n=len(x), edges=list(zip(near.row.tolist(), near.col.tolist(), strict=True))).simplify()
    igraph.set_random_number_generator(random.Random(seed))  # noqa: S311 - nothing secret
    found = graph.community_leiden(objective_function="modularity", n_iterations=-1)
    return np.array(found.membership, np.int64)


CLUSTERINGS: Final[Mapping[str, tuple[str, Cluster, str]]] = {
    "kmeans": ("k-means", lambda x, k, seed: found_by.kmeans(x, k, seed).labels, _TOLD),
    "spherical": (
        "k-means on unit rows",
        lambda x, k, seed: found_by.faiss_kmeans(x, k, seed, spherical=True).labels,
        _TOLD,
    ),
    "hdbscan": (
        "HDBSCAN",
        lambda x, _k, seed: found_by.hdbscan(x, _SMALLEST, seed=seed).labels,
        f"{_NOT_TOLD} On 30 principal components.",
    ),
    "leiden": ("Leiden", leiden, f"{_NOT_TOLD} Modularity, graph of 15 nearest neighbours."),
}
"""Short name to the name in tables, the method, and what a reader needs to compare fairly."""
