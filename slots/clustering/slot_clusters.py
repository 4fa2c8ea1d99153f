"""What is set before slots are learned without labels, and what is known of them after."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from slots.errors import UsageError
from slots.head.similarities import Metric, similarity
from slots.shapes import Features, Similarities, SlotVectors, Thresholds


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
            Of the kind that the slots were learned from.

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
            Of the kind that the slots were learned from.

        Returns
        -------
        int64 tensor of shape (example,)
        """
        return self.scores(features).argmax(1)
