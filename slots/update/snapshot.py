"""What an update may read of a model, and cannot write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from slots.features.featurizer import Featurizer
from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.head.similarities import normalize
from slots.index.kept_index import KeptIndex
from slots.labels import LabelNames
from slots.novelty.slot_novelty import ModelNovelty
from slots.progress import Progress, silent
from slots.rehearsal.memory import RehearsalMemory
from slots.shapes import RawInputs


@dataclass(frozen=True)
class Snapshot:
    """The parts of a model that proposals, inquiries and updates are made from.

    Parameters
    ----------
    featurizer : Featurizer
        From raw inputs to features.
    head : IncrementalNeuralHashing
        The present slots.
    labels : LabelNames
        Label ids given out so far, and their names.
    exemplar_features : float tensor of shape (slot, exemplar, feature), optional
        Unit features of the examples that the slots remember, zero rows where there is none. Default: None, nothing is
        remembered.
    novelty : ModelNovelty, optional
        Metric and calibration of novelty. Default: None, novelty cannot be judged.
    rehearsal : RehearsalMemory, optional
        Examples of the old data. Default: None, only those that the slots remember.
    generation : int, default 0
        Number of the present generation.
    has_images : bool, default False
        Whether pictures of the remembered examples are kept.
    index : KeptIndex, optional
        What answers by the slots where that saves time. Default: a fresh one.

    Notes
    -----
    The parts are the model's own, not copies; nothing that is given a snapshot writes into them.
    """

    featurizer: Featurizer
    head: IncrementalNeuralHashing
    labels: LabelNames
    exemplar_features: Tensor | None = None
    novelty: ModelNovelty | None = None
    rehearsal: RehearsalMemory | None = None
    generation: int = 0
    has_images: bool = False
    index: KeptIndex = field(default_factory=KeptIndex, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the slots lie."""
        return self.head.weights.device

    def source(self, x: RawInputs) -> FeatureSource:
        """Features of new inputs.

        Parameters
        ----------
        x : array of shape (example, ...)
            Raw inputs, as the model was fitted on.

        Returns
        -------
        FeatureSource

        Raises
        ------
        DataError
            If ``x`` is not what the model was fitted on.
        """
        self.featurizer.preprocessing.check(x)
        return FeatureSource(self.featurizer, x)

    @torch.no_grad()
    def predict(self, source: FeatureSource, progress: Progress = silent) -> Prediction:
        """Answer inputs whose features may be known already.

        Parameters
        ----------
        source : FeatureSource
            The inputs, as `source` makes it; what it keeps goes through the backbone once.
        progress : callable, optional
            ``progress("matching", share)``, told how far it is, 50 times at most.

        Returns
        -------
        Prediction

        Raises
        ------
        EmptyHeadError
            If the model has no slots.
        """
        answer, columns = self.index.answerer(self.head.caps(), len(source) * self.featurizer.views.n_views)
        parts, step = [], max(1000, -(-len(source) // 50))
        for start in range(0, len(source), step):
            stop = min(len(source), start + step)
            for rows in source.blocks(stop - start, columns=columns):
                parts.append(answer(source(slice(start + rows.start, start + rows.stop))))
            progress("matching", stop / len(source))
        return Prediction.concatenate(parts)

    def memory(self, *, judges: bool = False) -> tuple[Tensor, Tensor]:
        """Remembered examples with their labels: those of the slots (their centres where there are none), and others.

        Parameters
        ----------
        judges : bool, default False
            Also those of the rehearsal memory that judge an update, and so take no part in the making of its slots.

        Returns
        -------
        features : float tensor of shape (memory, feature)
            Unit vectors.
        labels : int64 tensor of shape (memory,)
        """
        if self.exemplar_features is None:
            found = [(self.head.centres, self.head.labels)]
        else:
            slot, place = (self.exemplar_features != 0).any(2).nonzero(as_tuple=True)
            features = normalize(self.exemplar_features[slot, place].float())
            found = [(features, self.head.labels[slot.to(self.device)])]
        if self.rehearsal is not None:
            found.append(self.rehearsal.taught())
            if judges:
                found.append(self.rehearsal.judging()[:2])
        features, labels = (torch.cat([part.to(self.device) for part in parts]) for parts in zip(*found, strict=True))
        return features, labels


class HasSnapshot(Protocol):
    """Anything that says what it knows now, such as `slots.SlotModel`."""

    def snapshot(self) -> Snapshot:
        """What an update may read."""
