"""Training of unit slots by the hinge on the certified radius, with its gradient written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.adam import Adam
from slots.head.similarities import normalize
from slots.progress import Log, Progress, unlogged
from slots.robust.config import Norm, RobustConfig
from slots.shapes import Features, Labels, SlotLabels, SlotVectors

Batches = Callable[[int], Iterator[tuple[Features, Labels]]]
"""Epoch to the rows and labels of its batches."""

_RIVALS = 8  # of the largest Euclidean danger, whose L1 gaps are computed
_SMALLEST_GAP = 1e-6  # two slots as near as this are one, for the gradient


@dataclass(frozen=True)
class RobustTraining:
    """What a training for certificates gives.

    Parameters
    ----------
    weights : float32 tensor of shape (slot, feature)
        Unit vectors, in the order of the slots that it began with.
    losses : tuple of float
        Mean hinge of each epoch that was completed, in units of the radius.
    stopped : bool
        Whether ``stop`` ended it.
    """

    weights: SlotVectors
    losses: tuple[float, ...]
    stopped: bool


@torch.no_grad()
def train_robust(
    weights: SlotVectors,
    labels: SlotLabels,
    batches: Batches,
    config: RobustConfig,
    *,
    epochs: int,
    steps: int,
    rate: float,
    progress: Progress,
    log: Log = unlogged,
    stop: Callable[[], bool],
) -> RobustTraining:
    """Minimise the mean of ``max(0, R - max(r(x), floor))`` over training rows, ``r`` the signed certified radius.

    Parameters
    ----------
    weights : float32 tensor of shape (slot, feature)
        Unit vectors to begin with; left as they are.
    labels : int64 tensor of shape (slot,)
        Their labels, of at least two classes.
    batches : callable
        ``batches(epoch)`` gives rows, not normalised, and labels that have a slot.
    config : RobustConfig
        Norm and radius ``R``.
    epochs, steps : int
        Passes over the rows, and batches in each.
    rate : float
        Peak learning rate of Adam; it falls to 0 along half a cosine.
    progress : callable
        Told the progress.
    log : callable
        ``log(name, value, step)``, told the mean and the number of slots after each epoch. Default: nobody is.
    stop : callable
        Asked after each batch; true ends the training.

    Returns
    -------
    RobustTraining

    Notes
    -----
    Voracek and Hein 2022 ("Provably adversarially robust nearest prototype classifiers") train prototypes so. For unit
    slots ``r(x) = min over slots j of other labels of max over own slots i of <x, w_i - w_j> / |w_i - w_j|_q``, with q
    = 2 for the Euclidean norm and q = 1 for the largest entry. A step moves only the pair ``(i, j)`` that decides: the
    best own slot, and the rival that makes the quotient smallest. Rows below the floor move nothing (a ramp in place of
    the hinge, as in Collobert et al. 2006, "Trading convexity for scalability").
    """
    slots = normalize(weights.clone())
    adam, losses, stopped, taken = Adam(slots), list[float](), False, 0
    for epoch in range(epochs):
        total, seen = 0.0, 0
        for rows, wanted in batches(epoch):
            picked = decisive_pairs(rows, wanted, slots, labels, config.norm)
            loss, gradient = hinge(rows, slots, picked, config)
            adam.step(gradient, rate * 0.5 * (1 + math.cos(math.pi * taken / max(1, epochs * steps))))
            slots.copy_(normalize(slots))
            total, seen, taken = total + loss * len(rows), seen + len(rows), taken + 1
            progress(f"epoch {epoch + 1}/{epochs}  short of the radius by {total / seen:.4f}", taken / (epochs * steps))
            if stop():
                stopped = True
                break
        if stopped:
            break
        losses.append(total / max(1, seen))
        log("train/loss", losses[-1], len(losses))
        log("slots", len(slots), len(losses))
    return RobustTraining(slots, tuple(losses), stopped)


def decisive_pairs(
    rows: Features, wanted: Labels, slots: SlotVectors, labels: SlotLabels, norm: Norm
) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
    """Of each row the best slot of its label, and the slot of another label that most endangers it.

    Parameters
    ----------
    rows : float tensor of shape (row, feature)
        Inputs, not normalised.
    wanted : int64 tensor of shape (row,)
        Their labels; each has a slot, and another label too.
    slots : float tensor of shape (slot, feature)
        Unit vectors.
    labels : int64 tensor of shape (slot,)
        Of the slots.
    norm : {"l2", "linf"}
        For ``linf`` the L1 gaps of the 8 rivals of least Euclidean quotient decide among these.

    Returns
    -------
    own, rival : int64 tensors of shape (row,)
    """
    scores = rows @ slots.T
    mine = wanted[:, None] == labels
    best, own = scores.masked_fill(~mine, -math.inf).max(1)
    gaps = (2 - 2 * (slots[own] @ slots.T)).clamp_min_(_SMALLEST_GAP**2).sqrt_()
    quotient = ((best[:, None] - scores) / gaps).masked_fill_(mine, math.inf)
    if norm == "l2":
        return own, quotient.argmin(1)
    near = quotient.topk(min(_RIVALS, quotient.shape[1]), dim=1, largest=False)
    tried = near.indices
    apart = (slots[own][:, None] - slots[tried]).abs().sum(2).clamp_min(_SMALLEST_GAP)
    by_l1 = ((best[:, None] - scores.gather(1, tried)) / apart).masked_fill(near.values == math.inf, math.inf)
    return own, tried.gather(1, by_l1.argmin(1, keepdim=True))[:, 0]


def hinge(
    rows: Features,
    slots: SlotVectors,
    picked: tuple[Int[Tensor, " row"], Int[Tensor, " row"]],
    config: RobustConfig,
) -> tuple[float, Float[Tensor, "slot feature"]]:
    """Mean of ``max(0, R - max(r, floor))`` over the rows, and its gradient along the sphere.

    Parameters
    ----------
    rows : float tensor of shape (row, feature)
        Inputs, not normalised.
    slots : float tensor of shape (slot, feature)
        Unit vectors.
    picked : pair of int64 tensors of shape (row,)
        Own slot and rival of each row.
    config : RobustConfig
        Norm and radius.
    """
    own, rival = picked
    apart = slots[own] - slots[rival]
    if config.norm == "l2":
        gap = apart.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_GAP)
        slope = apart / gap  # of the gap
    else:
        gap = apart.abs().sum(1, keepdim=True).clamp_min(_SMALLEST_GAP)
        slope = apart.sign()
    radius = (rows * apart).sum(1, keepdim=True) / gap
    short = (config.radius - radius).clamp(0, config.radius - config.least)
    pull = (rows - radius * slope) / gap * ((short > 0) & (radius > config.least)) / len(rows)
    gradient = torch.zeros_like(slots)
    gradient.index_add_(0, own, pull, alpha=-1)
    gradient.index_add_(0, rival, pull)
    gradient -= (gradient * slots).sum(1, keepdim=True) * slots
    return float(short.mean()), gradient
