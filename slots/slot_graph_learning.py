"""Learning a slot graph: many small slots, bridges where inputs lie between two, communities, and no labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.errors import DataError, UsageError
from slots.matching import normalize, support_thresholds
from slots.shapes import Features, SlotVectors
from slots.slot_graph import SlotGraph, place
from slots.slot_graph_communities import RESOLUTIONS, find_communities, modularity
from slots.slot_graph_means import nearest, spherical_means

_MOST_SLOTS = 1500  # so that a pass over 60,000 images stays near a second or two on one core
_OUTSIDE = 0.05  # share of a slot's own inputs that lie outside its reach
_OWNED = 10  # inputs from which a slot's own reach is trusted
_FEW = 1e-3  # radians: nearer than this an input lies on its slot, and rounding decides the angle


@dataclass(frozen=True)
class GraphConfig:
    """How a slot graph is learned.

    Parameters
    ----------
    n_slots : int, optional
        Slots to learn, >= 1. Default: six times the square root of the number of inputs, at most 1,500 and at most a
        quarter of the inputs.
    n_communities : int, optional
        Wanted number, >= 1. Default: the number with the largest modularity.
    min_size : int, default 20
        Communities that own fewer inputs are dissolved, >= 1: they are outliers. If all are as small, all stay.
    resolutions : tuple of float
        Each > 0; the larger, the more communities. Those are taken that runs at all of them agree on.
    sharpness : float, default 4.0
        How far from the middle between two slots an input may lie and still be a bridge, >= 0: the larger, the nearer
        to the middle; at 0 every input is a bridge of weight 1.
    beta : float, default 20.0
        Inverse temperature of the pooling over a community's slots, >= 0; the same as the head's.
    passes : int, default 8
        Passes of the k-means that places the slots, >= 1.
    runs : int, default 4
        Visiting orders tried at each resolution, >= 1.
    seed : int, default 0
    """

    n_slots: int | None = None
    n_communities: int | None = None
    min_size: int = 20
    resolutions: tuple[float, ...] = RESOLUTIONS
    sharpness: float = 4.0
    beta: float = 20.0
    passes: int = 8
    runs: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_slots", "n_communities", "min_size", "passes", "runs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"`{name}` must be >= 1, got {value}. Leave it out for the default.")
        if not self.resolutions or min(self.resolutions) <= 0:
            raise UsageError(f"`resolutions` must be numbers > 0, got {self.resolutions}. 1 is the modularity.")
        if not self.sharpness >= 0 or not self.beta >= 0:
            raise UsageError(
                f"`sharpness` and `beta` must be >= 0, got {self.sharpness} and {self.beta}. Leave them out."
            )


@torch.no_grad()
def learn_graph(
    features: Features, config: GraphConfig | None = None, *, report: Callable[[str, float], None] | None = None
) -> SlotGraph:
    """Find communities in inputs without labels, and without being told how many.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        Only their directions count.
    config : GraphConfig, optional
    report : callable, optional
        ``report(step, share)``: told what is being done, and how much of it is done (0 to 1).

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
    report = report or silent
    base = bridged_slots(features, config, report)
    chosen: dict[str, Any] = {"runs": config.runs, "seed": config.seed}
    communities = find_communities(base.bridges, base.sizes, resolutions=config.resolutions, **chosen)
    kept = _large(communities, base.sizes, config.min_size)
    base, communities = base.only(kept), communities[kept]
    if config.n_communities is not None:
        communities = find_communities(base.bridges, base.sizes, k=config.n_communities, **chosen)
    report("communities", 0.95)
    return closed(features, base, _by_size(communities, base.sizes), config)


@torch.no_grad()
def regroup(graph: SlotGraph, features: Features, n_communities: int, *, seed: int = 0) -> SlotGraph:
    """The same slots and bridges in another number of communities.

    Parameters
    ----------
    graph : SlotGraph
    features : float tensor of shape (example, feature)
        What it was learned from.
    n_communities : int
        >= 1; fewer only where there are fewer slots.
    seed : int, default 0

    Returns
    -------
    SlotGraph
    """
    owned = graph.wins.double().cpu().numpy()
    found = _by_size(find_communities(graph.bridges, owned, k=n_communities, seed=seed), owned)
    of_slot = torch.from_numpy(found).to(graph.weights.device)
    placement = place(normalize(features.float()), graph.weights, of_slot, graph.reach, beta=graph.beta)
    return replace(graph, communities=of_slot, placement=placement, modularity=modularity(graph.bridges, found))


@dataclass(frozen=True)
class BridgedSlots:
    """Slots before they are communities.

    Parameters
    ----------
    part : int64 tensor of shape (part,)
        Inputs that are not zero.
    unit : float32 tensor of shape (part, feature)
        Their directions.
    weights : float32 tensor of shape (slot, feature)
    owners : int64 array of shape (part,)
        Nearest slot when the bridges were counted; -1 where that is gone.
    bridges : float64 array of shape (slot, slot)
    sizes : float64 array of shape (slot,)
        Inputs that each slot owned then.
    dissolved : int
        Slots that are gone.
    """

    part: Int[Tensor, " part"]
    unit: Float[Tensor, "part feature"]
    weights: SlotVectors
    owners: npt.NDArray[np.int64]
    bridges: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    dissolved: int = 0

    def only(self, kept: npt.NDArray[np.int64]) -> BridgedSlots:
        """The same with some of the slots."""
        number = np.full(len(self.sizes) + 1, -1, np.int64)
        number[kept] = np.arange(len(kept))
        return replace(
            self,
            owners=number[self.owners],
            weights=self.weights[torch.from_numpy(kept).to(self.weights.device)],
            bridges=self.bridges[np.ix_(kept, kept)],
            sizes=self.sizes[kept],
            dissolved=self.dissolved + len(self.sizes) - len(kept),
        )


def bridged_slots(features: Features, config: GraphConfig, report: Callable[[str, float], None]) -> BridgedSlots:
    """Steps 1 and 2 of `learn_graph`."""
    if features.ndim != 2 or not features.is_floating_point() or not bool(features.isfinite().all()):
        raise DataError(
            f"`features` must be a finite float matrix (example, feature), got {features.dtype} of shape "
            f"{tuple(features.shape)}. Flatten images and scale them first."
        )
    part = (features != 0).any(1).nonzero()[:, 0]
    if len(part) == 0:
        raise DataError(f"`features` must have a row that is not zero, got {len(features)} without. Check the scaling.")
    unit = normalize(features[part].float())
    usual = min(_MOST_SLOTS, int(6 * len(unit) ** 0.5), -(-len(unit) // 4))
    n_slots = min(config.n_slots or usual, len(unit))
    weights = spherical_means(
        unit, n_slots, passes=config.passes, seed=config.seed, report=lambda step, share: report(step, 0.8 * share)
    )
    scores, near = nearest(unit, weights, min(2, len(weights)))
    report("bridges", 0.85)
    bridges = count_bridges(scores, near, len(weights), sharpness=config.sharpness)
    owners = near[:, 0].cpu().numpy()
    return BridgedSlots(
        part, unit, weights, owners, bridges, np.bincount(owners, minlength=len(weights)).astype(np.float64)
    )


def count_bridges(
    scores: Float[Tensor, "example near"], near: Int[Tensor, "example near"], n_slots: int, *, sharpness: float = 4.0
) -> npt.NDArray[np.float64]:
    """How many inputs lie between each two slots.

    Parameters
    ----------
    scores : float tensor of shape (example, 2)
        Cosines of each input to its nearest and second nearest slot; with one column there are no bridges.
    near : int64 tensor of shape (example, 2)
        Those slots.
    n_slots : int
    sharpness : float, default 4.0

    Returns
    -------
    float64 array of shape (slot, slot)
        Symmetric; the sum over inputs of ``(a1 / a2) ** sharpness``, where ``a`` are angles in radians.

    Examples
    --------
    >>> cosines = torch.tensor([[0.9, 0.9], [1.0, 0.5]])
    >>> count_bridges(cosines, torch.tensor([[0, 1], [0, 1]]), 2)
    array([[0., 1.],
           [1., 0.]])
    """
    found = np.zeros((n_slots, n_slots))
    if near.shape[1] == 2 and len(near):
        angles = scores.double().clamp(-1, 1).arccos().cpu().numpy()
        on_slot = angles[:, 0] < _FEW
        strength = np.where(on_slot, 0.0, angles[:, 0]) / np.maximum(angles[:, 1], _FEW)
        first, second = near.cpu().numpy().T
        np.add.at(found, (first, second), strength**sharpness)
    return found + found.T


def _large(communities: npt.NDArray[np.int64], sizes: npt.NDArray[np.float64], min_size: int) -> npt.NDArray[np.int64]:
    """Slots of the communities that own enough; all where none does."""
    enough = np.bincount(communities, sizes) >= min_size
    return np.flatnonzero(enough[communities]) if enough.any() else np.arange(len(communities))


def _by_size(communities: npt.NDArray[np.int64], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Numbered by what they own, the largest first."""
    return np.asarray(np.argsort(np.argsort(-np.bincount(communities, sizes), kind="stable"))[communities], np.int64)


def closed(
    features: Features, base: BridgedSlots, communities: npt.NDArray[np.int64], config: GraphConfig
) -> SlotGraph:
    """What each slot owns and how far it reaches, and the placement of all inputs."""
    weights = base.weights
    stays = torch.from_numpy(base.owners >= 0).to(weights.device)  # an outlier must not widen the slot it falls to
    cosines, owners = (it[:, 0] for it in nearest(base.unit[stays], weights, 1))
    wins = torch.bincount(owners, minlength=len(weights))
    exemplars = torch.full((len(weights),), -1, dtype=torch.long, device=weights.device)
    order = cosines.argsort(stable=True)
    for_slot = owners[order].argsort(stable=True)  # by slot, the nearest last
    ends = wins.cumsum(0)[wins > 0] - 1
    exemplars[wins > 0] = base.part[stays][order[for_slot[ends]]]
    reach = support_thresholds(cosines, owners, len(weights), quantile=_OUTSIDE)
    usual = reach[wins >= min(_OWNED, int(wins.max()))].median()  # a slot that owns little knows little of its reach
    reach = torch.where(wins > 0, torch.minimum(reach, usual), reach)
    of_slot = torch.from_numpy(communities).to(weights.device)
    return SlotGraph(
        weights=weights,
        reach=reach,
        wins=wins,
        exemplars=exemplars,
        bridges=base.bridges,
        communities=of_slot,
        placement=place(normalize(features.float()), weights, of_slot, reach, beta=config.beta),
        modularity=modularity(base.bridges, communities),
        dissolved=base.dissolved,
        beta=config.beta,
    )


def silent(_step: str, _share: float) -> None:
    """Report nothing."""
