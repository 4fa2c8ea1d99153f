"""`SlotIndex`: exact matching at any number of slots, far quicker than comparing with each of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.deciding import Pairs, Proposals, SlotCaps, best_pairs, decide, exact_scores, matching_pairs
from slots.errors import UsageError
from slots.index_faiss import FaissProposer, load_faiss
from slots.index_kernels import Indices, Kept, Rows, Slots, Tile, scan_pairs, scan_tile, unit_rows
from slots.index_search import NEAR, CapBound, full_precision
from slots.matching import normalize
from slots.predictions import Prediction
from slots.shapes import ViewFeatures

Backend = Literal["auto", "torch", "faiss"]
Approximate = Literal["ivf", "hnsw"]

_ROWS, _COLUMNS = 512, 1024  # a tile of bounds: 2 MB
_BLOCK = 4096  # inputs prepared together
_ROOM = 2 * _ROWS * _COLUMNS
_KEPT = 1 << 25  # numbers of the weights of which a float64 copy is kept for unmatched inputs: 256 MB
_REBUILD = 2.0  # slots added make the basis anew when there are this many times as many


class SlotIndex:
    """Finds every slot that an input matches, by the exact rule, and answers as `slots.deciding.decide` does.

    Parameters
    ----------
    caps : SlotCaps
        At least one slot; ``head.caps()`` gives them. They are kept, not copied.
    backend : {"auto", "torch", "faiss"}
        Who proposes pairs; the exact rule decides on them. ``"torch"``: a bound in a few dimensions
        (`slots.index_search`). ``"faiss"``: a flat FAISS index. ``"auto"``: torch, which was the quicker of the two on
        CPU wherever it was measured (``docs/index.md``).
    approximate : {"ivf", "hnsw"}, optional
        Let FAISS propose from an index that misses some pairs: what it finds still passes the exact rule, what it
        misses is lost. `recall` measures how much. Default: nothing is missed.
    effort : int, default 16
        Of an approximate index: lists looked at, or nodes kept in view (count, >= 1).
    head : int, optional
        Dimensions of the torch backend's bound (count, >= 1). Default: chosen from the slots; it changes no answer.
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
    >>> from slots.hashing import IncrementalNeuralHashing
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
        head: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if backend not in {"auto", "torch", "faiss"}:
            raise UsageError(f"`backend` must be 'auto', 'torch' or 'faiss', got {backend!r}. Choose one of the three.")
        if len(caps.labels) == 0:
            raise UsageError("`caps` must hold at least one slot, got 0. Fit the head, or call add_slots first.")
        if effort < 1 or (head is not None and head < 1):
            raise UsageError(f"`effort` and `head` must be at least 1, got {effort} and {head}. Leave them out.")
        if approximate is not None and backend == "torch":
            raise UsageError(f"`approximate` must be None with backend='torch', got {approximate!r}. Pass 'faiss'.")
        self.backend: Backend = "faiss" if backend == "faiss" or approximate is not None else "torch"
        self.approximate, self._effort, self._head = approximate, effort, head
        self._local = threading.local()
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
        return self._bound.head

    def _build(self, caps: SlotCaps) -> None:
        """Prepare for these slots."""
        self._directions: Tensor | None
        self.caps, self._built, self._directions = caps, len(caps.labels), None
        self._exact_slots = _slots_for_kernels(caps) if caps.weights.device.type == "cpu" else None
        self._proposer: FaissProposer | None = None
        if self.backend == "faiss":
            self._bound = CapBound(caps, head=caps.weights.shape[1])
            gpu = self.approximate is None and getattr(load_faiss(), "get_num_gpus", int)() > 0
            kind = self.approximate or "flat"
            rows = self._bound.slots.cpu().numpy()
            self._proposer = FaissProposer(rows, kind=kind, effort=self._effort, gpu=gpu)
        else:
            self._bound = CapBound(caps, head=self._head)

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
        rows = self._bound.slot_rows(new)
        if self._proposer is not None:
            self._proposer.add(rows.cpu().numpy())
        self._bound.slots = torch.cat([self._bound.slots, rows])
        self.caps, self._directions = joined, None
        self._exact_slots = _slots_for_kernels(joined) if self.device.type == "cpu" else None

    def matching_pairs(self, features: ViewFeatures) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Every (example, slot) that match; see `slots.deciding.matching_pairs`.

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
        return matching_pairs(features, self.caps, proposals=self.propose(features))

    def best_pairs(self, features: ViewFeatures) -> Pairs:
        """The match of largest margin for each example, generation and label; see `slots.deciding.best_pairs`.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)

        Returns
        -------
        Pairs
        """
        features = self._checked(features)
        return best_pairs(features, self.caps, proposals=self.propose(features))

    def predict(self, features: ViewFeatures) -> Prediction:
        """Answer each input, as `slots.deciding.decide` does.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)

        Returns
        -------
        Prediction

        Notes
        -----
        An unmatched input is scored against every slot in float64, which takes far longer than to find out that
        nothing matches it.
        """
        features = self._checked(features)
        if self._directions is None and self.caps.weights.numel() <= _KEPT:
            self._directions = normalize(self.caps.weights.double())
        return decide(features, self.caps, proposals=self.propose(features), directions=self._directions)

    def recall(self, features: ViewFeatures) -> float:
        """Share of the matching pairs of these inputs that the index finds: 1.0 unless it is approximate.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)

        Returns
        -------
        float
            In [0, 1]; 1.0 where nothing matches.
        """
        found = self.matching_pairs(features)
        every = matching_pairs(features, self.caps, proposals=SlotIndex(self.caps, backend="torch").propose(features))
        return len(found[0]) / len(every[0]) if len(every[0]) else 1.0

    @torch.no_grad()
    def propose(self, features: ViewFeatures) -> Proposals:
        """Triples that may match, with scores good to 1e-10: what the exact rule starts from.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)

        Returns
        -------
        Proposals
        """
        features = self._checked(features)
        found = [
            self._propose_on_cpu(block, start)
            if self._exact_slots is not None
            else self._propose_anywhere(block, start)
            for block, start in _blocks(features.flatten(0, 1))
        ]
        pairs = torch.cat([torch.zeros(2, 0, dtype=torch.long, device=self.device), *(p for p, _ in found)], 1)
        scores = torch.cat([torch.zeros(2, 0, dtype=torch.double, device=self.device), *(s for _, s in found)], 1)
        views = max(1, features.shape[1])
        return Proposals(pairs[0] // views, pairs[0] % views, pairs[1], scores[0], scores[1], NEAR)

    def _propose_on_cpu(self, block: Float[Tensor, "row feature"], start: int) -> tuple[Tensor, Tensor]:
        """Pairs (row, slot) of one block of inputs and their two cosines, by the compiled loops."""
        assert self._exact_slots is not None
        raw = np.ascontiguousarray(block.numpy())
        unit, inverse = np.empty(raw.shape, np.float32), np.empty(len(raw))
        unit_rows(raw, unit, inverse)
        rows = Rows(raw, inverse)
        inputs = self._bound.input_rows(torch.from_numpy(unit))
        if self._proposer is not None:
            pairs = np.stack(self._proposer.propose(inputs.numpy()))
            scores = np.empty(pairs.shape)
            n = scan_pairs(rows, self._exact_slots, Kept(pairs, scores))
            return torch.from_numpy(pairs[:, :n]) + torch.tensor([[start], [0]]), torch.from_numpy(scores[:, :n])
        space, hits, buffers = self._workspace()
        found, parts = 0, []
        with full_precision():
            for first, top in product(range(0, self.n_slots, _COLUMNS), range(0, len(raw), _ROWS)):
                part, some = self._bound.slots[first : first + _COLUMNS], inputs[top : top + _ROWS]
                bounds = space[: len(some) * len(part)].view(len(some), len(part))
                torch.mm(some, part.T, out=bounds)
                tile = Tile(bounds.view(torch.int32).numpy(), top, first, hits)
                found = scan_tile(tile, rows, self._exact_slots, buffers, found)
                if found > _ROOM - _ROWS * _COLUMNS:
                    parts.append(Kept(buffers.pairs[:, :found].copy(), buffers.scores[:, :found].copy()))
                    found = 0
        parts.append(Kept(buffers.pairs[:, :found], buffers.scores[:, :found]))  # copied by what follows
        pairs = np.concatenate([part.pairs for part in parts], 1) + np.array([[start], [0]])
        return torch.from_numpy(pairs), torch.from_numpy(np.concatenate([part.scores for part in parts], 1))

    def _workspace(self) -> tuple[Tensor, Indices, Kept]:
        """A tile, and room for pairs; kept for the thread, since fresh memory costs as much as the search."""
        if not hasattr(self._local, "room"):
            buffers = Kept(np.empty((2, _ROOM), np.int64), np.empty((2, _ROOM)))
            self._local.room = (torch.empty(_ROWS * _COLUMNS), np.empty(_COLUMNS + 1, np.int64), buffers)
        room: tuple[Tensor, Indices, Kept] = self._local.room
        return room

    def _propose_anywhere(self, block: Float[Tensor, "row feature"], start: int) -> tuple[Tensor, Tensor]:
        """The same in plain torch, for devices where the compiled loops cannot go."""
        inputs, kept = self._bound.input_rows(normalize(block.double()).float()), []
        if self._proposer is not None:
            kept = [torch.from_numpy(np.stack(self._proposer.propose(inputs.cpu().numpy()))).to(self.device)]
        else:
            with full_precision():
                for first in range(0, self.n_slots, 16 * _COLUMNS):
                    bounds = inputs @ self._bound.slots[first : first + 16 * _COLUMNS].T
                    kept.append((bounds > 0).nonzero().T + torch.tensor([[0], [first]], device=self.device))
        pairs = torch.cat(kept, 1)
        places = (pairs[0], torch.zeros_like(pairs[0]), pairs[1])
        weight_scores = exact_scores(block[:, None], self.caps.weights, places)
        near = weight_scores > self.caps.precision[pairs[1]].double() - NEAR
        pairs, weight_scores = pairs[:, near], weight_scores[near]
        centre_scores = exact_scores(block[:, None], self.caps.centres, (pairs[0], places[1][near], pairs[1]))
        near = centre_scores > self.caps.support[pairs[1]].double() - NEAR
        offset = torch.tensor([[start], [0]], device=self.device)
        return pairs[:, near] + offset, torch.stack([weight_scores[near], centre_scores[near]])

    def _checked(self, features: ViewFeatures) -> ViewFeatures:
        """Features on the device of the slots, of a width that fits."""
        if features.ndim != 3 or features.shape[2] != self.caps.weights.shape[1]:
            raise UsageError(
                f"`features` must have shape (example, view, {self.caps.weights.shape[1]}), "
                f"got {tuple(features.shape)}. One view of each example: features[:, None]."
            )
        wide = features if features.dtype == torch.float64 else features.float()
        return wide.detach().to(self.device)


def _blocks(rows: Float[Tensor, "row feature"]) -> Iterator[tuple[Float[Tensor, "row feature"], int]]:
    """Blocks of inputs, and where each starts."""
    for i in range(0, len(rows), _BLOCK):
        yield rows[i : i + _BLOCK], i


def _on(caps: SlotCaps, device: torch.device) -> SlotCaps:
    """The same slots on a device."""
    moved: dict[str, Any] = {k: v.detach().to(device) if isinstance(v, Tensor) else v for k, v in vars(caps).items()}
    return SlotCaps(**moved)


def _slots_for_kernels(caps: SlotCaps) -> Slots:
    """Slots as the compiled loops want them; vectors are shared, not copied."""
    weights, centres = (np.ascontiguousarray(v.numpy()) for v in (caps.weights, caps.centres))
    same = np.zeros(len(weights), np.bool_)
    for rows in torch.arange(len(weights)).split(4096):
        same[rows.numpy()] = (caps.weights[rows] == caps.centres[rows]).all(1).numpy()
    return Slots(
        weights,
        weights if same.all() else centres,
        _inverse_lengths(caps.weights),
        _inverse_lengths(caps.centres),
        caps.precision.double().numpy() - NEAR,
        caps.support.double().numpy() - NEAR,
        same,
    )


def _inverse_lengths(vectors: Tensor) -> Any:
    """One over the length of each row, in float64; 1 for a zero row."""
    lengths = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in vectors.split(4096)])
    return torch.where(lengths > 0, 1 / lengths, torch.ones_like(lengths)).numpy()
