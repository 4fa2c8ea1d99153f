"""Category discovery: some classes have labels, the others are communities of slots that hold no labelled input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from slots.deprecation import renamed
from slots.errors import DataError
from slots.graph.bridges import BridgedSlots, bridged_slots
from slots.graph.communities import find_communities
from slots.graph.config import GraphConfig
from slots.graph.learning import finish_graph
from slots.graph.slot_graph import SlotGraph
from slots.progress import Progress, silent
from slots.shapes import FeatureRows, Ids

_SHARE = 0.5  # of the usual labelled share: a slot with less holds a class without labels
_NEAR = 2.0  # what the slots that it has bridges to count beside itself, since a few inputs say little of a share


@renamed(report="progress")
@torch.no_grad()
def discover(
    features: FeatureRows,
    labels: npt.NDArray[np.int64] | Int[Tensor, " example"],
    config: GraphConfig | None = None,
    *,
    progress: Progress | None = None,
) -> SlotGraph:
    """Category discovery: find the classes nobody has named among inputs of which some have labels.

    Parameters
    ----------
    features : float array or tensor of shape (example, feature)
        Labelled and unlabelled inputs together; only their directions count.
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
    Ours. Slots and bridges are learned from all inputs. A slot is *known* where the labelled share of what it owns, and
    of what its neighbours own (averaged by their bridges, counted twice), is at least half the usual one, the median
    over slots with labelled inputs; its class is the most frequent label. The bridges among the other slots make the
    new communities (`slots.graph.learn_graph`).

    Examples
    --------
    >>> x = torch.cat([torch.randn(400, 2) * 0.1 + torch.tensor(m) for m in ([3.0, 0], [0, 3.0])])
    >>> y = torch.full((800,), -1)
    >>> y[:200] = 0  # half of the first class; the second has no labels
    >>> discover(x, y, GraphConfig(n_communities=1)).n_communities
    2
    """
    config = config or GraphConfig()
    features, labels = torch.as_tensor(features), torch.as_tensor(labels)
    given = labels.cpu().numpy()
    whole = given.dtype.kind == "i" and given.shape == features.shape[:1]
    counts = np.bincount(given[given >= 0]) if whole else np.zeros(0)
    if not whole or (given < -1).any() or not counts.all() or not counts.size:
        raise DataError(
            f"`labels` must be whole numbers >= -1 of shape ({len(features)},) with each class from 0 to the last, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}. Number the known classes from 0; -1 is unknown."
        )
    base = bridged_slots(features, config, progress or silent)
    classes = _classes(base, given[base.part.cpu().numpy()], len(counts))
    kept = _large_enough(base, classes, config, len(counts))
    return finish_graph(features, base.only(kept[0]), kept[1], config)


def _classes(base: BridgedSlots, given: Ids, n_known: int) -> Ids:
    """Known class of each slot, -1 where it holds too few labelled inputs."""
    votes = np.zeros((len(base.sizes), n_known))
    np.add.at(votes, (base.owners[given >= 0], given[given >= 0]), 1)
    toward = base.bridges / np.maximum(base.bridges.sum(1, keepdims=True), 1e-300)
    votes, sizes = votes + _NEAR * (toward @ votes), base.sizes + _NEAR * (toward @ base.sizes)
    shares = votes.sum(1) / np.maximum(sizes, 1e-300)
    known = shares >= _SHARE * np.median(shares[votes.max(1) > 0])
    return np.where(known, votes.argmax(1), -1)


def _large_enough(base: BridgedSlots, classes: Ids, config: GraphConfig, n_known: int) -> tuple[Ids, Ids]:
    """Slots of known classes and of new communities that own enough, and the community of each."""
    fresh = np.flatnonzero(classes < 0)
    rest = base.only(fresh)
    chosen: dict[str, Any] = {"runs": config.runs, "seed": config.seed}
    found = find_communities(rest.bridges, rest.sizes, resolutions=config.resolutions, **chosen)
    owned = np.bincount(found, rest.sizes)
    stays = owned[found] >= config.min_size
    fresh, rest, found = fresh[stays], rest.only(np.flatnonzero(stays)), found[stays]
    if config.n_communities is not None:
        found = find_communities(rest.bridges, rest.sizes, k=config.n_communities, **chosen)
    owned = np.bincount(found, rest.sizes, minlength=int(found.max(initial=-1)) + 1)
    communities = classes.copy()
    communities[fresh] = n_known + np.argsort(np.argsort(-owned, kind="stable"))[found]
    kept = np.flatnonzero(communities >= 0)
    return kept, communities[kept]
