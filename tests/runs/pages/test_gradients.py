"""Figures of a fit: the directions are those of the scores, each row says what it shows, files are whole."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.nets import blobs, strokes
from torch import nn

import backbones
from protocols.data.dataset import Dataset
from protocols.pages.saliency import best_slots, class_directions, examples, first_filters, gradient_rows, write_figures
from slots.head.similarities import normalize
from slots.training.config import TrainConfig
from slots.training.fitting import fit


@pytest.fixture(scope="module")
def bars():
    x, y = strokes(200)
    torch.manual_seed(0)
    backbone = backbones.build("explor", input_shape=(1, 8, 8), widths=[6, 8])
    config = TrainConfig(epochs=12, batch_size=40, slots_per_class=2, scale=20.0, beta=5.0, backbone_lr=2e-2)
    model, _ = fit(x, y, backbone=backbone, config=config, class_names=("across", "down"))
    fresh, truth = strokes(60, seed=5)
    return model, Dataset("bars", x, y, fresh, truth, ("across", "down"), "digest")


def test_a_class_direction_gives_the_pooled_score(bars):
    model, data = bars
    x = model.preprocessing(data.x_test[:20])
    labels = torch.from_numpy(data.y_test[:20])
    unit = normalize(model.backbone(x)).detach()
    scores = (unit * class_directions(model, x, labels)).sum(1)
    trained = model.head.pooled
    expected = []
    for row, label in zip(unit, labels, strict=True):
        own = (row @ model.head.weights.detach().T)[(model.head.labels == label) & trained]
        expected.append(float((torch.softmax(model.head.beta * own, 0) * own).sum()))
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    best = best_slots(model, x, labels)
    assert torch.equal(model.head.labels[best], labels)
    assert ((unit * model.head.weights.detach()[best]).sum(1) + 1e-5 >= scores).all()


def test_examples_are_one_right_answer_a_class(bars):
    model, data = bars
    chosen = examples(model, data)
    assert data.y_test[chosen].tolist() == [0, 1]
    assert (model.predict(data.x_test[chosen]).labels == [0, 1]).all()


def test_the_rows_say_what_they_show(bars):
    rows = gradient_rows(*bars)
    words = [row[0] for row in rows]
    assert words[:4] == ["test image", "class, gradient", "class, gates held", "class, pullback"]
    assert words[-1] == "slot, gates held, noise"
    assert len(words) == len(set(words)) == 9
    assert all(picture.shape == (8, 8, 3) for _, pictures in rows for picture in pictures)
    # Held gates explain the value, the plain gradient flows through them too: other pictures.
    assert not np.array_equal(rows[1][1][0], rows[2][1][0])


def test_files_are_pictures(bars, tmp_path):
    written = write_figures(*bars, tmp_path / "figures")
    assert [path.name for path in written] == ["gradients.png", "filters.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 60
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_nothing_to_draw(tmp_path):
    x, y = blobs(60)
    model, _ = fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1))
    assert write_figures(model, Dataset("rows", x, y, x, y, (), "digest"), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()
    assert first_filters(nn.Sequential(nn.Conv2d(5, 4, 3))) is None
    assert first_filters(nn.Conv2d(3, 4, 1)) is None
    assert first_filters(nn.Flatten()) is None
