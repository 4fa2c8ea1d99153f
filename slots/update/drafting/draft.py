"""New slots before they are refined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int
from torch import Tensor

from slots.shapes import Ids, SlotLabels, SlotVectors


@dataclass(frozen=True)
class DraftedSlots:
    """New slots before their refinement: where, of which label, and what of the unmatched teaches them.

    Parameters
    ----------
    prototypes : Prototypes
        Where the slots are.
    labels : int64 tensor of shape (unmatched,)
        Of every unmatched example: given, taken from the nearest slot, or pseudo-label.
    confident : bool array of shape (unmatched,)
        Whose label may be learned from.
    clusters : int64 array
        Labels among the slots' that are clusters without a name.
    sources : int64 array of shape (slot,)
        Place of the given label that each slot rests on; -1 for none.
    """

    prototypes: Prototypes
    labels: Tensor
    confident: npt.NDArray[np.bool_]
    clusters: Ids
    sources: Ids


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of new slots, over the unmatched examples that they came from.

    Parameters
    ----------
    seeds : int64 tensor of shape (slot,)
        Place of each slot's seed among the unmatched.
    centres : float tensor of shape (slot, feature)
        Unit mean of the slot's members.
    labels : int64 tensor of shape (slot,)
        What each slot answers.
    pooled : bool tensor of shape (slot,)
        Slots that stand for enough examples to move, to be refined and to take part in the pooled score, which guesses
        where nothing matches. The others remember one labelled example as it is, and answer for what lies close to it.
    """

    seeds: Int[Tensor, " slot"]
    centres: SlotVectors
    labels: SlotLabels
    pooled: Bool[Tensor, " slot"]
