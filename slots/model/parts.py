"""`ModelParts`: all that a model folder holds of one generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from slots.features.preprocessing import Preprocessing
from slots.features.whitening import Whitening
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import AnswerShares
from slots.labels import LabelNames
from slots.novelty.slot_novelty import ModelNovelty
from slots.rehearsal.memory import RehearsalMemory
from slots.storage.generations import Generation


@dataclass(frozen=True)
class ModelParts:
    """All that a model folder holds of one generation.

    Parameters
    ----------
    preprocessing : Preprocessing
        Checks raw inputs and scales them.
    views : str
        Words, as `slots.features.parse_views` takes them.
    backbone : nn.Module or None
        From scaled inputs to features; None where the inputs are the features.
    backbone_spec : tuple or None
        ``(name, options)`` that rebuild the backbone.
    whitening : Whitening or None
        Between backbone and slots; None where there is none.
    head : IncrementalNeuralHashing
        The slots.
    labels : LabelNames
        Names that were given, and clusters.
    history : list of Generation
        Lines of ``slots log``, the oldest first.
    exemplar_features : float tensor of shape (slot, exemplar, feature) or None
        Unit features of the remembered examples, zero rows where there is none; stored as ``support/features``.
    exemplar_images : uint8 array of shape (slot, exemplar, height, width, channel), strings, or None
        Small pictures of the same examples, stored as ``exemplars/images``; or the beginnings of their texts, of shape
        (slot, exemplar), stored as ``exemplars/texts`` (JSON in UTF-8).
    novelty : ModelNovelty or None
        Metric and calibration of novelty.
    rehearsal : RehearsalMemory or None
        Examples of the old data; stored as ``rehearsal/...``.
    exemplar_ids : strings of shape (slot, exemplar), or None
        Ids of the remembered examples in the caller's own store, empty where there is none; stored as
        ``exemplar_ids/lists`` (JSON in UTF-8). None where nobody gave any.
    familiar_shares : AnswerShares or None
        How the fit's held-out examples are answered.
    """

    preprocessing: Preprocessing
    views: str
    backbone: nn.Module | None
    backbone_spec: tuple[str, dict[str, Any]] | None
    whitening: Whitening | None
    head: IncrementalNeuralHashing
    labels: LabelNames
    history: list[Generation]
    exemplar_features: Tensor | None
    exemplar_images: npt.NDArray[Any] | None
    novelty: ModelNovelty | None
    rehearsal: RehearsalMemory | None = None
    exemplar_ids: npt.NDArray[Any] | None = None
    familiar_shares: AnswerShares | None = None
