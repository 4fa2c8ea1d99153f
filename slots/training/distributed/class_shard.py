"""Slots divided by class among processes, for the training of slots on features that do not change.

Each process holds the slots of some classes and makes their scores alone. What it tells the others in a step is one
number for each example of the batch and class: the pooled scores, from which all make the same loss. The derivative of
that loss by its own scores is all that a process needs to move its slots. So nothing is added up between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from slots.adam import Adam
from slots.distributed import Ranks
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.shapes import Labels, SlotVectors, ViewFeatures
from slots.training.config import TrainConfig
from slots.training.optimizers import Optimizer


@dataclass(frozen=True)
class Division:
    """Which slots are this process's: those of a run of classes.

    Parameters
    ----------
    ends : tuple of int
        Place, in the order of the head's classes, where each process's classes end.
    slots : int64 tensor of shape (slot,)
        Numbers of this process's slots.
    groups : int64 tensor of shape (class, member)
        Places among ``slots`` of the slots of each of its classes, padded with -1 as wide as that of all classes, since
        a sum of more numbers may be made in another order.
    """

    ends: tuple[int, ...]
    slots: Tensor
    groups: Tensor

    @staticmethod
    def of(head: IncrementalNeuralHashing, ranks: Ranks) -> Division:
        """Runs of classes with about equally many slots in each."""
        whole = class_groups(head.labels, head.classes)
        sizes = (whole >= 0).sum(1)
        middles = (sizes.cumsum(0) - sizes / 2) / max(1, int(sizes.sum()))
        owner = (middles * ranks.size).long().clamp_max(ranks.size - 1)
        counts = torch.bincount(owner, minlength=ranks.size)
        ends = tuple(counts.cumsum(0).tolist())
        mine = whole[ends[ranks.rank] - int(counts[ranks.rank]) : ends[ranks.rank]]
        slots = mine[mine >= 0].sort().values
        groups = torch.where(mine >= 0, torch.searchsorted(slots, mine), -1)
        return Division(ends, slots, groups)

    @property
    def widest(self) -> int:
        """Most classes of a process."""
        return max(b - a for a, b in zip((0, *self.ends), self.ends, strict=False))


class ClassShard:
    """The slots of this process during an epoch.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        All slots; read at the beginning, and written by `collect`.
    optimizers : sequence of Optimizer
        The first holds Adam's state of all slots, and the rate.
    config : TrainConfig
        Its margin and label smoothing.
    ranks : Ranks
        The processes.
    """

    def __init__(
        self, head: IncrementalNeuralHashing, optimizers: Sequence[Optimizer], config: TrainConfig, ranks: Ranks
    ) -> None:
        self.head, self.optimizer, self.config, self.ranks = head, optimizers[0], config, ranks
        self.division = Division.of(head, ranks)
        self.weights = nn.Parameter(head.weights.detach()[self.division.slots].clone())
        self.adam = Adam(self.weights)
        for named in self.optimizer.state_dict()["state"].values():
            self.adam.steps = int(named["step"])
            self.adam.mean = named["exp_avg"][self.division.slots].clone()
            self.adam.square = named["exp_avg_sq"][self.division.slots].clone()

    def step(self, features: ViewFeatures, wanted: Labels) -> Tensor:
        """Move this process's slots along the slope of a batch's loss; gives its mean cross-entropy.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            The batch, the same in all processes.
        wanted : int64 tensor of shape (example,)
            Places of the right classes.
        """
        head, config = self.head, self.config
        with torch.enable_grad():
            pooled = softmax_pool(_best(features, self.weights), self.division.groups, beta=head.beta)
            mine = head.scale * pooled
            logits = self._of_all(mine.detach())
            logits.requires_grad_()
            led = logits
            if config.margin:
                led = logits - head.scale * config.margin * functional.one_hot(wanted, head.n_classes)
            loss = functional.cross_entropy(led, wanted, label_smoothing=config.label_smoothing)
            loss.backward()
            begin = self.division.ends[self.ranks.rank] - len(self.division.groups)
            assert logits.grad is not None
            mine.backward(logits.grad[:, begin : begin + mine.shape[1]])
        if self.weights.grad is not None and len(self.weights):
            self.adam.step(self.weights.grad, self.optimizer.param_groups[0]["lr"])
            self.weights.detach().copy_(normalize(self.weights.detach()))
        self.weights.grad = None
        return loss.detach()

    @torch.no_grad()
    def collect(self) -> None:
        """Tell all slots and Adam's state to all processes."""
        rows = self.ranks.gather([self.division.slots, self.weights, self.adam.mean, self.adam.square])
        slots, weights, mean, square = (torch.cat(column) for column in zip(*rows, strict=True))
        order = slots.argsort()
        self.head.weights.copy_(weights[order])
        step = torch.tensor(float(self.adam.steps))
        named = {"step": step, "exp_avg": mean[order], "exp_avg_sq": square[order]}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {0: named}, "param_groups": groups})

    def _of_all(self, mine: Float[Tensor, "example class"]) -> Float[Tensor, "example class"]:
        """Scores of all classes, from those of the classes of each process."""
        room = mine.new_zeros(len(mine), self.division.widest)
        room[:, : mine.shape[1]] = mine
        found = self.ranks.exchange(room)
        counts = [b - a for a, b in zip((0, *self.division.ends), self.division.ends, strict=False)]
        return torch.cat([row[:, :count] for row, count in zip(found, counts, strict=True)], 1)


def divides_exactly(head: IncrementalNeuralHashing, shapes: Sequence[tuple[int, int]], ranks: Ranks) -> bool:
    """Whether a step with some of the slots has, on this machine, the bits of a step with all of them.

    A library of matrix products is free to add in another order where shapes differ. So steps are tried, for all shapes
    that a training will meet, in all processes.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        All slots.
    shapes : sequence of (int, int)
        Examples and views of batches.
    ranks : Ranks
        The processes.

    Returns
    -------
    bool
        The same in all processes.
    """
    division, same = Division.of(head, ranks), True
    generator = torch.Generator().manual_seed(0)
    first = division.ends[ranks.rank] - len(division.groups)
    mine = slice(first, division.ends[ranks.rank])
    for n, views in shapes:
        features = torch.randn(n, views, head.feature_dim, generator=generator).to(head.weights.device)
        slope = torch.randn(n, head.n_classes, generator=generator).to(features.device)
        start = head.weights.detach()
        whole = _tried(features, start, class_groups(head.labels, head.classes), slope, head.beta)
        part = _tried(features, start[division.slots], division.groups, slope[:, mine], head.beta)
        same &= torch.equal(whole[0][:, mine], part[0]) and torch.equal(whole[1][division.slots], part[1])
    return not bool(ranks.total(torch.tensor(int(not same))))


def _tried(
    features: ViewFeatures, start: SlotVectors, groups: Tensor, slope: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Pooled scores, and slots after two steps of Adam along some slope of them."""
    weights = nn.Parameter(start.clone())
    adam = Adam(weights)
    with torch.enable_grad():
        pooled = softmax_pool(_best(features, weights), groups, beta=beta)
        if pooled.numel():
            pooled.backward(slope.contiguous())
    for _ in range(2):
        adam.step(torch.zeros_like(weights) if weights.grad is None else weights.grad, 1e-3)
    return pooled.detach(), normalize(weights.detach())


def _best(features: ViewFeatures, weights: SlotVectors) -> Float[Tensor, "example slot"]:
    """Scores of the best view, as `IncrementalNeuralHashing.forward` makes them."""
    return (normalize(features) @ weights.T).amax(1)
