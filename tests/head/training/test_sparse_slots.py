"""Slots of a few features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import slots
from slots.errors import UsageError
from slots.training.config import TrainConfig
from slots.training.steps.sparse import allowed_features, keep_largest_


def slow(row, count):
    """The largest of the positive weights, the first of equal ones; the largest weight where none is positive."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
    kept = [i for i in order if row[i] > 0] or order[:1]
    return [value if i in kept else 0.0 for i, value in enumerate(row)]


@given(
    weights=arrays(
        np.float32, st.tuples(st.integers(0, 4), st.integers(1, 6)), elements=st.sampled_from([-2, -1, 0, 1, 2])
    ),
    count=st.integers(1, 8),
)
def test_the_largest_are_kept(weights, count):
    found = keep_largest_(torch.from_numpy(weights.copy()), count)
    assert found.tolist() == [slow(row, count) for row in weights.tolist()]


@given(n=st.integers(1, 2000), wanted=st.integers(1, 50), progress=st.floats(0.0, 1.0), more=st.floats(0.0, 1.0))
def test_fewer_and_fewer_features_are_allowed(n, wanted, progress, more):
    later = min(1.0, progress + more)
    assert allowed_features(n, wanted, later) <= allowed_features(n, wanted, progress) <= n
    assert allowed_features(n, wanted, 0.0) == n
    assert allowed_features(n, wanted, later) == min(n, wanted) if later >= 0.6 else True


@pytest.mark.parametrize("train_backbone", [False, True])
def test_slots_end_with_few_features(train_backbone):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = rng.random((300, 40)).astype(np.float32)
    for label in range(3):
        x[np.ix_(y == label, [label, 10 + label])] += 2.0
    backbone = torch.nn.Sequential(torch.nn.Linear(40, 20, bias=False), torch.nn.ReLU()) if train_backbone else None
    config = TrainConfig(epochs=20, slots_per_class=2, batch_size=50, features_per_slot=2)
    model, _ = slots.fit(x, y, backbone=backbone, config=config)
    weights = model.head.weights.detach()[model.head.pooled]
    assert (weights >= 0).all()
    assert ((weights != 0).sum(1) <= 2).all()
    assert (model.predict(x).labels == y).mean() > 0.98
    if not train_backbone:  # and these are the ones that say the class
        for row, label in zip(weights, model.head.labels[model.head.pooled].tolist(), strict=True):
            assert set(row.nonzero()[:, 0].tolist()) <= {label, 10 + label}


def test_what_does_not_go_with_few_features_is_refused():
    with pytest.raises(UsageError, match="`features_per_slot` must be >= 0"):
        TrainConfig(features_per_slot=-1)
    for other in ({"whitening": 0.1}, {"robust": slots.RobustConfig()}):
        with pytest.raises(UsageError, match="`features_per_slot` must be 0 with"):
            TrainConfig(features_per_slot=3, **other)
