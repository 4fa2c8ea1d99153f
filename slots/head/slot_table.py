"""`SlotTable`: the slots of a head, one row of each tensor a slot."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from slots.deprecation import renamed
from slots.head.similarities import normalize
from slots.shapes import SlotLabels, SlotVectors, Thresholds

_PER_SLOT = (
    "centres",
    "labels",
    "precision_thresholds",
    "support_thresholds",
    "generations",
    "hits",
    "exemplars",
    "pooled",
    "held_out",
)
"""Names of the buffers whose first axis is the slot; `weights` is the one parameter among them."""

_STORED_POOLED = "trained"
"""What state dictionaries and model folders call `SlotTable.pooled`."""

N_EXEMPLARS = 4
"""Training examples remembered by id for each slot: the nearest first."""


class SlotTable(nn.Module):
    """Slots as rows of one parameter and some buffers, which can be added and dropped.

    Parameters
    ----------
    feature_dim : int
        Features of a slot, >= 1.

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
    pooled : bool buffer of shape (slot,)
        Whether the slot takes part in the pooled score.
    held_out : int64 buffer of shape (slot, 2)
        Held-out examples that the slot matched, and those of them with its label.
    classes : int64 buffer of shape (class,)
        The label of each column of the scores, in order of first appearance (sorted within one call).
    """

    weights: nn.Parameter
    centres: Tensor
    labels: Tensor
    precision_thresholds: Tensor
    support_thresholds: Tensor
    generations: Tensor
    hits: Tensor
    exemplars: Tensor
    pooled: Tensor
    held_out: Tensor
    classes: Tensor

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        if feature_dim < 1:
            raise ValueError(f"`feature_dim` must be >= 1, got {feature_dim}. Pass the backbone's number of features.")
        self.feature_dim = feature_dim
        self.weights = nn.Parameter(torch.zeros(0, feature_dim))
        self.register_buffer("centres", torch.zeros(0, feature_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("precision_thresholds", torch.zeros(0))
        self.register_buffer("support_thresholds", torch.zeros(0))
        self.register_buffer("generations", torch.zeros(0, dtype=torch.long))
        self.register_buffer("hits", torch.zeros(0, dtype=torch.long))
        self.register_buffer("exemplars", torch.zeros(0, N_EXEMPLARS, dtype=torch.long))
        self.register_buffer("pooled", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("held_out", torch.zeros(0, 2, dtype=torch.long))
        self.register_buffer("classes", torch.zeros(0, dtype=torch.long))

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.weights)

    @property
    def n_classes(self) -> int:
        """Number of labels seen, the width of the class scores."""
        return len(self.classes)

    @property
    def trained(self) -> Tensor:
        """Former name of ``pooled``."""
        return self.pooled

    @renamed(trained="pooled")
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
        pooled: bool = True,
    ) -> None:
        """Append slots behind the present ones, which keep their indices.

        Parameters
        ----------
        weights : float tensor of shape (slot, feature)
            Normalised here.
        labels : int64 tensor of shape (slot,)
            Label of each slot; one not seen before gets a column of the scores.
        centres : float tensor of shape (slot, feature), optional
            Default: the weights.
        precision_thresholds, support_thresholds : float tensors of shape (slot,), optional
            Default: 0 and -2 (a half sphere, no support limit) until the closing pass sets them.
        exemplars : int64 tensor of shape (slot, n), optional
            Up to four example ids a slot, nearest first.
        generation : int, default 0
            When the slots come, >= 0; what an older generation matches, a younger one never answers.
        pooled : bool, default True
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
            "pooled": torch.full((n,), pooled, device=unit.device),
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

    def _replace(self, name: str, value: Tensor) -> None:
        """Give a parameter or buffer a new value of another size.

        The weights become a new parameter: a graph of an earlier step that is still alive would go on to expect
        gradients of the old size for the old one. An optimiser has to be told (`slots.training` does).
        """
        if name == "weights":
            self.weights = nn.Parameter(value, requires_grad=self.weights.requires_grad)
        else:
            setattr(self, name, value)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Under the names of the stored format, in its order."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for key in [key for key in destination if key.startswith(prefix)]:
            destination[_stored(key, prefix)] = destination.pop(key)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the sizes of the stored tensors before they are copied in."""
        if prefix + _STORED_POOLED in state_dict:
            state_dict[prefix + "pooled"] = state_dict.pop(prefix + _STORED_POOLED)
        for name in ("weights", "classes", *_PER_SLOT):
            stored = state_dict.get(prefix + name)
            present = getattr(self, name)
            if stored is not None and stored.ndim == present.ndim and stored.shape[1:] == present.shape[1:]:
                self._replace(name, torch.empty(stored.shape, dtype=present.dtype, device=present.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _stored(key: str, prefix: str) -> str:
    """Name of a tensor in a state dictionary."""
    return prefix + _STORED_POOLED if key == prefix + "pooled" else key
