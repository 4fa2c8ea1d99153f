"""``--half``: commands that answer hand it on to the model, and shards are answered by the options they began with."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.nets import strokes

import backbones
from protocols.bulk.run import Options, begin
from protocols.bulk.shards import find_shards
from protocols.bulk.work import work
from protocols.commands import main
from slots.training import TrainConfig, fit


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network for images of 8 x 8, in a folder."""
    torch.manual_seed(0)
    x, y = strokes(300)
    net = backbones.build("cnn", input_shape=(1, 8, 8))
    config = TrainConfig(epochs=2, slots_per_class=3, held_out=0.3)
    return fit(x, y, backbone=net, config=config, class_names=["lying", "upright"])[0].save(
        tmp_path_factory.mktemp("models") / "m"
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """New images, in a folder of class folders."""
    folder = tmp_path_factory.mktemp("images")
    for number, (image, label) in enumerate(zip(*strokes(40, 1), strict=True)):
        (folder / ["lying", "upright"][label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / ["lying", "upright"][label] / f"{number}.png")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """How often it was asked whether this processor multiplies bfloat16; it is said to."""
    calls = []
    monkeypatch.setattr("slots.features.featurizer.multiplies_bfloat16", lambda device: calls.append(device) or True)
    return calls


def told(capsys, *command):
    with pytest.raises(SystemExit) as end:
        main(list(map(str, command)))
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    return printed.out


def test_answers_are_made_of_features_in_half_precision(model, images, asked, capsys):
    command = "predict", model, "--data", images, "--part", "train", "--json"
    whole = json.loads(told(capsys, *command))["answers"]
    assert not asked
    half = json.loads(told(capsys, *command, "--half"))["answers"]
    assert asked
    assert [it["margin"] for it in half] != [it["margin"] for it in whole]
    assert np.mean([a["label"] == b["label"] for a, b in zip(half, whole, strict=True)]) > 0.9


@pytest.mark.parametrize("command", ["evaluate", "ood"])
def test_so_are_measures_and_novelty(model, images, asked, capsys, command):
    call = command, model, "--data", images, "--part", "train", "--json"
    whole = json.loads(told(capsys, *call))
    assert not asked
    half = json.loads(told(capsys, *call, "--half"))
    assert asked
    assert half.keys() == whole.keys()


def test_a_run_over_shards_keeps_it(tmp_path, capsys):
    """Rows have no network; what counts is that the run says what it began with."""
    rows, labels = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32), np.arange(120) % 2
    fit(rows, labels, config=TrainConfig(epochs=1, slots_per_class=2))[0].save(tmp_path / "rows")
    np.save(tmp_path / "x.npy", rows)
    run = begin(
        tmp_path / "out",
        tmp_path / "rows",
        Options("predict", 60, half=True),
        find_shards(str(tmp_path / "x.npy"), rows=60),
    )
    assert run.options.half
    work(tmp_path / "out")
    call = "predict", tmp_path / "rows", "--shards", tmp_path / "x.npy", "--rows", 60, "--out", tmp_path / "out"
    assert "120 rows in 2 of 2 shards" in told(capsys, *call, "--half")
    with pytest.raises(SystemExit):
        main([*map(str, call)])
    assert "holds answers with half True, asked for was False" in capsys.readouterr().err
