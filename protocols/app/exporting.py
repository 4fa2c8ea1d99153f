"""A model for MLflow: a folder of its format whose code lies there as text, and that holds nothing to unpickle."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from protocols.app.pyfunc import INPUT, RATE
from protocols.recipes.building import load_model
from slots.errors import MissingExtraError, ModelError, StorageError
from slots.model.slot_model import SlotModel
from slots.storage.atomic import make_folders, storage, sync_folder, temporary
from slots.storage.mirroring import current_files

CODE = '''"""A model of neural-slots for MLflow (models from code): ``mlflow.pyfunc.load_model`` runs this file."""

import mlflow
from mlflow.pyfunc import PythonModel

from protocols.app.pyfunc import Answering


class Slots(PythonModel):
    """Answers with label, kind of answer, slot, margin and novelty."""

    def load_context(self, context):
        self.answering = Answering(context.artifacts["model"])

    def predict(self, context, model_input, params=None):
        return self.answering(model_input, params)


mlflow.models.set_model(Slots())
'''
"""Content of the exported ``model.py``."""

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would tell its makers of every export
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def export_mlflow(model: str | Path, out: str | Path) -> Path:
    """Write the current generation of a model as an MLflow model.

    Parameters
    ----------
    model : path
        A model folder.
    out : path
        Where the MLflow model goes; nothing may be there. It is there whole or not at all.

    Returns
    -------
    Path
        The folder: ``MLmodel``, ``model.py``, requirements, and the model folder as ``artifacts/model``. None of its
        files is a pickle, and none names a path of this machine.

    Raises
    ------
    StorageError
        If something is there, or the disk refuses.
    MissingExtraError
        If MLflow is not installed (extra ``mlflow``).
    ModelError
        If the folder is no readable model.
    """
    target = Path(out)
    if os.path.lexists(target):
        raise StorageError(f"`{target}` must not be there yet. Name a new folder; nothing is overwritten.")
    loaded = load_model(model, device="cpu")
    with storage(target):
        make_folders(target.absolute().parent)
        aside = temporary(target.absolute())
        aside.mkdir()
        try:
            _write_model(Path(model), aside / "model")
            (aside / "model.py").write_text(CODE, encoding="utf-8")
            _save(loaded, aside)
            _sync(aside / "out")
            (aside / "out").rename(target)
            sync_folder(target.absolute().parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _write_model(model: Path, folder: Path) -> None:
    for name, content in current_files(model).files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _save(model: SlotModel, aside: Path) -> None:
    """Let MLflow write its folder, then take out what it says of this machine."""
    with quiet():
        try:
            import mlflow.pyfunc
            from mlflow.models import Model
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"`slots export --to mlflow` needs the package {error.name}. "
                "Install it: pip install 'neural-slots[mlflow]'"
            ) from error
        mlflow.pyfunc.save_model(
            aside / "out",
            python_model=str(aside / "model.py"),
            artifacts={"model": str(aside / "model")},
            pip_requirements=_requirements(model),
            signature=_signature(model),
        )
        made = Model.load(str(aside / "out"))
        flavor = made.flavors["python_function"]
        flavor["artifacts"]["model"]["uri"] = flavor["artifacts"]["model"]["path"]
        flavor["model_code_path"] = "model.py"
        flavor.pop("cloudpickle_version", None)  # nothing is pickled
        made.save(str(aside / "out" / "MLmodel"))
    for path in (aside / "out").iterdir():
        if path.is_file() and str(aside) in path.read_text(encoding="utf-8"):
            raise ModelError(
                f"MLflow {mlflow.__version__} writes a path of this machine into {path.name}. Please report it."
            )


def _requirements(model: SlotModel) -> list[str]:
    """What the folder needs where it is loaded."""
    name, options = model.backbone_spec or ("", {})
    needs = [f"neural-slots{'[text]' if name == 'text' else ''}=={metadata.version('neural-slots')}"]
    needs += [f"{it}=={metadata.version(it)}" for it in ("mlflow-skinny", "pandas")]
    if any(str(it).startswith("timm:") for it in (name, *options.values())):
        needs.append(f"timm=={metadata.version('timm')}")
    return needs


def _signature(model: SlotModel) -> Any:
    """What goes in and what comes out, as MLflow describes it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    kind, shape = model.preprocessing.kind, model.preprocessing.shape
    if kind == "text":
        inputs = Schema([ColSpec("string", INPUT)])
    elif kind == "images":
        inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, *shape[1:], shape[0]), INPUT)])
    else:
        inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, *shape), INPUT)])
    columns = {"label": "string", "label_id": "long", "answer": "string", "slot": "long", "margin": "double"}
    params: Any = None  # MLflow takes None, and its types say otherwise
    if model.novelty is not None:
        columns |= {"p_value": "double", "novel": "boolean"}
        params = ParamSchema([ParamSpec("false_alarm_rate", "double", RATE)])
    return ModelSignature(inputs, Schema([ColSpec(type_, name) for name, type_ in columns.items()]), params=params)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let MLflow say nothing, to nobody."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _sync(folder: Path) -> None:
    """Force a folder and all in it to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
