"""An update that has not happened yet: the new slots, what joins the model with them, and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from torch import Tensor

from slots.head.recalling.recall import Recall
from slots.labels import LabelNames
from slots.shapes import SlotLabels, SlotVectors, Thresholds
from slots.storage.generations import Generation
from slots.update.report import UpdateReport


@dataclass(frozen=True)
class NewSlots:
    """Slots that an update adds, one row each, and what joins the model with them.

    Parameters
    ----------
    weights, centres : float tensors of shape (slot, feature)
        Unit vectors that the precision caps and the support caps lie around.
    labels : int64 tensor of shape (slot,)
        What each slot answers.
    precision_thresholds, support_thresholds : float tensors of shape (slot,)
        Cosines with the weight and with the centre that a match must exceed.
    pooled : bool tensor of shape (slot,)
        Whether the slot takes part in the pooled score.
    hits : int64 tensor of shape (slot,)
        Unmatched examples nearest to it.
    exemplars : int64 tensor of shape (slot, exemplar)
        Rows of the new data, -1 for none.
    exemplar_features : float16 tensor of shape (slot, exemplar, feature)
        On the CPU.
    exemplar_images : uint8 array of shape (slot, exemplar, height, width, channel), strings, or None
        None where the model keeps none.
    told : tensors of shape (example, feature), (example,) and (example,)
        Unit features, labels and feature lengths of the labelled examples that join the rehearsal memory.
    known : LabelNames
        All labels of the updated model.
    line : Generation
        The next line of its history.
    recall : Recall, optional
        What guesses from then on where nothing matches. Default: as before.
    """

    weights: SlotVectors
    centres: SlotVectors
    labels: SlotLabels
    precision_thresholds: Thresholds
    support_thresholds: Thresholds
    pooled: Tensor
    hits: Tensor
    exemplars: Tensor
    exemplar_features: Tensor
    exemplar_images: npt.NDArray[Any] | None
    told: tuple[Tensor, Tensor, Tensor]
    known: LabelNames
    line: Generation
    recall: Recall | None = None


@dataclass(frozen=True)
class PlannedUpdate:
    """An update that has not happened yet.

    Parameters
    ----------
    slots : NewSlots or None
        None when there is nothing to add.
    report : UpdateReport
        What it says once it has happened.
    """

    slots: NewSlots | None
    report: UpdateReport
