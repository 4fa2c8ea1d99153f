"""`IncrementalNeuralHashing`: a head that remembers its training data as slots."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.cover.greedy import greedy_set_cover
from slots.errors import EmptyHeadError
from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.pooling import class_groups, softmax_pool
from slots.head.prediction import Prediction
from slots.head.recalling.recall import Recall
from slots.head.similarities import best_view, normalize
from slots.head.slot_table import SlotTable
from slots.head.thresholds import precision_thresholds
from slots.kept import Kept
from slots.shapes import Labels


class IncrementalNeuralHashing(SlotTable):
    """Prototype classifier: class scores from slots that can be added, dropped and asked.

    It sits on any backbone in place of a linear layer: ``head(features)`` gives class scores to train on;
    ``head.predict(features)`` gives answers that name the slot behind them.

    Parameters
    ----------
    feature_dim : int
        Features of the backbone, >= 1.
    scale : float, default 60.0
        Factor on the pooled cosine before the cross-entropy; the learning rate of the slots goes as its inverse.
    beta : float, default 20.0
        Inverse temperature of SoftMaxPool over a class's slots.
    precision : float in (0, 1], default 1.0
        Share of own examples wanted above a slot's precision threshold.

    Attributes
    ----------
    weights, centres, labels, ...
        One row a slot: see `SlotTable`.
    recall : Recall or None
        What guesses where nothing matches, beside the pooled score; an update may set it (`UpdateConfig.recall`).

    Examples
    --------
    >>> head = IncrementalNeuralHashing(feature_dim=2)
    >>> head.add_slots(torch.eye(2), torch.tensor([7, 9]))
    >>> head(torch.tensor([[2.0, 0.0]])).argmax(1)
    tensor([0])
    >>> head.predict(torch.tensor([[2.0, 0.0]])).labels
    array([7])
    """

    def __init__(self, feature_dim: int, *, scale: float = 60.0, beta: float = 20.0, precision: float = 1.0) -> None:
        super().__init__(feature_dim)
        if scale <= 0 or beta < 0:
            raise ValueError(f"`scale` must be > 0 and `beta` >= 0, got {scale} and {beta}. Try 60 and 20.")
        self.scale, self.beta, self.precision = scale, beta, precision
        self.recall: Recall | None = None
        self._groups: tuple[tuple[Tensor, ...], tuple[int, ...], Tensor] | None = None

    @cached_property
    def _kept(self) -> Kept[Any]:
        """What inputs are answered with, as long as the slots stay as they are; none in a copy."""
        return Kept()

    def extra_repr(self) -> str:
        """Sizes shown by ``print(head)``."""
        return f"slots={self.n_slots}, feature_dim={self.feature_dim}, scale={self.scale}, beta={self.beta}"

    def scores(self, features: Float[Tensor, "*batch feature"], *, half: bool = False) -> Float[Tensor, "*batch slot"]:
        """Cosine of inputs to slot weights, in float32 also under autocast (thresholds need the bits).

        Parameters
        ----------
        features : float tensor of shape (..., feature)
            Raw features of the backbone; any scale.
        half : bool, default False
            Multiply in bfloat16, for a training: scores are then off by up to 0.008, and their gradients by as much.

        Returns
        -------
        float tensor of shape (..., slot)
        """
        if features.shape[-1] != self.feature_dim:
            raise ValueError(
                f"`features` must have shape (batch, {self.feature_dim}), got {tuple(features.shape)}. "
                f"The head was built for another backbone; pass feature_dim={features.shape[-1]}."
            )
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(torch.promote_types(features.dtype, torch.float32))
            unit, kind = normalize(wide), torch.bfloat16 if half else wide.dtype
            return (unit.to(kind) @ self.weights.to(kind).T).to(wide.dtype)

    def forward(
        self, features: Float[Tensor, "batch feature"] | Float[Tensor, "batch view feature"], *, half: bool = False
    ) -> Float[Tensor, "batch label"]:
        """Class scores for training: ``scale * SoftMaxPool`` of the best view's cosines.

        Parameters
        ----------
        features : float tensor of shape (batch, feature) or (batch, view, feature)
            Raw features; of several views of an input the best one counts for each slot.
        half : bool, default False
            As `scores` has it.

        Returns
        -------
        float tensor of shape (batch, class)
            Column ``i`` belongs to the label ``head.classes[i]``.

        Raises
        ------
        EmptyHeadError
            If the head has no slots yet.
        """
        return self.class_scores(self._best(features, half=half))

    def class_scores(self, scores: Float[Tensor, "batch slot"]) -> Float[Tensor, "batch label"]:
        """Pool slot scores (best view already taken) into scaled class scores, shape (batch, class)."""
        self.require_slots()
        return self.scale * softmax_pool(scores, self._pooled_groups(), beta=self.beta)

    def _pooled_groups(self) -> Tensor:
        """Pooled slots by class; kept while no slot comes or goes, since making them waits for the device."""
        made_of = (self.pooled, self.labels, self.classes)
        versions = tuple(part._version for part in made_of)  # noqa: SLF001  # torch's own count of changes in place
        kept = self._groups
        if kept is None or kept[1] != versions or any(a is not b for a, b in zip(kept[0], made_of, strict=True)):
            nowhere = torch.full_like(self.labels, -1 - int(self.labels.abs().max()))
            groups = class_groups(torch.where(self.pooled, self.labels, nowhere), self.classes)
            self._groups = kept = (made_of, versions, groups)
        return kept[2]

    def predict(self, features: Float[Tensor, "batch feature"] | Float[Tensor, "batch view feature"]) -> Prediction:
        """Answer each input with its label, the kind of answer, the slot and the margin.

        Parameters
        ----------
        features : float tensor of shape (batch, feature) or (batch, view, feature)
            Raw features; an input matches a slot where any of its views does.

        Returns
        -------
        Prediction

        Raises
        ------
        EmptyHeadError
            If the head has no slots.
        """
        self.require_slots()
        if features.shape[-1] != self.feature_dim:
            self.scores(features[:0])  # raises the message about shapes
        return decide(features if features.ndim == 3 else features[:, None], self.caps())

    def caps(self) -> SlotCaps:
        """View of the slots as the match rule needs them (tensors are shared, not copied)."""
        if self.recall is not None:
            self.recall = self.recall.to(self.weights.device)
        return SlotCaps(
            weights=self.weights.detach(),
            centres=self.centres,
            precision=self.precision_thresholds,
            support=self.support_thresholds,
            labels=self.labels,
            generations=self.generations,
            pooled=self.pooled,
            beta=self.beta,
            recall=self.recall,
            kept=self._kept,
        )

    def prune(self, *, min_hits: int = 1) -> int:
        """Drop slots that matched fewer than ``min_hits`` examples this epoch, zero the counts; returns how many."""
        keep = self.hits >= min_hits
        self.drop_slots(keep)
        self.hits.zero_()
        return int((~keep).sum())

    @torch.no_grad()
    def grow(
        self,
        features: Float[Tensor, "batch feature"] | Float[Tensor, "batch view feature"],
        labels: Labels,
        ids: Int[Tensor, " batch"] | None = None,
    ) -> int:
        """One growing step: cover what no slot of the batch's own labels matches with the fewest new slots.

        Thresholds come from the batch: a slot matches above the largest score of any other label in it. The
        unmatched examples are candidates, each by its view of largest norm; greedy set cover picks among them.

        Parameters
        ----------
        features : float tensor of shape (batch, feature) or (batch, view, feature)
            Of one batch; any scale.
        labels : int64 tensor of shape (batch,)
            Label of each example, >= 0.
        ids : int64 tensor of shape (batch,), optional
            Example ids, remembered as the new slots' exemplars.

        Returns
        -------
        int
            Number of slots added. Matches of present slots are counted in `hits`.
        """
        views = features if features.ndim == 3 else features[:, None]
        best = self._best(views) if self.n_slots else views.new_zeros(len(views), 0)
        thresholds = precision_thresholds(best, self.labels, labels, precision=self.precision)
        fires = (best > thresholds) & (labels[:, None] == self.labels)
        self.hits += fires.sum(0)
        loud = views.norm(dim=-1).argmax(1)
        candidates = normalize(views[torch.arange(len(views), device=views.device), loud].float())
        usable = candidates.square().sum(1) > 0
        open_rows = (~fires.any(1) & usable).nonzero()[:, 0]
        if len(open_rows) == 0:
            return 0
        scores, _ = best_view(normalize(views.float()) @ candidates[open_rows].T)
        own = precision_thresholds(scores, labels[open_rows], labels, precision=self.precision)
        covers = (scores[open_rows] > own) & (labels[open_rows][:, None] == labels[open_rows])
        picked = greedy_set_cover(covers.T.contiguous()).to(open_rows.device)
        chosen = open_rows[picked]
        if len(chosen) == 0:  # what is left contradicts other examples of the batch
            return 0
        self.add_slots(
            candidates[chosen],
            labels[chosen],
            precision_thresholds=own[picked].clamp_min(-1),
            exemplars=None if ids is None else ids[chosen][:, None],
        )
        self.hits[-len(chosen) :] += covers[:, picked].sum(0)
        return len(chosen)

    @torch.no_grad()
    def step_(self, lr: float) -> None:
        """Plain SGD step on the slot weights (no momentum: the matrix changes size), then back to unit length."""
        if self.weights.grad is not None:
            self.weights.sub_(lr * self.weights.grad)
            self.weights.grad = None
        self.renormalize_()

    @torch.no_grad()
    def renormalize_(self) -> None:
        """Put the slot weights back on the unit sphere."""
        self.weights.copy_(normalize(self.weights))

    def _best(self, features: Tensor, *, half: bool = False) -> Tensor:
        """Scores of the best view, shape (batch, slot)."""
        scores = self.scores(features, half=half)
        return scores.amax(1) if scores.ndim == 3 else scores

    def require_slots(self) -> None:
        """Raise an `EmptyHeadError` where there are none."""
        if self.n_slots == 0:
            raise EmptyHeadError("The head has no slots yet. Fit it, or call add_slots first.")
