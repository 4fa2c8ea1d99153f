"""Quick answers are those of float64 throughout, to the bit, and every bound on the way holds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_decision as slow
from support.reference_index import case, cases, changed, inputs_near, random_caps, tight
from torch.utils._python_dispatch import TorchDispatchMode

from slots.head import decision, pooled_answers
from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.pooled_answers import PooledSlots
from slots.head.pooling import class_groups, softmax_pool
from slots.head.pooling_kernels import Pools, best_views, pool_classes
from slots.head.similarities import normalize
from slots.index.slot_index import SlotIndex


def same(a, b):
    for name, value in vars(b).items():
        np.testing.assert_array_equal(getattr(a, name), value, err_msg=name)


class Counted(TorchDispatchMode):
    """Counts what torch launches."""

    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.n += 1
        return function(*args, **kwargs or {})


@settings(max_examples=150, deadline=None)
@given(cases)
def test_answers_are_those_of_float64_throughout(drawn):
    caps, views = case(*drawn)
    wanted = slow.decide(views, caps)
    same(decide(views, caps), wanted)
    same(SlotIndex(caps).predict(views), wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 3))
def test_equal_slots_and_near_ties_fall_as_in_float64(seed, n_slots, n_views):
    """Slots that stand twice, under one label and under two, and others a few float32 steps beside them."""
    rng = np.random.default_rng(seed)
    caps = random_caps(rng, n_slots, 6, loose=0.5)
    weights = caps.weights[torch.arange(n_slots) % -(-n_slots // 2)]
    steps = torch.from_numpy(rng.integers(-2, 3, weights.shape)) * (torch.arange(n_slots)[:, None] % 3 == 0)
    weights = weights + steps * 6e-8 * weights.abs()
    caps = changed(tight(caps, seed), weights=weights, pooled=torch.ones(n_slots, dtype=torch.bool))
    views = inputs_near(rng, caps, 30, n_views)
    wanted = slow.decide(views, caps)
    found = decide(views, caps)
    same(found, wanted)
    same(SlotIndex(caps).predict(views), wanted)


def test_zero_rows_and_a_single_label():
    """Nothing to tell slots apart by: the lowest label and slot, and no runner-up where there is one label."""
    rng = np.random.default_rng(0)
    caps = random_caps(rng, 9, 4)
    caps = changed(caps, labels=torch.full((9,), 5), precision=torch.full((9,), 0.9), pooled=torch.ones(9).bool())
    views = torch.zeros(3, 2, 4)
    found = decide(views, caps)
    same(found, slow.decide(views, caps))
    assert found.labels.tolist() == [5, 5, 5]
    assert found.slots.tolist() == [0, 0, 0]
    assert found.runner_up_slots.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("kept", [True, False])
def test_many_pooled_slots_in_any_number_of_blocks(kept, monkeypatch):
    """Scores in one block or many, weights sorted once or each time."""
    rng = np.random.default_rng(1)
    caps = changed(random_caps(rng, 3000, 8, loose=0.9, tight=0.99), beta=30.0)
    views = torch.from_numpy(rng.normal(size=(150, 2, 8))).float()
    wanted = slow.decide(views, caps)
    assert not wanted.matched.all()
    monkeypatch.setattr(pooled_answers, "_KEPT", (1 << 25) * kept)
    monkeypatch.setattr(pooled_answers, "_COLUMNS", 700)
    monkeypatch.setattr(pooled_answers, "_HELD", 1 << 17)
    same(decide(views, caps), wanted)
    monkeypatch.setattr(pooled_answers, "_HELD", 1 << 10)
    same(decide(views, caps), wanted)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 64, 784]), st.sampled_from([0.0, 5.0, 20.0, 1e4]), st.booleans())
def test_bounds_hold_the_exact_pooled_score(seed, feature, beta, apart):
    """Of every class that is bounded; a class without a bound is neither first nor second."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 900))
    rows = torch.from_numpy(rng.normal(size=(n, feature)) + (0 if apart else 3)).float()
    weights, labels = normalize(rows), torch.from_numpy(rng.integers(0, 6, n))
    pooled = PooledSlots.of(weights, labels, torch.ones(n, dtype=torch.bool))
    views = torch.from_numpy(rng.normal(size=(5, 2, feature)) + (0 if apart else 3)).float()
    unit = normalize(views.double())
    rough = pooled.products(unit.flatten(0, 1).float()).view(5, 2, n).numpy()
    scores = np.empty((5, n), np.float32)
    best_views(rough, scores)
    exact_scores = (unit @ normalize(weights.double()).T).amax(1)
    assert np.abs(scores - exact_scores[:, pooled.slots].numpy()).max() <= pooled.error
    shape = (5, len(pooled.classes))
    bounds = Pools(np.empty(shape), np.empty(shape), np.empty((5, 2), np.int64), np.empty(5, np.bool_))
    pool_classes(scores, pooled.starts, beta, pooled.error, bounds)
    groups = class_groups(labels, torch.from_numpy(pooled.classes))
    exact = softmax_pool(exact_scores, groups, beta=beta).numpy()
    bounded = bounds.upper > -math.inf
    assert (bounds.lower[bounded] <= exact[bounded] + 1e-13).all()
    assert (bounds.upper[bounded] >= exact[bounded] - 1e-13).all()
    ranked = np.argsort(-exact, axis=1, kind="stable")[:, :2]
    assert bounded[np.arange(5)[:, None], ranked].all()
    settled = bounds.settled
    np.testing.assert_array_equal(bounds.best[settled][:, : shape[1]], ranked[settled])


def test_clear_scores_need_no_float64():
    """Else the filter would filter nothing."""
    rng = np.random.default_rng(2)
    weights = normalize(torch.from_numpy(rng.normal(size=(400, 64))).float())
    pooled = PooledSlots.of(weights, torch.arange(400) % 8, torch.ones(400, dtype=torch.bool))
    scores = pooled.products(normalize(torch.from_numpy(rng.normal(size=(200, 64))).float())).numpy()
    bounds = Pools(np.empty((200, 8)), np.empty((200, 8)), np.empty((200, 2), np.int64), np.empty(200, np.bool_))
    pool_classes(scores, pooled.starts, 20.0, pooled.error, bounds)
    assert bounds.settled.mean() > 0.95


@pytest.mark.parametrize("held", [1, 1 << 20])
def test_the_way_for_other_devices_gives_the_same_answers(held, monkeypatch):
    """Run on CPU tensors, as in the tests of the index; an input at a time, and all together."""
    rng = np.random.default_rng(3)
    caps = tight(random_caps(rng, 80, 6, loose=0.5), 2)
    views = inputs_near(rng, caps, 60, 2)
    wanted = decide(views, caps)

    def anywhere(features, caps, _pooled, rows, out):
        columns = caps.labels.numpy(), caps.pooled.numpy()
        decision._answer_unmatched_anywhere(features, caps, *columns, rows, out)

    monkeypatch.setattr(decision, "BLOCK_ELEMENTS", held)
    monkeypatch.setattr(decision, "_answer_unmatched", anywhere)
    same(decide(views, caps), wanted)
    assert not wanted.matched.all()


def test_pairs_are_scored_in_few_steps_off_the_cpu():
    """A million pairs of 784 numbers took 300,000 launches in steps made for a CPU's cache."""
    n_pairs, place = 1_000_000, torch.zeros(1_000_000, dtype=torch.long, device="meta")
    launched = Counted()
    with launched:
        decision.exact_scores(torch.empty(100, 1, 784, device="meta"), torch.empty(9, 784, device="meta"), (place,) * 3)
    assert launched.n < n_pairs / 200


def test_slots_that_do_not_vote_answer_no_unmatched_input():
    """Nor are they runner-up; where no slot votes, all do."""
    weights = normalize(torch.tensor([[1.0, 0.0], [0.9, 0.4], [0.0, 1.0]]))
    half = torch.full((3,), 0.999)
    caps = SlotCaps(weights, weights, half, half, torch.arange(3), torch.zeros(3).long(), torch.ones(3).bool(), 20.0)
    x = torch.tensor([[[1.0, 0.2]]])
    assert decide(x, caps).slots.tolist() == [0]
    assert decide(x, changed(caps, pooled=torch.tensor([False, True, True]))).slots.tolist() == [1]
    assert decide(x, changed(caps, pooled=torch.zeros(3).bool())).slots.tolist() == [0]
