"""Shares of answers to held-out examples, by caps that know nothing of them; against literal loops."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import mixture, three_animals

import slots
from slots.closing.caps import Reference, fold_in
from slots.closing.familiar import familiar_shares, fold_in_by_parts
from slots.errors import ModelError
from slots.features.source import FeatureSource
from slots.head.prediction import AnswerShares
from slots.progress import silent
from slots.storage.store import read_state, write_state
from slots.training.fitting import hold_out

CONFIG = slots.TrainConfig(
    epochs=2, slots_per_class=3, held_out=0.3, closing=slots.ClosingConfig(vouch=None), device="cpu"
)


def scene(seed, n, precision=1.0):
    """Slots with wide caps, and examples all over the place: most have the label of the nearest slot."""
    rng, model = np.random.default_rng(seed), three_animals()
    model.head.precision = precision
    model.head.precision_thresholds = torch.from_numpy(rng.uniform(0.1, 0.5, 6).astype(np.float32))
    model.head.support_thresholds = torch.full((6,), -2.0)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    y = np.where(rng.random(n) < 0.9, x[:, :6].argmax(1) // 2, rng.integers(0, 3, n))
    source = FeatureSource(model.featurizer, x)
    return model, Reference(model.head, source, torch.from_numpy(y), silent), x, y


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a @ b / np.sqrt((a @ a) * (b @ b))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 40))
def test_each_part_is_asked_with_what_the_others_leave(seed, n):
    model, data, x, y = scene(seed, n)
    held_out = np.flatnonzero(np.random.default_rng(seed).random(n) < 0.7).astype(np.int64)
    before, weights = model.head.precision_thresholds.clone(), model.head.weights.detach().numpy()
    plain = copy.deepcopy(model.head)
    fold_in(Reference(plain, data.source, data.y, silent), held_out)
    parts = fold_in_by_parts(data, held_out)
    assert torch.equal(model.head.precision_thresholds, plain.precision_thresholds)
    assert sorted(np.concatenate([part.examples for part in parts]).tolist() if parts else []) == held_out.tolist()
    labels, kinds = model.head.labels.tolist(), {"matched": 0, "ambiguous": 0}
    for part in parts:
        others = [i for i in held_out if i not in part.examples]
        for slot, limit in enumerate(part.thresholds.tolist()):
            rivals = [cosine(x[i], weights[slot]) for i in others if y[i] != labels[slot]]
            assert limit == pytest.approx(max([float(before[slot]), *rivals]), abs=2e-6)
        for i in part.examples:
            scores = [cosine(x[i], weights[slot]) for slot in range(6)]
            fires = {labels[slot] for slot in range(6) if scores[slot] > part.thresholds[slot]}
            kinds["matched"] += len(fires) == 1
            kinds["ambiguous"] += len(fires) > 1
    shares = familiar_shares(data.source, model.head, parts)
    if len(held_out) == 0:
        assert shares is None
    else:
        assert shares == AnswerShares(len(held_out), kinds["matched"], kinds["ambiguous"])
        assert shares.matched + shares.ambiguous + shares.unmatched == pytest.approx(1)


def test_the_closed_slots_themselves_would_call_none_of_them_ambiguous():
    model, data, x, _ = scene(5, 40)
    held_out = np.arange(40)
    parts = fold_in_by_parts(data, held_out)
    assert not model.predict(x).ambiguous.any()
    shares = familiar_shares(data.source, model.head, parts)
    assert shares.n_ambiguous > 0


def test_below_precision_one_all_are_asked_with_the_caps_as_they_become():
    model, data, x, _ = scene(3, 120, precision=0.8)
    parts = fold_in_by_parts(data, np.arange(120))
    found, answers = familiar_shares(data.source, model.head, parts), model.predict(x)
    assert found == AnswerShares.of(answers)
    assert found.n_ambiguous > 0


@pytest.fixture(scope="module")
def fitted():
    x, y = mixture(3, 100, spread=0.45)
    return slots.fit(x, y, class_names=("cat", "dog", "bird"), config=CONFIG)[0], x, y


def test_a_fit_says_what_its_held_out_examples_got(fitted):
    model, x, y = fitted
    held_out = hold_out(y, CONFIG.held_out, CONFIG.seed)
    shares = model.familiar_shares
    assert shares.n_examples == len(held_out) > 80
    assert 0 < shares.n_matched < shares.n_examples
    closed = model.predict(x[held_out])
    changed = shares.n_ambiguous + abs(shares.n_matched - int(closed.matched.sum()))
    assert 0 < changed < 0.2 * len(held_out)  # near the closed slots' own answers, and not the same


def test_they_come_near_those_of_new_data():
    x, y = mixture(3, 2000, spread=0.45)
    model, _ = slots.fit(x[:3000], y[:3000], config=CONFIG)
    told, new = model.familiar_shares, AnswerShares.of(model.predict(x[3000:]))
    for kind in ("matched", "ambiguous", "unmatched"):
        assert getattr(told, kind) == pytest.approx(getattr(new, kind), abs=0.05)
    assert new.ambiguous > 0


def test_they_are_saved_and_stay_through_updates(fitted, tmp_path):
    model, _, _ = fitted
    model.save(tmp_path / "model")
    loaded = slots.SlotModel.load(tmp_path / "model")
    assert loaded.familiar_shares == model.familiar_shares
    loaded.update(np.float32([[0, 0, 0, 0, 0, 1]] * 5), {0: "new"})
    assert loaded.familiar_shares == model.familiar_shares


@pytest.mark.parametrize(
    "config",
    [
        slots.TrainConfig(epochs=1, slots_per_class=2, held_out=0, device="cpu"),
        slots.TrainConfig(epochs=1, held_out=0.3, closing=slots.ClosingConfig(mode="full"), device="cpu"),
    ],
    ids=["nothing held out", "everything matched"],
)
def test_where_nothing_is_held_out_there_are_none(config, tmp_path):
    model, _ = slots.fit(*mixture(2, 50), config=config)
    assert model.familiar_shares is None
    model.save(tmp_path / "model")
    assert slots.SlotModel.load(tmp_path / "model").familiar_shares is None


FORGED = {
    "no numbers": {"n_examples": "9", "n_matched": 1, "n_ambiguous": 0},
    "of nothing": {"n_examples": 0, "n_matched": 0, "n_ambiguous": 0},
    "more than asked": {"n_examples": 9, "n_matched": 6, "n_ambiguous": 4},
    "below none": {"n_examples": 9, "n_matched": -1, "n_ambiguous": 4},
    "halves": {"n_examples": 9, "n_matched": 1.5, "n_ambiguous": 4},
    "a flag": {"n_examples": True, "n_matched": 1, "n_ambiguous": 0},
    "another": {"n_examples": 9, "n_matched": 1, "n_ambiguous": 0, "n_odd": 0},
    "a list": [9, 1, 0],
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_strangers_shares_are_refused_when_the_folder_is_opened(fitted, tmp_path, forged):
    fitted[0].save(tmp_path / "model")
    state = read_state(tmp_path / "model")
    header = {**state.header, "familiar_shares": FORGED[forged]}
    write_state(tmp_path / "model", header=header, tensors=state.tensors)
    with pytest.raises(ModelError, match=r"damaged or was edited|cannot be rebuilt") as caught:
        slots.SlotModel.load(tmp_path / "model")
    assert "\n" not in str(caught.value)
