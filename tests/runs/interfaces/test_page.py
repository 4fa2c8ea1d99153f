"""The examples of docs/interfaces.md run as they stand, each where its package is installed."""

import contextlib
import importlib.util
import io
import re
import warnings
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "interfaces.md").read_text(encoding="utf-8")
OPTIONAL = {"datasets", "huggingface_hub", "mlflow", "pytorch_ood", "avalanche"}
EXAMPLES = {
    section.splitlines()[0]: re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    for section in PAGE.split("\n## ")[1:]
}


@contextlib.contextmanager
def _tracking_kept():
    """Leave MLflow, where it is there, with the place for runs that it had."""
    if importlib.util.find_spec("mlflow") is None:
        yield
        return
    mlflow = importlib.import_module("mlflow")
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_runs_as_it_stands(heading, tmp_path, monkeypatch):
    (code,) = EXAMPLES[heading]
    needed = {name for name in OPTIONAL if re.search(rf"\b(import|from) {name}\b", code)}
    needed |= {"tensorboard"} if "TensorBoardLog" in code else set()
    missing = [name for name in sorted(needed) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "true")
    with _tracking_kept(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("default")
        exec(compile(code, heading, "exec"), {})
