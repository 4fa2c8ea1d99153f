"""Groups of inputs before they become slots: the graph, the level for which most speaks, and round groups refined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from slots.clustering.kmeans import nearest_slots, sums_by_owner
from slots.clustering.neighbours import nearest_rows
from slots.clustering.unit_rows import Unit
from slots.graph.config import GraphConfig
from slots.graph.dimension import intrinsic_dimension, silhouette_without_groups
from slots.graph.levels import Grouping, groupings, peaks, polished
from slots.graph.louvain import Edges, cut, numbered
from slots.graph.neighbour_graph import shared_neighbours
from slots.head.similarities import normalize
from slots.progress import Progress, part
from slots.shapes import Ids, SlotVectors

_ROUND = 4 / 3  # how many times the weight between communities may lie between the groups of their means
_ITERATIONS = 20

Worth = Callable[[Grouping], float]


@dataclass(frozen=True)
class FoundGroups:
    """Groups of unit rows.

    Parameters
    ----------
    chosen : Grouping
        The level that is answered with.
    levels : tuple of Grouping
        The peaks of the evidence in all graphs, and the chosen one, from coarse to fine.
    round : bool
        Whether spherical k-means from the groups' means cuts hardly more of the graph than the communities did; then
        the groups are those.
    """

    chosen: Grouping
    levels: tuple[Grouping, ...]
    round: bool


def find_groups(
    unit: Unit, config: GraphConfig, progress: Progress, *, n_groups: int | None = None, worth: Worth | None = None
) -> FoundGroups:
    """The level for which most speaks, in the graph of whichever number of neighbours has it; one if nothing does.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    config : GraphConfig
        Its ``n_neighbours`` and ``seed``.
    progress : callable
        ``progress(step, share)``.
    n_groups : int, optional
        Levels of so many groups are preferred to all others, if there are any.
    worth : callable, optional
        What speaks for a level. Default: its evidence.

    Returns
    -------
    FoundGroups
    """
    judge = worth or (lambda it: it.evidence)
    most = max(2, len(unit) // 10)
    counts = sorted({min(count, most) for count in config.n_neighbours})
    near = nearest_rows(unit, counts[-1], part(progress, 0.0, 0.5))
    without_groups = silhouette_without_groups(intrinsic_dimension(unit, near))
    found, every = list[tuple[bool, float, Grouping, Edges]](), list[Grouping]()
    for place, count in enumerate(counts):
        progress("communities", 0.5 + 0.4 * place / len(counts))
        edges = shared_neighbours(near, count)
        tried = groupings(unit, edges, without_groups=without_groups, at_least=n_groups or 1, seed=config.seed)
        every += tried
        exact = [it for it in tried if it.n_groups == n_groups]
        if n_groups is None and worth is None:
            tried = [it for it in tried if it.evidence > 0]
        if tried:
            best = max(exact or tried, key=judge)
            best = polished(edges, best, seed=config.seed)
            found.append((bool(exact), judge(best), best, edges))
            found = [max(found, key=lambda it: it[:2])]  # the graph of the others is not needed again
    if not found:
        one = Grouping(np.zeros(len(unit), np.int64), 1.0, 0.0, 1.0, 0.0)
        return FoundGroups(one, (one,), round=False)
    *_, best, edges = found[0]
    rounder = spherical_groups(unit, best.groups)
    is_round = cut(edges, rounder) <= _ROUND * cut(edges, best.groups)
    levels = peaks(every)
    if all((it.resolution, it.evidence) != (best.resolution, best.evidence) for it in levels):
        levels = sorted([*levels, best], key=lambda it: it.n_groups)  # a number that was told need be no peak
    return FoundGroups(replace(best, groups=rounder) if is_round else best, tuple(levels), is_round)


def spherical_groups(unit: Unit, groups: Ids, fixed: Ids | None = None) -> Ids:
    """Spherical k-means from the means of groups on.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    groups : int64 array of shape (example,)
        From 0.
    fixed : int64 array of shape (example,), optional
        Group that a row stays in; -1 where it may move. Groups then keep their numbers.

    Returns
    -------
    int64 array of shape (example,)
        A group that loses all its rows is gone, and the others are numbered anew, unless rows are fixed.
    """
    stays = np.full(len(groups), -1) if fixed is None else fixed
    for _ in range(_ITERATIONS):
        near = nearest_slots(unit, means(unit, groups), 1)[1][:, 0].cpu().numpy()
        moved = np.where(stays >= 0, stays, near)
        moved = numbered(moved) if fixed is None else moved
        if np.array_equal(moved, groups):
            break
        groups = moved
    return groups


def means(unit: Unit, groups: Ids) -> SlotVectors:
    """Directions of the means of groups of unit rows, in the order of their numbers."""
    owners = torch.from_numpy(groups).to(unit.device)
    return normalize(sums_by_owner(unit, owners, int(groups.max()) + 1))
