"""Detectors in pytorch-ood: its protocol, its metrics, its benchmark and its search, with the scores of our own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

import backbones
from slots import NoveltyDetector, TrainConfig, fit

pytest.importorskip("pytorch_ood", reason="pip install 'neural-slots[pytorch-ood]'")
from pytorch_ood.api import Detector, ModelNotSetException, RequiresFittingException
from pytorch_ood.benchmark import Benchmark
from pytorch_ood.metrics import OODMetrics

from protocols.interfaces import SlotModelDetector, SlotNoveltyDetector


def rows(n, centre, seed=0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) + 6 * torch.eye(6)[centre]


X = torch.cat([rows(150, 0), rows(150, 1)])
Y = torch.arange(300) // 150
FOREIGN = rows(60, 3, seed=1)


class Small(Benchmark):
    """Two familiar classes and a foreign one."""

    ood_names = ("third",)

    def train_set(self):
        return TensorDataset(X, Y)

    def test_sets(self, known=True, unknown=True):
        familiar = TensorDataset(torch.cat([rows(40, 0, 2), rows(40, 1, 2)]), torch.arange(80) // 40)
        return [ConcatDataset([familiar, TensorDataset(FOREIGN, torch.full((60,), -1))])]


def test_scores_are_those_of_our_detector():
    wanted = NoveltyDetector(100, seed=3).fit(X, Y).predict(FOREIGN)
    detector = SlotNoveltyDetector(nn.Identity(), n_prototypes=100, seed=3)
    mixed = TensorDataset(torch.cat([X, FOREIGN]), torch.cat([Y, torch.full((60,), -1)]))
    assert detector.fit(DataLoader(mixed, batch_size=64)) is detector
    for found in (detector(FOREIGN), detector.predict_features(FOREIGN)):
        assert found.dtype == torch.float64
        assert np.array_equal(found.numpy(), wanted)
    assert isinstance(detector, Detector)
    assert detector.get_hyperparameters() == {"n_prototypes": 100}


def test_a_benchmark_measures_it():
    benchmark = Small()
    detector = SlotNoveltyDetector(nn.Identity()).fit(DataLoader(benchmark.train_set(), batch_size=100))
    (found,) = benchmark.evaluate(detector, loader_kwargs={"batch_size": 50})
    assert found["Dataset"] == "third"
    assert found["AUROC"] > 0.99
    assert SlotNoveltyDetector(None).fit_features(X[:150], Y[:150]).detector is not None  # one class


def test_a_model_is_its_own_detector_on_images():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    x = (60 * np.eye(2)[y].repeat(8, 1).reshape(-1, 4, 4) + rng.integers(0, 20, (300, 4, 4))).astype(np.uint8)
    config = TrainConfig(epochs=1, slots_per_class=2, held_out=0.2)
    model, _ = fit(x, y, backbone=backbones.build("pixels", input_shape=(1, 4, 4)), config=config)
    foreign = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    detector = SlotModelDetector(model)
    metrics = OODMetrics()
    for images, label in ((x[:80], 1), (foreign, -1)):
        inputs = torch.from_numpy(images)[:, None].float() / 255
        scores = detector(inputs)
        assert np.array_equal(scores.numpy(), model.assess_novelty(images).scores)
        metrics.update(scores, torch.full((len(scores),), label))
    assert metrics.compute()["AUROC"] > 0.95
    assert detector.fit(None) is detector


def test_what_is_missing_is_said_by_its_own_errors():
    with pytest.raises(RequiresFittingException):
        SlotNoveltyDetector(nn.Identity()).predict(X)
    with pytest.raises(ModelNotSetException):
        SlotNoveltyDetector(None).predict(X)
    with pytest.raises(ModelNotSetException):
        SlotNoveltyDetector(None).fit(DataLoader(TensorDataset(X, Y)))
