"""The index that a model keeps: the same answers, built where it pays, never out of date, never copied."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_index import inputs_near, random_caps

from slots.features.preprocessing import Preprocessing
from slots.head.decision import decide
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.index import kept_index
from slots.index.kept_index import KeptIndex
from slots.model.slot_model import SlotModel


def same(a, b):
    for name, value in vars(b).items():
        np.testing.assert_array_equal(getattr(a, name), value, err_msg=name)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """An index pays at once."""
    monkeypatch.setattr(kept_index, "_FEW_SLOTS", 0)
    monkeypatch.setattr(kept_index, "_FEW_ROWS", 0)
    monkeypatch.setattr(kept_index, "_building_ns", lambda *_: 0.0)


def model_of(seed=0, n_slots=60, feature=6):
    """A model of feature rows, inputs, and the caps behind it."""
    rng = np.random.default_rng(seed)
    caps = random_caps(rng, n_slots, feature, loose=0.5)
    head = IncrementalNeuralHashing(feature)
    head.add_slots(
        caps.weights,
        caps.labels,
        centres=caps.centres,
        precision_thresholds=caps.precision,
        support_thresholds=caps.support,
    )
    head.generations.copy_(caps.generations)
    head.pooled.copy_(caps.pooled)
    return SlotModel(Preprocessing("features", (feature,)), head), inputs_near(rng, caps, 90, 1)[:, 0].numpy()


def checked(model, x):
    """The model's answers, once they are those of `decide`."""
    found = model.predict(x)
    same(found, decide(torch.from_numpy(x)[:, None], model.head.caps()))
    return found


def trained(head):
    """A step of an optimiser, and weights back on the sphere."""
    head.weights.grad = torch.ones_like(head.weights)
    torch.optim.Adam([head.weights], lr=0.3, fused=True).step()
    head.weights.copy_(normalize(head.weights))


CHANGES = {
    "add": lambda h: h.add_slots(torch.ones(1, 6), torch.tensor([9]), precision_thresholds=torch.tensor([0.1])),
    "drop": lambda h: h.drop_slots(torch.arange(h.n_slots) % 3 > 0),
    "relabel": lambda h: h.relabel_slots(torch.arange(20), 7),
    "weight in place": lambda h: h.weights.data.mul_(-1),
    "centre through numpy": lambda h: np.negative(h.centres.numpy(), out=h.centres.numpy()),
    "threshold": lambda h: h.precision_thresholds[::2].fill_(-1),
    "support": lambda h: setattr(h, "support_thresholds", torch.full_like(h.support_thresholds, 0.99)),
    "generations": lambda h: h.generations.copy_(h.generations.flip(0)),
    "pooled": lambda h: h.pooled.logical_not_(),
    "beta": lambda h: setattr(h, "beta", 2.0),
    "swap of slots": lambda h: h.weights.data[:8].copy_(h.weights.data[:8].flip(0).clone()),
    "state": lambda h: h.load_state_dict({k: v.flip(0) for k, v in h.state_dict().items()}),
    "training step": trained,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_no_answer_is_that_of_older_slots(change):
    """Whatever changes the slots, in place, past autograd, or through memory that is shared with NumPy."""
    model, x = model_of()
    before = checked(model, x)
    index = model._kept_index.index
    assert index is not None
    with torch.no_grad():
        change(model.head)
    after = checked(model, x)
    assert model._kept_index.index is not index
    if change not in (CHANGES["pooled"], CHANGES["beta"]):
        assert any(not np.array_equal(getattr(before, n), getattr(after, n)) for n in vars(before))


def test_an_index_is_kept_while_nothing_changes():
    """Also over a call that is answered without it."""
    model, x = model_of()
    checked(model, x)
    index = model._kept_index.index
    checked(model, x[:3])
    checked(model, x)
    assert model._kept_index.index is index


def test_copies_start_without_an_index():
    """A copy's slots are its own: copying, pickling and saving take none along."""
    model, x = model_of()
    wanted = checked(model, x)
    for twin in (copy.deepcopy(model), copy.copy(model._kept_index), pickle.loads(pickle.dumps(model))):
        kept = twin if isinstance(twin, KeptIndex) else twin._kept_index
        assert kept.index is None
        if isinstance(twin, SlotModel):
            same(checked(twin, x), wanted)
            assert kept.index is not model._kept_index.index
    assert not any("index" in name for name in model.state_dict())


def test_it_is_built_once_as_much_was_asked_as_it_costs(monkeypatch):
    """Few rows, few slots, or not enough asked yet: no index."""
    model, x = model_of()
    caps, kept = model.head.caps(), KeptIndex()
    monkeypatch.setattr(kept_index, "_building_ns", lambda *_: 100 * kept_index._saved_ns(60, 6))
    assert [kept.index_for(caps, n) is None for n in (90, 10, 1)] == [True, True, False]
    monkeypatch.setattr(kept_index, "_FEW_ROWS", 64)
    assert kept.index_for(caps, 64) is None
    assert kept.index_for(caps, 65) is not None
    monkeypatch.setattr(kept_index, "_FEW_SLOTS", 60)
    assert kept.index_for(caps, 65) is None
    same(kept.predict(torch.from_numpy(x)[:, None], caps), decide(torch.from_numpy(x)[:, None], caps))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 100),
    st.integers(1, 3),
    st.integers(1, 300),
)
def test_kept_answers_are_those_of_the_rule(seed, n_slots, n_views, n):
    """Any number of views and rows."""
    rng = np.random.default_rng(seed)
    caps, kept = random_caps(rng, n_slots, 5, loose=0.7), KeptIndex()
    views = inputs_near(rng, caps, n, n_views)
    same(kept.predict(views, caps), decide(views, caps))
    assert kept.index is not None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 70), st.sampled_from([torch.float32, torch.bool, torch.int64]))
def test_a_digest_tells_any_single_change(seed, n, dtype):
    """One bit, two numbers swapped, one more."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(0, 2, n) if dtype is torch.bool else rng.normal(size=n) * 1e6).to(dtype)
    digest = kept_index._digest(values)
    assert digest == kept_index._digest(values.clone())
    if n:
        place = int(rng.integers(n))
        other = values.clone()
        other[place] = ~other[place] if dtype is torch.bool else -other[place] - 1
        assert digest != kept_index._digest(other)
        assert digest != kept_index._digest(values[:-1])
    if n > 1 and values[0] != values[-1]:
        swapped = values.clone()
        swapped[0], swapped[-1] = values[-1], values[0]
        assert digest != kept_index._digest(swapped)
