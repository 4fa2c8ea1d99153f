"""Learning to guess from what is remembered: kernel ridge regression, and how far it is trusted beside the slots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slots.features.whitening import Whitening
from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.recalling.recall import Recall, raw_units
from slots.head.similarities import normalize
from slots.rehearsal.memory import RehearsalMemory

NEAREST = 0.3
"""``gamma`` times the squared distance to the nearest other example, in the median."""

RIDGE = 0.3
"""Penalty: how many examples' worth of doubt stands against each."""

TRUSTS = (0.0, 0.25, 0.5, 1.0)
"""What the pooled score's own answer may count; the smallest that is right most often on what trained no slot."""

_SAMPLED = 500  # examples whose nearest others set the kernel
_LEAST = 20  # examples below which nothing is learned


@dataclass(frozen=True)
class Recollection:
    """A guess learned from the memory, and what it is worth.

    Parameters
    ----------
    recall : Recall
        The guess.
    n_checked : int
        Remembered examples that trained no slot (count), each left out while it is guessed.
    n_right, n_right_before : int
        Those guessed right by it, and by the pooled score alone.
    """

    recall: Recall
    n_checked: int
    n_right: int
    n_right_before: int

    def __str__(self) -> str:
        return (
            f"Of {self.n_checked} remembered examples that trained no slot, {self.n_right} are guessed right by all "
            f"others that are remembered, {self.n_right_before} by the slots alone."
        )


@torch.no_grad()
def learn_recall(memory: RehearsalMemory, whitening: Whitening | None, slots: SlotCaps) -> Recollection | None:
    """Fit the guess to all that is remembered.

    Parameters
    ----------
    memory : RehearsalMemory
        Examples with labels.
    whitening : Whitening or None
        What the features went through last.
    slots : SlotCaps
        The slots whose pooled score stands beside it.

    Returns
    -------
    Recollection or None
        None with fewer than 20 examples or a single label.

    Notes
    -----
    Each label counts the same, however many of its examples are remembered. Leaving one out costs nothing in ridge
    regression: the residual is the coefficient over the diagonal of the inverse (Rifkin and Lippert, "Notes on
    Regularized Least Squares", 2007). That is what the trust in the pooled score is chosen by, on examples that were
    held out at the fit or told since.
    """
    labels, column = memory.labels.unique(return_inverse=True)
    if len(memory) < _LEAST or len(labels) < 2:
        return None
    examples, back = raw_memory(memory, whitening)
    near = examples @ examples.T
    gamma = _gamma(near)
    counts = torch.bincount(column).double()
    weight = 1 / counts[column]
    kernel = (2 * gamma * (near.clamp_max(1) - 1)).exp()
    kernel.diagonal().add_(RIDGE * weight.mean() / weight)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
    wanted = torch.nn.functional.one_hot(column, len(labels)).double()
    found = inverse @ wanted
    without = wanted - found / inverse.diagonal()[:, None]
    told = torch.arange(len(memory)) >= len(memory) - memory.n_told
    checked = (memory.held_out | told).nonzero()[:, 0]
    said = _pooled_answers(memory, slots, checked)
    right = {}
    for trust in TRUSTS:
        scores = without[checked] + trust * (said[:, None] == labels[None])
        right[trust] = int((scores.argmax(1) == column[checked]).sum())
    trust = max(TRUSTS, key=lambda it: (right[it], -it))
    recall = Recall(examples, found.float(), labels, gamma, trust, back)
    before = int((said == memory.labels[checked]).sum())
    return Recollection(recall, len(checked), right[trust], before)


def raw_memory(memory: RehearsalMemory, whitening: Whitening | None) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Unit float64 features of what is remembered, before the whitening, and the way back through it.

    Where the lengths of the features are not known, it is compared as it is: the second is None then.
    """
    unit = normalize(memory.features.double())
    if whitening is None or memory.lengths is None:
        return unit, None
    back = torch.linalg.pinv(whitening.matrix.cpu()), whitening.mean.cpu()
    return raw_units(unit * memory.lengths.double()[:, None], back), back


def _gamma(near: Tensor) -> float:
    """Sharpness of the kernel by the distance of an example to the nearest other."""
    rows = torch.arange(0, len(near), max(1, len(near) // _SAMPLED))
    others = near[rows].clone()
    others[torch.arange(len(rows)), rows] = -1
    distance = float((2 - 2 * others.amax(1)).clamp_min(0).median())
    return NEAREST / max(distance, 1e-9)


def _pooled_answers(memory: RehearsalMemory, slots: SlotCaps, rows: Tensor) -> Tensor:
    """What the pooled score alone says of some of what is remembered."""
    never = torch.full_like(slots.support, math.inf)
    alone = SlotCaps(**{**vars(slots), "support": never, "recall": None, "kept": None})
    views = memory.features[rows].float().to(slots.weights.device)[:, None]
    return torch.from_numpy(np.asarray(decide(views, alone).labels))
