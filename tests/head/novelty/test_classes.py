"""Novelty with labels: the evidence to the letter, weights that find classes left out, promises kept."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_classes as literal
from support import reference_ood
from support.nets import blobs

from slots.errors import DataError
from slots.model.slot_model import SlotModel
from slots.novelty.classes_left_out import folds
from slots.novelty.detector import NoveltyDetector
from slots.novelty.gaussians import fit_gaussians
from slots.novelty.slot_novelty import ModelNovelty
from slots.novelty.weighting import PRIOR, fit_score
from slots.training.config import TrainConfig
from slots.training.fitting import fit


def families(n, *, seed, classes=12, dim=24, spread=1.0):
    """Rows of many classes: means in eight directions, noise that is strong in eight others."""
    means = np.zeros((classes, dim))
    means[:, :8] = np.random.default_rng(7).normal(0, 2, (classes, 8))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    noise = rng.normal(0, spread, (n, dim)) * np.r_[np.ones(8), 4 * np.ones(8), np.ones(dim - 16)]
    return (means[y] + noise + 3).astype(np.float32), y


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_the_evidence_is_the_literal_one(seed, classes):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(0, classes, 40)]
    rows = rng.normal(size=(classes, 6))[labels] + rng.normal(size=(len(labels), 6))
    made = fit_gaussians(torch.from_numpy(rows), torch.from_numpy(labels))
    x = 2 * rng.normal(size=(5, 6))
    found = made.evidence(torch.from_numpy(x))
    narrow = made.separating().evidence(torch.from_numpy(x))
    for row, values, some in zip(x, found.tolist(), narrow.tolist(), strict=True):
        expected = literal.class_evidence(row, rows, labels)
        assert values == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert some == pytest.approx([expected[0], 0, expected[2]], rel=1e-3, abs=1e-3)


def test_wide_features_keep_the_plane_and_one_variance_for_the_rest(monkeypatch):
    """Where the rows span no more than what is kept, the shortened form is the whole one."""
    rng = np.random.default_rng(0)
    labels = torch.arange(30) % 3
    rows = torch.from_numpy(rng.normal(size=(30, 50)) + 3 * rng.normal(size=(3, 50))[labels])
    x = torch.from_numpy(rng.normal(size=(20, 50)))
    whole = fit_gaussians(rows, labels).evidence(x)
    monkeypatch.setattr("slots.novelty.gaussians._FULL", 40)
    short = fit_gaussians(rows, labels)
    assert short.plane is not None
    assert short.plane.shape == (50, 29)
    assert torch.allclose(short.evidence(x), whole, rtol=1e-6)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_score_is_the_literal_one_and_never_falls_where_a_measure_rises(rows):
    rng = np.random.default_rng(0)
    made = fit_score(rng.normal(size=(100, 3)), ((rng.normal([2, 1, 0], 1, (50, 3)), 1.0),))
    values = np.array(rows)
    scores, measures = made(values)
    expected = [literal.weighted_score(row, made.tails, made.weights, made.total) for row in rows]
    assert scores.tolist() == pytest.approx(expected, abs=1e-9)
    assert ((measures >= 0) & (measures < 3)).all()
    for k in range(3):
        assert (made(values + np.eye(3)[k])[0] >= scores).all()


def test_weights_go_to_what_finds_the_foreign():
    rng = np.random.default_rng(1)
    familiar = rng.normal(size=(400, 3))
    foreign = rng.normal([3, 0, -3], 1, (400, 3))
    weights = fit_score(familiar, ((foreign, 1.0),)).weights
    assert weights[0] > PRIOR > weights[1]
    assert weights[2] == 0
    assert fit_score(familiar).weights.tolist() == [PRIOR] * 3


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.integers(0, 100))
def test_a_fold_leaves_whole_classes_out_and_each_example_has_one_part(labels, seed):
    y = np.array(labels)
    left_out = set()
    for learned, kept, left in folds(y, np.random.default_rng(seed)):
        assert sorted([*learned, *kept, *left]) == list(range(len(y)))
        assert not set(y[left]) & set(y[[*learned, *kept]])
        left_out |= set(y[left])
        if len(set(labels)) == 1:
            assert len(left) == 0
    assert left_out <= set(labels)


@pytest.mark.parametrize("each", [15, 100])
def test_labels_find_new_classes_that_distances_from_examples_miss(each):
    x, y = families(4000, seed=0)
    some = np.concatenate([np.flatnonzero(y == c)[:each] for c in range(8)])
    test, z = families(2000, seed=1)
    blind, told = NoveltyDetector().fit(x[some]), NoveltyDetector().fit(x[some], y[some])
    before, after = (
        reference_ood.auroc(made.predict(test[z < 8])[:300].tolist(), made.predict(test[z >= 8])[:300].tolist())
        for made in (blind, told)
    )
    assert after > before + 0.05
    assert "class" in told.assess(test[z >= 8]).reasons


def test_the_promise_holds_with_labels():
    """As without them: the alarms follow the beta-binomial law of split conformal tests."""
    rate, n_test, tails = 0.1, 200, []
    for seed in range(30):
        x, y = families(495, seed=2 * seed, classes=3, dim=18)
        found = NoveltyDetector(50, false_alarm_rate=rate, seed=seed).fit(x, y)
        n = len(found.calibration)
        assert n == 99
        allowed = int(rate * (n + 1) * (1 + 1e-12))
        alarms = int(found.is_novel(families(n_test, seed=2 * seed + 1, classes=3, dim=18)[0]).sum())
        law = scipy.stats.betabinom(n_test, allowed, n + 1 - allowed)
        tails.append((law.cdf(alarms) + law.cdf(alarms - 1)) / 2)
    assert scipy.stats.kstest(tails, "uniform").pvalue > 1e-4


def test_any_labels_will_do_and_the_same_seed_gives_the_same_scores():
    x, y = families(300, seed=3)
    names = np.array([f"class {label:02d}" for label in y])
    new = families(50, seed=4)[0]
    first, second = NoveltyDetector(40).fit(x, y), NoveltyDetector(40).fit(x, torch.from_numpy(y))
    third = NoveltyDetector(40).fit(x, names)
    assert np.array_equal(first.predict(new), second.predict(new))
    assert np.array_equal(first.predict(new), third.predict(new))
    alone = np.concatenate([first.predict(row[None]) for row in new])
    assert np.allclose(alone, first.predict(new), rtol=1e-6, atol=1e-6)
    assert first.n_vectors == 40 + 12
    assert len(first.assess(new[:0])) == 0
    with pytest.raises(DataError, match=r"`y` must have shape \(300,\), one label a row, got \(299,\)"):
        NoveltyDetector().fit(x, y[1:])


@pytest.mark.parametrize("kind", ["constant", "zero", "huge", "one class", "a class an example"])
def test_degenerate_data_with_labels_give_finite_scores(kind):
    rng = np.random.default_rng(0)
    x = {"constant": np.ones((60, 4)), "zero": np.zeros((60, 4)), "huge": 1e15 * rng.normal(size=(60, 4))}
    y = {"one class": np.zeros(60, int), "a class an example": np.arange(60)}
    rows = x.get(kind, rng.normal(size=(60, 4)))
    detector = NoveltyDetector(5, false_alarm_rate=0.2).fit(rows, y.get(kind, np.arange(60) % 3))
    found = detector.assess(rows)
    assert np.isfinite(found.scores).all()
    assert ((found.p_values > 0) & (found.p_values <= 1)).all()


def test_a_model_stores_its_classes_and_what_it_learns_is_novel_no_longer(tmp_path):
    x, y = blobs(400, spread=0.3)
    model, _ = fit(x, y, config=TrainConfig(epochs=3, slots_per_class=4, held_out=0.2))
    assert model.novelty.classes is not None
    foreign = -x[:60]
    before, usual = model.assess_novelty(foreign), model.assess_novelty(x)
    tensors, values = model.novelty.state()
    bare = ModelNovelty.from_state(tensors, {key: value for key, value in values.items() if key != "classes"})
    assert bare.classes is None  # a model of an older version
    changed = SlotModel.load(model.save(tmp_path / "m"))
    assert np.array_equal(changed.assess_novelty(x).scores, usual.scores)
    changed.update(foreign)
    after = changed.assess_novelty(foreign)
    assert before.novel.mean() > 0.9
    assert after.novel.mean() < 0.5
    assert (after.scores <= before.scores).all()
    assert (changed.assess_novelty(x).scores <= usual.scores).all()
