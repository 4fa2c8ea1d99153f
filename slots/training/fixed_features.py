"""Slots trained on features that do not change: the loop of a fit, with its gradient written out.

A look at the data and a cross-fitted calibration train many small heads. One view, no backbone, all classes of the same
number of slots: then the gradient is three products, and a step costs a fraction of what autograd takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slots.clustering.kmeans import directions
from slots.clustering.quick_kmeans import MOST_WORK, quick_directions
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.progress import Log, Progress, silent, unlogged
from slots.shapes import Ids, Labels
from slots.training.config import TrainConfig
from slots.training.steps.adam import Steps, begin

_AT_ONCE = 1024  # rows answered at once
_KMEANS_EXAMPLES = 3000  # per class, as in the loop of a fit
_KEPT_PLACES = 1 << 17  # numbers of examples kept in one piece: 1 MB


@dataclass(frozen=True)
class SlotGrid:
    """Slots in a grid of places: ``weights[j, c]`` is the ``j``-th slot of the ``c``-th class.

    Parameters
    ----------
    weights : float tensor of shape (place, class, feature)
        Unit vectors; zeros where there is no slot.
    there : bool tensor of shape (place, class)
        Where there is one.
    classes : int64 tensor of shape (class,)
        The labels, sorted.
    """

    weights: Tensor
    there: Tensor
    classes: Tensor


@torch.no_grad()
def first_slots(unit: Float[Tensor, "example feature"], labels: Labels, *, per_class: int, seed: int) -> SlotGrid:
    """Spherical k-means of each class; with one slot a class its mean direction.

    Parameters
    ----------
    unit : float32 tensor of shape (example, feature)
        Unit rows; zero rows are passed over.
    labels : int64 tensor of shape (example,)
        Their labels.
    per_class : int
        Slots a class, >= 1; fewer where a class has fewer different examples.
    seed : int
        Of k-means.
    """
    seen = (unit != 0).any(1)
    unit, labels = unit[seen], labels[seen]
    classes, place = labels.unique(return_inverse=True)
    weights = unit.new_zeros(per_class, len(classes), unit.shape[1])
    there = torch.zeros(per_class, len(classes), dtype=torch.bool, device=unit.device)
    order = place.argsort(stable=True)
    for c, members in enumerate(order.split(torch.bincount(place, minlength=len(classes)).tolist())):
        rows = unit[members[:_KMEANS_EXAMPLES]]
        if per_class == 1:
            found = normalize(rows.double().sum(0, keepdim=True)).to(unit)
        else:
            few = rows.numel() * per_class <= MOST_WORK
            centres = (quick_directions if few else directions)(
                rows.cpu().numpy(), min(per_class, len(rows)), seed=seed
            )
            found = normalize(torch.from_numpy(centres).to(unit))
        weights[: len(found), c] = found
        there[: len(found), c] = True
    return SlotGrid(weights, there, classes)


@dataclass(frozen=True)
class TrainedSlots:
    """What a training on fixed features gives.

    Parameters
    ----------
    weights : float tensor of shape (slot, feature)
        Unit vectors, by class and then by place.
    labels : int64 tensor of shape (slot,)
        Of each.
    losses : tuple of float
        Mean cross-entropy of each epoch that was completed.
    stopped : bool
        Whether ``stop`` ended it.
    """

    weights: Tensor
    labels: Tensor
    losses: tuple[float, ...]
    stopped: bool

    def head(self, config: TrainConfig) -> IncrementalNeuralHashing:
        """A head with these slots, not closed."""
        found = IncrementalNeuralHashing(
            self.weights.shape[1], scale=config.scale, beta=config.beta, precision=config.precision
        ).to(self.weights.device)
        found.add_slots(self.weights, self.labels)
        return found

    @torch.no_grad()
    def answers(self, unit: Float[Tensor, "example feature"], config: TrainConfig) -> Labels:
        """What the pooled scores of such a head answer, bit for bit, without one: a look asks dozens of small ones.

        Parameters
        ----------
        unit : float32 tensor of shape (example, feature)
            Unit rows.
        config : TrainConfig
            Its scale and beta.
        """
        classes, weights = self.labels.unique(), normalize(self.weights)
        groups = class_groups(self.labels, classes)
        pooled = [softmax_pool(normalize(it) @ weights.T, groups, beta=config.beta) for it in unit.split(_AT_ONCE)]
        found: Labels = classes[(config.scale * torch.cat(pooled)).argmax(1)]
        return found


@torch.no_grad()
def train_fixed(
    unit: Float[Tensor, "example feature"],
    labels: Labels,
    start: SlotGrid,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    log: Log = unlogged,
    stop: Callable[[], bool] | None = None,
) -> TrainedSlots:
    """Train slots on unit rows, as `slots.training.fit` does where the features do not change; the head is not closed.

    Parameters
    ----------
    unit : float32 tensor of shape (example, feature)
        Unit rows, whitened already.
    labels : int64 tensor of shape (example,)
        Rows of labels that have no slot are passed over.
    start : SlotGrid
        Where the slots begin.
    config : TrainConfig
        Its epochs, batch size, rate, scale, beta, margin, label smoothing and seed.
    progress : callable, optional
        Told the progress.
    log : callable
        ``log(name, value, step)``, told the loss and the number of slots after each epoch. Default: nobody is.
    stop : callable, optional
        Asked after each step; true ends the training.

    Returns
    -------
    TrainedSlots
    """
    tell, losses, stopped = progress or silent, list[float](), False
    shape = start.weights.shape
    seen = torch.isin(labels, start.classes)
    if not bool(seen.all()):  # else no copy
        unit, labels = unit[seen], labels[seen]
    epochs = config.epochs if len(unit) else 0
    wanted = torch.searchsorted(start.classes, labels)
    batch = max(1, min(config.batch_size, len(unit)))
    per_epoch = max(1, len(unit) // batch)
    slots = begin(unit, wanted, weights=start.weights.flatten(0, 1), there=start.there, config=config, batch=batch)
    sizes = [len(it) for it in np.array_split(np.arange(len(unit)), per_epoch)]
    n_steps, n_slots = config.epochs * per_epoch, int(start.there.sum())
    at_once = 1 if progress or stop or log is not unlogged else epochs  # one call for all, where nobody looks on
    for epoch in range(0, epochs, max(1, at_once)):
        several = range(epoch, epoch + at_once)
        draw = _drawn if at_once * len(unit) <= _KEPT_PLACES else _drawn.__wrapped__
        batches = draw(config.seed, several, len(unit)).to(unit.device), np.cumsum([0, *sizes * at_once])
        first = epoch * per_epoch
        steps = np.arange(first, first + at_once * per_epoch)
        rates = config.slot_lr * 0.5 * (1 + np.cos(math.pi * steps / n_steps))
        totals, stopped = _take(slots, batches, rates.tolist(), first=first, stop=stop)
        for it in totals[: len(totals) // per_epoch * per_epoch].reshape(-1, per_epoch).sum(1).tolist():
            losses.append(it / max(1, len(unit)))
            tell(f"epoch {len(losses)}/{config.epochs}  loss {losses[-1]:.4f}", 1.0)
            log("train/loss", losses[-1], len(losses))
            log("slots", n_slots, len(losses))
        if stopped:
            break
    keep = start.there.T.reshape(-1)
    return TrainedSlots(
        slots.weights.reshape(shape).transpose(0, 1).reshape(-1, shape[2])[keep],
        start.classes.repeat_interleave(shape[0])[keep],
        tuple(losses),
        stopped,
    )


@functools.lru_cache(maxsize=8)
def _drawn(seed: int, epochs: range, n: int) -> Tensor:
    """The examples of some epochs, one order after the other, int64; never written to.

    Kept, since the tries of a look differ in all but this: with few examples it took as long as the steps.
    """
    return torch.from_numpy(np.concatenate([np.random.default_rng([seed, it]).permutation(n) for it in epochs]))


def _take(
    slots: Steps, batches: tuple[Tensor, Ids], rates: Sequence[float], *, first: int, stop: Callable[[], bool] | None
) -> tuple[Tensor, bool]:
    """Some steps, or those until somebody asks for an end: the summed losses of each, and whether somebody did."""
    rows, ends = batches
    if stop is None:
        return slots.take_all(rows, ends, step=first, rates=rates), False
    totals = list[Tensor]()
    for i, rate in enumerate(rates):
        totals.append(slots.take(rows[ends[i] : ends[i + 1]], step=first + i, rate=rate))
        if stop():
            return torch.stack(totals), True
    return torch.stack(totals), False
