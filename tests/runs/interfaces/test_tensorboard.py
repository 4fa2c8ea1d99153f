"""Curves of a training: what the hook is told, on each way to train, and what TensorBoard reads of it."""

import sys

import numpy as np
import pytest

import backbones
from protocols.interfaces import TensorBoardLog
from slots import ClosingConfig, RobustConfig, TrainConfig, fit
from slots.errors import MissingExtraError

PLAIN = ClosingConfig(vouch=None)


def rows(n=120):
    y = np.arange(n) % 3
    return (3 * np.eye(3)[y] + 0.3 * np.random.default_rng(0).normal(size=(n, 3))).astype(np.float32), y


def images():
    x, y = rows()
    return np.rint(20 * np.abs(x)).clip(0, 255).astype(np.uint8).reshape(-1, 1, 3), y


def curves(x, y, **options):
    points = []
    _, result = fit(x, y, log=lambda *point: points.append(point), **options)
    assert {name for name, _, _ in points} == {"train/loss", "slots", "train/accuracy", "train/matched"}
    assert all(type(value) in (int, float) for _, value, _ in points)
    assert [(step, value) for name, value, step in points if name == "train/loss"] == list(enumerate(result.losses, 1))
    return points, result


def pixels(x):
    return backbones.build("pixels", input_shape=(1, *x.shape[1:]))


@pytest.mark.parametrize("way", ["loop", "grown", "robust"])
def test_every_way_to_train_tells_its_losses(way):
    x, y = images()
    changes = {"grown": {"slots_per_class": 0}, "robust": {"robust": RobustConfig("l2", 0.1)}}.get(way, {})
    config = TrainConfig(epochs=3, held_out=0.0, closing=PLAIN, batch_size=40, **{"slots_per_class": 2, **changes})
    points, result = curves(x, y, backbone=pixels(x), config=config)
    assert points[-3:] == [
        ("train/accuracy", float((result.closing.labels == y).mean()), 3),
        ("train/matched", float(result.closing.matched.mean()), 3),
        ("slots", points[-1][1], 3),
    ]
    assert len(result.losses) == 3


def test_a_look_trains_quickly_and_tells_all_the_same():
    _, result = curves(*rows())
    assert result.look is not None


def test_tensorboard_reads_what_was_told(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'neural-slots[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    x, y = rows()
    with TensorBoardLog(tmp_path / "curves") as log:
        _, result = fit(x, y, config=TrainConfig(epochs=4, slots_per_class=1, closing=PLAIN), log=log)
    read = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert set(read.Tags()["scalars"]) == {"train/loss", "slots", "train/accuracy", "train/matched"}
    losses = read.Scalars("train/loss")
    assert [it.step for it in losses] == [1, 2, 3, 4]
    assert np.allclose([it.value for it in losses], result.losses)


def test_without_tensorboard_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"neural-slots\[tensorboard\]"):
        TensorBoardLog(tmp_path)
