"""`KeptIndex`: the slot index that a model keeps between calls, where it saves time; never out of date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.prediction import Prediction
from slots.index.slot_index import SlotIndex
from slots.kept import digest as _digest
from slots.shapes import ViewFeatures

_FEW_SLOTS = 512
"""Slots up to which a product with all of them is as quick."""

_FEW_ROWS = 64
"""Views up to which a call is answered without an index: to make sure that the slots are still the same costs more."""

_VIEWS = 4096
"""Views answered together by an index, which holds no matrix."""

_Stamp = tuple[Any, ...]


@dataclass(frozen=True)
class _Kept:
    """Slots by their stamp, how much was asked of them, and their index."""

    stamp: _Stamp | None = None
    asked: int = 0
    index: SlotIndex | None = None


class KeptIndex:
    """Answers as `slots.head.decide` does, through a `SlotIndex` where that is quicker.

    An index is built once as much has been asked of the same slots as building it costs. Before each use the bits of
    all that it was built from are compared by a digest, so whatever changes a slot, in place or not, makes a new one. A
    copy of this object, and one that was pickled, starts without an index.
    """

    def __init__(self) -> None:
        self._kept = _Kept()

    @property
    def index(self) -> SlotIndex | None:
        """The index of the slots that were asked last, if there is one."""
        return self._kept.index

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptIndex, ()

    def __deepcopy__(self, _memo: dict[int, Any]) -> KeptIndex:
        return KeptIndex()

    @torch.no_grad()
    def predict(self, features: ViewFeatures, caps: SlotCaps) -> Prediction:
        """Answer each input.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features; any scale.
        caps : SlotCaps
            At least one slot.

        Returns
        -------
        Prediction
            `slots.head.decide`'s, to the bit.
        """
        index = self.index_for(caps, features.shape[0] * features.shape[1])
        return decide(features, caps) if index is None else index.predict(features)

    def answerer(self, caps: SlotCaps, n_rows: int) -> tuple[Callable[[ViewFeatures], Prediction], int]:
        """How to answer so many more rows, block by block.

        Parameters
        ----------
        caps : SlotCaps
            At least one slot.
        n_rows : int
            Views counted each.

        Returns
        -------
        predict : callable
            From view features to `slots.head.decide`'s prediction, to the bit.
        columns : int
            Numbers held for each view of a block meanwhile, as `slots.features.Featurizer.blocks` takes them.
        """
        index = self.index_for(caps, n_rows)
        if index is None:
            return lambda features: decide(features, caps), len(caps.labels)
        return index.predict, _VIEWS

    def index_for(self, caps: SlotCaps, n_rows: int) -> SlotIndex | None:
        """The index for so many more rows, views counted each; None where none pays.

        Parameters
        ----------
        caps : SlotCaps
            The slots that will be asked.
        n_rows : int
            Inputs to be answered (count, >= 0).

        Returns
        -------
        SlotIndex or None
        """
        n_slots, n_features = caps.weights.shape
        if caps.weights.device.type != "cpu" or n_slots <= _FEW_SLOTS or n_rows <= _FEW_ROWS:
            return None
        stamp = _stamp(caps)
        kept = self._kept
        if kept.stamp != stamp:
            kept = _Kept(stamp)
        asked, index = kept.asked + n_rows, kept.index
        if index is None and asked * _saved_ns(n_slots, n_features) > _building_ns(n_slots, n_features):
            index = SlotIndex(caps)
        self._kept = _Kept(stamp, asked, index)  # as one, so that threads may undo each other's work and mix nothing
        return index


def _saved_ns(n_slots: int, n_features: int) -> float:
    """What an index saves a view, on one thread: a product with each slot, and looking at it (measured)."""
    return n_slots * (10 + 0.02 * n_features)


def _building_ns(n_slots: int, n_features: int) -> float:
    """What building takes: eigenvectors, and axes of each slot in float64 (measured)."""
    return 1.2e7 + 0.3 * n_features**3 + 150.0 * n_slots * n_features


def _stamp(caps: SlotCaps) -> _Stamp:
    """Where the slots' tensors lie, their shapes, and a digest of what they hold."""
    tensors = {name: value for name, value in vars(caps).items() if isinstance(value, Tensor)}
    places = tuple((name, value.data_ptr(), tuple(value.shape)) for name, value in tensors.items())
    return (*places, caps.beta, id(caps.recall), *(_digest(value) for value in tensors.values()))
