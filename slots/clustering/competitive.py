"""Slots learned without labels: each matches a set share of the inputs, and each input belongs to its best slot."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from slots.clustering.slot_clusters import ClusterConfig, SlotClusters
from slots.cover.greedy import greedy_set_cover
from slots.deprecation import renamed
from slots.errors import DataError
from slots.head.similarities import normalize, similarity
from slots.progress import Progress, silent
from slots.shapes import Features, Similarities, SlotVectors, Thresholds

_SCORES_HELD = 1 << 24  # scores held at once in the pass over all inputs (64 MiB in float32)


@renamed(report="progress")
@torch.no_grad()
def learn_slots(
    features: Features, config: ClusterConfig | None = None, *, progress: Progress | None = None
) -> SlotClusters:
    """Competitive learning: slots from inputs without labels.

    Parameters
    ----------
    features : float array or tensor of shape (example, feature)
        Inputs or patches; under ``"cosine"`` only their directions count.
    config : ClusterConfig, optional
        Default: `ClusterConfig` as it stands.
    progress : callable, optional
        ``progress(step, share)``: told what is being done, and how much of it is done (0 to 1).

    Returns
    -------
    SlotClusters

    Raises
    ------
    DataError
        If ``features`` is not a finite float matrix, or fewer than two inputs take part.

    Notes
    -----
    In each batch: a slot's threshold is the ``1 - share`` quantile of its scores; inputs that no slot matches are
    candidates with thresholds by the same rule; greedy set cover picks new slots among them; each input goes to its
    best slot only; and each slot takes a step along the gradient of the mean score of its winners (times its deviation
    in the normalised form, so that a rate means the same in both). Source: design, section 3 "Unsupervised" (ours).

    Examples
    --------
    >>> x = torch.tensor([[9.0, 0.0], [8.0, 1.0], [0.0, 7.0], [1.0, 9.0]])
    >>> learn_slots(x, ClusterConfig(share=0.5, min_wins=1)).owners
    tensor([0, 0, 1, 1])
    """
    config, features = config or ClusterConfig(), torch.as_tensor(features)
    if features.ndim != 2 or not features.is_floating_point() or not bool(features.isfinite().all()):
        raise DataError(
            f"`features` must be a finite float matrix (example, feature), got {features.dtype} of shape "
            f"{tuple(features.shape)}. Flatten patches and scale them first."
        )
    part = takes_part(features, config).nonzero()[:, 0]
    if len(part) < 2:
        raise DataError(f"`features` must have two rows that take part, got {len(part)}. Lower `min_deviation`.")
    x = features[part].float()
    x = normalize(x) if config.metric == "cosine" else x
    weights, losses = _epochs(x, config, progress or silent)
    found = _closed(x, weights, config, losses=losses)
    owners = torch.full((len(features),), -1, dtype=torch.long, device=x.device)
    owners[part] = found.owners
    return replace(found, owners=owners)


def takes_part(features: Features, config: ClusterConfig) -> Bool[Tensor, " example"]:
    """Which inputs are not flat, and have a direction where only that counts."""
    lively = features.std(1, correction=0) >= config.min_deviation
    return lively & (features != 0).any(1) if config.metric == "cosine" else lively


def share_thresholds(scores: Similarities, share: float) -> Thresholds:
    """Score that a share of the inputs reaches, for each slot: its ``1 - share`` quantile.

    Parameters
    ----------
    scores : float tensor of shape (example, slot)
        At least one row.
    share : float in (0, 1)
        ``floor(share * example)`` inputs reach the threshold, at least one (more where scores tie).

    Returns
    -------
    float tensor of shape (slot,)

    Examples
    --------
    >>> share_thresholds(torch.tensor([[0.1], [0.9], [0.5], [0.3]]), 0.5)
    tensor([0.5000])
    """
    count = max(1, math.floor(share * len(scores) + 1e-9))  # 0.07 * 100 is a little more than 7
    return scores.topk(count, dim=0).values[-1]


@dataclass(frozen=True)
class Step:
    """One step of learning on a batch: the slots after it, the inputs each won, those added last, and the loss."""

    weights: SlotVectors
    wins: Int[Tensor, " slot"]
    n_added: int
    loss: float


def learning_step(x: Features, weights: SlotVectors, config: ClusterConfig, *, lr: float, grow: bool) -> Step:
    """Let slots match, add what is missing, and move each toward what it won.

    Parameters
    ----------
    x : float tensor of shape (example, feature)
        A batch; of unit length under ``"cosine"``.
    weights : float tensor of shape (slot, feature)
        Possibly none.
    config : ClusterConfig
        Its share, metric and normalisation are used.
    lr : float
        Length of the step, > 0.
    grow : bool
        Whether slots may be added.

    Returns
    -------
    Step
    """
    fresh = _missing(x, weights, config) if grow else x[:0]
    weights = torch.cat([weights, fresh])
    scores = _scores(x, weights, config)
    deviation = scores.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    if config.normalized:
        scores = (scores - scores.mean(0)) / deviation
    owners = scores.argmax(1)
    wins = torch.bincount(owners, minlength=len(weights))
    won = torch.zeros_like(scores)  # each winner's weight in its slot's mean
    won[torch.arange(len(x), device=x.device), owners] = 1 / wins[owners].to(x)
    means = (won * scores).sum(0)
    if config.normalized:  # through the batch's mean and deviation; 1 / deviation is left out, see `learn_slots`
        won = (won - won.mean(0) - scores * (won * scores).mean(0)) * (wins > 0)
    pull = won.T @ x
    if config.metric == "l2":
        pull = 2 * (pull - won.sum(0)[:, None] * weights)
    moved = weights + lr * pull
    moved = normalize(moved) if config.metric == "cosine" else moved
    return Step(moved, wins, len(fresh), -float(means[wins > 0].mean()))


def _missing(x: Tensor, weights: Tensor, config: ClusterConfig) -> Tensor:
    """The inputs that become slots: a cover of those that no slot matches."""
    room = None if config.max_slots is None else config.max_slots - len(weights)
    if room == 0:
        return x[:0]
    scores = _scores(x, weights, config)
    open_rows = (~(scores >= share_thresholds(scores, config.share)).any(1)).nonzero()[:, 0]
    if len(open_rows) == 0:
        return x[:0]
    candidates = _scores(x, x[open_rows], config)
    covers = (candidates >= share_thresholds(candidates, config.share))[open_rows]
    return x[open_rows[greedy_set_cover(covers.T.contiguous(), max_slots=room)]]


def _scores(x: Tensor, weights: Tensor, config: ClusterConfig) -> Similarities:
    """Scores of inputs that are already of unit length under ``"cosine"``."""
    return x @ weights.T if config.metric == "cosine" else similarity(x, weights, metric="l2")


def _epochs(x: Tensor, config: ClusterConfig, progress: Progress) -> tuple[Tensor, tuple[float, ...]]:
    """All passes over the inputs; returns the slots and each pass's mean loss."""
    generator = torch.Generator().manual_seed(config.seed)
    weights, losses = x[:0], []
    starts = range(0, max(1, len(x) - config.batch_size + 1), config.batch_size)  # a short batch has coarse quantiles
    for epoch in range(config.epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        grow = epoch + 1 < config.epochs or epoch == 0
        wins = torch.zeros(len(weights), dtype=torch.long, device=x.device)
        loss = 0.0
        for n, start in enumerate(starts):
            done = (epoch + n / len(starts)) / config.epochs
            lr = config.lr * 0.5 * (1 + math.cos(math.pi * done))
            step = learning_step(x[order[start : start + config.batch_size]], weights, config, lr=lr, grow=grow)
            weights, loss = step.weights, loss + step.loss
            wins = torch.cat([wins, wins.new_zeros(step.n_added)]) + step.wins
            progress(f"epoch {epoch + 1}/{config.epochs}  {len(weights)} slots", done)
        losses.append(loss / len(starts))
        weights = weights[wins >= min(config.min_wins, int(wins.max()))]  # never all of them
    return weights, tuple(losses)


def _closed(x: Tensor, weights: Tensor, config: ClusterConfig, *, losses: tuple[float, ...]) -> SlotClusters:
    """Exact statistics of the slots over all inputs, some slots at a time."""
    best = torch.full((len(x),), -math.inf, device=x.device)
    owners = torch.zeros(len(x), dtype=torch.long, device=x.device)
    columns = []
    for first in range(0, len(weights), max(1, _SCORES_HELD // len(x))):
        scores = _scores(x, weights[first : first + max(1, _SCORES_HELD // len(x))], config)
        mean, deviation = scores.mean(0), scores.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        columns.append(torch.stack([share_thresholds(scores, config.share), mean, deviation]))
        top, slot = ((scores - mean) / deviation if config.normalized else scores).max(1)
        owners = torch.where(top > best, slot + first, owners)
        best = torch.maximum(top, best)
    thresholds, mean, deviation = torch.cat(columns, 1)
    wins = torch.bincount(owners, minlength=len(weights))
    return SlotClusters(weights, thresholds, wins, mean, deviation, owners, losses, config.metric, config.normalized)
