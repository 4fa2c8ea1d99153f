"""Training of new slots beside old ones that stay as they are, so that the scores of both are comparable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from slots.adam import Adam
from slots.features.source import FeatureSource
from slots.features.views import Views
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.progress import Progress
from slots.shapes import Ids, SlotLabels, SlotVectors
from slots.update.queries import Proposal

_KEPT_VIEWS = 9  # drawn once; more teach little and cost memory
_STEP_VIEWS = 4  # of them, in one step: the input itself and three drawn anew

MOST_ROWS = 30_000
"""Rows of an epoch: a few hundred labels teach no more on ten times as many, in ten times the time."""

_KEPT_FLOATS = 1 << 28  # 1 GiB of features is kept; beyond that they are computed for each batch


@dataclass(frozen=True)
class RefinementData:
    """Training data of the refinement: new inputs, and remembered ones for rehearsal.

    Parameters
    ----------
    source : FeatureSource
        New inputs.
    labels : int64 tensor of shape (example,)
        Their labels: asked, answered by an old slot, or taken from the nearest new one.
    memory : float tensor of shape (memory, feature)
        Unit features of the old slots' support examples.
    memory_labels : int64 tensor of shape (memory,)
        The labels of those slots.
    """

    source: FeatureSource
    labels: Tensor
    memory: Tensor
    memory_labels: Tensor


@torch.enable_grad()
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
    batches = _RehearsalBatches(data, seed)
    old = head.weights.detach()[head.pooled] if bool(head.pooled.any()) else head.weights.detach()
    old_labels = head.labels[head.pooled] if bool(head.pooled.any()) else head.labels
    every = torch.cat([old_labels, labels])
    classes = every.unique()
    targets = torch.cat([data.labels, data.memory_labels])
    usable = torch.isin(targets, classes).nonzero()[:, 0].cpu().numpy()
    if len(classes) < 2 or len(usable) == 0 or epochs == 0:
        return normalize(weights)
    groups, columns = class_groups(every, classes), torch.searchsorted(classes, targets)
    moving = nn.Parameter(normalize(weights).clone())
    optimizer = Adam(moving)
    rng, size = np.random.default_rng(seed), min(250, len(usable))
    starts = range(0, min(len(usable), MOST_ROWS), size)
    for epoch in range(epochs):
        order = epoch_rows(usable, len(data.source), rng)
        for place, start in enumerate(starts):
            rows = order[start : start + size]
            unit = batches(rows, rng)
            viewed = torch.cat([unit @ old.T, unit @ normalize(moving).T], -1)
            scores = viewed.amax(1) if viewed.shape[1] > 1 else viewed[:, 0]
            wanted = columns[torch.from_numpy(rows).to(columns.device)]
            pooled = softmax_pool(scores, groups, beta=head.beta)
            lead = torch.where(torch.from_numpy(rows >= len(data.source)), memory_margin, margin)[:, None].to(pooled)
            pooled = pooled - lead * functional.one_hot(wanted, len(classes))
            loss = functional.cross_entropy(head.scale * pooled, wanted)
            (gradient,) = torch.autograd.grad(loss, moving)
            done = (epoch + place / len(starts)) / epochs
            optimizer.step(gradient, lr * 0.5 * (1 + math.cos(math.pi * done)))
            progress("refining", done)
    return normalize(moving.detach())


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


class _RehearsalBatches:
    """Unit features of a few views of any rows of the data: inputs first, then the memory."""

    def __init__(self, data: RefinementData, seed: int) -> None:
        self.data, self.featurizer = data, data.source.featurizer
        views, n, dim = self.featurizer.views, len(data.source), self.featurizer.feature_dim
        drawn = np.random.default_rng([seed, 1]).permutation(views.n_views - 1)[: _KEPT_VIEWS - 1] + 1
        self.places = [0, *np.sort(drawn).tolist()]
        self.views = Views(views.spec, tuple(views.steps[i] for i in self.places))
        self.kept: Tensor | None = None
        if n * len(self.places) * dim <= _KEPT_FLOATS:
            parts = [self._features(rows) for rows in data.source.blocks()]
            self.kept = torch.cat(parts) if parts else data.memory.new_zeros(0, len(self.places), dim)

    def __call__(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Shape (row, view, feature)."""
        few = [0, *(rng.permutation(len(self.places) - 1)[: _STEP_VIEWS - 1] + 1).tolist()]
        n = len(self.data.source)
        inputs = np.flatnonzero(rows < n)
        out = self.data.memory.new_zeros(len(rows), len(few), self.featurizer.feature_dim)
        if len(inputs):
            ids = rows[inputs]
            features = self._features(ids) if self.kept is None else self.kept[torch.from_numpy(ids)]
            out[torch.from_numpy(inputs)] = features[:, few]
        remembered = np.flatnonzero(rows >= n)
        if len(remembered):
            out[torch.from_numpy(remembered)] = self.data.memory[torch.from_numpy(rows[remembered] - n)][:, None]
        return out

    @torch.no_grad()
    def _features(self, rows: slice | npt.NDArray[np.int64]) -> Tensor:
        source = self.data.source
        if source.keeps:
            return normalize(source(rows)[:, self.places].float())
        inputs = self.featurizer.preprocessing(source.x[rows], self.featurizer.device)
        viewed = self.views(inputs) if inputs.ndim == 4 else inputs[:, None]
        return normalize(self.featurizer.featurize(viewed).float())


def matched_examples(proposal: Proposal, given: Ids, *, most: int) -> Ids:
    """Matched new examples for the refinement, evenly spread; not those whose given label says otherwise."""
    agrees = (given < 0) | (given == proposal.prediction.labels)
    ids = np.flatnonzero(proposal.prediction.matched & agrees)
    if len(ids) == 0 or most == 0:
        return ids[:0]
    return np.asarray(ids[:: -(-len(ids) // most)], np.int64)
