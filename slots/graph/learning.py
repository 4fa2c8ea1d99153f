"""Learning a slot graph: many small slots, bridges where inputs lie between two, communities, and no labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from slots.clustering.kmeans import by_size, nearest_slots
from slots.clustering.unit_rows import ManyRows, StoredRows, stored_or_here, taken
from slots.deprecation import renamed
from slots.errors import UsageError
from slots.graph.bridges import BridgedSlots, bridged_slots, unit_rows
from slots.graph.communities import find_communities
from slots.graph.config import GraphConfig
from slots.graph.groups import FoundGroups, find_groups
from slots.graph.louvain import modularity, numbered
from slots.graph.slot_graph import GraphLevel, SlotGraph, directions_of, place
from slots.head.thresholds import support_thresholds
from slots.progress import Progress, part, silent
from slots.shapes import Features, Ids

_OUTSIDE = 0.05  # share of a slot's own inputs that lie outside its reach
_TOLD = 0.9  # share of a level's groups that slots must tell apart
_OWNED = 10  # inputs from which a slot's own reach is trusted


@renamed(report="progress")
@torch.no_grad()
def learn_graph(
    features: ManyRows, config: GraphConfig | None = None, *, progress: Progress | None = None
) -> SlotGraph:
    """Cluster inputs without labels by the communities of a graph of slots, whose number need not be told.

    Parameters
    ----------
    features : float array or tensor of shape (example, feature), or a list of such
        Only their directions count. Mapped files (``np.load(file, mmap_mode="r")``), and several arrays one after the
        other, are read block by block and never held whole ([how](../bulk.md#groups-of-rows-on-the-disk)).
    config : GraphConfig, optional
        Default: `GraphConfig` as it stands.
    progress : callable, optional
        ``progress(step, share)``: told what is being done, and how much of it is done (0 to 1).

    Returns
    -------
    SlotGraph
        The same for the same inputs, config and number of threads.

    Raises
    ------
    DataError
        If ``features`` is not a finite float matrix, or has no row but zeros.

    Notes
    -----
    (1) Inputs are linked with their nearest 15, and with their nearest 30 (`shared_neighbours`); of more than
    ``config.most_linked`` an even sample is. (2) Communities of both graphs at many resolutions; the one is taken for
    which most speaks (`slots.graph.levels`). Where its groups are round, so that spherical k-means from their means
    cuts hardly more links, that is kept, and each group is one slot. (3) Otherwise spherical k-means places small slots
    in each group. (4) Each input adds a bridge of weight ``(a1 / a2) ** sharpness`` between its two nearest slots,
    which lie at angles ``a1 <= a2``: 1 half way, 0 on a slot.
    With weight 1 this is the competitive Hebbian rule of topology representing networks (Martinetz and Schulten 1994),
    with counts. (5) Groups that are too small are dissolved. (6) An input belongs to the community with the largest
    SoftMaxPool over its slots' cosines, as in the head. Steps 4 to 6 are of all inputs. The rest is ours.

    Examples
    --------
    >>> x = torch.cat([torch.randn(400, 2) * 0.1 + torch.tensor(m) for m in ([3.0, 0], [0, 3.0], [-3.0, 0])])
    >>> learn_graph(x, GraphConfig(n_communities=3)).n_communities
    3
    """
    config = config or GraphConfig()
    progress = progress or silent
    given = stored_or_here(features)
    usable, unit = unit_rows(given)
    linked = _linked(len(unit), config)
    among = unit if linked is None else taken(unit, torch.from_numpy(linked).to(unit.device))
    found = find_groups(among, config, part(progress, 0.0, 0.7), n_groups=config.n_communities)
    groups = found.chosen.groups
    as_told = found.chosen.n_groups == config.n_communities and np.bincount(groups).min() >= config.min_size
    single = found.round and (config.n_communities is None or as_told)
    base, of_slot = bridged_slots(usable, unit, groups, config, part(progress, 0.7, 1.0), single=single, linked=linked)
    sizes = np.bincount(groups) if linked is None else np.bincount(of_slot, base.sizes)
    kept = _large(of_slot, sizes, config.min_size)
    base, of_slot = base.only(kept), of_slot[kept]
    if config.n_communities not in {None, int(numbered(of_slot).max()) + 1}:
        chosen: dict[str, Any] = {"runs": config.runs, "seed": config.seed, "resolutions": config.resolutions}
        of_slot = find_communities(base.bridges, base.sizes, k=config.n_communities, **chosen)
    progress("assignment", 0.97)
    graph = finish_graph(given, base, by_size(of_slot, base.sizes), config)
    return replace(graph, levels=_levels(base, found, linked))


@torch.no_grad()
def at_level(graph: SlotGraph, features: ManyRows, level: int) -> SlotGraph:
    """The same slots and bridges, answering at another level of the hierarchy.

    Parameters
    ----------
    graph : SlotGraph
        From `learn_graph`.
    features : float array or tensor of shape (example, feature)
        What it was learned from.
    level : int
        Index into ``graph.levels``; 0 is the coarsest, -1 the finest.

    Returns
    -------
    SlotGraph

    Raises
    ------
    UsageError
        If there is no such level.
    """
    if not -len(graph.levels) <= level < len(graph.levels):
        raise UsageError(f"`level` must lie in [0, {len(graph.levels)}), got {level}. See `graph.levels`.")
    return _regrouped(graph, features, graph.levels[level].communities)


@torch.no_grad()
def regroup(graph: SlotGraph, features: ManyRows, n_communities: int, *, seed: int = 0) -> SlotGraph:
    """The same slots and bridges in another number of communities.

    Parameters
    ----------
    graph : SlotGraph
        Its slots and bridges stay.
    features : float array or tensor of shape (example, feature)
        What it was learned from.
    n_communities : int
        >= 1; fewer only where there are fewer slots. A level with so many is taken, if there is one.
    seed : int, default 0
        Of the visiting orders.

    Returns
    -------
    SlotGraph
    """
    if n_communities == graph.n_communities:
        return graph
    for level in graph.levels:
        if level.n_communities == n_communities:
            return _regrouped(graph, features, level.communities)
    owned = graph.wins.double().cpu().numpy()
    found = by_size(find_communities(graph.bridges, owned, k=n_communities, seed=seed), owned)
    return _regrouped(graph, features, found)


def _regrouped(graph: SlotGraph, features: ManyRows, found: npt.NDArray[np.int64]) -> SlotGraph:
    """The same slots in other communities."""
    of_slot = torch.from_numpy(found).to(graph.weights.device)
    unit = directions_of(stored_or_here(features), graph.weights.device)
    placement = place(unit, graph.weights, of_slot, graph.thresholds, beta=graph.beta)
    return replace(graph, communities=of_slot, placement=placement, modularity=modularity(graph.bridges, found))


def _linked(n: int, config: GraphConfig) -> Ids | None:
    """An even sample of the inputs where they are too many to be linked."""
    if n <= config.most_linked:
        return None
    return np.sort(np.random.default_rng(config.seed).choice(n, config.most_linked, replace=False, shuffle=False))


def _levels(base: BridgedSlots, found: FoundGroups, linked: Ids | None) -> tuple[GraphLevel, ...]:
    """Each slot in the group that most of its linked inputs have at that level; the chosen level as it was refined."""
    owners = base.owners if linked is None else base.owners[linked]
    levels = []
    for one in found.levels:
        same = one.resolution == found.chosen.resolution and one.evidence == found.chosen.evidence
        groups = found.chosen.groups if same else one.groups
        votes = sp.coo_array((np.ones(len(groups)), (owners + 1, groups)), (len(base.sizes) + 1, groups.max() + 1))
        of_slot = votes.tocsr()[1:].argmax(1)
        communities = by_size(np.asarray(of_slot).ravel(), base.sizes)
        if communities.max() + 1 < _TOLD * one.n_groups:
            continue  # finer than the slots are
        levels.append(GraphLevel(communities, one.silhouette, one.stability, one.evidence))
    return tuple(levels)


def _large(of_slot: Ids, sizes: npt.NDArray[Any], min_size: int) -> Ids:
    """Slots of the groups that hold enough inputs; all where none does."""
    enough = sizes >= min_size
    return np.flatnonzero(enough[of_slot]) if enough.any() else np.arange(len(of_slot))


def finish_graph(
    features: Features | StoredRows, base: BridgedSlots, communities: npt.NDArray[np.int64], config: GraphConfig
) -> SlotGraph:
    """The last step: what each slot owns and how far it reaches, and the assignment of all inputs."""
    weights = base.weights
    stays = torch.from_numpy(np.flatnonzero(base.owners >= 0)).to(weights.device)
    unit = taken(base.unit, stays)  # an outlier must not widen the slot it falls to
    cosines, owners = (it[:, 0] for it in nearest_slots(unit, weights, 1))
    wins = torch.bincount(owners, minlength=len(weights))
    exemplars = torch.full((len(weights),), -1, dtype=torch.long, device=weights.device)
    order = cosines.argsort(stable=True)
    for_slot = owners[order].argsort(stable=True)  # by slot, the nearest last
    ends = wins.cumsum(0)[wins > 0] - 1
    exemplars[wins > 0] = base.part[stays][order[for_slot[ends]]]
    thresholds = support_thresholds(cosines, owners, len(weights), quantile=_OUTSIDE)
    owns_enough = wins >= min(_OWNED, int(wins.max()))
    usual = thresholds[owns_enough].median()  # a slot that owns little knows little of its reach
    thresholds = torch.where(wins > 0, torch.minimum(thresholds, usual), thresholds)
    of_slot = torch.from_numpy(communities).to(weights.device)
    return SlotGraph(
        weights=weights,
        thresholds=thresholds,
        wins=wins,
        exemplars=exemplars,
        bridges=base.bridges,
        communities=of_slot,
        placement=place(directions_of(features, weights.device), weights, of_slot, thresholds, beta=config.beta),
        modularity=modularity(base.bridges, communities),
        dissolved=base.dissolved,
        beta=config.beta,
    )
