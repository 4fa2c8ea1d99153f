"""A network in half precision: features near those of float32, and answers that are exactly those of its features."""

import numpy as np
import pytest
import torch
from support.nets import TinyNet, strokes
from torch import nn

import backbones
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel
from slots.training import TrainConfig, fit


@pytest.fixture
def instructions(monkeypatch):
    """Whether this processor is said to multiply bfloat16; where it does not, torch imitates it, slowly."""

    def said(there):
        monkeypatch.setattr("slots.features.featurizer.multiplies_bfloat16", lambda _device: there)

    return said


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    x, y = strokes(120)
    return fit(x, y, backbone=TinyNet(), config=TrainConfig(epochs=3, slots_per_class=3, views="flip"))[0]


def test_features_differ_in_the_third_digit(model, instructions):
    x, whole = strokes(30, 1)[0], model.features(strokes(30, 1)[0])
    instructions(True)
    assert torch.equal(model.features(x), whole)  # nobody asked for it
    model.half_precision = True
    try:
        half = model.features(x)
        plain = model.featurizer.plain(x)
    finally:
        model.half_precision = False
    assert half.dtype == plain.dtype == torch.float32
    assert not torch.equal(half, whole)
    assert torch.cosine_similarity(half, whole, dim=-1).min() > 0.999
    assert torch.allclose(plain, half[:, 0], rtol=0.02, atol=0.02)


def test_without_instructions_for_it_nothing_changes(model, instructions):
    x, whole = strokes(30, 1)[0], model.features(strokes(30, 1)[0])
    instructions(False)
    model.half_precision = True
    try:
        assert torch.equal(model.features(x), whole)
    finally:
        model.half_precision = False


def test_answers_are_exactly_those_of_the_features(instructions):
    """Decided by a model that is given the features: labels, slots and margins to the last bit."""
    torch.manual_seed(0)
    x, y = strokes(120)
    model, _ = fit(x, y, backbone=TinyNet(), config=TrainConfig(epochs=3, slots_per_class=3))
    instructions(True)
    model.half_precision = True
    given = SlotModel(Preprocessing("features", (model.head.feature_dim,)), model.head)
    new = strokes(80, 2)[0]
    wanted, found = given.predict(model.features(new)[:, 0].detach().numpy()), model.predict(new)
    for name in ("labels", "slots", "margins", "matched", "runner_up_slots"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    assert found.matched.sum() > 0


def test_a_network_for_texts_has_it_too(instructions):
    class Letters(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(26, 4)

        def forward(self, texts):
            return self.linear(torch.tensor([[text.count(chr(97 + i)) / 3 for i in range(26)] for text in texts]))

    torch.manual_seed(0)
    model = SlotModel(Preprocessing("text", ()), IncrementalNeuralHashing(4), backbone=Letters().eval())
    texts = ["slots", "are", "unit vectors"]
    whole = model.features(texts)
    instructions(True)
    model.half_precision = True
    half = model.features(texts)
    assert half.dtype == torch.float32
    assert half.shape == whole.shape == (3, 1, 4)
    assert not torch.equal(half, whole)
    assert torch.allclose(half, whole, atol=0.02)


def test_rows_and_pixels_have_no_network(instructions):
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    model = SlotModel(Preprocessing("features", (5,)), IncrementalNeuralHashing(5))
    instructions(True)
    model.half_precision = True
    assert np.array_equal(model.features(x)[:, 0].numpy(), x)


def test_it_is_not_saved(model, tmp_path):
    model.half_precision = True
    try:
        model.save(tmp_path / "m")
    finally:
        model.half_precision = False
    assert SlotModel.load(tmp_path / "m", build=lambda _name, **options: TinyNet(**options)).half_precision is False


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn", {}),
        ("explor", {"widths": [6, 8]}),
        ("explor", {"stem": "whitening", "block": "pool", "widths": [6, 8]}),
        ("unfolding", {"widths": [6, 8], "windows": [3, 3], "strides": [2, 2]}),
        ("positive", {"widths": [6, 8]}),
        ("pretrained", {"network": "cifar_resnet20"}),
    ],
)
def test_each_network_runs_in_it(name, options, instructions):
    torch.manual_seed(0)
    net = backbones.build(name, input_shape=(3, 32, 32), **options).eval()
    model = SlotModel(Preprocessing("images", (3, 32, 32)), IncrementalNeuralHashing(net.feature_dim), backbone=net)
    x = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    whole = model.features(x)
    instructions(True)
    model.half_precision = True
    half = model.features(x)
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    assert torch.cosine_similarity(half, whole, dim=-1).min() > 0.98
