"""The features that all methods of a run see: learned from what may be seen, and kept."""

import re

import numpy as np
import pytest
import torch

from backbones.nets.cifar_resnet import CifarResNet
from protocols.app.fit import fit_and_save
from protocols.data.dataset import only_classes
from protocols.data.loading import load_data
from protocols.harness.encoders import make_encoder
from protocols.harness.linear_probe import linear_probe
from protocols.harness.protocol import Setting
from protocols.recipes.planning import plan
from slots.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.mark.usefixtures("brief_training")
def test_a_network_learns_what_it_may_see_and_is_kept(tmp_path, digits):
    some = only_classes(digits, "0-7")
    setting, steps = Setting(digits, "cnn", cache=tmp_path), []
    encoder = make_encoder(setting, some.x_train, some.y_train, 0, lambda *it: steps.append(it))
    assert steps
    assert encoder.linear.out_features == 8
    features = encoder(some.x_test)
    assert features.shape == (len(some.x_test), 128)
    assert features.dtype == np.float32
    assert (encoder.logits(features).argmax(1) == some.y_test).mean() > 0.6
    assert not any(it.requires_grad for it in encoder.module.parameters())

    steps.clear()
    again = make_encoder(setting, some.x_train, some.y_train, 0, lambda *it: steps.append(it))
    assert not steps
    assert np.array_equal(again(some.x_test), features)
    fresh = make_encoder(Setting(digits, "cnn"), some.x_train, some.y_train, 0)
    assert np.array_equal(fresh(some.x_test), features)
    other = make_encoder(setting, some.x_train, some.y_train, 1, lambda *it: steps.append(it))
    assert steps
    assert not np.array_equal(other(some.x_test), features)


@pytest.mark.usefixtures("brief_training")
def test_labels_with_gaps_are_numbered(digits):
    some = only_classes(digits, "3,8")
    encoder = make_encoder(Setting(digits, "cnn"), some.x_train, some.y_train, 0)
    answers = np.array([3, 8])[encoder.logits(encoder(some.x_test)).argmax(1)]
    assert (answers == some.y_test).mean() > 0.9


def test_pixels_and_rows_are_taken_as_they_are(digits):
    pixels = make_encoder(Setting(digits, "pixels"), digits.x_train, digits.y_train, 0)
    assert np.allclose(pixels(digits.x_test), digits.x_test.reshape(360, 64) / 255, atol=1e-6)
    rows = digits.x_train.reshape(-1, 64).astype(np.float32)
    assert np.array_equal(make_encoder(Setting(digits, "none"), rows, digits.y_train, 0)(rows), rows)


def test_the_features_of_a_model(tmp_path, digits):
    name, recipe = plan(digits, "explor", epochs=1)
    model, _ = fit_and_save(digits, name, recipe, out=tmp_path / "m", command="x")
    encoder = make_encoder(Setting(digits, model=tmp_path / "m"), digits.x_train, digits.y_train, 0)
    with torch.no_grad():
        expected = model.features(digits.x_test)[:, 0]  # the first view is the input itself
    assert np.allclose(encoder(digits.x_test), expected.numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="`model` must have been fitted on such data"):
        make_encoder(Setting(digits, model=tmp_path / "m"), digits.x_train[:, :4], digits.y_train, 0)


def test_a_probe_separates_what_a_line_separates():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = (np.eye(3)[y] * [4, 0.04, 400] + [100, -3, 0] + rng.normal(0, [0.5, 0.005, 50], (600, 3))).astype(np.float32)
    probe = linear_probe(x, y)
    assert (probe(torch.from_numpy(x)).argmax(1).numpy() == y).mean() > 0.98


@pytest.mark.parametrize(
    ("backbone", "images", "sentence"),
    [
        ("pixels", False, "`backbone` must be none for feature rows, got 'pixels'. Leave it out."),
        ("none", True, "`backbone` must be a network or pixels for images, got 'none'. Try cnn."),
        ("resnet", True, "`name` must be one of pixels, cnn"),
        ("cifar_resnet20", True, "`weights` must be given for a frozen network, got none."),
    ],
)
def test_what_does_not_fit_is_refused(digits, backbone, images, sentence):
    x = digits.x_train if images else digits.x_train.reshape(-1, 64).astype(np.float32)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make_encoder(Setting(digits, backbone), x, digits.y_train, 0)


def test_a_classifier_is_needed_for_logits(digits):
    encoder = make_encoder(Setting(digits, "pixels"), digits.x_train, digits.y_train, 0)
    with pytest.raises(ValueError, match="`linear` must be there, got none in 'pixels'"):
        encoder.logits(encoder(digits.x_test))


def test_features_of_a_frozen_network_are_kept(tmp_path, digits):
    images = np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
    torch.save(CifarResNet(20).state_dict(), tmp_path / "w.pt")
    setting = Setting(digits, "cifar_resnet20", weights=str(tmp_path / "w.pt"), cache=tmp_path / "kept")
    first = make_encoder(setting, images, np.zeros(1000, np.int64), 0)(images)
    (kept,) = (tmp_path / "kept").iterdir()
    written = kept.stat().st_mtime_ns
    again = make_encoder(setting, images, np.zeros(1000, np.int64), 1)
    assert np.array_equal(again(images), first)
    assert kept.stat().st_mtime_ns == written
    other = images[::-1].copy()
    assert np.allclose(again(other), first[::-1], atol=1e-4)
    assert len(list((tmp_path / "kept").iterdir())) == 2
