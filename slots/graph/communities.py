"""Communities of a weighted graph by modularity: which slots belong together, and into how many groups they fall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slots.cover.kernels import compiled
from slots.errors import DataError, UsageError

Weights = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

RESOLUTIONS = (0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0)
"""From half the resolution of the modularity to twice that, in about equal ratios."""

_LEAST_GAIN = 1e-12  # of the total weight; less is rounding, and moving for it might never end
_STEPS = 60  # resolutions tried until there are enough communities; the last is 1.2 ** 60


def modularity(weights: Weights, communities: Ids, *, resolution: float = 1.0) -> float:
    """How much more weight lies within communities than chance would put there.

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
    return _quality(_Edges.of(weights), communities, resolution)


def louvain(weights: Weights, *, resolution: float = 1.0, seed: int = 0) -> Ids:
    """One local maximum of the modularity.

    Parameters
    ----------
    weights : float64 array of shape (slot, slot)
        Symmetric, >= 0.
    resolution : float, default 1.0
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
    return _climbed(_Edges.of(weights), resolution, np.random.default_rng(seed))


def find_communities(
    weights: Weights,
    sizes: Weights,
    *,
    k: int | None = None,
    resolutions: tuple[float, ...] = RESOLUTIONS,
    runs: int = 4,
    seed: int = 0,
) -> Ids:
    """The communities that runs at many resolutions agree on; or as many as are asked for.

    Parameters
    ----------
    weights : float64 array of shape (slot, slot)
        Symmetric, >= 0, finite.
    sizes : float64 array of shape (slot,)
        What each slot counts when partitions are compared, >= 0, for example the inputs that it owns.
    k : int, optional
        Wanted number, >= 1; default: as many as most agree on. If no run gives so many, the largest modularity at
        rising resolution gives at least ``k``, and the pair whose merger costs least becomes one until ``k`` are left.
        Fewer only where the graph has fewer slots.
    resolutions : tuple of float
        Each > 0.
    runs : int, default 4
        Visiting orders tried at each resolution, >= 1.
    seed : int, default 0

    Returns
    -------
    int64 array of shape (slot,)
        Communities, numbered from 0 in the order of their first slot.

    Raises
    ------
    DataError
        If the weights are no symmetric matrix of finite numbers >= 0.
    UsageError
        If a number is out of its range.

    Notes
    -----
    One resolution asks for one size of community; what is found at many of them is no work of the choice. Of all runs
    the one is taken whose mean `agreement` with all of them is largest, the first of equals (ours).
    """
    weights = np.asarray(weights, np.float64)
    square = weights.ndim == 2 and weights.shape[0] == weights.shape[1]
    if not square or not np.isfinite(weights).all() or (weights < 0).any() or not np.array_equal(weights, weights.T):
        raise DataError(
            f"`weights` must be a symmetric matrix of finite numbers >= 0, got shape {weights.shape}. "
            "Add its transpose to it."
        )
    if not resolutions or min(resolutions) <= 0:
        raise UsageError(f"`resolutions` must be numbers > 0, got {resolutions}. 1 is the modularity.")
    if runs < 1 or (k is not None and k < 1):
        raise UsageError(f"`runs` and `k` must be >= 1, got {runs} and {k}. Leave them out.")
    if len(weights) == 0:
        return np.zeros(0, np.int64)
    edges = _Edges.of(weights)
    found = [_climbed(edges, it, np.random.default_rng(seed + run)) for it in resolutions for run in range(runs)]
    agreed = np.array([sum(agreement(one, other, sizes) for other in found) for one in found])
    if k is not None:
        right = [int(one.max()) + 1 == min(k, len(weights)) for one in found]
        if not any(right):
            return _merged(edges, _at_least(edges, min(k, len(weights)), runs, seed), k)
        agreed[~np.array(right)] = -1
    return found[int(np.argmax(np.round(agreed, 9)))]


def agreement(one: Ids, other: Ids, sizes: Weights) -> float:
    """Normalised mutual information of two partitions, in [0, 1].

    Parameters
    ----------
    one, other : int64 arrays of shape (slot,)
        Numbers >= 0.
    sizes : float64 array of shape (slot,)
        What each slot counts; their sum is > 0.

    Returns
    -------
    float
        ``2 I(one; other) / (H(one) + H(other))``; 1 where both are one community.
    """
    shares = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(shares, (one, other), sizes / sizes.sum())
    apart = _entropy(shares.sum(1)) + _entropy(shares.sum(0))
    return 1.0 if apart == 0 else 2 * (1 - _entropy(shares.ravel()) / apart)


def _entropy(shares: Weights) -> float:
    """In nats; rounding below 0 is cut."""
    known = shares[shares > 0]
    return max(0.0, -float((known * np.log(known)).sum()))


@dataclass(frozen=True)
class _Edges:
    """A graph as lists: node ``i`` has the neighbours ``nodes[starts[i]:starts[i + 1]]`` and so many ``weights``."""

    starts: Ids
    nodes: Ids
    weights: Weights
    degrees: Weights

    @staticmethod
    def of(weights: Weights) -> _Edges:
        row, column = np.nonzero(weights)
        return _Edges._listed(row, column, np.asarray(weights, np.float64)[row, column], len(weights))

    @staticmethod
    def _listed(row: Ids, column: Ids, weights: Weights, n: int) -> _Edges:
        starts = np.concatenate([[0], np.bincount(row, minlength=n).cumsum()])
        return _Edges(starts, column, weights, np.bincount(row, weights, minlength=n).astype(np.float64))

    def __len__(self) -> int:
        return len(self.degrees)

    def joined(self, communities: Ids) -> _Edges:
        """Communities as nodes; what lies within one is an edge to itself."""
        n = int(communities.max(initial=-1)) + 1
        row = communities[np.repeat(np.arange(len(self)), np.diff(self.starts))]
        pairs, place = np.unique(row * n + communities[self.nodes], return_inverse=True)
        weights = np.bincount(place, self.weights, minlength=len(pairs)).astype(np.float64)
        return _Edges._listed(pairs // n, pairs % n, weights, n)

    def dense(self) -> Weights:
        """The matrix again."""
        found = np.zeros((len(self), len(self)))
        found[np.repeat(np.arange(len(self)), np.diff(self.starts)), self.nodes] = self.weights
        return found


def _quality(edges: _Edges, communities: Ids, resolution: float) -> float:
    """`modularity`."""
    total = float(edges.degrees.sum())
    if total == 0:
        return 0.0
    joined = edges.joined(communities)
    return float(np.trace(joined.dense()) / total - resolution * np.square(joined.degrees / total).sum())


def _climbed(edges: _Edges, resolution: float, rng: np.random.Generator) -> Ids:
    """`louvain`."""
    found = np.arange(len(edges))
    while len(found):
        found = _numbered(found)
        whole = edges.joined(found)
        moved = _moved(whole, np.arange(len(whole)), resolution, rng)
        if len(np.unique(moved)) == len(whole):
            break
        found = moved[found]
    return _numbered(_moved(edges, found, resolution, rng)) if len(found) else found


def _at_least(edges: _Edges, k: int, runs: int, seed: int) -> Ids:
    """The run with the largest modularity, at the lowest resolution tried that gives so many communities."""
    for step in range(_STEPS):
        resolution = 1.2**step
        found = [_climbed(edges, resolution, np.random.default_rng(seed + run)) for run in range(runs)]
        best = found[int(np.argmax([_quality(edges, it, resolution) for it in found]))]
        if best.max(initial=-1) + 1 >= k:
            return best
    return np.arange(len(edges))


def _merged(edges: _Edges, found: Ids, k: int) -> Ids:
    """Merge the pair that costs least modularity until k communities are left."""
    total = float(edges.degrees.sum()) or 1.0
    while (n := int(found.max(initial=-1)) + 1) > k:
        joined = edges.joined(found)
        gain = joined.dense() / total - np.outer(joined.degrees, joined.degrees) / total**2
        gain[np.tril_indices(n)] = -np.inf
        first, second = np.unravel_index(int(gain.argmax()), gain.shape)
        found = _numbered(np.where(found == second, first, found))
    return found


def _numbered(communities: Ids) -> Ids:
    """The same groups, numbered in the order of their first member."""
    _, first, inverse = np.unique(communities, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(rank[inverse], np.int64)


def _moved(edges: _Edges, start: Ids, resolution: float, rng: np.random.Generator) -> Ids:
    """Sweeps over all nodes, in one order drawn anew for each, until none moves."""
    found = start.copy()
    if edges.degrees.sum() == 0:
        return found
    sums = np.bincount(found, edges.degrees, minlength=int(found.max()) + 1).astype(np.float64)
    lists = (edges.starts, edges.nodes, edges.weights, edges.degrees)
    while _sweep(*lists, found, sums, rng.permutation(len(edges)), resolution):
        pass
    return found


@compiled
def _sweep(  # noqa: PLR0917 - the arrays of a compiled loop
    starts: Ids, neighbours: Ids, edges: Weights, degrees: Weights, found: Ids, sums: Weights, order: Ids, gamma: float
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
                toward[found[neighbours[edge]]] += edges[edge]
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
