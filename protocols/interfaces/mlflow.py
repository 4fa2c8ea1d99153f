"""A flavour of MLflow: ``save_model``, ``log_model`` and ``load_model`` for slot models, which pyfunc loads too."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import slots
from protocols.app.exporting import export_mlflow, quiet
from protocols.recipes.building import load_model as load_folder
from slots.errors import MissingExtraError, ModelError
from slots.model.slot_model import SlotModel

try:
    with quiet():
        from mlflow.models import Model
        from mlflow.tracking.artifact_utils import _download_artifact_from_uri
except ImportError as error:
    raise MissingExtraError(
        f"`protocols.interfaces.mlflow` needs the package {error.name or 'mlflow'}. "
        "Install it: pip install 'neural-slots[mlflow]'"
    ) from error

FLAVOR_NAME = "slots"
"""Of the entry in ``MLmodel`` beside ``python_function``."""

_FOLDER = "artifacts/model"


def save_model(model: SlotModel | str | Path, path: str | Path, *, mlflow_model: Any = None, **fields: Any) -> None:
    """Write a model as an MLflow model with two flavours, ``slots`` and ``python_function``.

    Parameters
    ----------
    model : SlotModel or path
        A model, or its folder.
    path : path
        Where the MLflow model goes; nothing may be there.
    mlflow_model : mlflow.models.Model, optional
        What MLflow has noted already; `log_model` passes it. Default: a new one.
    **fields
        ``signature``, ``input_example`` and ``metadata`` of ``MLmodel``, instead of ours.

    Raises
    ------
    StorageError
        If something is there, or the disk refuses.
    ModelError
        If the folder is no readable model.
    """
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(model) if isinstance(model, (str, Path)) else model.save(Path(aside) / "model")
        made = Path(export_mlflow(folder, path))
    written = Model.load(str(made))
    noted = written if mlflow_model is None else mlflow_model
    noted.flavors.update(written.flavors)
    noted.signature = fields.get("signature") or noted.signature or written.signature
    if fields.get("metadata"):
        noted.metadata = fields["metadata"]
    noted.add_flavor(FLAVOR_NAME, slots_version=slots.__version__, folder=_FOLDER)
    noted.save(str(made / "MLmodel"))


def log_model(model: SlotModel | str | Path, name: str = "model", **options: Any) -> Any:
    """Log a model to the active run, or to a new one.

    Parameters
    ----------
    model : SlotModel or path
        A model, or its folder.
    name : str, default "model"
        What the logged model is called.
    **options
        As `mlflow.models.Model.log` takes them, for example ``registered_model_name``.

    Returns
    -------
    mlflow.models.model.ModelInfo
        Its ``model_uri`` is what `load_model` and ``mlflow.pyfunc.load_model`` take.
    """
    return Model.log(
        artifact_path=None, name=name, flavor=sys.modules[__name__], flavor_name=FLAVOR_NAME, model=model, **options
    )


def load_model(model_uri: str, dst_path: str | None = None, *, device: str = "cpu") -> SlotModel:
    """Load a model that was saved or logged, as a `slots.SlotModel`.

    Parameters
    ----------
    model_uri : str
        As MLflow names models: a folder, ``runs:/...``, ``models:/...``.
    dst_path : str, optional
        Folder that what lies elsewhere is brought to. Default: a temporary one.
    device : str, default "cpu"
        Where it goes.

    Returns
    -------
    SlotModel

    Raises
    ------
    ModelError
        If it is no model of ours.
    """
    folder = Path(_download_artifact_from_uri(artifact_uri=str(model_uri), output_path=dst_path))
    flavors = Model.load(str(folder)).flavors
    if FLAVOR_NAME not in flavors and not (folder / _FOLDER / "slots.json").is_file():
        raise ModelError(
            f"`{model_uri}` must be a slot model, got the flavours {', '.join(flavors)}. Load it by its own."
        )
    return load_folder(folder / _FOLDER, device=device)
