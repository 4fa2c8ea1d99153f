"""Category discovery: some classes have labels, the others are communities of slots that hold no labelled input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from slots.clustering.agreement import adjusted_rand
from slots.clustering.kmeans import nearest_slots
from slots.clustering.unit_rows import ManyRows, Unit, stored_or_here, taken
from slots.deprecation import renamed
from slots.errors import DataError
from slots.graph.bridges import BridgedSlots, bridged_slots, unit_rows
from slots.graph.communities import find_communities
from slots.graph.config import GraphConfig
from slots.graph.groups import Worth, find_groups, means, spherical_groups
from slots.graph.learning import finish_graph
from slots.graph.louvain import numbered
from slots.graph.slot_graph import SlotGraph
from slots.progress import Progress, part, silent
from slots.shapes import Ids

_SHARE = 0.5  # of the usual labelled share: a slot with less holds a class without labels
_NEAR = 2.0  # what the slots that it has bridges to count beside itself, since a few inputs say little of a share


@renamed(report="progress")
@torch.no_grad()
def discover(
    features: ManyRows,
    labels: npt.NDArray[np.int64] | Int[Tensor, " example"],
    config: GraphConfig | None = None,
    *,
    progress: Progress | None = None,
) -> SlotGraph:
    """Category discovery: find the classes nobody has named among inputs of which some have labels.

    Parameters
    ----------
    features : float array or tensor of shape (example, feature), or a list of such
        Labelled and unlabelled inputs together; only their directions count. Mapped files stay on the
        disk, as in `learn_graph`, but all inputs are linked.
    labels : int64 array or tensor of shape (example,)
        From 0, -1 where unknown. An input of a known class may be unlabelled.
    config : GraphConfig, optional
        ``n_communities`` is the number of new classes, if it is known.
    progress : callable, optional
        ``progress(step, share)``: told what is being done, and how much of it is done (0 to 1).

    Returns
    -------
    SlotGraph
        Communities ``0`` to ``labels.max()`` are the classes with labels, those after them are new, the largest first.

    Raises
    ------
    DataError
        If there is no label, a class without any below the largest, or labels of another form.

    Notes
    -----
    Ours. Groups are found from all inputs as in `learn_graph`, at the level whose evidence times the agreement with the
    labels (adjusted Rand index) is largest. Round groups: those with less than half of the usual labelled share are
    new, and semi-supervised k-means (Vaze et al. 2022, section 3.2) goes on from them and the means of the labelled.
    Groups of other shapes: a slot is *known* where the labelled share of what it owns, and of what its neighbours own
    (averaged by their bridges, counted twice), is at least half the usual one, the median over slots with labelled
    inputs; its class is the most frequent label, and the other slots keep their groups.

    Examples
    --------
    >>> x = torch.cat([torch.randn(400, 2) * 0.1 + torch.tensor(m) for m in ([3.0, 0], [0, 3.0])])
    >>> y = torch.full((800,), -1)
    >>> y[:200] = 0  # half of the first class; the second has no labels
    >>> discover(x, y, GraphConfig(n_communities=1)).n_communities
    2
    """
    config = config or GraphConfig()
    rows, labels = stored_or_here(features), torch.as_tensor(labels)
    given = labels.cpu().numpy()
    whole = given.dtype.kind == "i" and given.shape == rows.shape[:1]
    ids = np.unique(given[given >= 0]) if whole else np.zeros(0, np.int64)
    if not whole or (given < -1).any() or not ids.size or int(ids[-1]) != len(ids) - 1:
        raise DataError(
            f"`labels` must be whole numbers >= -1 of shape ({len(rows)},) with each class from 0 to the last, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}. Number the known classes from 0; -1 is unknown."
        )
    counts = np.bincount(given[given >= 0])
    told = progress or silent
    usable, unit = unit_rows(rows)
    shown = given[usable.cpu().numpy()]
    found = find_groups(unit, config, part(told, 0.0, 0.7), worth=_worth(shown))
    groups = _with_labels(unit, found.chosen.groups, shown, len(counts)) if found.round else found.chosen.groups
    base, of_slot = bridged_slots(usable, unit, groups, config, part(told, 0.7, 1.0), single=found.round)
    classes = _known_groups(of_slot, len(counts)) if found.round else _classes(base, shown, len(counts))
    kept = _large_enough(base, classes, of_slot, np.bincount(groups) >= config.min_size, config, n_known=len(counts))
    return finish_graph(rows, base.only(kept[0]), kept[1], config)


def _classes(base: BridgedSlots, given: Ids, n_known: int) -> Ids:
    """Known class of each slot, -1 where it holds too few labelled inputs."""
    votes = np.zeros((len(base.sizes), n_known))
    np.add.at(votes, (base.owners[given >= 0], given[given >= 0]), 1)
    toward = base.bridges / np.maximum(base.bridges.sum(1, keepdims=True), 1e-300)
    votes, sizes = votes + _NEAR * (toward @ votes), base.sizes + _NEAR * (toward @ base.sizes)
    shares = votes.sum(1) / np.maximum(sizes, 1e-300)
    known = shares >= _SHARE * np.median(shares[votes.max(1) > 0])
    return np.where(known, votes.argmax(1), -1)


def _worth(given: Ids) -> Worth:
    """The evidence of a level times its agreement with the labels: the adjusted Rand index on the labelled inputs.

    Where no level has evidence of its own, the labels decide.
    """
    known = given >= 0
    return lambda it: max(1e-9, it.evidence) * max(0.0, adjusted_rand(given[known], it.groups[known]))


def _with_labels(unit: Unit, groups: Ids, given: Ids, n_known: int) -> Ids:
    """Semi-supervised k-means: known classes first, then the groups that hold too few labelled inputs for a class."""
    known = given >= 0
    sizes = np.bincount(groups)
    shares = np.bincount(groups[known], minlength=len(sizes)) / sizes
    fresh = shares < _SHARE * np.median(shares[shares > 0])
    number = np.full(len(sizes), -1)
    number[fresh] = n_known + np.arange(fresh.sum())
    start = number[groups]
    shown = taken(unit, torch.from_numpy(np.flatnonzero(known)).to(unit.device))
    near = nearest_slots(unit, means(shown, given[known]), 1)[1][:, 0].cpu().numpy()
    start = np.where(known, given, np.where(start >= 0, start, near))
    return spherical_groups(unit, start, fixed=given)


def _known_groups(of_slot: Ids, n_known: int) -> Ids:
    """Known class of each slot where classes come first among the groups."""
    return np.where(of_slot < n_known, of_slot, -1)


def _large_enough(
    base: BridgedSlots, classes: Ids, of_slot: Ids, enough: npt.NDArray[np.bool_], config: GraphConfig, *, n_known: int
) -> tuple[Ids, Ids]:
    """Slots of known classes and of new groups that hold enough, and the community of each."""
    fresh = np.flatnonzero((classes < 0) & enough[of_slot])
    found = numbered(of_slot[fresh])
    if config.n_communities not in {None, int(found.max(initial=-1)) + 1}:
        chosen: dict[str, Any] = {"runs": config.runs, "seed": config.seed, "resolutions": config.resolutions}
        rest = base.only(fresh)
        found = find_communities(rest.bridges, rest.sizes, k=config.n_communities, **chosen)
    owned = np.bincount(found, base.sizes[fresh], minlength=int(found.max(initial=-1)) + 1)
    communities = classes.copy()
    communities[fresh] = n_known + np.argsort(np.argsort(-owned, kind="stable"))[found]
    kept = np.flatnonzero(communities >= 0)
    return kept, communities[kept]
