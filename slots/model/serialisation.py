"""The parts of a model as a header and tensors, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.errors import ModelError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.features.whitening import Whitening
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import AnswerShares
from slots.head.recalling.recall import Recall
from slots.labels import LabelNames
from slots.model.parts import ModelParts
from slots.model.recorded import BuildBackbone, build_recorded
from slots.model.soundness import check_kinds, check_preprocessing, check_recall, check_sound
from slots.novelty.slot_novelty import ModelNovelty
from slots.rehearsal.memory import RehearsalMemory
from slots.rehearsal.recollection import raw_memory
from slots.storage.generations import Generation, generation_of
from slots.storage.states import State
from slots.storage.store import read_headers, read_state


def to_state(parts: ModelParts) -> tuple[dict[str, Any], dict[str, Mapping[str, Tensor]]]:
    """Header and tensors of a model, as `slots.storage.write_state` stores them.

    Parameters
    ----------
    parts : ModelParts
        Of a model as it is; nothing is copied.

    Returns
    -------
    header : dict
        What JSON can hold.
    tensors : dict of dicts of tensors

    Raises
    ------
    UsageError
        If nothing says how to rebuild the backbone.
    """
    tensors: dict[str, Mapping[str, Tensor]] = {
        "head": {name: value.contiguous() for name, value in parts.head.state_dict().items()}
    }
    if parts.backbone is not None and (weights := parts.backbone.state_dict()):
        tensors["backbone"] = weights
    if parts.whitening is not None:
        tensors["whitening"] = {name: value.contiguous() for name, value in parts.whitening.state_dict().items()}
    if parts.exemplar_images is not None:
        tensors["exemplars"] = _stored_exemplars(parts.exemplar_images)
    if parts.exemplar_features is not None:
        tensors["support"] = {"features": parts.exemplar_features}
    if parts.exemplar_ids is not None and len(parts.exemplar_ids):
        tensors["exemplar_ids"] = {"lists": _as_bytes(parts.exemplar_ids)}
    if parts.rehearsal is not None:
        tensors["rehearsal"] = parts.rehearsal.state()
    recall = parts.head.recall
    if parts.rehearsal is None or (recall is not None and len(recall.examples) != len(parts.rehearsal)):
        recall = None  # it is about what is remembered, and means nothing without
    if recall is not None:
        tensors["recall"] = recall.state()
    values = None
    if parts.novelty is not None:
        tensors["novelty"], values = parts.novelty.state()
    if parts.backbone_spec is None and parts.backbone is not None:
        raise UsageError("A backbone without a spec cannot be saved. Pass backbone_spec=(name, options) to SlotModel.")
    header = {
        "preprocessing": asdict(parts.preprocessing),
        "head": {key: getattr(parts.head, key) for key in ("feature_dim", "scale", "beta", "precision")},
        "backbone": None
        if parts.backbone_spec is None
        else {"name": parts.backbone_spec[0], "options": parts.backbone_spec[1]},
        "views": parts.views,
        "class_names": list(parts.labels.names),
        "clusters": sorted(parts.labels.clusters),
        "novelty": values,
        "recall": None if recall is None else {"gamma": recall.gamma, "trust": recall.trust},
        "familiar_shares": None if parts.familiar_shares is None else asdict(parts.familiar_shares),
        "generation": parts.history[-1].number if parts.history else 0,
        "history": [asdict(generation) for generation in parts.history],
    }
    return header, tensors


def from_state(
    header: dict[str, Any], tensors: dict[str, dict[str, Tensor]], build: BuildBackbone | None
) -> ModelParts:
    """What `to_state` was given.

    Parameters
    ----------
    header : dict
        The stored JSON header.
    tensors : dict of dicts of tensors
        Of each stored file the tensors by name.
    build : callable or None
        Makes the backbone from its recorded name.

    Returns
    -------
    ModelParts

    Raises
    ------
    ModelError
        If there is a backbone, and no ``build``; its record names what lies outside the folder; or the parts are not
        those of one model (`slots.model.soundness`).
    Exception
        Of any kind, if the header or the tensors are not those of a model.
    """
    shape = tuple(header["preprocessing"]["shape"])
    scaling = {key: tuple(header["preprocessing"][key]) for key in ("mean", "std")}
    preprocessing = Preprocessing(header["preprocessing"]["kind"], shape, **scaling)
    check_preprocessing(preprocessing)
    spec = header["backbone"]
    backbone = None
    if spec is not None:
        if build is None:
            raise ModelError(f"The model has the backbone {spec['name']!r}. Pass build=backbones.build to load it.")
        weights = tensors.get("backbone", {})
        backbone = build_recorded(spec["name"], spec["options"], input_shape=shape, weights=weights, build=build)
    head = IncrementalNeuralHashing(**header["head"])
    check_kinds(tensors["head"], head.state_dict(), "the head")
    head.load_state_dict(tensors["head"])
    stored, shares = header.get("novelty"), header.get("familiar_shares")
    parts = ModelParts(
        preprocessing=preprocessing,
        views=header["views"],
        backbone=backbone,
        backbone_spec=None if spec is None else (spec["name"], spec["options"]),
        whitening=Whitening(**tensors["whitening"]) if "whitening" in tensors else None,
        head=head,
        labels=LabelNames(tuple(header["class_names"]), frozenset(header.get("clusters", ()))),
        history=[Generation(**line) for line in header["history"]],
        exemplar_features=tensors["support"]["features"] if "support" in tensors else None,
        exemplar_images=_read_exemplars(tensors["exemplars"]) if "exemplars" in tensors else None,
        novelty=None if stored is None else ModelNovelty.from_state(tensors["novelty"], stored),
        rehearsal=RehearsalMemory.from_state(tensors["rehearsal"]) if "rehearsal" in tensors else None,
        exemplar_ids=_from_bytes(tensors["exemplar_ids"]["lists"], "ids") if "exemplar_ids" in tensors else None,
        familiar_shares=None if shares is None else AnswerShares(**shares),
    )
    check_sound(parts)
    head.recall = _read_recall(header.get("recall"), tensors.get("recall"), parts)
    return parts


def _read_recall(values: Any, stored: dict[str, Tensor] | None, parts: ModelParts) -> Recall | None:
    """The guess by what is remembered, over the memory of the same model."""
    if values is None or stored is None or parts.rehearsal is None:
        return None
    coefficients, labels = stored["coefficients"], stored["labels"]
    check_recall(coefficients, labels, values, n_remembered=len(parts.rehearsal))
    examples, back = raw_memory(parts.rehearsal, parts.whitening)
    return Recall(examples, coefficients, labels, float(values["gamma"]), float(values["trust"]), back)


def _stored_exemplars(shown: npt.NDArray[Any]) -> dict[str, Tensor]:
    """Pictures as they are; texts as the bytes of one JSON list a slot."""
    if shown.dtype != object:
        return {"images": torch.from_numpy(shown)}
    return {"texts": _as_bytes(shown)}


def _read_exemplars(stored: dict[str, Tensor]) -> npt.NDArray[Any]:
    """The way back of `_stored_exemplars`."""
    if "texts" not in stored:
        images: npt.NDArray[Any] = stored["images"].numpy()
        return images
    return _from_bytes(stored["texts"], "texts")


def _as_bytes(strings: npt.NDArray[Any]) -> Tensor:
    """Strings of shape (slot, exemplar) as the bytes of JSON."""
    # Half of a character is spelt out, and JSON's own escape for it is just that.
    document = json.dumps(strings.tolist(), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return torch.from_numpy(np.frombuffer(document, np.uint8).copy())


def _from_bytes(stored: Tensor, what: str) -> npt.NDArray[Any]:
    """The way back of `_as_bytes`; ``what`` names the strings in the message."""
    rows = json.loads(stored.numpy().tobytes())
    widths = {len(row) if isinstance(row, list) else -1 for row in rows}
    if len(widths) > 1 or -1 in widths:  # before there is memory for as many as the longest row has
        raise ModelError(f"The model is damaged or was edited: remembered {what} must be equally many for each slot.")
    texts = np.empty((len(rows), *widths) if rows else (0, 0), dtype=object)
    for slot, row in enumerate(rows):
        texts[slot] = row
    return texts


def state_of(folder: str | Path, generation: int | None) -> State:
    """The newest stored state that holds a generation; of None the current one.

    Raises
    ------
    ModelError
        If the folder does not keep it, or is no readable model.
    """
    if generation is None:
        return read_state(folder)
    numbers = [generation_of(header) for header in read_headers(folder)]
    if generation not in numbers:
        known = ", ".join(map(str, sorted(set(numbers))))
        raise ModelError(f"`generation` must be one that `{folder}` keeps, got {generation}. It keeps {known}.")
    return read_state(folder, len(numbers) - 1 - numbers[::-1].index(generation))
