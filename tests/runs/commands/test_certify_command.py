"""`slots fit --robust` and `slots certify` as a user meets them."""

import csv
import io
import json

import numpy as np
import pytest
from support.command import told

import backbones
from protocols.commands import main
from protocols.data.loading import load_data
from slots.model.slot_model import SlotModel
from slots.robust import certify


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The digits, fitted for radii of half a black pixel."""
    folder = tmp_path_factory.mktemp("models") / "m"
    words = ["fit", "--data", "digits", "--robust", "l2:1", "--epochs", "2", "--slots-per-class", "5"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--out", str(folder), "--json"])
    assert end.value.code == 0
    return folder


def test_json_is_what_the_library_says(model, capsys):
    found = json.loads(
        told(capsys, "certify", model, "--data", "digits", "--limit", "40", "--radius", "0.3", "--json").out
    )
    loaded = SlotModel.load(model, build=backbones.build)
    data = load_data("digits")
    expected = certify(loaded, data.x_test[:40])
    right = expected.prediction.labels == data.y_test[:40]
    assert (found["norm"], found["method"], found["n_inputs"]) == ("l2", "box", 40)
    assert found["accuracy"] == pytest.approx(right.mean())
    [shares] = found["shares"]
    assert shares["label"] == pytest.approx((right & (expected.radii > 0.3)).mean())
    assert shares["nearest"] > 0.3
    assert [row["nearest_radius"] for row in found["inputs"]] == pytest.approx(expected.nearest_radii, abs=2e-6)


def test_a_table_and_a_csv(model, tmp_path, capsys):
    out = tmp_path / "radii.csv"
    words = "certify", model, "--data", "digits", "--limit", "30", "--norm", "linf", "--method", "pair", "--out", out
    printed = told(capsys, *words).out
    assert "never matched wrongly" in printed
    assert "certified (pair)" in printed
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [int(row["input"]) for row in rows] == list(range(30))
    assert np.mean([float(row["nearest_radius"]) > 0 for row in rows]) > 0.8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--norm", "l1"], "--norm must be l2 or linf, got 'l1'"),
        (["--norm", "linf", "--method", "dual"], "`method` must be pair, box or, for l2, dual"),
        (["--radius", "-1"], "`radius` must be a number >= 0"),
    ],
)
def test_what_cannot_be_certified_is_one_line(model, words, said, capsys):
    assert said in told(capsys, "certify", model, "--data", "digits", *words, status=2).err


def test_predict_counts_as_matched_what_nobody_can_have_made(model, capsys):
    def kinds(*words):
        found = json.loads(told(capsys, "predict", model, "--data", "digits", *words, "--json").out)["answers"]
        return np.array([row["answer"] != "unmatched" for row in found])

    loaded, x = SlotModel.load(model, build=backbones.build), load_data("digits").x_test
    match, nearest = kinds("--certified", "l2:0.2"), kinds("--certified", "l2:0.2", "--by", "nearest")
    assert (match == (certify(loaded, x).matched_radii > 0.2)).all()
    assert 0 < match.sum() < nearest.sum() < kinds().sum()
    assert kinds("--certified", "linf:0.5").sum() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--certified", "0.5"], "`certified` must be l2:SIZE or linf:SIZE, got '0.5'"),
        (["--certified", "l1:0.5"], "`certified` must be l2:SIZE or linf:SIZE, got 'l1:0.5'"),
        (["--certified", "l2:-1"], "`certified` must be l2:SIZE or linf:SIZE, got 'l2:-1'"),
        (["--certified", "l2:1", "--by", "slot"], "`of` must be match or nearest, got 'slot'"),
    ],
)
def test_what_no_answer_can_be_asked_for_is_one_line(model, words, said, capsys):
    assert said in told(capsys, "predict", model, "--data", "digits", *words, status=2).err


def test_certified_answers_of_shards_are_refused(model, tmp_path, capsys):
    words = "--shards", tmp_path, "--out", tmp_path / "o", "--certified", "l2:1"
    assert "--certified must be left out with --shards" in told(capsys, "predict", model, *words, status=2).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--robust", "2.5"], "`robust` must be NORM:RADIUS, got '2.5'"),
        (["--robust", "l1:2"], "`norm` must be l2 or linf, got 'l1'"),
        (["--robust", "l2:1", "--views", "shift1"], "`robust` must come without `views`"),
        (["--robust", "l2:1", "--backbone", "cnn"], "`robust` must come with features that are the inputs"),
    ],
)
def test_what_cannot_be_trained_for_it_is_one_line(words, said, tmp_path, capsys):
    assert said in told(capsys, "fit", "--data", "digits", "--out", tmp_path / "m", *words, status=2).err
