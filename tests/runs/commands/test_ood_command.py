"""`slots ood` as a user meets it: what it prints, writes and refuses."""

import csv
import io
import json

import numpy as np
import pytest
from support.command import told
from support.nets import blobs

from protocols.app.novelty import COLUMNS
from slots.model.slot_model import SlotModel
from slots.training.config import TrainConfig
from slots.training.fitting import fit


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A fitted model with a calibration, in a folder."""
    x, y = blobs(400, spread=0.3)
    fitted, _ = fit(x, y, config=TrainConfig(epochs=3, slots_per_class=4, held_out=0.2), class_names=list("abcd"))
    return fitted.save(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Foreign rows as training part, familiar ones as test part."""
    x, y = blobs(200, spread=0.3)
    file = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(file, x_train=-x[:50], y_train=y[:50], x_test=x, y_test=y)
    return file


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_line_an_input_and_the_share_on_stderr(model, archive, capsys):
    printed = told(capsys, "ood", model, "--data", archive)
    rows = rows_of(printed.out)
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["input"]) for row in rows] == list(range(200))
    flagged = sum(row["novel"] == "True" for row in rows)
    assert printed.err.strip() == f"{flagged} of 200 inputs are novel at a false-alarm rate of 0.05."
    assert flagged < 30
    foreign = rows_of(told(capsys, "ood", model, "--data", archive, "--part", "train").out)
    assert sum(row["novel"] == "True" for row in foreign) > 45
    assert np.mean([float(row["score"]) for row in foreign]) > np.mean([float(row["score"]) for row in rows])


def test_that_nothing_is_matched_is_said_beside_the_answers(model, archive, tmp_path, capsys):
    words = "predict", model, "--data", archive
    said = told(capsys, *words, "--part", "train")
    assert {row["answer"] for row in rows_of(said.out)} == {"unmatched"}
    assert said.err.startswith("No slot matches any of the 50 inputs: all labels are guesses.")
    assert "No slot matches" in told(capsys, *words, "--part", "train", "--out", tmp_path / "a.csv").err
    assert told(capsys, *words, "--part", "train", "--quiet").err == ""
    familiar = told(capsys, *words)
    assert "matched" in {row["answer"] for row in rows_of(familiar.out)}
    assert familiar.err == ""


def test_json_is_what_the_model_says(model, archive, capsys):
    found = json.loads(told(capsys, "ood", model, "--data", archive, "--false-alarm-rate", "0.2", "--json").out)
    loaded = SlotModel.load(model)
    with np.load(archive) as data:
        expected = loaded.assess_novelty(data["x_test"], false_alarm_rate=0.2)
    assert set(found) == {"model", "false_alarm_rate", "n_inputs", "n_novel", "share_novel", "inputs"}
    assert (found["n_inputs"], found["n_novel"]) == (200, int(expected.novel.sum()))
    assert found["share_novel"] == found["n_novel"] / 200
    for i in (0, 7, 199):
        assert found["inputs"][i] == {
            "input": i,
            "score": pytest.approx(expected.scores[i], abs=1e-6),
            "p_value": pytest.approx(expected.p_values[i], abs=1e-6),
            "novel": bool(expected.novel[i]),
            "nearest_slot": int(expected.nearest[i]),
            "nearest_label": "abcd"[int(loaded.head.labels[expected.nearest[i]])],
            "reason": expected.reasons[i],
        }


def test_out_writes_the_csv(model, archive, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    printed = told(capsys, "ood", model, "--data", archive, "--out", out)
    assert printed.out.endswith(f"at a false-alarm rate of 0.05. Scores: {out}\n")
    assert out.read_text() == told(capsys, "ood", model, "--data", archive).out


def test_calibrating_on_other_familiar_data_changes_p_values_and_no_score_nor_the_model(model, archive, capsys):
    before = json.loads(told(capsys, "ood", model, "--data", archive, "--json").out)["inputs"]
    files = {file: file.read_bytes() for file in model.rglob("*") if file.is_file()}
    other = json.loads(told(capsys, "ood", model, "--data", archive, "--calibrate", archive, "--json").out)["inputs"]
    assert [row["score"] for row in before] == [row["score"] for row in other]
    ranks = sorted(row["p_value"] for row in other)
    assert ranks[0] == pytest.approx(2 / 201, abs=1e-5)  # judged by itself: the highest of 200 equals one of them
    assert ranks != sorted(row["p_value"] for row in before)
    assert files == {file: file.read_bytes() for file in model.rglob("*") if file.is_file()}


def test_one_line_where_there_is_no_calibration(model, archive, tmp_path, capsys):
    bare = SlotModel.load(model)
    bare.novelty = None
    printed = told(capsys, "ood", bare.save(tmp_path / "bare"), "--data", archive, status=2)
    assert printed.out == ""
    assert printed.err.startswith("Error: The model must have held-out scores to judge novelty by, and has none.")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--false-alarm-rate", "0"), 2, "`false_alarm_rate` must lie in (0, 1), got 0.0."),
        (("--false-alarm-rate", "0.0001"), 2, "`false_alarm_rate` must be at least"),
        (("--part", "all"), 2, "--part must be train or test, got 'all'."),
    ],
)
def test_messages(model, archive, options, status, says, capsys):
    printed = told(capsys, "ood", model, "--data", archive, *options, status=status)
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_no_inputs_and_inputs_of_another_shape(model, tmp_path, capsys):
    x = np.ones((4, 8), np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.zeros(4, int), x_test=x[:0], y_test=np.zeros(0, int))
    assert (
        "must hold inputs, got none in this part"
        in told(capsys, "ood", model, "--data", tmp_path / "a.npz", status=3).err
    )
    np.savez(tmp_path / "b.npz", x_train=x[:, :5], y_train=np.zeros(4, int), x_test=x[:, :5], y_test=np.zeros(4, int))
    assert "must" in told(capsys, "ood", model, "--data", tmp_path / "b.npz", status=3).err
