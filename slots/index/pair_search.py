"""`PairSearch`: what proposes pairs for `slots.index.SlotIndex`, and weeds them out with nearly exact scores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slots.head.caps import SlotCaps
from slots.head.deciding.exact import exact_scores
from slots.head.decision import CandidatePairs
from slots.head.similarities import inverse_lengths, normalize
from slots.index.cap_bound import NEAR, CapBound, enclosing_caps
from slots.index.faiss_proposer import FaissProposer, Kind, load_faiss
from slots.index.half_rows import has_half_products
from slots.index.kernels import Indices, Kept, Rows, Slots, Tile, scan_pairs, scan_tile, unit_rows
from slots.rounding import full_precision, product_error, strictly_below
from slots.shapes import ViewFeatures

_ROWS, _COLUMNS = 2048, 1024  # a tile of bounds: 8 MB (smaller ones cost more in calls than they save)
_WIDEST = 16_384  # columns of a tile of few rows, where each call costs most
_BLOCK = 4096  # inputs prepared together
_ROOM = _ROWS * _COLUMNS + (1 << 20)
_AXES = 1 << 25  # numbers of the weights of which the axes are kept too: 128 MB


class PairSearch:
    """Finds the triples (example, view, slot) that may match.

    Parameters
    ----------
    caps : SlotCaps
        At least one slot.
    faiss_kind : {"flat", "ivf", "hnsw"}, optional
        The FAISS index that proposes. Default: none, the bound does.
    effort : int
        Of an approximate FAISS index.
    leading_dims : int, optional
        Leading dimensions of the bound, >= 1. Default: chosen.
    """

    def __init__(self, caps: SlotCaps, *, faiss_kind: Kind | None, effort: int, leading_dims: int | None) -> None:
        self._local = threading.local()
        self._proposer: FaissProposer | None = None
        half = faiss_kind is None and caps.weights.device.type == "cpu" and has_half_products()
        self._bound = CapBound(
            caps, leading_dims=leading_dims if faiss_kind is None else caps.weights.shape[1], half=half
        )
        if faiss_kind is not None:
            gpu = faiss_kind == "flat" and getattr(load_faiss(), "get_num_gpus", int)() > 0
            self._proposer = FaissProposer(self._bound.slots.cpu().numpy(), kind=faiss_kind, effort=effort, gpu=gpu)
        self._take(caps)

    @property
    def dimensions(self) -> int:
        """Features that a proposal looks at."""
        return self._bound.leading_dims

    def add(self, new: SlotCaps, joined: SlotCaps) -> None:
        """Append slots; ``joined`` are all slots with them."""
        rows = self._bound.slot_rows(new)
        if self._proposer is not None:
            self._proposer.add(rows.cpu().numpy())
        self._bound.slots = torch.cat([self._bound.slots, rows])
        self._take(joined)

    def _take(self, caps: SlotCaps) -> None:
        """Keep these slots for the test of pairs."""
        self._caps = caps
        self._exact_slots = _slots_for_kernels(caps) if caps.weights.device.type == "cpu" else None

    @torch.no_grad()
    def propose(self, features: ViewFeatures) -> CandidatePairs:
        """Triples that may match, with scores good to 1e-10, of features on the device of the slots."""
        views = features.shape[1]
        found = [
            self._propose_on_cpu(block, start)
            if self._exact_slots is not None
            else self._propose_anywhere(block, start)
            for block, start in _blocks(features.flatten(0, 1))
        ]
        if not found:
            found = [self._nothing()]
        pairs, scores = found[0] if len(found) == 1 else (torch.cat(column, 1) for column in zip(*found, strict=True))
        example, view = (pairs[0], torch.zeros_like(pairs[0])) if views == 1 else (pairs[0] // views, pairs[0] % views)
        return CandidatePairs(example, view, pairs[1], scores[0], scores[1], NEAR)

    def _nothing(self) -> tuple[Tensor, Tensor]:
        """No pairs and their scores."""
        pairs = torch.zeros(2, 0, dtype=torch.long, device=self._caps.weights.device)
        return pairs, pairs.double()

    def _propose_on_cpu(self, block: Float[Tensor, "row feature"], start: int) -> tuple[Tensor, Tensor]:
        """Pairs (row, slot) of one block of inputs and their two cosines, by the compiled loops."""
        assert self._exact_slots is not None
        raw = np.ascontiguousarray(block.numpy())
        unit, inverse = np.empty(raw.shape, np.float32), np.empty(len(raw))
        unit_rows(raw, unit, inverse)
        rows = Rows(raw, inverse, unit)
        inputs = self._bound.input_rows(torch.from_numpy(unit))
        if self._proposer is not None:
            pairs = np.stack(self._proposer.propose(inputs.numpy()))
            scores = np.empty(pairs.shape)
            n = scan_pairs(rows, self._exact_slots, Kept(pairs, scores))
            return torch.from_numpy(pairs[:, :n]) + torch.tensor([[start], [0]]), torch.from_numpy(scores[:, :n])
        space, hits, buffers = self._workspace()
        signs = torch.int16 if space.dtype == torch.bfloat16 else torch.int32
        width = max(_COLUMNS, min(_WIDEST, _ROWS * _COLUMNS // max(1, len(raw)) // _COLUMNS * _COLUMNS))
        found, parts = 0, []
        with full_precision():
            for first, top in product(range(0, len(self._bound.slots), width), range(0, len(raw), _ROWS)):
                part, some = self._bound.slots[first : first + width], inputs[top : top + _ROWS]
                bounds = space[: len(some) * len(part)].view(len(some), len(part))
                torch.mm(some, part.T, out=bounds)
                tile = Tile(bounds.view(signs).numpy(), top, first, hits)
                found = scan_tile(tile, rows, self._exact_slots, buffers, found)
                if found > _ROOM - _ROWS * _COLUMNS:
                    parts.append(Kept(buffers.pairs[:, :found].copy(), buffers.scores[:, :found].copy()))
                    found = 0
        parts.append(Kept(buffers.pairs[:, :found].copy(), buffers.scores[:, :found].copy()))
        pairs = parts[0].pairs if len(parts) == 1 else np.concatenate([part.pairs for part in parts], 1)
        scores = parts[0].scores if len(parts) == 1 else np.concatenate([part.scores for part in parts], 1)
        pairs[0] += start
        return torch.from_numpy(pairs), torch.from_numpy(scores)

    def _workspace(self) -> tuple[Tensor, Indices, Kept]:
        """A tile, and room for pairs; kept for the thread, since fresh memory costs as much as the search."""
        if not hasattr(self._local, "room"):
            buffers = Kept(np.empty((2, _ROOM), np.int64), np.empty((2, _ROOM)))
            space = torch.empty(_ROWS * _COLUMNS, dtype=self._bound.slots.dtype)
            self._local.room = (space, np.empty(_WIDEST + 1, np.int64), buffers)
        room: tuple[Tensor, Indices, Kept] = self._local.room
        return room

    def _propose_anywhere(self, block: Float[Tensor, "row feature"], start: int) -> tuple[Tensor, Tensor]:
        """The same in plain torch, for devices where the compiled loops cannot go."""
        inputs, kept = self._bound.input_rows(normalize(block.double()).float()), []
        if self._proposer is not None:
            kept = [torch.from_numpy(np.stack(self._proposer.propose(inputs.cpu().numpy()))).to(block.device)]
        else:
            with full_precision():
                for first in range(0, len(self._bound.slots), 16 * _COLUMNS):
                    bounds = inputs @ self._bound.slots[first : first + 16 * _COLUMNS].T
                    kept.append((bounds > 0).nonzero().T + torch.tensor([[0], [first]], device=block.device))
        pairs = torch.cat(kept, 1)
        places = (pairs[0], torch.zeros_like(pairs[0]), pairs[1])
        weight_scores = exact_scores(block[:, None], self._caps.weights, places)
        near = weight_scores > self._caps.precision[pairs[1]].double() - NEAR
        pairs, weight_scores = pairs[:, near], weight_scores[near]
        centre_scores = exact_scores(block[:, None], self._caps.centres, (pairs[0], places[1][near], pairs[1]))
        near = centre_scores > self._caps.support[pairs[1]].double() - NEAR
        offset = torch.tensor([[start], [0]], device=block.device)
        return pairs[:, near] + offset, torch.stack([weight_scores[near], centre_scores[near]])


def _blocks(rows: Float[Tensor, "row feature"]) -> Iterator[tuple[Float[Tensor, "row feature"], int]]:
    """Blocks of inputs, and where each starts."""
    for i in range(0, len(rows), _BLOCK):
        yield rows[i : i + _BLOCK], i


def _slots_for_kernels(caps: SlotCaps) -> Slots:
    """Slots as the compiled loops want them; vectors are shared, not copied."""
    weights, centres = (np.ascontiguousarray(v.numpy()) for v in (caps.weights, caps.centres))
    same = np.zeros(len(weights), np.bool_)
    for rows in torch.arange(len(weights)).split(4096):
        same[rows.numpy()] = (caps.weights[rows] == caps.centres[rows]).all(1).numpy()
    return Slots(
        weights,
        weights if same.all() else centres,
        inverse_lengths(caps.weights, at_once=4096).numpy(),
        inverse_lengths(caps.centres, at_once=4096).numpy(),
        caps.precision.double().numpy() - NEAR,
        caps.support.double().numpy() - NEAR,
        same,
        *_axes(caps),
    )


def _axes(caps: SlotCaps) -> tuple[Any, Any]:
    """Axes of the enclosing caps in float32, and their thresholds less the error of a product; none where too many."""
    kept = caps.weights.numel() <= _AXES
    axes, limits = torch.empty(caps.weights.shape if kept else (0, 0)), torch.empty(len(caps.weights) if kept else 0)
    for start in range(0, len(axes), 4096):
        part = slice(start, start + 4096)
        exact, thresholds = enclosing_caps(caps, part)
        axes[part], limits[part] = exact.float(), strictly_below(thresholds - product_error(axes.shape[1]))
    return axes.numpy(), limits.numpy()
