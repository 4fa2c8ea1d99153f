"""Louvain communities of a weighted graph, by modularity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.jit import compiled
from slots.shapes import Ids

Weights = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int32]
_LEAST_GAIN = 1e-12  # of the total weight; less is rounding, and moving for it might never end


def modularity(weights: Weights, communities: Ids, *, resolution: float = 1.0) -> float:
    """Modularity of a partition: how much more weight lies within communities than chance would put there.

    Parameters
    ----------
    weights : float64 array of shape (slot, slot)
        Symmetric, >= 0; the diagonal counts once.
    communities : int64 array of shape (slot,)
        Numbers >= 0.
    resolution : float, default 1.0
        Weight of the expectation, > 0: the larger, the more communities are best.

    Returns
    -------
    float
        ``sum_c (w_cc / w - resolution * (d_c / w)^2)``, at most 1; 0 for a graph without weight.

    Notes
    -----
    Newman and Girvan 2004; the resolution is Reichardt and Bornholdt's (2006).

    Examples
    --------
    >>> pairs = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0.0]])
    >>> modularity(pairs, np.array([0, 0, 1, 1]))
    0.5
    """
    return modularity_of_edges(Edges.of(weights), communities, resolution)


def louvain(weights: Weights, *, resolution: float = 1.0, seed: int = 0) -> Ids:
    """Louvain communities: one local maximum of the modularity.

    Parameters
    ----------
    weights : float64 array of shape (slot, slot)
        Symmetric, >= 0.
    resolution : float, default 1.0
        As in `modularity`, > 0: the larger, the more communities.
    seed : int, default 0
        Order in which slots are visited.

    Returns
    -------
    int64 array of shape (slot,)
        Communities, numbered from 0 in the order of their first slot. A slot without edges is alone.

    Notes
    -----
    Blondel et al. 2008: each node moves to the neighbouring community that gains most until none gains; communities
    become nodes; and so on. At the end single slots are moved once more, since what was best for a group of them need
    not be best for each.
    """
    return louvain_of_edges(Edges.of(weights), resolution, np.random.default_rng(seed))


@dataclass(frozen=True)
class Edges:
    """A graph as lists: node ``i`` has the neighbours ``nodes[starts[i]:starts[i + 1]]``, in ascending order.

    Parameters
    ----------
    starts : int64 array of shape (node + 1,)
        Where the list of each node starts.
    nodes : int32 array of shape (edge,)
        Neighbours; an edge between two nodes is in the lists of both.
    weights : float64 or unsigned integer array of shape (edge,)
        Weights >= 0, or their places in ``values``: a graph of many inputs has few different ones, a byte each.
    degrees : float64 array of shape (node,)
        Sum of the weights of each node.
    values : float64 array of shape (value,)
        What ``weights`` are places in; empty where they are the weights themselves.
    """

    starts: Ids
    nodes: Numbers
    weights: npt.NDArray[Any]
    degrees: Weights
    values: Weights = field(default_factory=lambda: np.zeros(0))

    @staticmethod
    def of(weights: Weights) -> Edges:
        """The edges of a symmetric matrix of weights."""
        row, column = np.nonzero(weights)
        of_edge = np.asarray(weights, np.float64)[row, column]
        starts = np.concatenate([[0], np.bincount(row, minlength=len(weights)).cumsum()])
        degrees = np.bincount(row, of_edge, minlength=len(weights)).astype(np.float64)
        return Edges(starts, column.astype(np.int32), of_edge, degrees)

    def __len__(self) -> int:
        return len(self.degrees)

    def joined(self, communities: Ids) -> Edges:
        """Communities as nodes; what lies within one is an edge to itself."""
        n = int(communities.max(initial=-1)) + 1
        return Edges(*_join(self.starts, self.nodes, self.weights, self.values, communities, n))

    def dense(self) -> Weights:
        """The matrix again."""
        found = np.zeros((len(self), len(self)))
        row = np.repeat(np.arange(len(self)), np.diff(self.starts))
        found[row, self.nodes] = self.values[self.weights] if len(self.values) else self.weights
        return found


def modularity_of_edges(edges: Edges, communities: Ids, resolution: float) -> float:
    """`modularity` of a graph as lists."""
    total = float(edges.degrees.sum())
    if total == 0:
        return 0.0
    joined = edges.joined(communities)
    return float(np.trace(joined.dense()) / total - resolution * np.square(joined.degrees / total).sum())


def cut(edges: Edges, communities: Ids) -> float:
    """Weight of the edges between communities, each edge counted from both of its ends."""
    return float(_cut(edges.starts, edges.nodes, edges.weights, edges.values, communities))


def louvain_of_edges(edges: Edges, resolution: float, rng: np.random.Generator) -> Ids:
    """`louvain` on a graph as lists."""
    found, whole = np.arange(len(edges)), edges
    while len(found):
        moved = local_moving(whole, np.arange(len(whole)), resolution, rng)
        if len(np.unique(moved)) == len(whole):
            break
        found = numbered(moved[found])
        whole = edges.joined(found)
    return numbered(local_moving(edges, found, resolution, rng)) if len(found) else found


def numbered(communities: Ids) -> Ids:
    """The same groups, numbered in the order of their first member."""
    _, first, inverse = np.unique(communities, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(rank[inverse], np.int64)


def local_moving(edges: Edges, start: Ids, resolution: float, rng: np.random.Generator) -> Ids:
    """Local moving: sweeps over all nodes, in one order drawn anew for each, until none moves."""
    found = start.copy()
    if edges.degrees.sum() == 0:
        return found
    sums = np.bincount(found, edges.degrees, minlength=int(found.max()) + 1).astype(np.float64)
    lists = (edges.starts, edges.nodes, edges.weights, edges.values, edges.degrees)
    while _sweep(*lists, found, sums, rng.permutation(len(edges)), resolution):
        pass
    return found


@compiled
def edge_weight(weights: npt.NDArray[Any], values: Weights, edge: int) -> float:
    """Weight of an edge."""
    return values[int(weights[edge])] if len(values) else float(weights[edge])


@compiled
def _cut(starts: Ids, nodes: Numbers, weights: npt.NDArray[Any], values: Weights, communities: Ids) -> float:
    """Sum of the weights between communities."""
    total = 0.0
    for node in range(len(communities)):
        for edge in range(starts[node], starts[node + 1]):
            if communities[nodes[edge]] != communities[node]:
                total += edge_weight(weights, values, edge)
    return total


@compiled
def _join(  # noqa: PLR0917 - the arrays of a compiled loop
    starts: Ids, nodes: Numbers, weights: npt.NDArray[Any], values: Weights, communities: Ids, n: int
) -> tuple[Ids, Numbers, Weights, Weights]:
    """Lists of the edges between communities; weights are added in the order of the nodes and of their edges."""
    ends = np.bincount(communities, minlength=n).cumsum()
    members = np.empty(len(communities), np.int64)
    place = np.zeros(n, np.int64)
    place[1:] = ends[:-1]
    for node in range(len(communities)):
        members[place[communities[node]]] = node
        place[communities[node]] += 1
    out, degrees = np.zeros(n + 1, np.int64), np.zeros(n)
    column, sums = np.empty(len(nodes) // 8 + n, np.int32), np.empty(len(nodes) // 8 + n, np.float64)
    toward, last = np.zeros(n), np.full(n, -1)
    done = first = 0
    for one in range(n):
        begin = done
        for member in members[first : ends[one]]:
            if done + starts[member + 1] - starts[member] > len(column):  # most edges join others: room as it is needed
                more = len(column) // 2 + starts[member + 1] - starts[member]
                column = np.concatenate((column, np.empty(more, np.int32)))
                sums = np.concatenate((sums, np.empty(more, np.float64)))
            for edge in range(starts[member], starts[member + 1]):
                other = communities[nodes[edge]]
                if last[other] != one:
                    last[other], toward[other], column[done] = one, 0.0, other
                    done += 1
                toward[other] += edge_weight(weights, values, edge)
        column[begin:done].sort()
        for entry in range(begin, done):
            sums[entry] = toward[column[entry]]
            degrees[one] += sums[entry]
        out[one + 1], first = done, ends[one]
    return out, column[:done].copy(), sums[:done].copy(), degrees


@compiled
def _sweep(  # noqa: PLR0917 - the arrays of a compiled loop
    starts: Ids,
    neighbours: Numbers,
    edges: npt.NDArray[Any],
    values: Weights,
    degrees: Weights,
    found: Ids,
    sums: Weights,
    order: Ids,
    gamma: float,
) -> int:
    """Move each node to the community that gains most; returns how many moved. Ties: stay, else the first neighbour."""
    total = degrees.sum()
    toward = np.zeros(len(sums))
    moved = 0
    for node in order:
        home = found[node]
        sums[home] -= degrees[node]
        mine = range(starts[node], starts[node + 1])
        for edge in mine:
            if neighbours[edge] != node:
                toward[found[neighbours[edge]]] += edge_weight(edges, values, edge)
        best = home
        most = toward[home] - gamma * degrees[node] * sums[home] / total + _LEAST_GAIN * total
        for edge in mine:
            group = found[neighbours[edge]]
            gain = toward[group] - gamma * degrees[node] * sums[group] / total
            if group != home and gain > most:
                best, most = group, gain
        for edge in mine:
            toward[found[neighbours[edge]]] = 0.0
        sums[best] += degrees[node]
        found[node] = best
        moved += best != home
    return moved
