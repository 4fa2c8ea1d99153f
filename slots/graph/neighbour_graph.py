"""Inputs as nodes: two are linked where one is among the nearest of the other, the stronger the more they share."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from slots.graph.louvain import Edges
from slots.shapes import Ids

_PAIRS = 1 << 18  # pairs whose sets are compared at once


def shared_neighbours(near: Ids) -> Edges:
    """Graph of inputs from the nearest rows of each.

    Parameters
    ----------
    near : int64 array of shape (example, neighbour)
        The rows nearest to each row, itself left out.

    Returns
    -------
    Edges
        Symmetric. The weight of a pair of which one is among the nearest of the other: the Jaccard index of their sets
        of nearest rows, each row counted to its own set, in (0, 1]; pairs that share nothing have no edge.

    Notes
    -----
    Shared nearest neighbours are Jarvis and Patrick's (1973); with the Jaccard index, for communities, Levine et al.'s
    (2015).
    """
    n, count = near.shape
    links = sp.csr_array((np.ones(near.size, np.float32), (np.repeat(np.arange(n), count), near.ravel())), (n, n))
    sets = sp.csr_array(links + sp.eye_array(n, dtype=np.float32, format="csr"))
    linked = sp.coo_array(links.maximum(links.T))
    shared = np.empty(linked.nnz)
    for first in range(0, linked.nnz, _PAIRS):
        rows, columns = linked.row[first : first + _PAIRS], linked.col[first : first + _PAIRS]
        shared[first : first + _PAIRS] = np.asarray(sets[rows].multiply(sets[columns]).sum(1)).ravel()
    weights = shared / (2 * (count + 1) - shared)
    kept = weights > 0
    return edges_of(sp.csr_array((weights[kept], (linked.row[kept], linked.col[kept])), (n, n)))


def edges_of(graph: sp.csr_array) -> Edges:
    """A sparse symmetric matrix as lists."""
    graph.sort_indices()
    degrees = np.asarray(graph.sum(1), np.float64).ravel()
    return Edges(graph.indptr.astype(np.int64), graph.indices.astype(np.int64), graph.data.astype(np.float64), degrees)


def part_of(edges: Edges, kept: Ids) -> Edges:
    """The graph of some of the nodes, numbered anew in their order."""
    n = len(edges)
    whole = sp.csr_array((edges.weights, edges.nodes, edges.starts), (n, n))
    return edges_of(sp.csr_array(whole[kept][:, kept]))
