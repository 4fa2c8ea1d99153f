"""Communities of a weighted graph by modularity: which slots belong together, and into how many groups they fall."""

from __future__ import annotations

import numpy as np

from slots.errors import DataError, UsageError
from slots.graph.louvain import Edges, Weights, louvain_of_edges, modularity_of_edges, numbered
from slots.shapes import Ids

RESOLUTIONS = (0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0)
"""From half the resolution of the modularity to twice that, in about equal ratios."""

_STEPS = 60  # resolutions tried until there are enough communities; the last is 1.2 ** 60


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
        Of the visiting orders; the ``i``-th run at each resolution takes ``seed + i``.

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
    the one is taken whose mean `weighted_nmi` with all of them is largest, the first of equals (ours).
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
    edges = Edges.of(weights)
    tried = [(resolution, np.random.default_rng(seed + run)) for resolution in resolutions for run in range(runs)]
    found = [louvain_of_edges(edges, resolution, rng) for resolution, rng in tried]
    agreed = np.array([sum(weighted_nmi(one, other, sizes) for other in found) for one in found])
    if k is not None:
        right = [int(one.max()) + 1 == min(k, len(weights)) for one in found]
        if not any(right):
            return _agglomerate(edges, _at_least(edges, min(k, len(weights)), runs, seed), k)
        agreed[~np.array(right)] = -1
    return found[int(np.argmax(np.round(agreed, 9)))]


def weighted_nmi(one: Ids, other: Ids, sizes: Weights) -> float:
    """Normalised mutual information of two partitions of weighted slots, in [0, 1].

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


def _at_least(edges: Edges, k: int, runs: int, seed: int) -> Ids:
    """The run with the largest modularity, at the lowest resolution tried that gives so many communities."""
    for step in range(_STEPS):
        resolution = 1.2**step
        found = [louvain_of_edges(edges, resolution, np.random.default_rng(seed + run)) for run in range(runs)]
        best = found[int(np.argmax([modularity_of_edges(edges, it, resolution) for it in found]))]
        if best.max(initial=-1) + 1 >= k:
            return best
    return np.arange(len(edges))


def _agglomerate(edges: Edges, found: Ids, k: int) -> Ids:
    """Agglomeration: merge the pair that costs least modularity until k communities are left."""
    total = float(edges.degrees.sum()) or 1.0
    while (n := int(found.max(initial=-1)) + 1) > k:
        joined = edges.joined(found)
        gain = joined.dense() / total - np.outer(joined.degrees, joined.degrees) / total**2
        gain[np.tril_indices(n)] = -np.inf
        first, second = np.unravel_index(int(gain.argmax()), gain.shape)
        found = numbered(np.where(found == second, first, found))
    return found
