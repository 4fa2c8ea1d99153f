"""Category discovery: half of the classes have labels for half of their examples; the rest nobody has named."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import normalized_mutual_info_score

from protocols.harness.outcome import Row
from protocols.runs.unsupervised import peers
from protocols.runs.unsupervised.metrics import matched_points
from slots.graph.config import GraphConfig
from slots.graph.discovery import discover
from slots.shapes import Ids
from slots.training.config import TrainConfig
from slots.training.fitting import fit

Features = npt.NDArray[np.float32]
_TRUE = "Told the number of classes."
_UPDATED = "Fitted on the labelled examples, then updated without labels: each new slot is a cluster of its own."
_LABELLED = 0.5


def split_classes(y: Ids, *, n_old: int, seed: int, labelled: float = _LABELLED) -> tuple[Ids, Ids]:
    """Labels as a method sees them, and the classes renumbered so that those with labels come first.

    Parameters
    ----------
    y : int64 array of shape (example,)
        True classes.
    n_old : int
        Classes with labels, fewer than there are.
    seed : int
        Draws which classes have labels, and which of their examples.
    labelled : float in (0, 1], default 0.5
        Share of these that is given, at least one of each class.

    Returns
    -------
    given : int64 array of shape (example,)
        Classes from 0 to ``n_old - 1`` for that share of their examples, drawn by the seed; -1 for all others.
    classes : int64 array of shape (example,)
        True classes; new ones from ``n_old``.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(y))
    number = np.full(int(y.max()) + 1, -1, np.int64)
    number[order] = np.arange(len(order))
    classes = number[y]
    shown = np.zeros(len(y), bool)
    for label in range(n_old):
        mine = rng.permutation(np.flatnonzero(classes == label))
        shown[mine[: max(1, round(labelled * len(mine)))]] = True
    return np.where(shown, classes, -1), classes


def discovery_rows(x: Features, y: Ids, *, n_old: int, seed: int, wanted: Sequence[str]) -> list[Row]:
    """Every method of category discovery, as rows of the table.

    Parameters
    ----------
    x : float32 array of shape (example, feature)
        Features of all examples, with and without label.
    y : int64 array of shape (example,)
        True classes.
    n_old : int
        Classes with labels.
    seed : int
        Of the split, of k-means and of the slots.
    wanted : sequence of str
        The protocol's peers; those of this part are k-means, with or without labels, and run where ``kmeans`` is.

    Returns
    -------
    list of Row
    """
    given, classes = split_classes(y, n_old=n_old, seed=seed)
    k = int(classes.max()) + 1
    group = f"discovery: {n_old} of {k} classes have labels"

    def row(method: str, find: Callable[[], Ids], note: str, *, ours: bool = False) -> Row:
        started = time.perf_counter()
        clusters = find()
        figures = discovery_figures(given, classes, clusters, n_old=n_old)
        return Row(method, {**figures, "seconds": time.perf_counter() - started}, ours, group, note)

    rows = [
        row("slot graph", lambda: _discovered(x, given, None, seed), "Not told the number of classes.", ours=True),
        row("slot graph, told the number", lambda: _discovered(x, given, k - n_old, seed), _TRUE, ours=True),
        row("slot model, update", lambda: _updated(x, given, seed), _UPDATED, ours=True),
        row("nearest labelled example", lambda: given[given >= 0][peers.nearest(x, x[given >= 0])], ""),
    ]
    if "kmeans" in wanted:
        rows += [
            row("k-means (scikit-learn)", lambda: peers.kmeans(x, k, seed).labels, _TRUE),
            row("semi-supervised k-means", lambda: peers.semi_supervised_kmeans(x, given, k, seed).labels, _TRUE),
        ]
    return rows


def discovery_figures(given: Ids, classes: Ids, clusters: Ids, *, n_old: int) -> dict[str, float]:
    """Accuracy on the examples without a label, of all, known and new classes.

    Parameters
    ----------
    given : int64 array of shape (example,)
        -1 where a method saw no label.
    classes : int64 array of shape (example,)
        New classes from ``n_old``.
    clusters : int64 array of shape (example,)
        What a method answered; any numbers.
    n_old : int
        Classes with labels (count, >= 1).

    Returns
    -------
    dict
        ``acc``, ``acc_old`` and ``acc_new``: share of all, of old and of new classes that lies in the cluster
        paired with its class, one pairing for all of them (Vaze et al. 2022, section 4); ``nmi``; ``clusters``.
    """
    open_rows = given < 0
    mine, its = classes[open_rows], clusters[open_rows]
    right, old = matched_points(mine, its), mine < n_old
    return {
        "acc": float(right.mean()),
        "acc_old": float(right[old].mean()) if old.any() else float("nan"),
        "acc_new": float(right[~old].mean()),
        "nmi": float(normalized_mutual_info_score(mine, its)),
        "clusters": float(len(np.unique(its[its >= 0]))),
    }


def _discovered(x: Features, given: Ids, new: int | None, seed: int) -> Ids:
    found = discover(torch.from_numpy(x), torch.from_numpy(given), GraphConfig(n_communities=new, seed=seed))
    communities: Ids = found.placement.communities.numpy()
    return communities


def _updated(x: Features, given: Ids, seed: int) -> Ids:
    """Answers of a model that learned the labelled examples and then took in the others without labels."""
    known = given >= 0
    model, _ = fit(x[known], given[known], config=TrainConfig(seed=seed))
    model.update(x[~known])
    clusters = given.copy()
    clusters[~known] = model.predict(x[~known]).labels
    return clusters
