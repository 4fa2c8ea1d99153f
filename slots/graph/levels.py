"""Groups at every scale: communities of inputs at rising resolution, and what speaks for each number of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from slots.clustering.agreement import adjusted_rand
from slots.clustering.kmeans import blocks, sums_by_owner
from slots.clustering.unit_rows import Unit
from slots.graph.louvain import Edges, local_moving, louvain_of_edges, numbered
from slots.graph.neighbour_graph import part_of
from slots.rounding import full_product
from slots.shapes import Ids

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

_FIRST, _LAST = -7, 17  # powers of two between which resolutions lie: from the connected parts to single inputs
_BETWEEN = (-2 / 3, -1 / 3, 1 / 3, 2 / 3)  # powers tried around the best of the whole ones
_SMALLEST = 5  # mean number of nodes of a group at which the sweep ends; fewer come again by themselves
_KEPT = 0.8  # share of the inputs in a resample
_HOPELESS = 4  # levels in a row with less than half of the best evidence end the sweep
_NODES = 8192  # inputs up to which each is a node; of more, groups of a few inputs are
_TOGETHER = 1 << 24  # edges up to which whole and resamples are cut at once: more take too much memory
_FEW_EDGES = 1 << 15  # edges up to which starting threads takes as long as the work
_JUDGED = 8192  # inputs whose silhouette is computed; the means are those of all
_ROUNDING = 1e-6  # 1 minus the cosine of rows in single precision: below this it is rounding


@dataclass(frozen=True)
class Grouping:
    """One partition of the inputs, and what speaks for it.

    Parameters
    ----------
    groups : int64 array of shape (example,)
        From 0.
    resolution : float
        Of the modularity that it is a local maximum of, > 0.
    silhouette : float
        Mean leave-one-out silhouette, in [-1, 1] (`silhouette`).
    stability : float
        Adjusted Rand index of the groups found in two random four fifths of the inputs, on those in both; at most 1.
    evidence : float
        ``apart * stability * sqrt(entropy)``, the entropy of the groups' sizes in nats; ``apart`` is the silhouette
        beyond what pieces of a cloud without groups have (`slots.graph.dimension.silhouette_without_groups`), as a
        share of what is left to 1.
    """

    groups: Ids
    resolution: float
    silhouette: float
    stability: float
    evidence: float

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max(initial=-1)) + 1


def groupings(
    unit: Unit, edges: Edges, *, without_groups: float = 0.0, at_least: int = 1, seed: int = 0
) -> list[Grouping]:
    """Communities of a graph of inputs, from coarse to fine.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    edges : Edges
        A graph with the inputs as nodes, for example `shared_neighbours`.
    without_groups : float, default 0.0
        Silhouette, in [0, 1), up to which pieces are no evidence of groups.
    at_least : int, default 1
        Number of groups that the sweep goes on to, whatever speaks for them.
    seed : int, default 0
        Of the visiting orders, the resamples and the inputs judged.

    Returns
    -------
    list of Grouping
        At rising resolution; each has two groups or more. Empty where there is one group at every resolution.

    Notes
    -----
    Louvain's method at the resolutions 1/128, 1/64, ... and four more around the best. The evidence is ours: groups
    should be further apart than pieces of one group are (silhouette), come again where a fifth of the data is missing
    (stability), and say much (entropy); a product, so that none makes up for another. Beyond 8,192 inputs the nodes are
    communities of a few inputs each, found at a high resolution, in each resample anew.
    """
    sweep = _Sweep(unit, edges, without_groups, seed)
    found: dict[float, Grouping] = {}
    best, behind = 0.0, 0
    for power in range(_FIRST, _LAST):
        one = sweep.at(2.0**power)
        if one.n_groups > max(at_least, len(sweep.edges) / sweep.smallest, len(unit) ** 0.5):
            break
        found[power] = one
        best = max(best, one.evidence)
        behind = behind + 1 if one.evidence < best / 2 else 0
        if behind >= _HOPELESS and one.n_groups >= at_least:
            break
    if found:
        centre = max(found, key=lambda it: found[it].evidence)
        found |= {centre + step: sweep.at(2.0 ** (centre + step)) for step in _BETWEEN}
    return [found[power] for power in sorted(found) if found[power].n_groups > 1]


def peaks(found: Sequence[Grouping]) -> list[Grouping]:
    """Levels of which none with a number of groups within a factor of two has more evidence, from coarse to fine.

    Parameters
    ----------
    found : sequence of Grouping
        In any order.

    Returns
    -------
    list of Grouping
        One for each number of groups; the one with the most evidence of all is among them.
    """
    kept: dict[int, Grouping] = {}
    for one in found:
        near = [it.evidence for it in found if one.n_groups / 2 <= it.n_groups <= 2 * one.n_groups]
        if one.evidence > 0 and one.evidence >= max(near):
            kept.setdefault(one.n_groups, one)
    return [kept[n] for n in sorted(kept)]


def polished(edges: Edges, one: Grouping, *, seed: int = 0) -> Grouping:
    """The same after single inputs moved to where their own neighbours are."""
    rng = np.random.default_rng(seed)
    return replace(one, groups=numbered(local_moving(edges, one.groups, one.resolution, rng)))


def silhouette(unit: Unit, groups: Ids, judged: Ids | None = None) -> float:
    """Mean leave-one-out silhouette of groups of unit rows.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    groups : int64 array of shape (example,)
        From 0.
    judged : int64 array of shape (row,), optional
        Rows that the mean is taken over. Default: all.

    Returns
    -------
    float
        Mean of ``(b - a) / max(a, b)``, in [-1, 1]: ``a`` is 1 minus the cosine of a row to the mean of its group's
        other rows, ``b`` the same to the nearest mean of another group; 0 for a row alone, and near 0 where both are
        what rounding makes of the same direction. 0 where there is one group.

    Notes
    -----
    Rousseeuw 1987, with means in place of pairs; that a row takes no part in its own mean keeps small groups honest.
    """
    owners = torch.from_numpy(groups).to(unit.device)
    n = int(groups.max(initial=-1)) + 1
    if n < 2:
        return 0.0
    sums = sums_by_owner(unit, owners, n)
    sizes, norms = torch.bincount(owners, minlength=n), sums.norm(dim=1)
    rows = torch.arange(len(unit)) if judged is None else torch.from_numpy(judged)
    total = 0.0
    for some in blocks(len(rows), max(sums.shape)):
        chosen = rows[some].to(unit.device)
        mine, raw = owners[chosen], full_product(unit[chosen], sums.T)
        own = raw.gather(1, mine[:, None])[:, 0]
        others = (norms[mine].square() - 2 * own + 1).clamp_min(1e-12).sqrt()  # length of the sum without the row
        near = (raw / norms.clamp_min(1e-12)).scatter(1, mine[:, None], -1.0).max(1).values
        a, b = (1 - (own - 1) / others).clamp_min(0), (1 - near).clamp_min(0)
        scores = (b - a) / torch.maximum(a, b).clamp_min(_ROUNDING)
        total += float(scores.masked_fill(sizes[mine] == 1, 0.0).double().sum())
    return total / max(1, len(rows))


class _Sweep:
    """What is the same at every resolution: the nodes of the whole and of the two resamples, the inputs judged."""

    def __init__(self, unit: Unit, edges: Edges, without_groups: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.unit, self.without_groups, self.seed = unit, without_groups, seed
        n, many = len(edges), len(edges) > _NODES
        self.smallest = 2 * _SMALLEST if many else _SMALLEST
        self.kept = [np.sort(rng.permutation(n)[: max(1, int(_KEPT * n))]) for _ in range(2)]
        self.judged = np.sort(rng.permutation(n)[:_JUDGED])

        def nodes(kept: Ids | None) -> tuple[Edges, Ids]:
            return _nodes(edges if kept is None else part_of(edges, kept), seed, many=many)

        at_once = 3 if len(edges.nodes) <= _TOGETHER else 1
        (self.edges, self.of_input), *self.samples = _mapped(nodes, (None, *self.kept), edges, at_once)

    def at(self, resolution: float) -> Grouping:
        """The communities, with their evidence."""
        graphs = self.edges, *(sample for sample, _ in self.samples)
        find = partial(self._communities, resolution=resolution)
        whole, *parts = _mapped(find, graphs, self.edges, len(graphs))
        groups = whole[self.of_input]
        shares = np.bincount(groups) / len(groups)
        entropy = -float((shares * np.log(shares)).sum())
        found, stable = silhouette(self.unit, groups, self.judged), self._stability(parts)
        apart = max(0.0, (found - self.without_groups) / (1 - self.without_groups))
        return Grouping(groups, resolution, found, stable, apart * max(0.0, stable) * entropy**0.5)

    def _communities(self, edges: Edges, resolution: float) -> Ids:
        return louvain_of_edges(edges, resolution, np.random.default_rng(self.seed))

    def _stability(self, parts: Sequence[Ids]) -> float:
        found = np.full((2, len(self.unit)), -1)
        for i, (kept, (_, of_input), groups) in enumerate(zip(self.kept, self.samples, parts, strict=True)):
            found[i, kept] = groups[of_input]
        both = (found >= 0).all(0)
        return adjusted_rand(found[0, both], found[1, both])


def _mapped(work: Callable[[_Given], _Made], given: Sequence[_Given], edges: Edges, at_once: int) -> list[_Made]:
    """What some work makes of each, in threads where the graph is large: compiled loops let go of the interpreter."""
    if at_once == 1 or len(edges.nodes) <= _FEW_EDGES:
        return [work(it) for it in given]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(work, given))


def _nodes(edges: Edges, seed: int, *, many: bool) -> tuple[Edges, Ids]:
    """The graph that is cut, and the node of each input: of many inputs, small groups found anew in every resample."""
    if not many:
        return edges, np.arange(len(edges))
    of_input = _small_groups(edges, seed)
    return edges.joined(of_input), of_input


def _small_groups(edges: Edges, seed: int) -> Ids:
    """Communities of a few inputs each, at the first of some high resolutions that gives so many."""
    resolution, found = 64.0, np.zeros(len(edges), np.int64)
    while found.max(initial=0) + 1 < min(_NODES, len(edges) // _SMALLEST) and resolution < 2.0**_LAST:
        resolution *= 2
        found = louvain_of_edges(edges, resolution, np.random.default_rng(seed))
    return found
