"""The flavour of MLflow: saved, logged, and loaded as a slot model and by pyfunc; run by `make interfaces`."""

import importlib
import sys
import warnings

import numpy as np
import pandas
import pytest
import torch
from support.service import rows, small_model

from protocols.app.pyfunc import Answering
from protocols.recipes.building import load_model as load_folder
from slots import ClosingConfig, TrainConfig, fit
from slots.errors import ModelError, StorageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mlflow = pytest.importorskip("mlflow", reason="make interfaces")
    importlib.import_module("mlflow.pyfunc")
    import protocols.interfaces.mlflow as flavour

pytestmark = pytest.mark.filterwarnings("ignore")
X, _ = rows(40, 3, classes=4)


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"file://{tmp_path / 'runs'}")
    yield tmp_path
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def folder(tmp_path):
    small_model(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("given", ["folder", "model"])
def test_what_is_saved_is_loaded_by_either_flavour(given, folder, tmp_path):
    model = load_folder(folder)
    flavour.save_model(folder if given == "folder" else model, tmp_path / "saved")
    again = flavour.load_model(str(tmp_path / "saved"))
    assert torch.equal(again.head.weights, model.head.weights)
    assert np.array_equal(again.predict(X).labels, model.predict(X).labels)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    pandas.testing.assert_frame_equal(loaded.predict({"input": X}), Answering(folder)(X))
    noted = mlflow.models.Model.load(str(tmp_path / "saved"))
    assert set(noted.flavors) == {"slots", "python_function"}
    assert noted.signature is not None
    with pytest.raises(StorageError, match="must not be there yet"):
        flavour.save_model(model, tmp_path / "saved")


def test_a_run_keeps_the_model_and_its_curves(folder, tracked):
    model = load_folder(folder)
    x, y = rows(120, 0)
    with mlflow.start_run() as run:
        fit(
            x,
            y,
            config=TrainConfig(epochs=3, slots_per_class=1, closing=ClosingConfig(vouch=None)),
            log=mlflow.log_metric,
        )
        info = flavour.log_model(model, "birds")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [it.step for it in history] == [1, 2, 3]
    assert "slots" in info.flavors
    again = flavour.load_model(info.model_uri)
    assert np.array_equal(again.predict(X).labels, model.predict(X).labels)
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    assert loaded.predict({"input": X})["label_id"].tolist() == model.predict(X).labels.tolist()


def test_a_model_of_another_flavour_is_refused(tmp_path):
    made = mlflow.models.Model()
    made.add_flavor("other", data="x")
    (tmp_path / "other").mkdir()
    made.save(str(tmp_path / "other" / "MLmodel"))
    with pytest.raises(ModelError, match="flavours other"):
        flavour.load_model(str(tmp_path / "other"))
    assert sys.modules["protocols.interfaces.mlflow"] is flavour
