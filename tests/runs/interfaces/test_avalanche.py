"""Slots under Avalanche's benchmarks and evaluation plugins; run by `make interfaces`, in an environment of its own."""

import io
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from slots import ContinualSlots, SlotClassifier
from slots.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    pytest.importorskip("avalanche", reason="make interfaces")
    from avalanche.benchmarks import nc_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
    from avalanche.logging import TextLogger
    from avalanche.training.plugins import EvaluationPlugin

    from protocols.interfaces import SlotStrategy

pytestmark = pytest.mark.filterwarnings("ignore")


def benchmark():
    images, labels = load_digits(return_X_y=True)
    sets = []
    for rows in (slice(0, 1200), slice(1200, None)):
        data = TensorDataset(
            torch.from_numpy(images[rows]).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels[rows])
        )
        data.targets = labels[rows].tolist()
        sets.append(data)
    return nc_benchmark(*sets, n_experiences=5, task_labels=False, seed=0), images, labels


def measured():
    metrics = accuracy_metrics(minibatch=True, stream=True), forgetting_metrics(stream=True)
    return EvaluationPlugin(*metrics, loggers=[TextLogger(io.StringIO())], strict_checks=False)


@pytest.mark.parametrize("kind", ["stream", "by experience"])
def test_a_class_incremental_benchmark_is_learned_and_measured(kind):
    parts, images, labels = benchmark()
    learner = ContinualSlots(random_state=0) if kind == "stream" else SlotClassifier(random_state=0, epochs=5)
    strategy = SlotStrategy(
        model=nn.Flatten(), num_classes=10, learner=learner, by_experience=kind != "stream", evaluator=measured()
    )
    found = [strategy.eval(parts.test_stream)]
    for experience in parts.train_stream:
        strategy.train(experience)
        found.append(strategy.eval(parts.test_stream))
    accuracy = [it["Top1_Acc_Stream/eval_phase/test_stream/Task000"] for it in found]
    assert accuracy[-1] == pytest.approx((strategy.learner.predict(images[1200:]) == labels[1200:]).mean())
    assert accuracy[-1] > 0.85
    assert accuracy[0] < 0.15 < accuracy[1] < accuracy[-1]
    assert found[-1]["StreamForgetting/eval_phase/test_stream"] < 0.15


def test_a_stream_in_minibatches_is_the_stream_itself():
    parts, _, _ = benchmark()
    strategy = SlotStrategy(model=nn.Flatten(), num_classes=10, evaluator=measured(), train_mb_size=64)
    strategy.train(parts.train_stream[0], shuffle=False)
    data = parts.train_stream[0].dataset
    rows = np.stack([it[0].numpy().ravel() for it in data])
    wanted = ContinualSlots(random_state=0).partial_fit(rows, np.array([int(it[1]) for it in data]))
    assert np.allclose(strategy.learner.evidence(rows), wanted.evidence(rows))


def test_outputs_name_the_answer_and_leave_unseen_classes_last():
    parts, images, _ = benchmark()
    strategy = SlotStrategy(model=nn.Flatten(), num_classes=12, evaluator=measured())
    strategy.train(parts.train_stream[0])
    strategy.mbatch = [torch.from_numpy(images[:50]).float(), torch.zeros(50).long(), torch.zeros(50).long()]
    out = strategy.forward().numpy()
    assert np.array_equal(out.argmax(1), strategy.learner.predict(images[:50]))
    known = strategy.learner.classes_
    assert out[:, np.setdiff1d(np.arange(12), known)].max() < out[:, known].min()


def test_too_few_outputs_are_refused():
    parts, _, _ = benchmark()
    with pytest.raises(UsageError, match="how many labels may come"):
        SlotStrategy(model=nn.Flatten(), num_classes=0)
    strategy = SlotStrategy(model=nn.Flatten(), num_classes=1, evaluator=measured())
    strategy.learner.partial_fit(np.eye(64)[:3], [0, 1, 2])
    with pytest.raises(UsageError, match="above 2, the highest label"):
        strategy.eval(parts.test_stream)
