"""Whether the parts of a loaded model are those of a model: numbers finite, vectors unit, shapes that belong together.

A folder's digests find damage, not forgery. So every tensor and every number of a header is looked at before the first
question, and what no model has is refused in one sentence; nothing that passes here ends in an exception later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.errors import ModelError
from slots.features.example_ids import is_example_id
from slots.features.exemplars import thumbnail_size
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import AnswerShares
from slots.head.slot_table import N_EXEMPLARS
from slots.labels import LabelNames
from slots.model.parts import ModelParts
from slots.novelty.slot_classes import MEASURES
from slots.novelty.slot_novelty import ModelNovelty
from slots.rehearsal.memory import RehearsalMemory
from slots.storage.generations import Generation

MOST_LABELS = 1 << 20
"""Label ids beyond the named ones are below this."""

_MOST_COUNT = 1 << 53  # hits and ids: whole numbers that a float holds
_UNIT = 1e-3  # how far a float32 unit vector's length may be off
_HALF_UNIT = 2e-2  # a float16 one's
_MOST_FACTOR = 1e6  # of scale and beta
_KNOTS = 10  # quantiles of a tail


def check_sound(parts: ModelParts) -> None:
    """Refuse parts that are not those of one model.

    Parameters
    ----------
    parts : ModelParts
        As they were read.

    Raises
    ------
    ModelError
        With the first thing that is wrong.
    """
    check_preprocessing(parts.preprocessing)
    _check_history(parts.history)
    _check_names(parts.labels)
    last = parts.history[-1].number if parts.history else _MOST_COUNT
    n_labels = max(len(parts.labels.names), MOST_LABELS)
    check_head(parts.head, n_labels=n_labels, last_generation=last)
    _check_width(parts)
    if parts.exemplar_features is not None:
        _check_remembered(parts.exemplar_features, parts.head)
    if parts.exemplar_images is not None:
        _check_shown(parts.exemplar_images, parts.preprocessing, parts.head)
    if parts.exemplar_ids is not None:
        _check_ids(parts.exemplar_ids, parts.head)
    if parts.familiar_shares is not None:
        _check_shares(parts.familiar_shares)
    if parts.rehearsal is not None:
        _check_rehearsal(parts.rehearsal, parts.head.feature_dim, n_labels)
    if parts.novelty is not None:
        _check_novelty(parts.novelty, parts.head.feature_dim)


def check_kinds(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that copying would silently turn into numbers of another kind.

    Parameters
    ----------
    stored, expected : mappings of tensor
        By name; names that only one of them has are left to whoever copies.
    what : str
        Whose they are, for the sentence.

    Raises
    ------
    ModelError
        If one holds floats and the other whole numbers or flags.
    """
    for name, tensor in stored.items():
        want = expected.get(name)
        if want is not None and _kind(tensor) != _kind(want):
            raise _unsound(f"{what}'s {name} must hold {_kind(want)}, got {tensor.dtype}")


def check_head(head: IncrementalNeuralHashing, *, n_labels: int, last_generation: int) -> None:
    """Refuse slots that no fit and no update makes.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        As it was read.
    n_labels : int
        Labels are below this.
    last_generation : int
        Number of the newest generation.

    Raises
    ------
    ModelError
        With the first thing that is wrong.
    """
    _check_number("feature_dim", head.feature_dim, 1, _MOST_COUNT, whole=True)
    _check_number("scale", head.scale, 1e-9, _MOST_FACTOR)
    _check_number("beta", head.beta, 0, _MOST_FACTOR)
    _check_number("precision", head.precision, 1e-9, 1)
    rows = {name: len(tensor) for name, tensor in head.state_dict().items() if name != "classes"}
    if len(set(rows.values())) > 1:
        raise _unsound(f"the slots' tensors must have equal lengths, got {rows}")
    _check_unit("weights", head.weights.detach(), _UNIT, zeros=False)
    _check_unit("centres", head.centres, _UNIT, zeros=True)
    for name in ("precision_thresholds", "support_thresholds"):
        values = getattr(head, name)
        if not bool(((values.abs() <= 4) | (values == -math.inf)).all()):  # 2 and -2 stand for never and always
            raise _unsound(f"{name} must be cosines, got {values.tolist()[:3]}, ...")
    _check_range("labels", head.labels, 0, n_labels - 1)
    _check_range("classes", head.classes, 0, n_labels - 1)
    _check_range("generations", head.generations, 0, last_generation)
    _check_range("hits", head.hits, 0, _MOST_COUNT)
    _check_range("exemplars", head.exemplars, -1, _MOST_COUNT)
    _check_range("held_out", head.held_out, 0, _MOST_COUNT)
    if bool((head.held_out[:, 1] > head.held_out[:, 0]).any()):
        raise _unsound("of held_out examples more are right than are matched")
    if len(head.classes.unique()) != len(head.classes) or not bool(torch.isin(head.labels, head.classes).all()):
        raise _unsound("classes must be different, and have every label of a slot")


def check_preprocessing(found: Preprocessing) -> None:
    """Refuse what scales no inputs; called before anything is built for them.

    Parameters
    ----------
    found : Preprocessing
        As it was read.

    Raises
    ------
    ModelError
        With the first thing that is wrong.
    """
    sizes = {"images": 3, "features": 1, "text": 0}
    if not isinstance(found.kind, str) or len(found.shape) != sizes.get(found.kind, -1):
        raise _unsound(f"inputs must be images, features or text and have their shape, got {found.kind!r:.40}")
    for side in found.shape:
        _check_number("shape", side, 1, _MOST_COUNT, whole=True)
    channels = found.shape[0] if found.kind == "images" else 0
    if len(found.mean) != len(found.std) or len(found.mean) not in (0, channels):
        raise _unsound("mean and std must have one number a channel of an image, or none")
    for name, least in (("mean", -_MOST_FACTOR), ("std", 1e-9)):
        for value in getattr(found, name):
            _check_number(name, value, least, _MOST_FACTOR)


def _check_history(history: Sequence[Generation]) -> None:
    before = -1
    for line in history:
        _check_number("the number of a generation", line.number, before + 1, _MOST_COUNT, whole=True)
        _check_number("n_slots of a generation", line.n_slots, 0, _MOST_COUNT, whole=True)
        if not isinstance(line.what, str) or not isinstance(line.figures, dict):
            raise _unsound("each generation must say in words what made it, and its figures by name")
        before = line.number


def _check_names(labels: LabelNames) -> None:
    if not all(isinstance(name, str) for name in labels.names):
        raise _unsound("class names must be words")
    for label in labels.clusters:
        _check_number("a cluster", label, 0, max(len(labels.names), MOST_LABELS) - 1, whole=True)


def _raw_width(parts: ModelParts) -> int | None:
    """Features before whitening, where they are known: of rows as they come, or as the backbone says."""
    if parts.backbone is None:
        return math.prod(parts.preprocessing.shape) if parts.preprocessing.kind == "features" else None
    told = getattr(parts.backbone, "feature_dim", None)
    return told if isinstance(told, int) else None


def _check_width(parts: ModelParts) -> None:
    """What comes out of preprocessing, backbone and whitening must be as wide as a slot."""
    width, wanted = _raw_width(parts), parts.head.feature_dim
    if parts.whitening is not None:
        enters, wanted_inside = parts.whitening.matrix.shape
        if wanted_inside != wanted or (width is not None and enters != width):
            raise _unsound(f"whitening must lead from {width} to {wanted} features, got {enters} to {wanted_inside}")
    elif width is not None and width != wanted:
        raise _unsound(f"slots must have {width} features as their inputs have, got {wanted}")
    if parts.backbone is None and parts.preprocessing.kind != "features":
        raise _unsound(f"a model of {parts.preprocessing.kind} must have a backbone")


def _check_remembered(features: Tensor, head: IncrementalNeuralHashing) -> None:
    """Features of remembered examples: as many for each slot as an update remembers of a new one."""
    shape, wanted = tuple(features.shape), (head.n_slots, N_EXEMPLARS, head.feature_dim)
    if shape != wanted:
        raise _unsound(f"remembered features must be of shape {wanted}, got {shape}")
    _check_unit("remembered features", features.flatten(0, 1), _HALF_UNIT, zeros=True)


def _check_shown(shown: npt.NDArray[Any], preprocessing: Preprocessing, head: IncrementalNeuralHashing) -> None:
    """What is shown of remembered examples: of the inputs' kind and size, or an update could not add to them."""
    wanted: tuple[int, ...] = (head.n_slots, N_EXEMPLARS)
    if preprocessing.kind == "images":
        channels, height, width = preprocessing.shape
        wanted += (*thumbnail_size(height, width), channels)
    kinds = {"images": np.dtype(np.uint8), "text": np.dtype(object)}
    if shown.dtype != kinds.get(preprocessing.kind) or shown.shape != wanted:
        raise _unsound(
            f"what is shown of remembered examples must be {preprocessing.kind} of shape {wanted}, "
            f"got {shown.dtype} of shape {shown.shape}"
        )
    if shown.dtype == object and not all(isinstance(text, str) for text in shown.ravel()):
        raise _unsound("remembered texts must be words")


def _check_ids(ids: npt.NDArray[Any], head: IncrementalNeuralHashing) -> None:
    """Ids of remembered examples: as many as the head remembers, each as a caller may give it, or empty."""
    if ids.shape != tuple(head.exemplars.shape):
        raise _unsound(f"remembered ids must be of {tuple(head.exemplars.shape)} examples, got shape {ids.shape}")
    for found in ids.ravel():
        if found != "" and not is_example_id(found):
            raise _unsound(f"ids of examples must be texts without control characters, got {found!r:.60}")


def _check_shares(shares: AnswerShares) -> None:
    """Counts of answers to held-out examples."""
    _check_number("held-out examples", shares.n_examples, 1, _MOST_COUNT, whole=True)
    _check_number("matched held-out examples", shares.n_matched, 0, shares.n_examples, whole=True)
    rest = shares.n_examples - shares.n_matched
    _check_number("ambiguous held-out examples", shares.n_ambiguous, 0, rest, whole=True)


def _check_rehearsal(memory: RehearsalMemory, feature_dim: int, n_labels: int) -> None:
    n = len(memory.features) if memory.features.ndim else 0
    if memory.features.shape != (n, feature_dim) or memory.labels.shape != (n,) or memory.held_out.shape != (n,):
        raise _unsound("rehearsed examples must have one label each, and features as wide as a slot")
    if memory.lengths is not None and memory.lengths.shape != (n,):
        raise _unsound("rehearsed examples must have one length each")
    if memory.lengths is not None and not bool(((memory.lengths >= 0) & memory.lengths.isfinite()).all()):
        raise _unsound("lengths of rehearsed examples must be finite numbers >= 0")
    _check_number("rehearsed examples that were told", memory.n_told, 0, n, whole=True)
    if memory.labels.dtype != torch.int64 or memory.held_out.dtype != torch.bool:
        raise _unsound("rehearsed examples must have whole numbers as labels, and flags")
    _check_unit("rehearsed features", memory.features, _HALF_UNIT, zeros=False)
    _check_range("rehearsed labels", memory.labels, 0, n_labels - 1)


def check_recall(coefficients: Tensor, labels: Tensor, values: Any, *, n_remembered: int) -> None:
    """Refuse a guess that is not over what the model remembers.

    Parameters
    ----------
    coefficients, labels : tensors
        As they were read.
    values : dict
        Of the header.
    n_remembered : int
        Examples of the rehearsal memory (count).

    Raises
    ------
    ModelError
        With the first thing that is wrong.
    """
    n_labels = len(labels) if labels.ndim == 1 else -1
    if coefficients.dtype != torch.float32 or coefficients.shape != (n_remembered, n_labels):
        raise _unsound(f"recall must have a float32 for each of {n_remembered} remembered examples and each label")
    if labels.dtype != torch.int64 or n_labels < 1 or bool((labels.diff() <= 0).any()):
        raise _unsound("the labels of recall must be whole numbers that ascend")
    _check_range("labels of recall", labels, 0, MOST_LABELS - 1)
    if not bool(coefficients.isfinite().all()):
        raise _unsound("the coefficients of recall must be finite")
    if not isinstance(values, dict):
        raise _unsound("recall must have its numbers by name")
    _check_number("gamma of recall", values.get("gamma"), 0, 1e12)
    _check_number("trust of recall", values.get("trust"), 0, _MOST_FACTOR)


def _check_novelty(novelty: ModelNovelty, feature_dim: int) -> None:
    """Scales, tails and calibration of novelty."""
    metric = novelty.metric
    basis, scales = metric.basis, metric.inverse_scales
    if basis.ndim != 2 or basis.shape[0] != feature_dim or scales.shape != basis.shape[1:]:
        raise _unsound(f"the metric of novelty must be of {feature_dim} features, got shape {tuple(basis.shape)}")
    for name, tensor in (("basis", basis), ("stretch", scales)):
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise _unsound(f"the {name} of novelty must be finite numbers of float32")
    _check_number("rest of novelty", metric.residual_inverse_scale, 0, 1e12)
    _check_number("middle of novelty", metric.median_log_norm, -1e3, 1e3)
    n_tests = len(metric.quantiles)
    if n_tests != 3 or len(metric.mean_excess) != n_tests or len(metric.shares) != n_tests:
        raise _unsound("novelty must have three tests, each with a tail and a share")
    _check_tails(np.array([[*row] for row in metric.quantiles], object).T, np.array(metric.mean_excess, object))
    for share in metric.shares:
        _check_number("a share of novelty", share, 0, 1)
    rows = {"calibration": novelty.calibration} | ({} if novelty.familiar is None else {"familiar": novelty.familiar})
    for name, scores in rows.items():
        if scores.dtype != np.float64 or scores.ndim != 1 or len(scores) == 0:
            raise _unsound(f"the {name} scores of novelty must be a row of float64")
        if not np.isfinite(scores).all() or (np.diff(scores) < 0).any():
            raise _unsound(f"the {name} scores of novelty must be finite and ascend")
    _check_number("slots of novelty", novelty.n_slots, 0, _MOST_COUNT, whole=True)
    if novelty.classes is not None:
        _check_classes(novelty, feature_dim)


def _check_classes(novelty: ModelNovelty, feature_dim: int) -> None:
    """The classes of a fit as Gaussians, and how their measures are weighed."""
    assert novelty.classes is not None
    made, combine = novelty.classes.gaussians, novelty.classes.combine
    n_classes = len(made.places) if made.places.ndim == 2 else 0
    separating = made.places.shape[-1] if made.places.ndim else 0
    fits = (
        made.mean.shape == (feature_dim,)
        and made.whitening.shape == (feature_dim, separating)
        and made.places.shape == (n_classes, separating)
        and made.between.shape == (separating,)
        and n_classes >= 1
    )
    if not fits:
        raise _unsound(f"the classes of novelty must be of {feature_dim} features, with one place each")
    for name in ("mean", "whitening", "places", "between"):
        if not bool(getattr(made, name).isfinite().all()):
            raise _unsound(f"the {name} of the classes of novelty must be finite")
    if bool((made.between < 0).any()):
        raise _unsound("the spread between the classes of novelty must be >= 0")
    _check_tails(combine.tails.quantiles, combine.tails.mean_excess, columns=len(MEASURES))
    _check_tails(combine.total.quantiles, combine.total.mean_excess, columns=1)
    if combine.weights.shape != (len(MEASURES),):
        raise _unsound(f"novelty must have {len(MEASURES)} weights, got shape {combine.weights.shape}")
    for weight in combine.weights.tolist():
        _check_number("a weight of novelty", weight, 0, 1e9)


def _check_tails(knots: npt.NDArray[Any], excess: npt.NDArray[Any], *, columns: int = 3) -> None:
    """Ten quantiles that ascend, and something above 0 beyond, for each of several measures."""
    if knots.shape != (_KNOTS, columns) or excess.shape != (columns,):
        raise _unsound(f"a tail of novelty must have {_KNOTS} quantiles of {columns} measures, got {knots.shape}")
    for value in knots.ravel().tolist():
        _check_number("a quantile of novelty", value, -1e12, 1e12)
    for value in excess.tolist():
        _check_number("an excess of novelty", value, 1e-12, 1e12)
    if (np.diff(knots.astype(np.float64), axis=0) < 0).any():
        raise _unsound("the quantiles of novelty must ascend")


def _check_unit(name: str, rows: Tensor, tolerance: float, *, zeros: bool) -> None:
    """Refuse rows that are not of length one, or, where they may be, zero."""
    if not rows.is_floating_point():
        raise _unsound(f"{name} must hold floats, got {rows.dtype}")
    for block in rows.split(4096):
        lengths = block.double().norm(dim=1)
        fits = (lengths - 1).abs() <= tolerance
        if zeros:
            fits |= lengths == 0
        if not bool(fits.all()):  # not-a-number fits nothing
            raise _unsound(f"{name} must be unit vectors, got one of length {float(lengths[~fits][0]):g}")


def _check_range(name: str, values: Tensor, least: int, most: int) -> None:
    if values.numel() and not least <= int(values.min()) <= int(values.max()) <= most:
        raise _unsound(f"{name} must lie between {least} and {most}, got {int(values.min())} to {int(values.max())}")


def _check_number(name: str, value: Any, least: float, most: float, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        raise _unsound(f"{name} must lie between {least:g} and {most:g}, got {value!r:.60}")


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "flags"
    return "floats" if tensor.is_floating_point() else "whole numbers"


def _unsound(what: str) -> ModelError:
    return ModelError(f"The model is damaged or was edited: {what}. Use a copy of it, or fit it again.")
