"""``slots export --to onnx``: one graph from raw inputs to answers, in a folder that is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from protocols.app.onnx_graph.checking import FEATURES_SEEN, Checked, check_graph
from protocols.app.onnx_graph.decision import add_decision, add_whitening
from protocols.app.onnx_graph.features import FEATURES, feature_graph
from protocols.app.onnx_graph.nodes import Nodes
from protocols.recipes.building import load_model
from slots.errors import MissingExtraError, ModelError, StorageError
from slots.model.slot_model import SlotModel
from slots.shapes import RawInputs
from slots.storage.atomic import make_folders, storage, sync_folder, temporary, write_file
from slots.storage.mirroring import current_files

FILE = "model.onnx"
"""Name of the graph in its folder."""

SCHEMA = 1
"""Version of the graph's outputs and metadata."""

_LARGEST = (1 << 31) - (1 << 20)  # bytes that a graph with its weights may have


def export_onnx(model: str | Path, out: str | Path, *, given: RawInputs | None = None) -> tuple[Path, Checked | None]:
    """Write the current generation of a model as an ONNX graph, after checking it.

    Parameters
    ----------
    model : path
        A model folder.
    out : path
        A new folder for ``model.onnx``; nothing may be there.
    given : array of shape (example, ...), optional
        Inputs that graph and model must answer alike. Default: what the model remembers.

    Returns
    -------
    file : Path
    checked : Checked or None
        None where onnxruntime is not installed, so that nothing was checked.

    Raises
    ------
    StorageError
        If something is there, or the disk refuses.
    MissingExtraError
        If the package onnx is not installed.
    UsageError
        If the model is one of text.
    ModelError
        If the folder is no readable model, the backbone cannot be translated, or the graph answers otherwise than the
        model beyond rounding.
    DataError
        If ``given`` is not what the model takes.
    """
    target = Path(out)
    if os.path.lexists(target):
        raise StorageError(f"`{target}` must not be there yet. Name a new folder; nothing is overwritten.")
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"`slots export --to onnx` needs the package {error.name}. Install it: pip install 'neural-slots[onnx]'"
        ) from error
    loaded = load_model(model, device="cpu").eval()
    made = make_graph(loaded)
    if made.ByteSize() > _LARGEST:
        raise ModelError(f"A graph must stay below 2 GB, got {made.ByteSize() / 1e9:.1f} GB. Export a smaller model.")
    checked = check_graph(made, loaded, given)
    onnx.helper.set_model_props(made, dict(_properties(loaded, Path(model), checked)))
    onnx.checker.check_model(made)
    with storage(target):
        make_folders(target.absolute().parent)
        aside = temporary(target.absolute())
        aside.mkdir()
        try:
            write_file(aside / FILE, made.SerializeToString(deterministic=True))
            aside.rename(target)
            sync_folder(target.absolute().parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target / FILE, checked


def make_graph(model: SlotModel) -> Any:
    """The graph of a model, without metadata.

    Parameters
    ----------
    model : SlotModel
        On the CPU, in evaluation mode, with slots.

    Returns
    -------
    onnx.ModelProto
        From ``input`` to ``label``, ``answer``, ``matched``, ``slot`` and ``pooled_label``, all of shape (batch,).
    """
    from onnx import TensorProto, helper

    model.head.require_slots()
    made = feature_graph(model.featurizer)
    add = Nodes("slots/")
    whitening = model.featurizer.whitening
    seen = FEATURES if whitening is None else add_whitening(add, FEATURES, whitening)
    answered = add_decision(add, add.named(FEATURES_SEEN, seen), model.head.caps())
    del made.graph.output[:]
    kinds = {
        "label": TensorProto.INT64,
        "answer": TensorProto.INT8,
        "matched": TensorProto.BOOL,
        "slot": TensorProto.INT64,
        "pooled_label": TensorProto.INT64,
    }
    for name, kind in kinds.items():
        add.named(name, getattr(answered, name))
        made.graph.output.append(helper.make_tensor_value_info(name, kind, ["batch"]))
    made.graph.node.extend(add.nodes)
    made.graph.initializer.extend(add.constants)
    made.graph.name = "slots"
    made.producer_name, made.producer_version = "neural-slots", metadata.version("neural-slots")
    return made


def _properties(model: SlotModel, folder: Path, checked: Checked | None) -> Mapping[str, str]:
    """What the file says of itself; all values are text."""
    header = next(content for name, content in current_files(folder).files.items() if name.endswith("/model.json"))
    given = "float32 rows of shape (batch, {})"
    if model.preprocessing.kind == "images":
        given = "uint8 images, 0 to 255, of shape (batch, {1}, {2}, {0})"
    return {
        "slots.schema": str(SCHEMA),
        "slots.version": metadata.version("neural-slots"),
        "slots.model_sha256": hashlib.sha256(header).hexdigest(),
        "slots.generation": str(model.generation),
        "slots.class_names": json.dumps(list(model.labels.names)),
        "slots.clusters": json.dumps(sorted(model.labels.clusters)),
        "slots.input": given.format(*model.preprocessing.shape),
        "slots.answers": json.dumps({"0": "unmatched", "1": "ambiguous", "2": "matched"}),
        "slots.checked": json.dumps(None if checked is None else asdict(checked)),
        "slots.note": (
            "Features are float32 and rounded by whoever runs the graph; decisions on them are float64. An input that "
            "lies closer to a border than the rounding may be answered otherwise than by the model itself."
        ),
    }
