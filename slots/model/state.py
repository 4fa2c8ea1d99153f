"""The parts of a model under their names, and their way into a folder and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from slots.errors import ModelError, UsageError
from slots.features.featurized import Featurized
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.views import parse_views
from slots.features.whitening import Whitening
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import AnswerShares
from slots.index.kept_index import KeptIndex
from slots.labels import LabelNames
from slots.model.parts import ModelParts
from slots.model.recorded import BuildBackbone
from slots.model.serialisation import from_state, state_of, to_state
from slots.novelty.slot_novelty import ModelNovelty
from slots.rehearsal.memory import RehearsalMemory
from slots.storage.generations import Generation
from slots.storage.store import write_state
from slots.update.snapshot import Snapshot


class ModelState(Featurized):
    """What a `slots.SlotModel` consists of, as that describes it; what it does is said there."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        head: IncrementalNeuralHashing,
        *,
        backbone: nn.Module | None = None,
        class_names: Sequence[str] = (),
        views: str = "none",
        backbone_spec: tuple[str, dict[str, Any]] | None = None,
        whitening: Whitening | None = None,
    ) -> None:
        featurizer = Featurizer(
            preprocessing,
            parse_views(views),
            nn.Identity() if backbone is None else backbone,
            feature_dim=head.feature_dim,
            whitening=whitening,
            device=head.weights.device,
        )
        super().__init__(featurizer)
        self.head = head
        self.class_names = tuple(class_names)
        if preprocessing.kind != "images" and self.views.n_views > 1:
            raise UsageError(
                f"`views` must be 'none' for {preprocessing.kind}, got {views!r}. Views are made from images."
            )
        self.backbone_spec = backbone_spec
        if backbone_spec is None and backbone is not None and hasattr(backbone, "options"):
            options: Any = backbone.options
            self.backbone_spec = (str(backbone.name), dict(options))
        self._kept_index = KeptIndex()
        self.history: list[Generation] = []
        self.thumbnails: npt.NDArray[Any] | None = None
        """Remembered images, uint8 of shape (slot, exemplar, height, width, channel), or the beginnings of remembered
        texts, strings of shape (slot, exemplar), empty where there is none; None for features."""
        self.exemplar_features: Tensor | None = None
        """Unit features of the remembered examples, float16 of shape (slot, exemplar, feature), zero rows where there
        is none: 8 bytes a slot and feature. None in a model that was put together by hand."""
        self.exemplar_ids: npt.NDArray[Any] | None = None
        """Ids of the remembered examples in the caller's own store, as a fit or an update was told them: strings of
        shape (slot, exemplar), the nearest example first, empty where there is none. None where nobody gave any."""
        self.familiar_shares: AnswerShares | None = None
        """How the fit's held-out examples are answered (each by caps that it took no part in narrowing): what the
        shares of new data like the training data should look like. An update can only make the unmatched fewer. None
        where nothing was held out, and in models of an older version."""
        self.novelty: ModelNovelty | None = None
        """Metric and calibration of `assess_novelty`; None where too few examples were held out at the fit."""
        self.rehearsal: RehearsalMemory | None = None
        """Examples of the old data, at most 3,000 in 16 MiB, that updates rehearse and are judged by; None in a model
        of an older version or put together by hand."""
        self.clusters: frozenset[int] = frozenset()
        """Labels that stand for a cluster nobody has named yet."""

    @property
    def recipe(self) -> tuple[str, dict[str, Any]] | None:
        """Old name of `backbone_spec`."""
        return self.backbone_spec

    @property
    def support(self) -> Tensor | None:
        """Old name of `exemplar_features`."""
        return self.exemplar_features

    @property
    def device(self) -> torch.device:
        """Where the slots lie."""
        return self.head.weights.device

    @property
    def generation(self) -> int:
        """Number of the last line of the history; 0 before there is one."""
        return self.history[-1].number if self.history else 0

    @property
    def labels(self) -> LabelNames:
        """Label ids given out so far, their names, and which of them are clusters."""
        top = int(self.head.labels.max()) if self.head.n_slots else -1
        return LabelNames(self.class_names, self.clusters).reaching(1 + top)

    @property
    def n_labels(self) -> int:
        """Label ids given out so far; the next new label gets this number. Ids are never given out twice."""
        return self.labels.n_labels

    def class_name(self, label: int) -> str:
        """Name of a label; a label beyond the known names is shown as its number."""
        return LabelNames(self.class_names).name(label)

    def label_id(self, name: str, *, create: bool = False) -> int:
        """Id of the label with this name.

        Parameters
        ----------
        name : str
            As `class_name` shows it.
        create : bool, default False
            Give an unknown name the next id.

        Raises
        ------
        UsageError
            If there is no such label and ``create`` is false.
        """
        labels = self.labels
        if create and name not in labels.names:
            labels = labels.with_name(name)
            self.class_names = labels.names
        return labels.id(name)

    def snapshot(self) -> Snapshot:
        """What proposals, inquiries and updates may read; none of them changes the model."""
        has_images = self.preprocessing.kind != "features" and self.thumbnails is not None
        return Snapshot(
            featurizer=self.featurizer,
            head=self.head,
            labels=self.labels,
            exemplar_features=self.exemplar_features,
            novelty=self.novelty,
            rehearsal=self.rehearsal,
            generation=self.generation,
            has_images=has_images,
            index=self._kept_index,
        )

    def save(self, folder: str | Path, *, keep_history: bool = False) -> Path:
        """Write the model, whole or not at all, over the one that was there.

        Parameters
        ----------
        folder : path
            The model folder; made where it does not exist.
        keep_history : bool, default False
            Keep the generations that the folder holds, for `load` and ``slots undo``; otherwise they go.

        Returns
        -------
        Path
            The model folder.

        Raises
        ------
        StorageError
            If it cannot be written; what was there before is still whole.
        """
        header, tensors = to_state(
            ModelParts(
                preprocessing=self.preprocessing,
                views=self.views.spec,
                backbone=None if isinstance(self.backbone, nn.Identity) else self.backbone,
                backbone_spec=self.backbone_spec,
                whitening=self.featurizer.whitening,
                head=self.head,
                labels=LabelNames(self.class_names, self.clusters),
                history=self.history,
                exemplar_features=self.exemplar_features,
                exemplar_images=self.thumbnails,
                novelty=self.novelty,
                rehearsal=self.rehearsal,
                exemplar_ids=self.exemplar_ids,
                familiar_shares=self.familiar_shares,
            )
        )
        write_state(folder, header=header, tensors=tensors, keep_history=keep_history)
        return Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        generation: int | None = None,
        build: BuildBackbone | None = None,
        device: str = "cpu",
    ) -> Self:
        """Read a model that `save` wrote. Nothing outside the folder is read, and no network is used.

        A sentence encoder, which a model names and does not hold, is read at the first question
        (`backbones.TextBackbone` says from where).

        Parameters
        ----------
        folder : path
            A model folder.
        generation : int, optional
            Number of the generation to read, as ``slots log`` lists it. Default: the current one.
        build : callable, optional
            Makes the backbone from its recorded name; pass `backbones.build`. Needed for models that have one.
        device : str, default "cpu"
            Where the slots and the backbone go, for example ``"cuda"``.

        Returns
        -------
        Self

        Raises
        ------
        ModelError
            If the folder is missing, damaged, foreign or of a newer version, or needs ``build``; or if it names weights
            that lie elsewhere.
        """
        state = state_of(folder, generation)
        try:
            return cls._of(from_state(state.header, state.tensors, build)).to(device)
        except ModelError:
            raise
        except Exception as error:  # a stranger's folder raises every kind there is
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"The model in {folder} cannot be rebuilt: {said}. It was written by another version or edited. "
                "Fit it again."
            ) from error

    @classmethod
    def _of(cls, parts: ModelParts) -> Self:
        """The model that has these parts."""
        model = cls(
            parts.preprocessing,
            parts.head,
            backbone=parts.backbone,
            class_names=parts.labels.names,
            views=parts.views,
            backbone_spec=parts.backbone_spec,
            whitening=parts.whitening,
        )
        model.history, model.clusters = parts.history, parts.labels.clusters
        model.exemplar_features, model.thumbnails = parts.exemplar_features, parts.exemplar_images
        model.novelty, model.rehearsal = parts.novelty, parts.rehearsal
        model.exemplar_ids, model.familiar_shares = parts.exemplar_ids, parts.familiar_shares
        return model
