"""`SlotIndex`: exact matching at any number of slots, far quicker than comparing with each of them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from slots.deprecation import renamed
from slots.errors import UsageError
from slots.head.caps import SlotCaps
from slots.head.decision import CandidatePairs, MatchedPairs, best_pairs, decide, matching_pairs
from slots.head.pooled_answers import PooledSlots
from slots.head.prediction import Prediction
from slots.index.pair_search import PairSearch
from slots.shapes import ViewFeatures

Backend = Literal["auto", "torch", "faiss"]
Approximate = Literal["ivf", "hnsw"]
_REBUILD = 2.0  # slots added make the basis anew when there are this many times as many


@renamed(head="leading_dims")
class SlotIndex:
    """Finds every slot that an input matches, by the exact rule, and answers as `slots.head.decide` does.

    Parameters
    ----------
    caps : SlotCaps
        At least one slot; ``head.caps()`` gives them. They are kept, not copied.
    backend : {"auto", "torch", "faiss"}
        Who proposes pairs; the exact rule decides on them. ``"torch"``: a bound in a few dimensions
        (`slots.index.cap_bound`). ``"faiss"``: a flat FAISS index. ``"auto"``: torch, which was the quicker of the two
        on CPU wherever it was measured (``docs/matching.md``).
    approximate : {"ivf", "hnsw"}, optional
        Let FAISS propose from an index that misses some pairs: what it finds still passes the exact rule, what it
        misses is lost. `recall` measures how much. Default: nothing is missed.
    effort : int, default 16
        Of an approximate index: lists looked at, or nodes kept in view (count, >= 1).
    leading_dims : int, optional
        Leading dimensions of the torch backend's bound (count, >= 1). Default: chosen from the slots; it changes no
        answer.
    device : str or torch.device, optional
        Default: where the caps lie.

    Raises
    ------
    UsageError
        If there is no slot, or an option is not one of those named.
    MissingExtraError
        If FAISS is asked for and not installed.

    Notes
    -----
    Answers do not depend on the backend, the batch or the number of threads: proposals leave room for rounding and
    whatever lies within rounding of a threshold is decided in float64, as everywhere. With ``approximate`` that holds
    for the pairs it finds.

    Examples
    --------
    >>> from slots.head import IncrementalNeuralHashing
    >>> head = IncrementalNeuralHashing(feature_dim=2)
    >>> head.add_slots(torch.eye(2), torch.tensor([7, 9]), precision_thresholds=torch.tensor([0.9, 0.9]))
    >>> index = SlotIndex(head.caps())
    >>> index.predict(torch.tensor([[[2.0, 0.1]]])).labels
    array([7])
    >>> examples, slots = index.matching_pairs(torch.tensor([[[2.0, 0.1]], [[1.0, 1.0]]]))
    >>> examples.tolist(), slots.tolist()
    ([0], [0])
    """

    def __init__(
        self,
        caps: SlotCaps,
        *,
        backend: Backend = "auto",
        approximate: Approximate | None = None,
        effort: int = 16,
        leading_dims: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if backend not in {"auto", "torch", "faiss"}:
            raise UsageError(f"`backend` must be 'auto', 'torch' or 'faiss', got {backend!r}. Choose one of the three.")
        if len(caps.labels) == 0:
            raise UsageError("`caps` must hold at least one slot, got 0. Fit the head, or call add_slots first.")
        if effort < 1 or (leading_dims is not None and leading_dims < 1):
            raise UsageError(
                f"`effort` and `leading_dims` must be at least 1, got {effort} and {leading_dims}. Leave them out."
            )
        if approximate is not None and backend == "torch":
            raise UsageError(f"`approximate` must be None with backend='torch', got {approximate!r}. Pass 'faiss'.")
        self.backend: Backend = "faiss" if backend == "faiss" or approximate is not None else "torch"
        self.approximate, self._effort, self._leading_dims = approximate, effort, leading_dims
        self._build(_on(caps, caps.weights.device if device is None else torch.device(device)))

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.caps.labels)

    @property
    def device(self) -> torch.device:
        """Where the slots lie."""
        return self.caps.weights.device

    @property
    def bound_dimensions(self) -> int:
        """Features that a proposal looks at; those of the inputs where the bound has no tail."""
        return self._search.dimensions

    def _build(self, caps: SlotCaps) -> None:
        """Prepare for these slots."""
        self.caps, self._built = caps, len(caps.labels)
        self._pooled: PooledSlots | None = None
        kind = (self.approximate or "flat") if self.backend == "faiss" else None
        self._search = PairSearch(caps, faiss_kind=kind, effort=self._effort, leading_dims=self._leading_dims)

    @torch.no_grad()
    def add(self, caps: SlotCaps) -> None:
        """Append slots behind the present ones, as an update does.

        Parameters
        ----------
        caps : SlotCaps
            The new slots only, with the same features and ``beta``.

        Raises
        ------
        UsageError
            If their features or their ``beta`` are others.
        """
        new = _on(caps, self.device)
        if new.weights.shape[1] != self.caps.weights.shape[1] or new.beta != self.caps.beta:
            raise UsageError(
                f"`caps` must have {self.caps.weights.shape[1]} features and beta {self.caps.beta}, "
                f"got {new.weights.shape[1]} and {new.beta}. Build another index for another head."
            )
        tensors: dict[str, Any] = {
            name: torch.cat([value, getattr(new, name)]) if isinstance(value, Tensor) else value
            for name, value in vars(self.caps).items()
        }
        joined = SlotCaps(**tensors)
        if len(joined.labels) >= _REBUILD * self._built:
            self._build(joined)
            return
        self._search.add(new, joined)
        self.caps, self._pooled = joined, None

    def matching_pairs(self, features: ViewFeatures) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Every (example, slot) that match; see `slots.head.matching_pairs`.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features; any scale.

        Returns
        -------
        examples, slots : int64 tensors of shape (pair,)
            Sorted by example, then slot.
        """
        features = self._checked(features)
        return matching_pairs(features, self.caps, candidates=self.propose(features))

    def best_pairs(self, features: ViewFeatures) -> MatchedPairs:
        """The match of largest margin for each example, generation and label; see `slots.head.best_pairs`.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features; any scale.

        Returns
        -------
        MatchedPairs
        """
        features = self._checked(features)
        return best_pairs(features, self.caps, candidates=self.propose(features))

    def predict(self, features: ViewFeatures) -> Prediction:
        """Answer each input, as `slots.head.decide` does.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features; any scale.

        Returns
        -------
        Prediction
        """
        features = self._checked(features)
        if self._pooled is None and self.device.type == "cpu":
            self._pooled = PooledSlots.of(self.caps.weights, self.caps.labels, self.caps.pooled)
        return decide(features, self.caps, candidates=self.propose(features), pooled=self._pooled)

    def recall(self, features: ViewFeatures) -> float:
        """Share of the matching pairs of these inputs that the index finds: 1.0 unless it is approximate.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features; any scale. Inputs like those that will come.

        Returns
        -------
        float
            In [0, 1]; 1.0 where nothing matches.
        """
        found = self.matching_pairs(features)
        every = matching_pairs(features, self.caps, candidates=SlotIndex(self.caps, backend="torch").propose(features))
        return len(found[0]) / len(every[0]) if len(every[0]) else 1.0

    @torch.no_grad()
    def propose(self, features: ViewFeatures) -> CandidatePairs:
        """Triples that may match, with scores good to 1e-10: what the exact rule starts from.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features; any scale.

        Returns
        -------
        CandidatePairs
        """
        return self._search.propose(self._checked(features))

    def _checked(self, features: ViewFeatures) -> ViewFeatures:
        """Features on the device of the slots, of a width that fits."""
        if features.ndim != 3 or features.shape[2] != self.caps.weights.shape[1]:
            raise UsageError(
                f"`features` must have shape (example, view, {self.caps.weights.shape[1]}), "
                f"got {tuple(features.shape)}. One view of each example: features[:, None]."
            )
        wide = features if features.dtype == torch.float64 else features.float()
        return wide.detach().to(self.device)


def _on(caps: SlotCaps, device: torch.device) -> SlotCaps:
    """The same slots on a device."""
    moved: dict[str, Any] = {k: v.detach().to(device) if isinstance(v, Tensor) else v for k, v in vars(caps).items()}
    return SlotCaps(**moved)
