"""Steps of Adam on the slots of a grid: tensors for large work, compiled loops for small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from slots.head.similarities import normalize
from slots.shapes import Labels
from slots.training.config import TrainConfig
from slots.training.steps.kernels import Examples, Grid, Indices, Loss, take_steps

_DECAY1, _DECAY2, _TINY = 0.9, 0.999, 1e-8  # as torch has them
_SMALL_WORK = 40_000_000  # multiplications of a step; up to here the calls of torch take longer than the work


class Steps(Protocol):
    """A training under way; ``weights`` are the slots so far, shape (place * class, feature)."""

    weights: Tensor

    def take(self, rows: Tensor, *, step: int, rate: float) -> Tensor:
        """Learn from some examples; gives the sum of their cross-entropies."""

    def take_all(self, rows: Tensor, ends: Indices, *, step: int, rates: Sequence[float]) -> Tensor:
        """Learn from batches in turn, the first at this step; gives the summed cross-entropies of each, (batch,).

        Parameters
        ----------
        rows : int64 tensor of shape (row,)
            Of all batches.
        ends : int64 array of shape (batch + 1,)
            Places among them where each batch begins and the last one ends.
        step : int
            Steps taken before, >= 0.
        rates : sequence of float
            Of each step.
        """


def begin(
    unit: Float[Tensor, "example feature"],
    wanted: Labels,
    *,
    weights: Float[Tensor, "slot feature"],
    there: Tensor,
    config: TrainConfig,
    batch: int,
) -> Steps:
    """Begin a training on unit rows.

    Parameters
    ----------
    unit : float32 tensor of shape (example, feature)
        Unit rows.
    wanted : int64 tensor of shape (example,)
        Places of the right classes.
    weights : float32 tensor of shape (place * class, feature)
        Where the slots of a grid begin; copied.
    there : bool tensor of shape (place, class)
        Where the grid has slots.
    config : TrainConfig
        Its scale, beta, margin and label smoothing.
    batch : int
        Examples of a step, which decide the way: both find the same slots but for rounding.
    """
    small = unit.device.type == "cpu" and batch * weights.numel() <= _SMALL_WORK
    return (LoopSteps if small else TensorSteps)(unit, wanted, weights.clone().contiguous(), there, config)


class TensorSteps:
    """Each step some thirty operations on tensors, on any device."""

    def __init__(self, unit: Tensor, wanted: Tensor, weights: Tensor, there: Tensor, config: TrainConfig) -> None:
        self.unit, self.wanted, self.weights, self.there, self.config = unit, wanted, weights, there, config
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)

    def take(self, rows: Tensor, *, step: int, rate: float) -> Tensor:
        """Learn from some examples; gives the sum of their cross-entropies."""
        x = self.unit[rows]
        slope, loss = loss_slope(x @ self.weights.T, self.wanted[rows], self.there, self.config)
        gradient = slope.T @ x
        self.first.mul_(_DECAY1).add_(gradient, alpha=1 - _DECAY1)
        self.second.mul_(_DECAY2).addcmul_(gradient, gradient, value=1 - _DECAY2)
        root = (self.second / (1 - _DECAY2 ** (step + 1))).sqrt_().add_(_TINY)
        self.weights.addcdiv_(self.first, root, value=-rate / (1 - _DECAY1 ** (step + 1)))
        self.weights = normalize(self.weights)
        return loss * len(rows)

    def take_all(self, rows: Tensor, ends: Indices, *, step: int, rates: Sequence[float]) -> Tensor:
        """Learn from batches in turn, the first at this step; gives the summed cross-entropies of each, (batch,)."""
        parts = [rows[ends[i] : ends[i + 1]] for i in range(len(rates))]
        return torch.stack([self.take(it, step=step + i, rate=rates[i]) for i, it in enumerate(parts)])


class LoopSteps:
    """All steps that are asked for, one call of compiled loops."""

    def __init__(self, unit: Tensor, wanted: Tensor, weights: Tensor, there: Tensor, config: TrainConfig) -> None:
        self.weights = weights
        slots = weights.numpy()  # the same memory
        self.means = np.zeros_like(slots), np.zeros_like(slots)
        self._examples = Examples(unit.contiguous().numpy(), wanted.numpy())
        self._grid = Grid(slots, there.contiguous().numpy(), *self.means)
        self._loss = Loss(*map(np.float32, (config.scale, config.beta, config.margin, config.label_smoothing)))

    def take(self, rows: Tensor, *, step: int, rate: float) -> Tensor:
        """Learn from some examples; gives the sum of their cross-entropies."""
        ends = np.array([0, len(rows)])
        return self.take_all(rows, ends, step=step, rates=[rate])[0]

    def take_all(self, rows: Tensor, ends: Indices, *, step: int, rates: Sequence[float]) -> Tensor:
        """Learn from batches in turn, the first at this step; gives the summed cross-entropies of each, (batch,)."""
        paces = _paces(step, rates)
        return torch.from_numpy(take_steps(self._examples, (rows.numpy(), ends), self._grid, self._loss, paces))


def _paces(step: int, rates: Sequence[float]) -> npt.NDArray[np.float32]:
    """The numbers of `Pace` at steps that follow each other, shape (step, 8)."""
    steps = np.arange(step + 1, step + 1 + len(rates))
    constant = np.tile([_DECAY1, _DECAY2, 1 - _DECAY1, 1 - _DECAY2, _TINY], (len(rates), 1))
    return np.column_stack([constant, rates, 1 - _DECAY1**steps, 1 - _DECAY2**steps]).astype(np.float32)


def loss_slope(
    scores: Float[Tensor, "example slot"], wanted: Labels, there: Tensor, config: TrainConfig
) -> tuple[Float[Tensor, "example slot"], Tensor]:
    """Derivative of the mean cross-entropy of the pooled scores by each cosine, and that cross-entropy.

    Parameters
    ----------
    scores : float tensor of shape (example, place * class)
        Cosines to the slots of a grid.
    wanted : int64 tensor of shape (example,)
        Places of the right classes.
    there : bool tensor of shape (place, class)
        Where the grid has slots.
    config : TrainConfig
        Its scale, beta, margin and label smoothing.

    Notes
    -----
    The pooled score ``z = sum_k a_k s_k`` with ``a = softmax(beta s)`` has the slope ``a_k (1 + beta (s_k - z))``.
    """
    n, n_classes = len(scores), there.shape[1]
    if len(there) == 1:
        pooled, inner = scores, None
    else:
        s = scores.reshape(n, *there.shape)
        attention = (config.beta * s).masked_fill(~there, -math.inf).softmax(1)
        pooled = (attention * s).sum(1)
        inner = attention * (1 + config.beta * (s - pooled[:, None]))
    logits = config.scale * pooled
    target = functional.one_hot(wanted, n_classes).to(scores)
    if config.margin:
        logits = logits - config.scale * config.margin * target
    smooth = config.label_smoothing
    chances = logits.log_softmax(1)
    loss = -(1 - smooth) * (chances * target).sum(1).mean() - smooth * chances.mean()
    slope = (chances.exp() - (1 - smooth) * target - smooth / n_classes) * (config.scale / n)
    return (slope if inner is None else (slope[:, None] * inner).reshape(n, -1)), loss
