"""Slots learned without labels: each matches a set share of the inputs, and each input belongs to its best slot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.cover import greedy_set_cover
from slots.errors import DataError, UsageError
from slots.matching import normalize, similarity
from slots.shapes import Features, Similarities, SlotVectors, Thresholds

Metric = Literal["cosine", "l2"]

_SCORES_HELD = 1 << 24  # scores held at once in the pass over all inputs (64 MiB in float32)


@dataclass(frozen=True)
class ClusterConfig:
    """How slots are learned without labels.

    Parameters
    ----------
    share : float in (0, 1), default 0.01
        The share of a batch that a slot may match: the fewer, the more slots.
    metric : {"cosine", "l2"}, default "cosine"
        Score of an input for a slot: the cosine, or the negative squared distance.
    normalized : bool, default False
        Subtract each slot's mean score in the batch and divide by its deviation before the best slot is taken and in
        the loss: slots become less like each other, and more abstract.
    epochs : int, default 4
        Passes over the inputs, >= 1. No slots are added in the last, unless it is the only one.
    batch_size : int, default 1000
        Thresholds come from the batch, >= 2.
    lr : float, default 0.5
        First step length, > 0; it falls to 0 by a half cosine. Half is the way to the mean of what was won under
        ``"l2"``.
    min_wins : int, default 5
        Slots that won fewer inputs in an epoch are dropped after it, >= 0.
    max_slots : int, optional
        Most slots at any time, >= 1.
    min_deviation : float, default 0.0
        Inputs whose features deviate less than this from their own mean take no part (flat patches), >= 0.
    seed : int, default 0
        Order of the inputs.
    """

    share: float = 0.01
    metric: Metric = "cosine"
    normalized: bool = False
    epochs: int = 4
    batch_size: int = 1000
    lr: float = 0.5
    min_wins: int = 5
    max_slots: int | None = None
    min_deviation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UsageError(f"`share` must lie in (0, 1), got {self.share}. 0.01 lets a slot match one in a hundred.")
        if self.metric not in ("cosine", "l2"):
            raise UsageError(f"`metric` must be 'cosine' or 'l2', got {self.metric!r}. Choose one of the two.")
        for name, low in [("epochs", 1), ("batch_size", 2), ("min_wins", 0)]:
            if getattr(self, name) < low:
                raise UsageError(f"`{name}` must be >= {low}, got {getattr(self, name)}. Pass a larger number.")
        if self.max_slots is not None and self.max_slots < 1:
            raise UsageError(f"`max_slots` must be >= 1, got {self.max_slots}. Leave it out for no bound.")
        if not self.lr > 0 or not self.min_deviation >= 0:
            raise UsageError(
                f"`lr` must be > 0 and `min_deviation` >= 0, got {self.lr} and {self.min_deviation}. Change them."
            )


@dataclass(frozen=True)
class SlotClusters:
    """Slots learned without labels.

    Parameters
    ----------
    weights : float32 tensor of shape (slot, feature)
        Unit vectors under ``"cosine"``.
    thresholds : float32 tensor of shape (slot,)
        The score that a slot matches from (at or above), so that it matches the set share of the inputs.
    wins : int64 tensor of shape (slot,)
        Inputs that belong to each slot.
    mean, deviation : float32 tensors of shape (slot,)
        Of each slot's scores over the inputs; the deviation is > 0.
    owners : int64 tensor of shape (example,)
        The slot that each input belongs to; -1 for inputs that took no part.
    losses : tuple of float
        Of each epoch: minus the mean, over slots with winners, of the mean score of their winners.
    metric, normalized
        As in `ClusterConfig`.
    """

    weights: SlotVectors
    thresholds: Thresholds
    wins: Int[Tensor, " slot"]
    mean: Float[Tensor, " slot"]
    deviation: Float[Tensor, " slot"]
    owners: Int[Tensor, " example"]
    losses: tuple[float, ...]
    metric: Metric
    normalized: bool

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.weights)

    def scores(self, features: Features) -> Similarities:
        """Score of each input for each slot, normalised where the slots were learned so.

        Parameters
        ----------
        features : float tensor of shape (example, feature)

        Returns
        -------
        float tensor of shape (example, slot)
        """
        raw = similarity(features, self.weights, metric=self.metric)
        return (raw - self.mean) / self.deviation if self.normalized else raw

    def assign(self, features: Features) -> Int[Tensor, " example"]:
        """Best slot of each input; ties go to the lowest.

        Parameters
        ----------
        features : float tensor of shape (example, feature)

        Returns
        -------
        int64 tensor of shape (example,)
        """
        return self.scores(features).argmax(1)


@torch.no_grad()
def learn_slots(
    features: Features, config: ClusterConfig | None = None, *, report: Callable[[str, float], None] | None = None
) -> SlotClusters:
    """Learn slots from inputs without labels.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        Inputs or patches; under ``"cosine"`` only their directions count.
    config : ClusterConfig, optional
    report : callable, optional
        ``report(step, share)``: told what is being done, and how much of it is done (0 to 1).

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
    config = config or ClusterConfig()
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
    weights, losses = _epochs(x, config, report or _silent)
    return _closed(x, weights, part, len(features), config, losses)


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
    lr : float
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


def _epochs(x: Tensor, config: ClusterConfig, report: Callable[[str, float], None]) -> tuple[Tensor, tuple[float, ...]]:
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
            report(f"epoch {epoch + 1}/{config.epochs}  {len(weights)} slots", done)
        losses.append(loss / len(starts))
        weights = weights[wins >= min(config.min_wins, int(wins.max()))]  # never all of them
    return weights, tuple(losses)


def _closed(
    x: Tensor, weights: Tensor, part: Tensor, n_inputs: int, config: ClusterConfig, losses: tuple[float, ...]
) -> SlotClusters:
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
    everyone = torch.full((n_inputs,), -1, dtype=torch.long, device=x.device)
    everyone[part] = owners
    wins = torch.bincount(owners, minlength=len(weights))
    return SlotClusters(
        weights, thresholds, wins, mean, deviation, everyone, losses, config.metric, config.normalized
    )


def _silent(_step: str, _share: float) -> None:
    """Report nothing."""
