"""Training of new slots beside old ones that stay as they are, so that the scores of both are comparable."""

from __future__ import annotations

import math

import numpy as np
import torch

from slots.adam import Adam
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.progress import Progress
from slots.shapes import Ids, SlotLabels, SlotVectors
from slots.update.queries import Proposal
from slots.update.refining.rehearsal_batches import RefinementData, RehearsalBatches
from slots.update.refining.rehearsal_gradient import RehearsalGradient

MOST_ROWS = 30_000
"""Rows of an epoch: a few hundred labels teach no more on ten times as many, in ten times the time."""


@torch.no_grad()
def refine(
    head: IncrementalNeuralHashing,
    weights: SlotVectors,
    labels: SlotLabels,
    data: RefinementData,
    *,
    epochs: int = 15,
    lr: float = 2e-3,
    margin: float = 0.005,
    memory_margin: float = 0.05,
    seed: int = 0,
    progress: Progress,
) -> SlotVectors:
    """Train new slot weights beside fixed old ones: cross-entropy of the pooled scores, with rehearsal.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        Its slots take part and do not move.
    weights : float tensor of shape (new slot, feature)
        Where the new slots start.
    labels : int64 tensor of shape (new slot,)
        What each of them answers.
    data : RefinementData
        What they are refined on.
    epochs : int, default 15
        Passes over the data (count, >= 0).
    lr : float, default 2e-3
        Peak learning rate (Adam, cosine decay).
    margin : float, default 0.005
        Cosine by which the right label must lead.
    memory_margin : float, default 0.05
        The same for remembered examples: new slots keep further away from what the old ones answer, since new data
        of the old classes, which nobody may ask about again, spread wider than what is remembered.
    seed : int, default 0
        Where the order of the batches and their views come from.
    progress : callable
        ``progress(step, share)``, told the progress.

    Returns
    -------
    float tensor of shape (new slot, feature)
        Unit vectors.

    Notes
    -----
    The loss of the fit (cross-entropy on ``scale * SoftMaxPool``), with the gradient of the old slots left out. Pooling
    raw new slots with trained ones on plain cosines costs 17 points of accuracy on held-out data; this is what makes
    the scores comparable. With the larger margin on the memory the old classes lose less and the new ones gain the same
    (MNIST pixels, 5,000 images of 0-7, 200 labels of all ten: -0.63 in place of -1.08 points, +10.4 in place of +10.2;
    one seed). Of more than `MOST_ROWS` rows each epoch sees so many (`epoch_rows`).
    """
    batches = RehearsalBatches(data, seed)
    old = head.weights.detach()[head.pooled] if bool(head.pooled.any()) else head.weights.detach()
    old_labels = head.labels[head.pooled] if bool(head.pooled.any()) else head.labels
    classes = torch.cat([old_labels, labels]).unique()
    targets = torch.cat([data.labels, data.memory_labels])
    usable = torch.isin(targets, classes).nonzero()[:, 0].cpu().numpy()
    moving = normalize(weights).clone()
    if len(classes) < 2 or len(usable) == 0 or epochs == 0:
        return moving
    gradient = RehearsalGradient.of(old, old_labels, labels, scale=head.scale, beta=head.beta)
    wanted = torch.searchsorted(classes, targets)
    lead = moving.new_full((len(targets),), memory_margin)
    lead[: len(data.source)] = margin
    optimizer = Adam(moving)
    rng, size = np.random.default_rng(seed), min(250, len(usable))
    starts = range(0, min(len(usable), MOST_ROWS), size)
    for epoch in range(epochs):
        order = epoch_rows(usable, len(data.source), rng)
        for place, start in enumerate(starts):
            rows = order[start : start + size]
            ids = torch.from_numpy(rows).to(moving.device)
            slope = gradient(batches(rows, rng), moving, wanted[ids], lead[ids])
            done = (epoch + place / len(starts)) / epochs
            optimizer.step(slope, lr * 0.5 * (1 + math.cos(math.pi * done)))
            progress("refining", done)
    return normalize(moving)


def epoch_rows(usable: Ids, n_inputs: int, rng: np.random.Generator) -> Ids:
    """Rows of one epoch in random order: all, or of very many everything remembered and inputs drawn anew each time.

    Parameters
    ----------
    usable : int64 array
        Rows: inputs are numbered first, then what is remembered.
    n_inputs : int
        Number of inputs.
    rng : Generator
        Draws.

    Returns
    -------
    int64 array
        At most `MOST_ROWS`.
    """
    if len(usable) <= MOST_ROWS:
        return rng.permutation(usable)
    remembered, inputs = usable[usable >= n_inputs][:MOST_ROWS], usable[usable < n_inputs]
    drawn = rng.choice(inputs, MOST_ROWS - len(remembered), replace=False)
    return rng.permutation(np.concatenate([drawn, remembered]))


def matched_examples(proposal: Proposal, given: Ids, *, most: int) -> Ids:
    """Matched new examples for the refinement, evenly spread; not those whose given label says otherwise."""
    agrees = (given < 0) | (given == proposal.prediction.labels)
    ids = np.flatnonzero(proposal.prediction.matched & agrees)
    if len(ids) == 0 or most == 0:
        return ids[:0]
    return np.asarray(ids[:: -(-len(ids) // most)], np.int64)
