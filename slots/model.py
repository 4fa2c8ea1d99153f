"""`SlotModel`: preprocessing, views, backbone, head and class names, as one thing that predicts, saves and loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from slots.deciding import decide
from slots.errors import ModelError, UsageError
from slots.hashing import IncrementalNeuralHashing
from slots.kept_index import KeptIndex
from slots.model_novelty import ModelNovelty, assess
from slots.predictions import Prediction
from slots.preprocessing import Preprocessing, RawInputs
from slots.store import State, read_headers, read_state, write_state
from slots.views import Views, parse_views

if TYPE_CHECKING:
    from slots.ood import Novelty
    from slots.proposing import Proposal
    from slots.updating import GivenLabels, UpdateReport

BuildBackbone = Callable[..., nn.Module]
"""``build(name, *, input_shape, **options)``, for example `backbones.build`."""

_CPU_INPUTS = 128
_INDEXED = 4096  # views answered together by an index, which holds no matrix
_BLOCK_FLOATS = 1 << 24  # numbers in the largest intermediate of a block: 64 MB in float32


@dataclass(frozen=True)
class Generation:
    """One line of a model's history.

    Parameters
    ----------
    number : int
        0 for the fit.
    what : str
        What made it, for example ``"fit"``.
    n_slots : int
        Slots after it.
    figures : dict of str to float, int, str
        What was measured then.
    """

    number: int
    what: str
    n_slots: int
    figures: dict[str, Any]


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
        self.preprocessing, self.head = preprocessing, head
        self.backbone = nn.Identity() if backbone is None else backbone
        self.class_names = tuple(class_names)
        self.views: Views = parse_views(views)
        if preprocessing.kind == "features" and self.views.n_views > 1:
            raise UsageError(f"`views` must be 'none' for features, got {views!r}. Views are made from images.")
        self.recipe = recipe
        if recipe is None and backbone is not None and hasattr(backbone, "options"):
            options: Any = backbone.options
            self.recipe = (str(backbone.name), dict(options))
        self._kept_index = KeptIndex()
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

    @property
    def device(self) -> torch.device:
        """Where the slots lie."""
        return self.head.weights.device

    def class_name(self, label: int) -> str:
        """Name of a label; a label beyond the known names is shown as its number."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    @property
    def generation(self) -> int:
        """Number of the last line of the history; 0 before there is one."""
        return self.history[-1].number if self.history else 0

    @property
    def n_labels(self) -> int:
        """Label ids given out so far; the next new label gets this number. Ids are never given out twice."""
        top = int(self.head.labels.max()) if self.head.n_slots else -1
        return max(len(self.class_names), 1 + top)

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
        names = [self.class_name(label) for label in range(self.n_labels)]
        if name in names:
            return names.index(name)
        if not create:
            raise UsageError(f"`name` must be a label of the model, got {name!r}. It knows {', '.join(names)}.")
        self.class_names = (*names, name)
        return len(names)

    def features(self, x: RawInputs) -> Float[Tensor, "example view feature"]:
        """Raw features of every view of a block of raw inputs (not checked, gradients as the caller set them).

        Parameters
        ----------
        x : array of shape (example, ...)

        Returns
        -------
        float tensor of shape (example, view, feature)
        """
        return self.featurize(
            self.views(inputs) if (inputs := self.preprocessing(x, self.device)).ndim == 4 else inputs[:, None]
        )

    def featurize(self, views: Tensor) -> Float[Tensor, "example view feature"]:
        """Features of inputs that are already scaled and viewed, shape (example, view, ...)."""
        inputs = views.flatten(0, 1)
        if views.device.type == "cpu" and not torch.is_grad_enabled():
            # The maps of a small batch stay in the cache: a convolutional net is twice as fast on it.
            features = torch.cat([self.backbone(part) for part in inputs.split(_CPU_INPUTS)])
        else:
            features = self.backbone(inputs)
        return features.reshape(*views.shape[:2], features.shape[-1])

    def blocks(self, n: int, *, columns: int = 0, n_slots: int | None = None) -> Iterator[slice]:
        """Slices of ``n`` examples whose intermediates stay near 64 MB; ``columns`` when there are more than slots."""
        n_slots = self.head.n_slots if n_slots is None else n_slots
        row = max(int(np.prod(self.preprocessing.shape)) * 4, self.head.feature_dim, n_slots, columns, 1)
        step = max(1, _BLOCK_FLOATS // (row * self.views.n_views))
        for i in range(0, n, step):
            yield slice(i, min(n, i + step))

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
        self.preprocessing.check_form(x)
        self.head.predict(torch.zeros(0, self.head.feature_dim, device=self.device))  # raises on an empty head
        self.eval()
        caps = self.head.caps()
        parts = []
        index = self._kept_index.index_for(caps, len(x) * self.views.n_views)
        blocks = self.blocks(len(x)) if index is None else self.blocks(len(x), columns=_INDEXED, n_slots=0)
        for rows in blocks:
            features = self.features(self.preprocessing.check_finite(x[rows], rows.start))
            parts.append(decide(features, caps) if index is None else index.predict(features))
        return Prediction.concatenate(parts)

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
        if self.novelty is None:
            raise UsageError(
                "The model must have held-out scores to judge novelty by, and has none. Fit it again with held_out > 0 "
                "and at least 20 held-out examples."
            )
        return assess(self, x, self.novelty, rate=false_alarm_rate)

    def propose(self, x: RawInputs, **options: Any) -> Proposal:
        """What the slots do not match in new data, and the few examples to ask about: `slots.proposing.propose`."""
        from slots.proposing import propose

        return propose(self, x, **options)

    def update(self, x: RawInputs, labels: GivenLabels | None = None, **options: Any) -> UpdateReport:
        """Add slots for what no slot matches, and change no answer that a slot gives: `slots.updating.update`."""
        from slots.updating import update

        return update(self, x, labels, **options)

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
        tensors = {"head": {name: value.contiguous() for name, value in self.head.state_dict().items()}}
        weights = self.backbone.state_dict()
        if weights:
            tensors["backbone"] = weights
        if self.thumbnails is not None:
            tensors["exemplars"] = {"images": torch.from_numpy(self.thumbnails)}
        if self.support is not None:
            tensors["support"] = {"features": self.support}
        values = None
        if self.novelty is not None:
            tensors["novelty"], values = self.novelty.state()
        if self.recipe is None and not isinstance(self.backbone, nn.Identity):
            raise UsageError("A backbone without a recipe cannot be saved. Pass recipe=(name, options) to SlotModel.")
        header = {
            "preprocessing": asdict(self.preprocessing),
            "head": {key: getattr(self.head, key) for key in ("feature_dim", "scale", "beta", "precision")},
            "backbone": None if self.recipe is None else {"name": self.recipe[0], "options": self.recipe[1]},
            "views": self.views.spec,
            "class_names": list(self.class_names),
            "clusters": sorted(self.clusters),
            "novelty": values,
            "generation": self.generation,
            "history": [asdict(generation) for generation in self.history],
        }
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
        state = read_state(folder) if generation is None else _state_of(folder, generation)
        try:
            return _rebuild(state.header, state.tensors, build).to(device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The model in {folder} cannot be rebuilt: {error}. It was written by another version or edited. "
                "Fit it again."
            ) from error


def _state_of(folder: str | Path, generation: int) -> State:
    """The newest state that holds a generation."""
    numbers = [generation_of(header) for header in read_headers(folder)]
    if generation not in numbers:
        known = ", ".join(map(str, sorted(set(numbers))))
        raise ModelError(f"`generation` must be one that `{folder}` keeps, got {generation}. It keeps {known}.")
    return read_state(folder, len(numbers) - 1 - numbers[::-1].index(generation))


def generation_of(header: dict[str, Any]) -> int:
    """Number of the generation that a stored header describes."""
    history = header.get("history", [])
    return int(history[-1]["number"]) if history else 0


def _rebuild(header: dict[str, Any], tensors: dict[str, dict[str, Tensor]], build: BuildBackbone | None) -> SlotModel:
    """Make the model from a stored header and tensors."""
    shape = tuple(header["preprocessing"]["shape"])
    scaling = {key: tuple(header["preprocessing"][key]) for key in ("mean", "std")}
    preprocessing = Preprocessing(header["preprocessing"]["kind"], shape, **scaling)
    backbone = None
    recipe = header["backbone"]
    if recipe is not None:
        if build is None:
            raise ModelError(f"The model has the backbone {recipe['name']!r}. Pass build=backbones.build to load it.")
        backbone = build(recipe["name"], input_shape=shape, **recipe["options"])
        backbone.load_state_dict(tensors.get("backbone", {}))
        backbone.eval()
    head = IncrementalNeuralHashing(**header["head"])
    head.load_state_dict(tensors["head"])
    model = SlotModel(
        preprocessing,
        head,
        backbone=backbone,
        class_names=header["class_names"],
        views=header["views"],
        recipe=None if recipe is None else (recipe["name"], recipe["options"]),
    )
    model.history = [Generation(**line) for line in header["history"]]
    if "exemplars" in tensors:
        model.thumbnails = tensors["exemplars"]["images"].numpy()
    if "support" in tensors:
        model.support = tensors["support"]["features"]
    if header.get("novelty") is not None:
        model.novelty = ModelNovelty.from_state(tensors["novelty"], header["novelty"])
    model.clusters = frozenset(header.get("clusters", ()))
    return model
