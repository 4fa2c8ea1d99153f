"""How well clusters agree with classes that the clustering never saw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from slots.shapes import Ids


def contingency(classes: Ids, clusters: Ids) -> Ids:
    """How many points of each class each cluster holds; points without a cluster (-1) are left out.

    Parameters
    ----------
    classes : int64 array of shape (example,)
        From 0.
    clusters : int64 array of shape (example,)
        From 0, -1 for noise.

    Returns
    -------
    int64 array of shape (class, cluster)

    Examples
    --------
    >>> contingency(np.array([0, 0, 1]), np.array([1, 1, -1]))
    array([[0, 2],
           [0, 0]])
    """
    table = np.zeros((int(classes.max(initial=-1)) + 1, int(clusters.max(initial=-1)) + 1), np.int64)
    clustered = clusters >= 0
    np.add.at(table, (classes[clustered], clusters[clustered]), 1)
    return table


def matched_points(classes: Ids, clusters: Ids) -> npt.NDArray[np.bool_]:
    """Which points lie in the cluster that is given to their class.

    Parameters
    ----------
    classes, clusters : int64 arrays of shape (example,)
        As in `contingency`.

    Returns
    -------
    bool array of shape (example,)
        Classes and clusters are paired one to one so that most points are right (Kuhn's Hungarian method on the whole
        table). The points of a cluster without a class, of a class without a cluster, and noise are wrong.
    """
    table = contingency(classes, clusters)
    mine, its = linear_sum_assignment(table, maximize=True)
    cluster_of = np.full(len(table), -2, np.int64)
    cluster_of[mine] = its
    right: npt.NDArray[np.bool_] = cluster_of[classes] == clusters
    return right


def agreement_figures(classes: Ids, clusters: Ids) -> dict[str, float]:
    """Accuracy, NMI, ARI, purity and number of clusters.

    Parameters
    ----------
    classes, clusters : int64 arrays of shape (example,)
        As in `contingency`; at least one example.

    Returns
    -------
    dict
        ``acc``: share of `matched_points`. ``nmi`` (arithmetic mean of the entropies), ``ari``: noise is one more
        cluster. ``purity``: share of the points that have the most frequent class of their cluster, noise counting as
        wrong. ``clusters``: count, without noise.

    Examples
    --------
    >>> agreement_figures(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))["acc"]
    0.75
    """
    table = contingency(classes, clusters)
    return {
        "acc": float(matched_points(classes, clusters).mean()),
        "nmi": float(normalized_mutual_info_score(classes, clusters)),
        "ari": float(adjusted_rand_score(classes, clusters)),
        "purity": float(table.max(0, initial=0).sum() / len(classes)),
        "clusters": float(len(np.unique(clusters[clusters >= 0]))),
    }
