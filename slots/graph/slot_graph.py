"""What is known of slots that were learned without labels: the bridges between them, and their communities.

An input that lies between two slots is a bridge between them. Where the data is dense there are many bridges, between
two kinds of things there are few; so communities of the graph of slots are kinds of things, of any shape, and their
number need not be told. `slots.graph.learning` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.clustering.kmeans import blocks
from slots.clustering.unit_rows import ManyRows, StoredRows, Unit, UnitRows, stored_or_here
from slots.deprecation import renamed
from slots.errors import UsageError
from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.shapes import Features, SlotVectors, Thresholds


@dataclass(frozen=True)
class Assignment:
    """Assignment of inputs to the communities of a slot graph.

    Parameters
    ----------
    communities : int64 tensor of shape (example,)
        Community with the largest pooled score; ties go to the lowest.
    slots : int64 tensor of shape (example,)
        Nearest slot of that community: the reason.
    matched : bool tensor of shape (example,)
        Whether the nearest slot of all reaches so far; otherwise the answer is a guess about noise.
    """

    communities: Int[Tensor, " example"]
    slots: Int[Tensor, " example"]
    matched: Bool[Tensor, " example"]


@dataclass(frozen=True)
class CommunityCard:
    """Explanation of a community: its slots, exemplars and bridges.

    Parameters
    ----------
    community : int
        Its number, >= 0.
    size : int
        Inputs that it was given (count).
    slots : int64 array of shape (slot,)
        Its slots, the one that owns most first.
    exemplars : int64 array of shape (slot,)
        The input nearest to each.
    bridges : tuple of (int, int, float)
        Pairs of its slots and the weight between them, the strongest first.
    inner_share : float
        Share of its slots' bridges that stay within it, in [0, 1].
    neighbours : tuple of (int, float)
        Other communities and the share of the bridges that lead there, the strongest first.
    """

    community: int
    size: int
    slots: npt.NDArray[np.int64]
    exemplars: npt.NDArray[np.int64]
    bridges: tuple[tuple[int, int, float], ...]
    inner_share: float
    neighbours: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class GraphLevel:
    """One level of the hierarchy of groups, and what speaks for it.

    Parameters
    ----------
    communities : int64 array of shape (slot,)
        Community of each slot at this level, numbered from 0 by the inputs they own, the largest first.
    silhouette : float
        Mean leave-one-out silhouette of the inputs' groups, in [-1, 1]: how far apart they are.
    stability : float
        Adjusted Rand index of the groups found in two random four fifths of the data, at most 1.
    evidence : float
        ``silhouette * stability * sqrt(entropy)``, the entropy of the groups' sizes in nats.
    """

    communities: npt.NDArray[np.int64]
    silhouette: float
    stability: float
    evidence: float

    @property
    def n_communities(self) -> int:
        """Number of communities."""
        return int(self.communities.max(initial=-1)) + 1


@renamed(reach="thresholds")
@dataclass(frozen=True)
class SlotGraph:
    """Slots, the bridges between them, and their communities.

    Parameters
    ----------
    weights : float32 tensor of shape (slot, feature)
        Unit vectors.
    thresholds : float32 tensor of shape (slot,)
        Cosine from which (at or above) an input is matched.
    wins : int64 tensor of shape (slot,)
        Inputs whose nearest slot it is, without those of dissolved slots.
    exemplars : int64 tensor of shape (slot,)
        The input nearest to it.
    bridges : float64 array of shape (slot, slot)
        Symmetric, >= 0, without a diagonal.
    communities : int64 tensor of shape (slot,)
        Numbered from 0, by the inputs they own, the largest first.
    placement : Assignment
        Of the inputs that it was learned from.
    modularity : float
        Of the communities, at most 1.
    dissolved : int
        Slots of communities that were too small (count); they are gone.
    beta : float
        As in `GraphConfig`.
    levels : tuple of GraphLevel
        Numbers of groups for which more speaks than for those near them, from coarse to fine; the one answered with is
        among them, unless the number was told. `at_level` answers with another.
    """

    weights: SlotVectors
    thresholds: Thresholds
    wins: Int[Tensor, " slot"]
    exemplars: Int[Tensor, " slot"]
    bridges: npt.NDArray[np.float64]
    communities: Int[Tensor, " slot"]
    placement: Assignment
    modularity: float
    dissolved: int
    beta: float
    levels: tuple[GraphLevel, ...] = ()

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.weights)

    @property
    def n_communities(self) -> int:
        """Number of communities."""
        return int(self.communities.max()) + 1

    def scores(self, features: ManyRows) -> Float[Tensor, "example community"]:
        """Pooled cosine of each input to each community.

        Parameters
        ----------
        features : float array or tensor of shape (example, feature)
            Only their directions count.

        Returns
        -------
        float tensor of shape (example, community)
            `softmax_pool` over the community's slots, in [-1, 1].
        """
        unit = self._unit(features)
        groups = class_groups(self.communities, torch.arange(self.n_communities, device=self.weights.device))
        found = torch.empty(len(unit), self.n_communities, dtype=unit.dtype, device=unit.device)
        for rows in blocks(len(unit), max(groups.numel(), *self.weights.shape)):
            found[rows] = softmax_pool(unit[rows] @ self.weights.T, groups, beta=self.beta)
        return found

    def place(self, features: ManyRows) -> Assignment:
        """Say which community inputs belong to, by which slot, and whether any slot reaches them.

        Parameters
        ----------
        features : float array or tensor of shape (example, feature)
            Only their directions count.

        Returns
        -------
        Assignment
        """
        return place(self._unit(features), self.weights, self.communities, self.thresholds, beta=self.beta)

    def _unit(self, features: ManyRows) -> Unit:
        """Directions, where the slots lie."""
        return directions_of(stored_or_here(features), self.weights.device)

    def explain(self, community: int, *, most: int = 10) -> CommunityCard:
        """Slots, exemplars and bridges of a community.

        Parameters
        ----------
        community : int
            In [0, `n_communities`).
        most : int, default 10
            Longest list of bridges.

        Returns
        -------
        CommunityCard

        Raises
        ------
        UsageError
            If there is no such community.
        """
        if not 0 <= community < self.n_communities:
            raise UsageError(
                f"`community` must lie in [0, {self.n_communities}), got {community}. Choose one of these."
            )
        of_slot = self.communities.cpu().numpy()
        wins = self.wins.cpu().numpy()
        mine = np.flatnonzero(of_slot == community)
        mine = mine[np.argsort(-wins[mine], kind="stable")]
        first, second = np.nonzero(np.triu(self.bridges[np.ix_(mine, mine)]))
        weights = self.bridges[mine[first], mine[second]]
        strongest = np.argsort(-weights, kind="stable")[:most]
        toward = np.bincount(of_slot, self.bridges[mine].sum(0), minlength=self.n_communities)
        shares = toward / max(float(toward.sum()), 1e-300)
        others = [int(it) for it in np.argsort(-shares, kind="stable") if it != community and shares[it] > 0]
        return CommunityCard(
            community=community,
            size=int((self.placement.communities == community).sum()),
            slots=mine,
            exemplars=self.exemplars.cpu().numpy()[mine],
            bridges=tuple((int(mine[first[i]]), int(mine[second[i]]), float(weights[i])) for i in strongest),
            inner_share=float(shares[community]),
            neighbours=tuple((it, float(shares[it])) for it in others),
        )


def directions_of(features: Features | StoredRows, device: torch.device) -> Unit:
    """Rows of length 1, or 0, on a device."""
    if isinstance(features, StoredRows):
        return UnitRows(features, device=device)
    return normalize(features.to(device).float())


@torch.no_grad()
def place(
    unit: Unit, weights: SlotVectors, communities: Int[Tensor, " slot"], thresholds: Thresholds, *, beta: float
) -> Assignment:
    """`SlotGraph.place` for rows of length 1 (or 0, which nothing matches).

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1 or 0.
    weights, communities, thresholds, beta
        As in `SlotGraph`.

    Returns
    -------
    Assignment
    """
    groups = class_groups(communities, torch.arange(int(communities.max()) + 1, device=weights.device))
    found = torch.zeros(len(unit), dtype=torch.long, device=unit.device)
    slots, matched = torch.zeros_like(found), torch.zeros_like(found, dtype=torch.bool)
    for rows in blocks(len(unit), max(groups.numel(), *weights.shape)):
        some = unit[rows]
        cosines = some @ weights.T
        found[rows] = softmax_pool(cosines, groups, beta=beta).argmax(1)
        best, slot = cosines.max(1)
        matched[rows] = (best >= thresholds[slot]) & (some != 0).any(1)
        slots[rows] = cosines.masked_fill(communities != found[rows, None], -torch.inf).argmax(1)
    return Assignment(found, slots, matched)
