"""A model for MLflow: its answers are the model's own; no pickle, no path of this machine, nothing half-written."""

import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas
import pytest
from support.bombs import picture_model
from support.service import rows, small_model
from typer.testing import CliRunner

from protocols.app.exporting import CODE, export_mlflow
from protocols.app.pyfunc import Answering
from protocols.commands.app import app
from protocols.recipes.building import load_model
from slots.errors import DataError, MissingExtraError, StorageError, UsageError
from slots.training import TrainConfig, fit

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
except ModuleNotFoundError:
    mlflow = None
NEEDS = pytest.mark.skipif(mlflow is None, reason="needs the extra mlflow")
X, _ = rows(40, 3, classes=4)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "small"
    small_model(folder)
    return folder


def test_answers_are_those_of_the_model(small):
    answering, model = Answering(small), load_model(small)
    told = model.examine(X, false_alarm_rate=0.2)
    for given in (X, {"input": X}, X.tolist(), pandas.DataFrame(X)):
        found = answering(given, {"false_alarm_rate": 0.2})
        assert list(found) == ["label", "label_id", "answer", "slot", "margin", "p_value", "novel"]
        assert found["label"].tolist() == [model.class_name(it) for it in told.prediction.labels]
        assert np.array_equal(found["margin"], told.prediction.margins)
        assert np.array_equal(found["p_value"], told.novelty.p_values)
        assert np.array_equal(found["novel"], told.novelty.novel)
    assert set(found["answer"]) == {"matched", "unmatched"}
    assert len(answering(X[:0])) == 0
    with pytest.raises(DataError, match="under 'input'"):
        answering({"x": X})
    with pytest.raises(DataError, match="equally long rows"):
        answering([[1.0], [1.0, 2.0]])
    with pytest.raises(DataError, match="shape"):
        answering(X[:, :3])


def test_a_model_without_calibration_has_no_column_for_it(tmp_path):
    x, y = rows(60, 0)
    fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1, held_out=0))[0].save(tmp_path / "model")
    assert list(Answering(tmp_path / "model")(x)) == ["label", "label_id", "answer", "slot", "margin"]


def test_what_is_there_is_not_overwritten_and_a_failure_leaves_nothing(small, tmp_path):
    (tmp_path / "there").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    for name in ("there", "link"):
        with pytest.raises(StorageError, match="must not be there yet"):
            export_mlflow(small, tmp_path / name)
    found = CliRunner().invoke(app, ["export", str(small), str(tmp_path / "new"), "--to", "pickle"])
    assert isinstance(found.exception, UsageError)
    for file in small.glob("states/*/head.safetensors"):
        broken = tmp_path / "broken" / file.parent.parent.name / file.parent.name
        broken.mkdir(parents=True)
        (broken / "model.json").write_bytes((file.parent / "model.json").read_bytes())
    (tmp_path / "broken" / "slots.json").write_bytes((small / "slots.json").read_bytes())
    found = CliRunner().invoke(app, ["export", str(tmp_path / "broken"), str(tmp_path / "new")])
    assert found.exit_code != 0
    assert sorted(it.name for it in tmp_path.iterdir()) == ["broken", "link", "there"]


@pytest.mark.skipif(mlflow is not None, reason="MLflow is installed here")
def test_without_mlflow_the_extra_is_named_and_nothing_stays(small, tmp_path):
    with pytest.raises(MissingExtraError, match=r"pip install 'neural-slots\[mlflow\]'"):
        export_mlflow(small, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_the_code_is_python_that_names_what_it_needs():
    names = compile(CODE, "model.py", "exec").co_names
    assert {"mlflow", "mlflow.pyfunc", "protocols.app.pyfunc"} <= set(names)


@NEEDS
@pytest.mark.filterwarnings("default")
def test_mlflow_loads_what_was_exported_wherever_it_lies(small, tmp_path):
    made = tmp_path / "exported" / "small"
    found = CliRunner().invoke(app, ["export", str(small), str(made), "--to", "mlflow", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["folder"] == str(made)
    assert [it.name for it in made.parent.iterdir()] == ["small"]
    files = {str(it.relative_to(made)) for it in made.rglob("*") if it.is_file()}
    assert {"MLmodel", "model.py", "requirements.txt", "artifacts/model/slots.json"} <= files
    for name in files - {it for it in files if it.endswith(".safetensors")}:
        text = (made / name).read_text()
        assert str(tmp_path) not in text
        assert str(small) not in text
        assert not re.search(r"(?<![\w./:])/[a-zA-Z]", text), (name, text)
        assert "cloudpickle_version" not in text
    assert not [it for it in files if it.endswith((".pkl", ".pickle", ".pt"))]
    moved = made.rename(tmp_path / "moved")
    loaded = mlflow.pyfunc.load_model(str(moved))
    wanted = Answering(small)(X, {"false_alarm_rate": 0.3})
    for given in ({"input": X}, X):
        pandas.testing.assert_frame_equal(loaded.predict(given, {"false_alarm_rate": 0.3}), wanted)
    pandas.testing.assert_frame_equal(loaded.predict(X), Answering(small)(X))
    assert "neural-slots==" in (moved / "requirements.txt").read_text()


@NEEDS
@pytest.mark.filterwarnings("default")
def test_images_and_a_network_go_the_same_way(tmp_path):
    picture_model(tmp_path / "pictures")
    x = np.random.default_rng(0).integers(0, 17, (9, 8, 8, 1), np.uint8)
    made = export_mlflow(tmp_path / "pictures", tmp_path / "out")
    loaded = mlflow.pyfunc.load_model(str(made))
    pandas.testing.assert_frame_equal(loaded.predict({"input": x}), Answering(tmp_path / "pictures")(x))


@NEEDS
def test_an_export_and_a_load_reach_no_other_host(small, tmp_path):
    code = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): print('REACHED', event, arguments, flush=True)\n"
        "sys.addaudithook(watch)\n"
        "from protocols.app.exporting import export_mlflow\n"
        "made = export_mlflow(sys.argv[1], sys.argv[2])\n"
        "import time; time.sleep(2)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(small), str(tmp_path / "out")]
    environment = {key: value for key, value in os.environ.items() if "MLFLOW" not in key and key != "DO_NOT_TRACK"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "REACHED" not in done.stdout
