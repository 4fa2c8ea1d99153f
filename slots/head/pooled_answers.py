"""Answers to inputs that no slot matches: float32 products leave few candidates, float64 decides among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.head.pooling import softmax_pool
from slots.head.pooling_kernels import (
    PooledArrays,
    Pools,
    best_views,
    exact_pooled_scores,
    nearest_pooled,
    pool_classes,
)
from slots.head.similarities import inverse_lengths, normalize
from slots.rounding import full_product, product_error
from slots.shapes import SlotLabels, SlotVectors

Indices = npt.NDArray[np.int64]
_HELD = 1 << 20  # float32 scores made before they are looked at: 4 MB, still in a cache
_KEPT = 1 << 25  # numbers of the weights of which a sorted copy is kept: 128 MB
_COLUMNS = 4096  # weights sorted at once where no copy is kept
_PREPARED = 1 << 16  # float64 numbers held at once while lengths are taken


@dataclass(frozen=True)
class PooledSlots:
    """The slots that take part in the pooled score, sorted by label, then slot.

    Parameters
    ----------
    weights : float tensor of shape (slot, feature)
        Of all slots, on the CPU; unit up to rounding.
    slots : int64 tensor of shape (pooled,)
        Which slots they are, by label, then by number.
    classes : int64 array of shape (class,)
        Ascending.
    starts : int64 array of shape (class + 1,)
        Where the pooled slots of each class begin, and the last end.
    """

    weights: SlotVectors
    slots: Int[Tensor, " pooled"]
    classes: Indices
    starts: Indices

    @staticmethod
    def of(weights: SlotVectors, labels: SlotLabels, pooled: Tensor) -> PooledSlots:
        """Those marked in ``pooled``; all of them where none is."""
        voting = pooled.nonzero()[:, 0] if bool(pooled.any()) else torch.arange(len(labels))
        order = labels[voting].argsort(stable=True)
        slots = voting[order]
        classes, counts = labels[slots].unique_consecutive(return_counts=True)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return PooledSlots(weights, slots, classes.numpy(), starts.numpy())

    @cached_property
    def inverse(self) -> npt.NDArray[np.float64]:
        """One over the length of each slot's weight; 1 for a zero row."""
        step = max(1, _PREPARED // max(1, self.weights.shape[1]))
        inverse: npt.NDArray[np.float64] = inverse_lengths(self.weights, at_once=step).numpy()
        return inverse

    @cached_property
    def error(self) -> float:
        """Largest difference of `products` to the exact cosine."""
        off = float(np.abs(1 / self.inverse - 1).max(initial=0.0))
        return product_error(self.weights.shape[1]) * (1 + off) + off

    @cached_property
    def _sorted(self) -> Tensor | None:
        """Their weights in their order, where they are few enough to be kept twice."""
        if torch.equal(self.slots, torch.arange(len(self.weights))):
            return self.weights.float()
        return self.weights[self.slots].float() if self.slots.numel() * self.weights.shape[1] <= _KEPT else None

    def products(self, unit: Float[Tensor, "row feature"], room: Tensor | None = None) -> Float[Tensor, "row pooled"]:
        """Float32 cosines, off by at most `error`, of float32 rows of length 1 (or 0); written into the room given."""
        scores = unit.new_empty(len(unit), len(self.slots)) if room is None else room[: len(unit)]
        if self._sorted is not None:
            return full_product(unit, self._sorted.T, out=scores)
        for part in torch.arange(len(self.slots)).split(_COLUMNS):
            scores[:, part[0] : part[-1] + 1] = full_product(unit, self.weights[self.slots[part]].float().T)
        return scores

    def blocks(self, n: int, n_views: int) -> Iterator[slice]:
        """Slices of ``n`` inputs of which the scores stay in a cache, or take 64 MB where weights are sorted anew."""
        held = _HELD if self._sorted is not None else 16 * _HELD
        step = max(16, held // max(1, n_views * len(self.slots)))
        for i in range(0, n, step):
            yield slice(i, min(n, i + step))


@dataclass(frozen=True)
class Nearest:
    """The two best labels of some inputs, and who may be the nearest slot of each.

    Parameters
    ----------
    labels : int64 array of shape (input,)
        The best one's.
    places : int64 array of shape (candidate,)
        ``2 * input`` for candidates of the best label, ``2 * input + 1`` for those of the second.
    views, slots : int64 arrays of shape (candidate,)
        Ascending by slot, then view, for each place.
    """

    labels: Indices
    places: Indices
    views: Indices
    slots: Indices


def nearest_of_best_labels(
    features: Float[Tensor, "example view feature"], rows: Indices, pooled: PooledSlots, beta: float
) -> Nearest:
    """Rank the labels of inputs by their pooled scores, as float64 throughout would, and find their nearest slots.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        On the CPU; any scale.
    rows : int64 array of shape (input,)
        The examples asked about.
    pooled : PooledSlots
        The slots whose scores are pooled.
    beta : float
        Inverse temperature of the pooled score.

    Returns
    -------
    Nearest

    Notes
    -----
    A pooled score ``z = sum a_k s_k`` moves by at most ``1 + 2 beta (max s - z)`` times what the scores move by: its
    derivative is ``a_k (1 + beta (s_k - z))``, and the scores above ``z`` lie as far above it, weighted, as the others
    below. So the bound of a float32 product bounds it, and labels closer than that are compared in float64.
    """
    n_views, blocks = features.shape[1], list(pooled.blocks(len(rows), features.shape[1]))
    # One room for all blocks: fresh memory costs a third of the product.
    room = torch.empty(max((some.stop - some.start) * n_views for some in blocks), len(pooled.slots))
    parts = [_nearest_in_block(features[torch.from_numpy(rows[some])], pooled, beta, room) for some in blocks]
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(len(part.labels) for part in parts[:-1])])
    return Nearest(
        labels=np.concatenate([part.labels for part in parts]),
        places=np.concatenate([part.places + 2 * end for part, end in zip(parts, ends, strict=True)]),
        views=np.concatenate([part.views for part in parts]),
        slots=np.concatenate([part.slots for part in parts]),
    )


def _nearest_in_block(
    block: Float[Tensor, "input view feature"], pooled: PooledSlots, beta: float, room: Tensor
) -> Nearest:
    """The same of inputs whose scores are held together."""
    n, n_views, n_classes = len(block), block.shape[1], len(pooled.classes)
    unit = normalize(block.double())
    views = pooled.products(unit.flatten(0, 1).float(), room).view(n, n_views, len(pooled.slots)).numpy()
    scores = views[:, 0]
    if n_views > 1:
        scores = np.empty((n, len(pooled.slots)), np.float32)
        best_views(views, scores)
    bounds = Pools(
        lower=np.empty((n, n_classes)),
        upper=np.empty((n, n_classes)),
        best=np.empty((n, 2), np.int64),
        settled=np.empty(n, np.bool_),
    )
    pool_classes(scores, pooled.starts, beta, pooled.error, bounds)
    unsure = np.flatnonzero(~bounds.settled)
    if len(unsure):
        bounds.best[unsure] = _ranked_exactly(unit[torch.from_numpy(unsure)], pooled, beta, bounds, unsure)
    places, view, place = nearest_pooled(scores, views, pooled.starts, bounds.best, pooled.error)
    slots = pooled.slots.numpy()[place]
    return Nearest(pooled.classes[bounds.best[:, 0]], places, view, slots)


def _ranked_exactly(
    unit: Float[Tensor, "input view feature"], pooled: PooledSlots, beta: float, bounds: Pools, rows: Indices
) -> Indices:
    """The two best classes of inputs by pooled scores in float64, among those that the bounds do not rule out."""
    lower, upper = bounds.lower[rows], bounds.upper[rows]
    contends = upper >= np.sort(lower, 1)[:, -2:][:, :1]
    exact, sizes = np.full(lower.shape, -np.inf), np.diff(pooled.starts)
    # As wide as the widest class, so that every class is summed in one order, and equal ones are equal.
    groups = torch.arange(int(sizes.max())) + torch.zeros(len(sizes), 1, dtype=torch.long)
    groups = groups.masked_fill(groups >= torch.from_numpy(sizes)[:, None], -1)
    weights = pooled.weights.float().contiguous().numpy()
    arrays = PooledArrays(weights, pooled.inverse, pooled.slots.numpy(), pooled.starts)
    inputs, classes = np.nonzero(contends)
    step = max(1, _HELD // groups.shape[1])
    for i in range(0, len(inputs), step):
        some, of = inputs[i : i + step], classes[i : i + step]
        scores = np.zeros((len(some), groups.shape[1]))
        exact_pooled_scores(unit.numpy(), np.stack([some, of]), arrays, scores)
        for c in np.unique(of):
            group = groups[c : c + 1]
            exact[some[of == c], c] = softmax_pool(torch.from_numpy(scores[of == c]), group, beta=beta)[:, 0].numpy()
    ranked = np.argsort(-exact, axis=1, kind="stable")[:, :2]
    return ranked if ranked.shape[1] == 2 else np.concatenate([ranked, np.full_like(ranked, -1)], 1)
