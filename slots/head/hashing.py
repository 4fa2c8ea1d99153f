"""`IncrementalNeuralHashing`: a head that remembers its training data as slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from slots.cover.greedy import greedy_set_cover
from slots.errors import EmptyHeadError
from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.pooling import class_groups, softmax_pool
from slots.head.prediction import Prediction
from slots.head.similarities import best_view, normalize
from slots.head.thresholds import precision_thresholds
from slots.shapes import Labels, SlotLabels, SlotVectors, Thresholds

_PER_SLOT = (
    "centres",
    "labels",
    "precision_thresholds",
    "support_thresholds",
    "generations",
    "hits",
    "exemplars",
    "trained",
    "held_out",
)
"""Names of the buffers whose first axis is the slot; `weights` is the one parameter among them."""

N_EXEMPLARS = 4
"""Training examples remembered by id for each slot: the nearest first."""


class IncrementalNeuralHashing(nn.Module):
    """Class scores from slots that can be added, dropped and asked.

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
    weights : parameter of shape (slot, feature)
        Unit vectors that carry the class evidence. A new parameter whenever the number of slots changes: make an
        optimiser after growing, or use `step_`.
    centres : buffer of shape (slot, feature)
        Unit mean of the slot's own examples: its memory.
    labels, generations, hits : int64 buffers of shape (slot,)
        ``hits`` counts the examples that each slot matched in the current epoch.
    precision_thresholds, support_thresholds : float buffers of shape (slot,)
        Cosines; a match is strictly above both. Before the closing pass a support threshold is -2: no limit.
    exemplars : int64 buffer of shape (slot, 4)
        Ids of remembered training examples, nearest first, padded with -1.
    trained : bool buffer of shape (slot,)
        Whether the slot takes part in the pooled score.
    held_out : int64 buffer of shape (slot, 2)
        Held-out examples that the slot matched, and those of them with its label.
    classes : int64 buffer of shape (class,)
        The label of each column of the scores, in order of first appearance (sorted within one call).

    Examples
    --------
    >>> head = IncrementalNeuralHashing(feature_dim=2)
    >>> head.add_slots(torch.eye(2), torch.tensor([7, 9]))
    >>> head(torch.tensor([[2.0, 0.0]])).argmax(1)
    tensor([0])
    >>> head.predict(torch.tensor([[2.0, 0.0]])).labels
    array([7])
    """

    weights: nn.Parameter
    centres: Tensor
    labels: Tensor
    precision_thresholds: Tensor
    support_thresholds: Tensor
    generations: Tensor
    hits: Tensor
    exemplars: Tensor
    trained: Tensor
    held_out: Tensor
    classes: Tensor

    def __init__(self, feature_dim: int, *, scale: float = 60.0, beta: float = 20.0, precision: float = 1.0) -> None:
        super().__init__()
        if feature_dim < 1:
            raise ValueError(f"`feature_dim` must be >= 1, got {feature_dim}. Pass the backbone's number of features.")
        if scale <= 0 or beta < 0:
            raise ValueError(f"`scale` must be > 0 and `beta` >= 0, got {scale} and {beta}. Try 60 and 20.")
        self.feature_dim, self.scale, self.beta, self.precision = feature_dim, scale, beta, precision
        self.weights = nn.Parameter(torch.zeros(0, feature_dim))
        self.register_buffer("centres", torch.zeros(0, feature_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("precision_thresholds", torch.zeros(0))
        self.register_buffer("support_thresholds", torch.zeros(0))
        self.register_buffer("generations", torch.zeros(0, dtype=torch.long))
        self.register_buffer("hits", torch.zeros(0, dtype=torch.long))
        self.register_buffer("exemplars", torch.zeros(0, N_EXEMPLARS, dtype=torch.long))
        self.register_buffer("trained", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("held_out", torch.zeros(0, 2, dtype=torch.long))
        self.register_buffer("classes", torch.zeros(0, dtype=torch.long))
        self._groups: tuple[tuple[Tensor, ...], tuple[int, ...], Tensor] | None = None

    def extra_repr(self) -> str:
        """Sizes shown by ``print(head)``."""
        return f"slots={self.n_slots}, feature_dim={self.feature_dim}, scale={self.scale}, beta={self.beta}"

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.weights)

    @property
    def n_classes(self) -> int:
        """Number of labels seen, the width of the class scores."""
        return len(self.classes)

    def scores(self, features: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch slot"]:
        """Cosine of inputs to slot weights, in float32 also under autocast (thresholds need the bits).

        Parameters
        ----------
        features : float tensor of shape (..., feature)

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
            return normalize(wide) @ self.weights.to(wide.dtype).T

    def forward(
        self, features: Float[Tensor, "batch feature"] | Float[Tensor, "batch view feature"]
    ) -> Float[Tensor, "batch label"]:
        """Class scores for training: ``scale * SoftMaxPool`` of the best view's cosines.

        Parameters
        ----------
        features : float tensor of shape (batch, feature) or (batch, view, feature)

        Returns
        -------
        float tensor of shape (batch, class)
            Column ``i`` belongs to the label ``head.classes[i]``.

        Raises
        ------
        EmptyHeadError
            If the head has no slots yet.
        """
        return self.class_scores(self._best(features))

    def class_scores(self, scores: Float[Tensor, "batch slot"]) -> Float[Tensor, "batch label"]:
        """Pool slot scores (best view already taken) into scaled class scores, shape (batch, class)."""
        self._require_slots()
        return self.scale * softmax_pool(scores, self._pooled_groups(), beta=self.beta)

    def _pooled_groups(self) -> Tensor:
        """Pooled slots by class; kept while no slot comes or goes, since making them waits for the device."""
        made_of = (self.trained, self.labels, self.classes)
        versions = tuple(part._version for part in made_of)  # noqa: SLF001  # torch's own count of changes in place
        kept = self._groups
        if kept is None or kept[1] != versions or any(a is not b for a, b in zip(kept[0], made_of, strict=True)):
            nowhere = torch.full_like(self.labels, -1 - int(self.labels.abs().max()))
            groups = class_groups(torch.where(self.trained, self.labels, nowhere), self.classes)
            self._groups = kept = (made_of, versions, groups)
        return kept[2]

    def predict(self, features: Float[Tensor, "batch feature"] | Float[Tensor, "batch view feature"]) -> Prediction:
        """Answer each input with its label, the kind of answer, the slot and the margin.

        Parameters
        ----------
        features : float tensor of shape (batch, feature) or (batch, view, feature)

        Returns
        -------
        Prediction

        Raises
        ------
        EmptyHeadError
            If the head has no slots.
        """
        self._require_slots()
        if features.shape[-1] != self.feature_dim:
            self.scores(features[:0])  # raises the message about shapes
        return decide(features if features.ndim == 3 else features[:, None], self.caps())

    def caps(self) -> SlotCaps:
        """View of the slots as the match rule needs them (tensors are shared, not copied)."""
        return SlotCaps(
            weights=self.weights.detach(),
            centres=self.centres,
            precision=self.precision_thresholds,
            support=self.support_thresholds,
            labels=self.labels,
            generations=self.generations,
            pooled=self.trained,
            beta=self.beta,
        )

    @torch.no_grad()
    def add_slots(
        self,
        weights: SlotVectors,
        labels: SlotLabels,
        *,
        centres: SlotVectors | None = None,
        precision_thresholds: Thresholds | None = None,
        support_thresholds: Thresholds | None = None,
        exemplars: Int[Tensor, "slot exemplar"] | None = None,
        generation: int = 0,
        trained: bool = True,
    ) -> None:
        """Append slots behind the present ones, which keep their indices.

        Parameters
        ----------
        weights : float tensor of shape (slot, feature)
            Normalised here.
        labels : int64 tensor of shape (slot,)
        centres : float tensor of shape (slot, feature), optional
            Default: the weights.
        precision_thresholds, support_thresholds : float tensors of shape (slot,), optional
            Default: 0 and -2 (a half sphere, no support limit) until the closing pass sets them.
        exemplars : int64 tensor of shape (slot, n), optional
            Up to four example ids a slot, nearest first.
        generation : int, default 0
        trained : bool, default True
            Whether the slots take part in the pooled score.

        Raises
        ------
        ValueError
            If shapes disagree or a weight is the zero vector.
        """
        if weights.ndim != 2 or weights.shape[1] != self.feature_dim or len(labels) != len(weights):
            raise ValueError(
                f"`weights` must have shape ({len(labels)}, {self.feature_dim}), got {tuple(weights.shape)}. "
                "Give one row a label, as wide as the backbone's features."
            )
        unit = normalize(weights.detach().to(self.weights))
        if bool((unit == 0).all(1).any()):
            raise ValueError("`weights` must have no zero row, got one. A zero vector has no direction; leave it out.")
        n, like = len(unit), self.precision_thresholds
        ids = torch.full((n, N_EXEMPLARS), -1, dtype=torch.long, device=unit.device)
        if exemplars is not None:
            ids[:, : exemplars.shape[1]] = exemplars[:, :N_EXEMPLARS]
        labels = labels.to(self.labels)
        new: dict[str, Tensor] = {
            "centres": unit if centres is None else normalize(centres.to(unit)),
            "labels": labels,
            "precision_thresholds": like.new_zeros(n)
            if precision_thresholds is None
            else precision_thresholds.to(like),
            "support_thresholds": like.new_full((n,), -2.0)
            if support_thresholds is None
            else support_thresholds.to(like),
            "generations": torch.full_like(labels, generation),
            "hits": torch.zeros_like(labels),
            "exemplars": ids,
            "trained": torch.full((n,), trained, device=unit.device),
            "held_out": torch.zeros(n, 2, dtype=torch.long, device=unit.device),
        }
        self._replace("weights", torch.cat([self.weights.detach(), unit]))
        for name, rows in new.items():
            self._replace(name, torch.cat([getattr(self, name), rows]))
        fresh = labels.unique()
        self._replace("classes", torch.cat([self.classes, fresh[~torch.isin(fresh, self.classes)]]))

    @torch.no_grad()
    def drop_slots(self, keep_mask: Bool[Tensor, " slot"]) -> None:
        """Forget the slots outside ``keep_mask``; the rest close ranks. Labels once seen keep their column."""
        if keep_mask.shape != self.labels.shape:
            raise ValueError(
                f"`keep_mask` must have shape ({self.n_slots},), got {tuple(keep_mask.shape)}. One entry a slot."
            )
        keep = keep_mask.to(self.labels.device)
        self._replace("weights", self.weights.detach()[keep])
        for name in _PER_SLOT:
            self._replace(name, getattr(self, name)[keep])

    @torch.no_grad()
    def relabel_slots(self, slots: Int[Tensor, " slot"], label: int) -> None:
        """Give some slots another label; a label not seen before gets a column of the scores."""
        self.labels[slots] = label
        if not bool((self.classes == label).any()):
            self._replace("classes", torch.cat([self.classes, self.classes.new_tensor([label])]))

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
        labels : int64 tensor of shape (batch,)
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

    def _best(self, features: Tensor) -> Tensor:
        """Scores of the best view, shape (batch, slot)."""
        scores = self.scores(features)
        return scores.amax(1) if scores.ndim == 3 else scores

    def _require_slots(self) -> None:
        if self.n_slots == 0:
            raise EmptyHeadError("The head has no slots yet. Fit it, or call add_slots first.")

    def _replace(self, name: str, value: Tensor) -> None:
        """Give a parameter or buffer a new value of another size.

        The weights become a new parameter: a graph of an earlier step that is still alive would go on to expect
        gradients of the old size for the old one. An optimiser has to be told (`slots.training` does).
        """
        if name == "weights":
            self.weights = nn.Parameter(value, requires_grad=self.weights.requires_grad)
        else:
            setattr(self, name, value)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the sizes of the stored tensors before they are copied in."""
        for name in ("weights", "classes", *_PER_SLOT):
            stored = state_dict.get(prefix + name)
            present = getattr(self, name)
            if stored is not None and stored.ndim == present.ndim and stored.shape[1:] == present.shape[1:]:
                self._replace(name, torch.empty(stored.shape, dtype=present.dtype, device=present.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
