"""`SlotModel`: preprocessing, views, backbone, head and class names, as one thing that predicts, saves and loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from slots.deciding import decide
from slots.errors import ModelError, UsageError
from slots.featurizer import Featurizer
from slots.generations import Generation
from slots.hashing import IncrementalNeuralHashing
from slots.labels import GivenLabels, LabelNames
from slots.model_novelty import ModelNovelty, assess, calibrated, stack_distances
from slots.novelty_distances import distances
from slots.ood import Novelty, judge
from slots.plan import NewSlots, plan_update
from slots.predictions import Prediction
from slots.preprocessing import Preprocessing, RawInputs
from slots.progress import Progress
from slots.proposing import Proposal, propose
from slots.serialisation import BuildBackbone, ModelParts, from_state, state_of, to_state
from slots.snapshot import Snapshot
from slots.sources import FeatureSource
from slots.spreading import Outlook
from slots.store import write_state
from slots.transaction import all_or_nothing
from slots.update_config import UpdateConfig
from slots.updating import UpdateReport
from slots.views import Views, parse_views


@dataclass(frozen=True)
class Examination:
    """All that a model says of a batch of inputs.

    Parameters
    ----------
    prediction : Prediction
        What `SlotModel.predict` gives.
    novelty : Novelty
        What `SlotModel.assess_novelty` gives.
    """

    prediction: Prediction
    novelty: Novelty


class SlotModel(nn.Module):
    """A backbone with a slot head, and all it takes to use them on raw inputs.

    Parameters
    ----------
    preprocessing : Preprocessing
    head : IncrementalNeuralHashing
    backbone : nn.Module, optional
        From (batch, channel, height, width) to (batch, feature). Default: none, the inputs are the features.
    class_names : sequence of str
        Name of label ``i`` at place ``i``.
    views : str, default "none"
        Views matched beside the input itself, for example ``"shift1"`` (`slots.views.parse_views`).
    recipe : tuple, optional
        ``(name, options)`` that rebuild the backbone at load. Default: the backbone's own ``name`` and ``options``.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.training import TrainConfig, fit
    >>> x = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]], dtype=np.float32)
    >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=TrainConfig(epochs=1, slots_per_class=1))
    >>> model.predict(np.array([[5.0, 0.0]], dtype=np.float32)).labels
    array([0])
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        head: IncrementalNeuralHashing,
        *,
        backbone: nn.Module | None = None,
        class_names: Sequence[str] = (),
        views: str = "none",
        recipe: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.featurizer = Featurizer(
            preprocessing,
            parse_views(views),
            nn.Identity() if backbone is None else backbone,
            feature_dim=head.feature_dim,
            device=head.weights.device,
        )
        self.register_state_dict_post_hook(_name_backbone)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_find_backbone)  # type: ignore[no-untyped-call]
        self.class_names = tuple(class_names)
        if preprocessing.kind == "features" and self.views.n_views > 1:
            raise UsageError(f"`views` must be 'none' for features, got {views!r}. Views are made from images.")
        self.recipe = recipe
        if recipe is None and backbone is not None and hasattr(backbone, "options"):
            options: Any = backbone.options
            self.recipe = (str(backbone.name), dict(options))
        self.history: list[Generation] = []
        self.thumbnails: npt.NDArray[np.uint8] | None = None
        """Remembered images, shape (slot, exemplar, height, width, channel); None for features."""
        self.support: Tensor | None = None
        """Unit features of the remembered examples, float16 of shape (slot, exemplar, feature), zero rows where there
        is none: 8 bytes a slot and feature. None in a model that was put together by hand."""
        self.novelty: ModelNovelty | None = None
        """Metric and calibration of `assess_novelty`; None where too few examples were held out at the fit."""
        self.clusters: frozenset[int] = frozenset()
        """Labels that stand for a cluster nobody has named yet."""

    def __setattr__(self, name: str, value: Any) -> None:
        # A module would be registered under its own name, past the property.
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def preprocessing(self) -> Preprocessing:
        """Checks raw inputs and scales them."""
        return self.featurizer.preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing) -> None:
        self.featurizer.preprocessing = value

    @property
    def views(self) -> Views:
        """Views matched beside the input itself."""
        return self.featurizer.views

    @views.setter
    def views(self, value: Views) -> None:
        self.featurizer.views = value

    @property
    def backbone(self) -> nn.Module:
        """From scaled inputs to features; an identity where the inputs are the features."""
        return self.featurizer.backbone

    @backbone.setter
    def backbone(self, value: nn.Module) -> None:
        self.featurizer.backbone = value

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

    def features(self, x: RawInputs) -> Float[Tensor, "example view feature"]:
        """Raw features of every view of a block of raw inputs (not checked, gradients as the caller set them).

        Parameters
        ----------
        x : array of shape (example, ...)

        Returns
        -------
        float tensor of shape (example, view, feature)
        """
        return self.featurizer.features(x)

    def featurize(self, views: Tensor) -> Float[Tensor, "example view feature"]:
        """Features of inputs that are already scaled and viewed, shape (example, view, ...)."""
        return self.featurizer.featurize(views)

    def blocks(self, n: int, *, columns: int = 0) -> Iterator[slice]:
        """Slices of ``n`` examples whose intermediates stay near 64 MB; ``columns`` when there are more than slots."""
        return self.featurizer.blocks(n, columns=max(columns, self.head.n_slots))

    @torch.no_grad()
    def predict(self, x: RawInputs) -> Prediction:
        """Answer raw inputs.

        Parameters
        ----------
        x : array
            uint8 images or float features, as the model was fitted on; an empty batch gives an empty prediction.

        Returns
        -------
        Prediction

        Raises
        ------
        DataError
            If ``x`` has another kind or shape, or numbers that are not finite.
        EmptyHeadError
            If the model has no slots.
        """
        self.preprocessing.check(x)
        self.head.predict(torch.zeros(0, self.head.feature_dim, device=self.device))  # raises on an empty head
        self.eval()
        caps = self.head.caps()
        return Prediction.concatenate([decide(self.features(x[rows]), caps) for rows in self.blocks(len(x))])

    def assess_novelty(self, x: RawInputs, *, false_alarm_rate: float = 0.05) -> Novelty:
        """Say how foreign raw inputs are, and which of them to call novel.

        Parameters
        ----------
        x : array
            As `predict` takes it.
        false_alarm_rate : float in (0, 1), default 0.05
            Largest share of inputs like the training data that may be called novel.

        Returns
        -------
        Novelty
            Scores (higher = more novel), p-values, decisions, nearest slots, reasons.

        Raises
        ------
        UsageError
            If the model has no calibration, or one too small for the rate.
        """
        novelty = calibrated(self.novelty)
        self.preprocessing.check(x)
        source = FeatureSource(self.featurizer, x, keep=False)
        return assess(source, self.head, novelty, rate=false_alarm_rate)

    @torch.no_grad()
    def examine(self, x: RawInputs, *, false_alarm_rate: float = 0.05) -> Examination:
        """Answer raw inputs and say how foreign they are, in one pass through the backbone.

        Parameters
        ----------
        x : array
            As `predict` takes it.
        false_alarm_rate : float in (0, 1), default 0.05
            Largest share of inputs like the training data that may be called novel.

        Returns
        -------
        Examination
            The same as `predict` and `assess_novelty` give, bit for bit.

        Raises
        ------
        DataError
            If ``x`` has another kind or shape, or numbers that are not finite.
        UsageError
            If the model has no calibration, or one too small for the rate.

        Examples
        --------
        >>> import numpy as np
        >>> from slots.training import TrainConfig, fit
        >>> rng = np.random.default_rng(0)
        >>> x = np.eye(3, dtype=np.float32)[np.arange(300) % 2] + rng.normal(0, 0.1, (300, 3)).astype(np.float32)
        >>> model, _ = fit(x, np.arange(300) % 2, config=TrainConfig(epochs=1, slots_per_class=1, held_out=0.2))
        >>> found = model.examine(np.float32([[0, 1, 0], [0, 0, 1]]))
        >>> found.prediction.labels[0], found.novelty.novel
        (np.int64(1), array([False,  True]))
        """
        novelty = calibrated(self.novelty)
        self.preprocessing.check(x)
        self.eval()
        caps, metric = self.head.caps(), novelty.metric.to(self.device)
        answers, found = [], []
        for rows in self.blocks(len(x)):
            features = self.features(x[rows])
            answers.append(decide(features, caps))
            found.append(distances(features, self.head.centres, metric))
        judged = judge(stack_distances(found), metric, novelty.calibration, rate=false_alarm_rate)
        return Examination(Prediction.concatenate(answers), judged)

    def snapshot(self) -> Snapshot:
        """What proposals, inquiries and updates may read; none of them changes the model."""
        has_images = self.preprocessing.kind == "images" and self.thumbnails is not None
        return Snapshot(
            self.featurizer, self.head, self.labels, self.support, self.novelty, self.generation, has_images
        )

    def propose(
        self,
        x: RawInputs,
        *,
        budget: int | None = None,
        stop_below: int | None = None,
        radius: float | None = None,
        max_candidates: int = 2000,
        report: Progress | None = None,
    ) -> Proposal:
        """What the slots do not match in new data, and the few examples whose labels would cover most of it.

        Parameters
        ----------
        x : array of shape (example, ...)
            New inputs, as the model was fitted on.
        budget : int, optional
            Largest number of queries (count, >= 0). Default: as many as earn their place.
        stop_below : int, optional
            Stop before a query that would cover fewer of the unmatched than this (count, >= 1). Default: 1 with a
            budget, else 1 in 500 of the unmatched and at least 2.
        radius : float, optional
            Angular radius of a candidate cap in radians. Default: what the present slots teach,
            `slots.proposing.learned_radius`.
        max_candidates : int, default 2000
            With more unmatched examples than this every n-th is a candidate; so the cost grows in step with the data.
        report : callable, optional
            ``report(step, share)``, told the progress.

        Returns
        -------
        Proposal
            The same for the same model, data and options (`slots.proposing.propose` says how). Pass it to `update`
            together with the same ``x``, and nothing goes through the backbone twice.

        Raises
        ------
        DataError
            If ``x`` is not what the model was fitted on.
        UsageError
            If a number is out of its range.
        """
        snapshot = self.snapshot()
        return propose(
            snapshot,
            snapshot.source(x),
            budget=budget,
            stop_below=stop_below,
            radius=radius,
            max_candidates=max_candidates,
            report=report,
        )

    def update(
        self,
        x: RawInputs,
        labels: GivenLabels | None = None,
        *,
        proposal: Proposal | None = None,
        budget: int | None = None,
        config: UpdateConfig | None = None,
        outlook: Outlook | None = None,
        report: Progress | None = None,
    ) -> UpdateReport:
        """Add slots for what no slot matches: labelled where a label is given, else as clusters with fresh ids.

        No answer that a slot gives is changed, for any input; and the model is changed all at once at the end, so that
        an error leaves it as it was.

        Parameters
        ----------
        x : array of shape (example, ...)
            New inputs, as the model was fitted on.
        labels : int array of shape (example,), or mapping from row to label, optional
            Label ids, -1 for unknown; a mapping may also hold names, and new names get the next ids.
        proposal : Proposal, optional
            What `propose` found for these inputs. Its queries without a label become clusters. Default: with labels,
            only they make slots; without, a proposal is made.
        budget : int, optional
            Largest number of clusters, when a proposal is made here (count, >= 0).
        config : UpdateConfig, optional
            How slots are made. Default: `UpdateConfig`'s own.
        outlook : Outlook, optional
            What `slots.spreading.look` found for these inputs, where ``config.spread`` is set. Default: it is made.
        report : callable, optional
            ``report(step, share)``, told the progress.

        Returns
        -------
        UpdateReport

        Raises
        ------
        DataError
            If inputs or labels have another shape or kind than they must.

        Notes
        -----
        Nothing is trained but the new slots (`slots.plan.plan_update` says how). The backbone and the old slots stay
        bit for bit as they are, and the oldest generation that fires answers alone (`slots.deciding`); so for every
        possible input, seen or not, what the model matched before the update it answers in the same way after it.

        Examples
        --------
        >>> import numpy as np
        >>> from slots.training import TrainConfig, fit
        >>> x = np.array([[1, 0, 0], [2, 0.1, 0], [0, 1, 0], [0.1, 3, 0]], dtype=np.float32)
        >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=TrainConfig(epochs=1, slots_per_class=1))
        >>> done = model.update(np.array([[0, 0, 1], [0, 0.1, 2]], dtype=np.float32), {0: "up"})
        >>> done.slots_added, done.generation, model.class_name(int(model.predict(np.float32([[0, 0, 3]])).labels[0]))
        (1, 1, 'up')
        """
        planned = plan_update(
            self.snapshot(),
            x,
            labels,
            proposal=proposal,
            budget=budget,
            config=config,
            outlook=outlook,
            report=report,
        )
        if planned.slots is not None:
            with all_or_nothing(self):
                self._join(planned.slots)
        return planned.report

    def _join(self, new: NewSlots) -> None:
        """Put new slots behind the present ones."""
        head, first = self.head, self.head.n_slots
        head.add_slots(
            new.weights,
            new.labels,
            centres=new.centres,
            precision_thresholds=new.precision_thresholds,
            support_thresholds=new.support_thresholds,
            exemplars=new.exemplars,
            generation=new.line.number,
            trained=False,
        )
        head.trained[first:] = new.pooled
        head.hits[first:] = new.hits
        fresh = new.exemplar_features
        old = self.support if self.support is not None else torch.zeros(first, *fresh.shape[1:], dtype=fresh.dtype)
        self.support = torch.cat([old, fresh])
        if new.exemplar_images is not None and self.thumbnails is not None:
            self.thumbnails = np.concatenate([self.thumbnails, new.exemplar_images])
        self.class_names, self.clusters = new.known.names, new.known.clusters
        self.history.append(new.line)

    def save(self, folder: str | Path, *, keep_history: bool = False) -> Path:
        """Write the model, whole or not at all, over the one that was there.

        Parameters
        ----------
        folder : path
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
                recipe=self.recipe,
                head=self.head,
                labels=LabelNames(self.class_names, self.clusters),
                history=self.history,
                exemplar_features=self.support,
                exemplar_images=self.thumbnails,
                novelty=self.novelty,
            )
        )
        write_state(folder, header=header, tensors=tensors, keep_history=keep_history)
        return Path(folder)

    @staticmethod
    def load(
        folder: str | Path,
        *,
        generation: int | None = None,
        build: BuildBackbone | None = None,
        device: str = "cpu",
    ) -> SlotModel:
        """Read a model that `save` wrote.

        Parameters
        ----------
        folder : path
        generation : int, optional
            Number of the generation to read, as ``slots log`` lists it. Default: the current one.
        build : callable, optional
            Makes the backbone from its recorded name; pass `backbones.build`. Needed for models that have one.
        device : str, default "cpu"

        Returns
        -------
        SlotModel

        Raises
        ------
        ModelError
            If the folder is missing, damaged, foreign or of a newer version, or needs ``build``.
        """
        state = state_of(folder, generation)
        try:
            return SlotModel._of(from_state(state.header, state.tensors, build)).to(device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The model in {folder} cannot be rebuilt: {error}. It was written by another version or edited. "
                "Fit it again."
            ) from error

    @staticmethod
    def _of(parts: ModelParts) -> SlotModel:
        """The model that has these parts."""
        model = SlotModel(
            parts.preprocessing,
            parts.head,
            backbone=parts.backbone,
            class_names=parts.labels.names,
            views=parts.views,
            recipe=parts.recipe,
        )
        model.history, model.clusters = parts.history, parts.labels.clusters
        model.support, model.thumbnails, model.novelty = parts.exemplar_features, parts.exemplar_images, parts.novelty
        return model


def _name_backbone(_model: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Outside, the backbone's weights are ``backbone.*``; checkpoints of fits hold them so."""
    _rename(state, f"{prefix}featurizer.backbone.", f"{prefix}backbone.")


def _find_backbone(_model: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    """The way back of `_name_backbone`."""
    _rename(state, f"{prefix}backbone.", f"{prefix}featurizer.backbone.")


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)
