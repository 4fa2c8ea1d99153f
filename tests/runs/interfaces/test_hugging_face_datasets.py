"""Data sets of Hugging Face: columns of pictures, sentences and rows, streams, splits, and folders on the disk."""

import numpy as np
import pytest
from PIL import Image

from protocols.data import load_data
from protocols.interfaces import SlotEncoder
from slots import TrainConfig, fit
from slots.errors import DataError, MissingExtraError
from slots.sources import read_source

datasets = pytest.importorskip("datasets", reason="pip install 'neural-slots[datasets]'")
NAMES = ["ant", "bee", "cow"]
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()


def pictures():
    features = datasets.Features(
        {"id": datasets.Value("int64"), "image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    columns = {"id": list(range(12)), "image": [Image.fromarray(it) for it in PIXELS], "label": LABELS.tolist()}
    return datasets.Dataset.from_dict(columns, features=features)


def sentences():
    return datasets.Dataset.from_dict({"text": [f"sentence {i}" for i in range(5)], "label": ["a", "b", "a", "b", "a"]})


@pytest.mark.parametrize("form", ["whole", "torch", "stream", "filtered stream"])
def test_pictures_are_read_with_labels_and_names(form):
    data = pictures()
    if form == "torch":
        data = data.with_format("torch")
    if "stream" in form:
        data = data.to_iterable_dataset()
    if form == "filtered stream":
        data = data.map(lambda row: row).filter(lambda row: row["id"] >= 0)
    found = read_source(data)
    assert np.array_equal(found.x, PIXELS)
    assert np.array_equal(found.y, LABELS)
    assert found.class_names == (() if form == "filtered stream" else tuple(NAMES))


def test_sentences_and_rows():
    found = read_source(sentences())
    assert found.x.tolist() == [f"sentence {i}" for i in range(5)]
    assert found.y.tolist() == ["a", "b", "a", "b", "a"]
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    data = datasets.Dataset.from_dict({"embedding": x.tolist(), "label": (np.arange(30) % 2).tolist()})
    assert np.array_equal(read_source(data).x, x)
    model, _ = fit(data, config=TrainConfig(epochs=1, slots_per_class=1))
    assert np.array_equal(model.predict(data).labels, model.predict(x).labels)


def test_what_cannot_be_read_is_said():
    with pytest.raises(DataError, match=r"one split of the data set, got all of train, test"):
        read_source(datasets.DatasetDict(train=sentences(), test=sentences()))
    with pytest.raises(DataError, match="under one of the names image"):
        read_source(sentences().rename_column("text", "words"))
    with pytest.raises(DataError, match="empty data set"):
        read_source(sentences().select([]))


def test_a_column_of_pictures_goes_into_a_pipeline():
    data = pictures()
    wanted = SlotEncoder("pixels").fit_transform(PIXELS)
    assert np.array_equal(SlotEncoder("pixels").fit_transform(data["image"]), wanted)
    assert np.array_equal(SlotEncoder("pixels").fit_transform(data), wanted)


def test_folders_on_the_disk_are_what_data_names(tmp_path):
    pictures().save_to_disk(tmp_path / "whole")
    found = load_data(tmp_path / "whole")
    assert found.name == "whole"
    assert found.class_names == tuple(NAMES)
    assert found.test_rows is not None
    assert len(found.x_train) + len(found.x_test) == 12
    parts = datasets.DatasetDict(train=pictures().select(range(8)), test=pictures().select(range(8, 12)))
    parts["validation"] = pictures().select([0])
    parts.save_to_disk(tmp_path / "parts")
    found = load_data(tmp_path / "parts")
    assert np.array_equal(found.x_train, PIXELS[:8])
    assert np.array_equal(found.x_test, PIXELS[8:])
    assert np.array_equal(found.y_test, LABELS[8:])
    assert found.test_rows is None
    sentences().save_to_disk(tmp_path / "mail")
    found = load_data(tmp_path / "mail")
    assert found.kind == "text"
    assert found.class_names == ("a", "b")


def test_a_damaged_folder_is_said_in_a_sentence(tmp_path, monkeypatch):
    sentences().save_to_disk(tmp_path / "mail")
    file = next((tmp_path / "mail").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"mail` must be a whole data set"):
        load_data(tmp_path / "mail")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"neural-slots\[datasets\]"):
        load_data(tmp_path / "mail")
