"""The way of a device that is quick in float64: the same answers, whatever the blocks, and little is left in doubt."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_decision as slow
from support.reference_index import case, cases, changed, inputs_near, random_caps, tight

from slots.head import decision
from slots.head.deciding import on_device
from slots.head.deciding.on_device import DeviceSlots, quick_in_float64, settled
from slots.head.decision import decide
from slots.kept import Kept

EXACT = ("labels", "answers", "slots", "runner_up_slots")


@pytest.fixture(autouse=True, scope="module")
def quick():
    """CPU tensors take the way of a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision, "quick_in_float64", lambda _device: True)
        yield


def same(found, wanted):
    for name in EXACT:
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    for name in ("margins", "runner_up_margins"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-14, err_msg=name)


def by_pairs(views, caps):
    """As the CPU decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision, "quick_in_float64", lambda _device: False)
        return decide(views, caps)


def there(caps, views):
    return settled(views, caps, DeviceSlots.of(caps))


@settings(max_examples=150, deadline=None)
@given(cases)
def test_answers_are_those_of_float64_throughout(drawn):
    caps, views = case(*drawn)
    same(decide(views, caps), slow.decide(views, caps))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 3))
def test_equal_slots_and_near_ties(seed, n_slots, n_views):
    """Slots that stand up to seven times, under one label and under two, some a few float32 steps beside."""
    rng = np.random.default_rng(seed)
    caps = random_caps(rng, n_slots, 6, loose=0.5)
    weights = caps.weights[torch.arange(n_slots) % -(-n_slots // 7)]
    steps = torch.from_numpy(rng.integers(-2, 3, weights.shape)) * (torch.arange(n_slots)[:, None] % 3 == 0)
    weights = weights + steps * 6e-8 * weights.abs()
    caps = changed(tight(caps, seed), weights=weights, pooled=torch.ones(n_slots, dtype=torch.bool))
    views = inputs_near(rng, caps, 30, n_views)
    same(decide(views, caps), by_pairs(views, caps))  # pools of equal slots tie up to rounding, in the oracle too


@pytest.mark.parametrize("seed", range(3))
def test_inputs_that_are_slots(seed):
    """Next to a slot's own vector angles lose half of their digits: what may tie is computed once more."""
    rng = np.random.default_rng(seed)
    caps = random_caps(rng, 50, 8, loose=0.5)
    caps = changed(caps, centres=caps.weights.clone())
    views = caps.weights[:, None] * torch.from_numpy(rng.uniform(0.1, 30, (50, 1, 1))).float()
    same(decide(views, caps), slow.decide(views, caps))


def test_zero_rows_and_a_single_label():
    caps = random_caps(np.random.default_rng(0), 9, 4)
    caps = changed(caps, labels=torch.full((9,), 5), precision=torch.full((9,), 0.9), pooled=torch.ones(9).bool())
    views = torch.zeros(3, 2, 4)
    found = decide(views, caps)
    same(found, slow.decide(views, caps))
    assert found.runner_up_slots.tolist() == [-1, -1, -1]


def test_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(4)
    caps = random_caps(rng, 70, 5, loose=0.5)
    views = inputs_near(rng, caps, 60, 2)
    wanted = decide(views, caps)
    for held in (1, 70 * 2 * 7):
        monkeypatch.setattr(on_device, "BLOCK_ELEMENTS", held)
        same(decide(views, caps), wanted)


def test_little_is_in_doubt():
    rng = np.random.default_rng(1)
    caps = random_caps(rng, 300, 24, loose=0.2)
    views = torch.from_numpy(rng.normal(size=(4000, 1, 24))).float()
    assert 0.2 < (there(caps, views).answers > 0).double().mean() < 1
    assert there(caps, views).doubtful.double().mean() < 2e-3


def test_what_ties_is_in_doubt():
    caps = random_caps(np.random.default_rng(2), 12, 6)
    caps = changed(
        caps,
        **{name: getattr(caps, name)[:1].repeat(12, 1) for name in ("weights", "centres")},
        precision=torch.full((12,), 0.5), support=torch.full((12,), -2.0),
        labels=torch.tensor([3] * 12), generations=torch.zeros(12, dtype=torch.long),
    )  # fmt: skip
    views = caps.weights[:1, None].clone()
    assert there(caps, views).doubtful.all()
    assert decide(views, caps).slots.tolist() == [0]
    unmatched = changed(caps, precision=torch.full((12,), 1.0))
    assert there(unmatched, views).doubtful.all()
    assert decide(views, unmatched).slots.tolist() == [0]


def test_a_threshold_that_is_the_score_is_in_doubt():
    caps = random_caps(np.random.default_rng(3), 1, 2)
    caps = changed(
        caps, weights=torch.tensor([[1.0, 0.0]]), centres=torch.tensor([[1.0, 0.0]]),
        precision=torch.tensor([0.6]), support=torch.tensor([-2.0]),
    )  # fmt: skip
    limit = float(caps.precision)
    at = torch.tensor([[[limit, (1 - limit**2) ** 0.5]]], dtype=torch.float64)
    found = there(caps, torch.cat([at, at + torch.tensor([1e-9, 0.0])]))
    assert found.doubtful.tolist() == [True, False]


def test_what_slots_are_asked_with_is_kept_until_they_change():
    """On the CPU by what the tensors hold; `test_kept` has those of devices."""
    rng = np.random.default_rng(5)
    caps = dataclasses.replace(random_caps(rng, 20, 6, loose=0.5), kept=(kept := Kept()))
    views = inputs_near(rng, caps, 30, 1)
    decide(views, caps)
    assert len(kept) == 1
    caps.weights[:] = caps.weights.flip(0)
    same(decide(views, caps), slow.decide(views, caps))


def test_what_is_kept_does_not_keep_the_temperature():
    """Neither for what the device decides nor for what it leaves to the CPU."""
    caps = dataclasses.replace(random_caps(np.random.default_rng(6), 40, 3), kept=Kept())
    caps = tight(changed(caps, labels=torch.arange(40) % 3), 2)
    views = inputs_near(np.random.default_rng(7), caps, 60, 1)
    labels = []
    for beta in (0.0, 400.0):
        other = changed(caps, beta=beta)
        same(decide(views, other), slow.decide(views, other))
        labels.append(decide(views, other).labels)
        assert there(other, torch.zeros(1, 1, 3)).doubtful.all()
        same(decide(torch.zeros(1, 1, 3), other), slow.decide(torch.zeros(1, 1, 3), other))
    assert (labels[0] != labels[1]).any()


def test_which_devices_are_quick():
    assert not quick_in_float64(torch.device("cpu"))
    assert not quick_in_float64(torch.device("meta"))
