"""Many small slots, and a bridge between two of them for each input that lies between."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.clustering.kmeans import blocks, nearest_slots, spherical_means, sums_by_owner
from slots.clustering.unit_rows import StoredRows, Unit, UnitRows, taken
from slots.errors import DataError
from slots.graph.config import GraphConfig
from slots.head.similarities import normalize
from slots.progress import Progress, part, silent
from slots.shapes import Features, SlotVectors

_MOST_SLOTS = 1500  # so that a pass over 60,000 images stays near a second or two on one core
_BRIDGES = 64  # numbers that an input takes while its bridge is weighed
_FEW = 1e-3  # radians: nearer than this an input lies on its slot, and rounding decides the angle


@dataclass(frozen=True)
class BridgedSlots:
    """Graph of slots, the nodes, and bridges, the weighted edges, before communities are found.

    Parameters
    ----------
    part : int64 tensor of shape (part,)
        Inputs that are not zero.
    unit : float32 tensor of shape (part, feature), or UnitRows
        Their directions.
    weights : float32 tensor of shape (slot, feature)
        Unit vectors.
    owners : int64 array of shape (part,)
        Nearest slot when the bridges were counted; -1 where that is gone.
    bridges : float64 array of shape (slot, slot)
        Symmetric weights between slots, >= 0.
    sizes : float64 array of shape (slot,)
        Inputs that each slot owned then.
    dissolved : int
        Slots that are gone.
    """

    part: Int[Tensor, " part"]
    unit: Unit
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


def unit_rows(features: Features | StoredRows) -> tuple[Int[Tensor, " part"], Unit]:
    """Numbers of the inputs that are not zero, and their directions."""
    if isinstance(features, StoredRows):
        whole, any_row = _looked_through(features)
        kind = "a file"
    else:
        kind = str(features.dtype)
        whole = features.ndim == 2 and features.is_floating_point() and bool(features.isfinite().all())
        any_row = (features != 0).any(1) if whole else torch.zeros(0, dtype=torch.bool)
    if not whole:
        raise DataError(
            f"`features` must be a finite float matrix (example, feature), got {kind} of shape "
            f"{tuple(features.shape)}. Flatten images and scale them first."
        )
    usable = any_row.nonzero()[:, 0]
    if len(usable) == 0:
        raise DataError(f"`features` must have a row that is not zero, got {len(features)} without. Check the scaling.")
    if isinstance(features, Tensor):
        return usable, normalize(features[usable].float())
    return usable, UnitRows(features, None if len(usable) == len(features) else usable.numpy())


def _looked_through(features: StoredRows) -> tuple[bool, Tensor]:
    """Whether stored rows are finite, and which are not zero."""
    found = torch.zeros(len(features), dtype=torch.bool)
    for rows in blocks(len(features), features.shape[1]):
        block = features[rows]
        if not np.isfinite(block).all():
            return False, found
        found[rows] = torch.from_numpy(block.any(1))
    return True, found


def bridged_slots(
    usable: Int[Tensor, " part"],
    unit: Unit,
    groups: npt.NDArray[np.int64],
    config: GraphConfig,
    progress: Progress,
    *,
    single: bool = False,
    linked: npt.NDArray[np.int64] | None = None,
) -> tuple[BridgedSlots, npt.NDArray[np.int64]]:
    """Steps 3 and 4 of `learn_graph`: slots in each group, in step with its size, and the group of each.

    A ``single`` slot for each group unless the config says how many. Where ``groups`` are those of some ``linked``
    inputs, slots are placed among these, and then move to the middle of all that are nearest to them.
    """
    among = unit if linked is None else taken(unit, torch.from_numpy(linked).to(unit.device))
    usual = min(_MOST_SLOTS, int(6 * len(among) ** 0.5), -(-len(among) // 4))
    total = min(config.n_slots or (1 if single else usual), len(among))
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(groups))[:-1])
    told = part(progress, 0.0, 0.5 if linked is not None else 0.8)
    weights, of_slot = [], []
    for number, rows in enumerate(members):
        count = max(1, round(total * len(rows) / len(among)))
        mine = taken(among, torch.from_numpy(rows).to(unit.device))
        weights.append(spherical_means(mine, count, passes=config.passes, seed=config.seed, progress=silent))
        of_slot.append(np.full(len(weights[-1]), number))
        told("slots", (number + 1) / len(members))
    slots = torch.cat(weights)
    if linked is not None:
        slots = _moved(unit, slots)
    scores, near = nearest_slots(unit, slots, min(2, len(slots)))
    progress("bridges", 0.85)
    bridges = count_bridges(scores, near, len(slots), sharpness=config.sharpness)
    owners = near[:, 0].cpu().numpy()
    sizes = np.bincount(owners, minlength=len(slots)).astype(np.float64)
    return BridgedSlots(usable, unit, slots, owners, bridges, sizes), np.concatenate(of_slot)


def _moved(unit: Unit, slots: SlotVectors) -> SlotVectors:
    """Each slot at the middle of the inputs nearest to it; where it was, if they have none."""
    owners = nearest_slots(unit, slots, 1)[1][:, 0]
    sums = sums_by_owner(unit, owners, len(slots))
    return torch.where((sums == 0).all(1, keepdim=True), slots, normalize(sums))


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
        Number of slots, also of those near to no input.
    sharpness : float, default 4.0
        As in `GraphConfig`, >= 0: the larger, the nearer to the middle a bridge must lie.

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
    for rows in blocks(len(near), _BRIDGES) if near.shape[1] == 2 else ():
        angles = scores[rows].double().clamp(-1, 1).arccos().cpu().numpy()
        on_slot = angles[:, 0] < _FEW
        strength = np.where(on_slot, 0.0, angles[:, 0]) / np.maximum(angles[:, 1], _FEW)
        first, second = near[rows].cpu().numpy().T
        np.add.at(found, (first, second), strength**sharpness)
    return found + found.T
