"""Learning a slot graph: many small slots, bridges where inputs lie between two, communities, and no labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slots.clustering.kmeans import by_size, nearest_slots
from slots.deprecation import renamed
from slots.graph.bridges import BridgedSlots, bridged_slots
from slots.graph.communities import find_communities
from slots.graph.config import GraphConfig
from slots.graph.louvain import modularity
from slots.graph.slot_graph import SlotGraph, place
from slots.head.similarities import normalize
from slots.head.thresholds import support_thresholds
from slots.progress import Progress, silent
from slots.shapes import FeatureRows, Features

_OUTSIDE = 0.05  # share of a slot's own inputs that lie outside its reach
_OWNED = 10  # inputs from which a slot's own reach is trusted


@renamed(report="progress")
@torch.no_grad()
def learn_graph(
    features: FeatureRows, config: GraphConfig | None = None, *, progress: Progress | None = None
) -> SlotGraph:
    """Cluster inputs without labels by the communities of a graph of slots, whose number need not be told.

    Parameters
    ----------
    features : float array or tensor of shape (example, feature)
        Only their directions count.
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
    (1) Spherical k-means places many small slots. (2) Each input adds a bridge of weight ``(a1 / a2) ** sharpness``
    between its two nearest slots, which lie at angles ``a1 <= a2``: 1 half way, 0 on a slot; so a slot that owns a
    single outlier has no bridges. With weight 1 this is the competitive Hebbian rule of topology representing networks
    (Martinetz and Schulten 1994), with counts. (3) Communities on which runs at many resolutions agree
    (`find_communities`). (4) Those that own too little are dissolved. (5) An input belongs to the community with the
    largest SoftMaxPool over its slots' cosines, as in the head. The rest is ours.

    Examples
    --------
    >>> x = torch.cat([torch.randn(400, 2) * 0.1 + torch.tensor(m) for m in ([3.0, 0], [0, 3.0], [-3.0, 0])])
    >>> learn_graph(x, GraphConfig(n_communities=3)).n_communities
    3
    """
    config = config or GraphConfig()
    progress = progress or silent
    features = torch.as_tensor(features)
    base = bridged_slots(features, config, progress)
    chosen: dict[str, Any] = {"runs": config.runs, "seed": config.seed}
    communities = find_communities(base.bridges, base.sizes, resolutions=config.resolutions, **chosen)
    kept = _large(communities, base.sizes, config.min_size)
    base, communities = base.only(kept), communities[kept]
    if config.n_communities is not None:
        communities = find_communities(base.bridges, base.sizes, k=config.n_communities, **chosen)
    progress("communities", 0.95)
    return finish_graph(features, base, by_size(communities, base.sizes), config)


@torch.no_grad()
def regroup(graph: SlotGraph, features: FeatureRows, n_communities: int, *, seed: int = 0) -> SlotGraph:
    """The same slots and bridges in another number of communities.

    Parameters
    ----------
    graph : SlotGraph
        Its slots and bridges stay.
    features : float array or tensor of shape (example, feature)
        What it was learned from.
    n_communities : int
        >= 1; fewer only where there are fewer slots.
    seed : int, default 0
        Of the visiting orders.

    Returns
    -------
    SlotGraph
    """
    owned = graph.wins.double().cpu().numpy()
    found = by_size(find_communities(graph.bridges, owned, k=n_communities, seed=seed), owned)
    of_slot = torch.from_numpy(found).to(graph.weights.device)
    placement = place(
        normalize(torch.as_tensor(features).float()), graph.weights, of_slot, graph.thresholds, beta=graph.beta
    )
    return replace(graph, communities=of_slot, placement=placement, modularity=modularity(graph.bridges, found))


def _large(communities: npt.NDArray[np.int64], sizes: npt.NDArray[np.float64], min_size: int) -> npt.NDArray[np.int64]:
    """Slots of the communities that own enough; all where none does."""
    enough = np.bincount(communities, sizes) >= min_size
    return np.flatnonzero(enough[communities]) if enough.any() else np.arange(len(communities))


def finish_graph(
    features: Features, base: BridgedSlots, communities: npt.NDArray[np.int64], config: GraphConfig
) -> SlotGraph:
    """The last step: what each slot owns and how far it reaches, and the assignment of all inputs."""
    weights = base.weights
    stays = torch.from_numpy(base.owners >= 0).to(weights.device)  # an outlier must not widen the slot it falls to
    cosines, owners = (it[:, 0] for it in nearest_slots(base.unit[stays], weights, 1))
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
        placement=place(normalize(torch.as_tensor(features).float()), weights, of_slot, thresholds, beta=config.beta),
        modularity=modularity(base.bridges, communities),
        dissolved=base.dissolved,
        beta=config.beta,
    )
