"""Answers about a folder of images name the files."""

import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from protocols.commands import main
from protocols.data.dataset import only_classes
from protocols.data.loading import load_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of grey pictures, some of them deeper down."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        for i in range(60):
            path = root / label / ("old" if i % 2 else "") / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            side = np.linspace(-20, 20, 6) * (1 if label == "dark" else -1)
            Image.fromarray((level + side + rng.normal(0, 8, (6, 6))).round().astype(np.uint8)).save(path)
    return root


def test_each_example_has_its_file(folder):
    data = load_data(folder)
    assert (len(data.train_files), len(data.test_files)) == (len(data.x_train), len(data.x_test)) == (96, 24)
    assert set(data.train_files) | set(data.test_files) == {
        it.relative_to(folder).as_posix() for it in folder.rglob("*.png")
    }
    for files, x, y in ((data.train_files, data.x_train, data.y_train), (data.test_files, data.x_test, data.y_test)):
        for file, image, label in zip(files, x, y, strict=True):
            assert np.array_equal(image[..., 0], np.asarray(Image.open(folder / file)))
            assert file.startswith(data.class_names[label] + "/")
    light = only_classes(data, "light")
    assert light.test_files == tuple(it for it in data.test_files if it.startswith("light"))
    assert len(light.train_files) == len(light.x_train) == 48
    assert load_data("digits").train_files == ()


def test_a_name_that_is_no_text_is_spelt_out(folder, tmp_path):
    (tmp_path / "only").mkdir()
    raw = next(folder.rglob("*.png")).read_bytes()
    with open(os.fsencode(tmp_path / "only") + b"/caf\xe9.png", "wb") as file:
        file.write(raw)
    assert load_data(tmp_path / "only").test_files == (r"caf\xe9.png",)


def told(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(it) for it in words])
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    return printed.out


@pytest.mark.parametrize(
    ("fitted", "asked"),
    [
        (("--backbone", "pixels", "--views", "none"), ("predict",)),
        (("--backbone", "pixels", "--views", "none"), ("ood", "--false-alarm-rate", 0.2)),
        (("--robust", "l2:0.1"), ("certify", "--norm", "l2", "--radius", 0.01)),
    ],
)
def test_commands_name_the_files(fitted, asked, folder, tmp_path, capsys):
    files = list(load_data(folder).test_files)
    told(capsys, "fit", "--data", folder, *fitted, "--out", tmp_path / "m")
    asked = asked[0], tmp_path / "m", "--data", folder, *asked[1:]
    found = json.loads(told(capsys, *asked, "--json"))
    assert [it["input"] for it in found.get("answers") or found["inputs"]] == files
    told(capsys, *asked, "--out", tmp_path / "rows.csv")
    lines = csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text()))
    assert [it["input"] for it in lines] == files
