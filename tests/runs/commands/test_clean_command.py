"""`slots clean` as a user meets it: the list, the page, a model as judge, and what is refused."""

import csv
import json

import numpy as np
import pytest

from protocols.app.clean import COLUMNS
from protocols.commands import main
from protocols.data.loading import load_data
from slots.training.config import TrainConfig
from slots.training.fitting import fit


def run(capsys, *arguments, status=0):
    """Run a command in this process; returns what it printed."""
    with pytest.raises(SystemExit) as end:
        main(["clean", *map(str, arguments)])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Rows of digits, some labels wrong; the archive and the rows of the wrong ones."""
    data, rng = load_data("digits"), np.random.default_rng(0)
    x, y = data.x_train.reshape(-1, 64).astype(np.float32), data.y_train.copy()
    wrong = np.sort(rng.choice(len(y), 60, replace=False))
    y[wrong] = (y[wrong] + rng.integers(1, 10, 60)) % 10
    file = tmp_path_factory.mktemp("data") / "noisy.npz"
    np.savez(file, x_train=x, y_train=y)
    return file, wrong


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_of_data_alone(noisy, tmp_path, capsys):
    file, wrong = noisy
    printed = run(capsys, file, "--out", tmp_path, "--limit", 40)
    assert "of 1,437 labels are wrong by the estimate" in printed.out
    assert "40 are listed; they hold back" in printed.out
    rows = read(tmp_path / "label-errors.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert np.isin([int(row["example"]) for row in rows], wrong).mean() > 0.9
    assert (tmp_path / "label-errors.html").exists()


def test_with_a_model_as_judge(noisy, tmp_path, capsys):
    file, wrong = noisy
    with np.load(file) as data:
        config = TrainConfig(epochs=8, slots_per_class=4, precision=0.9)
        model, _ = fit(data["x_train"], data["y_train"].astype(np.int64), config=config)
    folder = model.save(tmp_path / "m")
    found = json.loads(run(capsys, folder, "--data", file, "--out", tmp_path, "--json").out)
    assert found["model"] == "m"
    assert found["n_slots"] == model.head.n_slots
    rows = read(tmp_path / "label-errors.csv")
    assert found["listed"] == len(rows)
    assert np.isin([int(row["example"]) for row in rows], wrong).mean() > 0.8

    printed = run(capsys, folder, status=2)
    assert "--data must say what to examine with the model" in printed.err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["nowhere"], 3, "`data` must be one of digits"),
        (["digits", "--part", "both"], 2, "--part must be train or test, got 'both'."),
        (["digits", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["digits", "--backbone", "resnet"], 2, "must be one of pixels, cnn"),
        (["nowhere", "--data", "digits"], 4, "nowhere"),
    ],
)
def test_misuse_is_one_line(tmp_path, monkeypatch, capsys, arguments, status, sentence):
    monkeypatch.chdir(tmp_path)
    printed = run(capsys, *arguments, status=status)
    assert sentence in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
