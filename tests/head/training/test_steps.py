"""Compiled steps are those of tensors, for every grid and every loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.head.similarities import normalize
from slots.training.config import TrainConfig
from slots.training.fixed_features import first_slots
from slots.training.steps.adam import LoopSteps, TensorSteps, begin


def blobs(seed, n=90, d=7, classes=4):
    """Unit rows of classes of different sizes, the last of one row: a grid of them has gaps."""
    rng = np.random.default_rng(seed)
    y = np.minimum(np.arange(n) % 9, classes - 2)
    y[0] = classes - 1
    x = rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))
    return normalize(torch.from_numpy(x.astype(np.float32))), torch.from_numpy(y)


def hold_together(seen, seed, per_class, scale, beta, margin, smooth, batch):
    x, y = blobs(seed)
    config = TrainConfig(scale=scale, beta=beta, margin=margin, label_smoothing=smooth)
    grid = first_slots(x, y, per_class=per_class, seed=0)
    assert bool(grid.there.all()) == (per_class == 1)
    start = grid.weights.flatten(0, 1)
    ways = [way(x, y, start.clone(), grid.there, config) for way in (TensorSteps, LoopSteps)]
    compared = 0
    for step in range(4):
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:batch]
        losses = [float(way.take(rows, step=step, rate=1e-3)) for way in ways]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-5 * scale)
        for mean, other in zip((ways[0].first, ways[0].second), ways[1].means, strict=True):
            assert np.allclose(mean.numpy(), other, rtol=1e-3, atol=1e-6 * scale)
        # Adam divides a slope by its size: where that is all but zero, rounding decides which way a step goes.
        steep = (ways[0].second.sqrt() > 1e-5 * scale).all(1)
        assert torch.allclose(ways[0].weights[steep], ways[1].weights[steep], atol=2e-5)
        compared += int(steep.sum())
        ways[1].weights.copy_(ways[0].weights)
    assert torch.equal(ways[1].weights.norm(dim=1) > 0, grid.there.flatten())
    if batch > 1:
        seen.append(compared)
    if compared:
        assert not torch.allclose(ways[1].weights, start, atol=1e-4)


def test_loops_learn_what_tensors_learn():
    seen = []

    @given(
        seed=st.integers(0, 1000),
        per_class=st.integers(1, 5),
        scale=st.sampled_from([1.0, 20.0, 80.0]),
        beta=st.floats(0, 30),
        margin=st.sampled_from([0.0, 0.1]),
        smooth=st.sampled_from([0.0, 0.2]),
        batch=st.sampled_from([1, 30, 90]),
    )
    @settings(max_examples=40)
    def every(**drawn):
        hold_together(seen, **drawn)

    every()
    # A loss that is settled from the first step on has no slope to compare; of most draws it is not.
    assert np.count_nonzero(seen) > 0.8 * len(seen) > 4


def test_the_size_of_a_step_decides_the_way_and_what_it_began_with_stays():
    x, y = blobs(0)
    grid = first_slots(x, y, per_class=2, seed=0)
    start = grid.weights.flatten(0, 1)
    kept = start.clone()
    for batch, way in [(30, LoopSteps), (10**7, TensorSteps)]:
        begun = begin(x, y, weights=start, there=grid.there, config=TrainConfig(), batch=batch)
        assert type(begun) is way
        begun.take(torch.arange(30), step=0, rate=1e-2)
        assert not torch.equal(begun.weights, kept)
        assert torch.equal(start, kept)


@given(
    seed=st.integers(0, 1000),
    way=st.sampled_from([TensorSteps, LoopSteps]),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    first=st.integers(0, 50),
)
@settings(max_examples=40, deadline=None)
def test_all_steps_of_an_epoch_are_its_steps_one_by_one(seed, way, sizes, first):
    x, y = blobs(seed)
    grid = first_slots(x, y, per_class=2, seed=0)
    rng = np.random.default_rng(seed)
    batches = [torch.from_numpy(rng.integers(0, len(x), size)) for size in sizes]
    rates = rng.uniform(1e-4, 1e-2, len(sizes)).tolist()
    one, every = (way(x, y, grid.weights.flatten(0, 1).clone(), grid.there, TrainConfig()) for _ in range(2))
    totals = [
        float(one.take(rows, step=first + i, rate=rate))
        for i, (rows, rate) in enumerate(zip(batches, rates, strict=True))
    ]
    ends = np.cumsum([0, *sizes])
    found = every.take_all(torch.cat(batches), ends, step=first, rates=rates)
    assert found.tolist() == pytest.approx(totals, rel=1e-6)
    assert torch.equal(one.weights, every.weights)
