"""Matched means it: the calibrated angle, what it is worth on new data, and what a fit says about it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import slots
from slots.closing.vouching import Evidence, ask, calibrate, tighten
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource
from slots.features.views import parse_views
from slots.training import TrainConfig


def overlapping(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 12
    centres = np.random.default_rng(99).normal(size=(12, 10))
    return (centres[y] + rng.normal(size=(n, 10)) * 0.9).astype(np.float32), y


def literal_answers(evidence: Evidence, angle: float) -> tuple[int, int]:
    matched = right = 0
    for example in range(evidence.n):
        best = None
        for e, r, d, s in zip(evidence.examples, evidence.right, evidence.depths, evidence.support_depths, strict=True):
            if e == example and d > angle and (best is None or min(d - angle, s) > best[0]):
                best = min(d - angle, s), r
        matched += best is not None
        right += best is not None and bool(best[1])
    return matched, right


@given(seed=st.integers(0, 10_000), angle=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_answers_while_caps_shrink_are_those_of_a_loop(seed, angle):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 60))
    evidence = Evidence(
        np.sort(rng.integers(0, 20, n)),
        rng.random(n) < 0.7,
        rng.random(n) + 1e-3,
        rng.random(n) + 1e-3,
        rng.random(n) < 0.5,
        20,
    )
    assert evidence.answers(angle) == literal_answers(evidence, angle)


@given(seed=st.integers(0, 10_000), level=st.sampled_from([0.8, 0.95, 0.98]))
@settings(max_examples=50, deadline=None)
def test_what_is_shown_passes_the_test_and_what_is_not_has_no_error(seed, level):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 600))
    depths = rng.random(n)
    evidence = Evidence(np.arange(n), rng.random(n) < 0.6 + 0.5 * depths, depths, np.ones(n), np.ones(n, bool), n)
    found = calibrate(evidence, level)
    assert (found.n_matched, found.n_right) == evidence.answers(found.angle)
    if found.shown:
        assert stats.binom.cdf(found.n_matched - found.n_right, found.n_matched, 1 - level) <= 0.1
    else:
        assert found.n_matched == found.n_right


def test_slots_of_single_examples_stay_only_where_they_vouch_for_more():
    x, y = overlapping(0, 900)
    config = TrainConfig(epochs=5, slots_per_class=1, scale=20.0, closing=slots.ClosingConfig(min_gain=2))
    free = TrainConfig(epochs=5, slots_per_class=1, scale=20.0, closing=slots.ClosingConfig(min_gain=2, vouch=None))
    with_all, _ = slots.fit(x, y, config=free)
    vouched, _ = slots.fit(x, y, config=config)
    assert with_all.head.n_slots > vouched.head.n_slots == 12, "classes of one blob each need no more"
    rng = np.random.default_rng(0)
    part = np.arange(2000) % 24
    rows = (np.random.default_rng(5).normal(size=(24, 20))[part] + rng.normal(size=(2000, 20)) * 0.1).astype(np.float32)
    needed, _ = slots.fit(rows, part % 2, config=config)
    assert needed.head.n_slots > 2, "classes of many blobs do"


def test_evidence_is_what_predict_says():
    x, y = overlapping(0, 1200)
    model, _ = slots.fit(x, y, config=TrainConfig(epochs=5, slots_per_class=3, scale=20.0, held_out=0.0))
    new, labels = overlapping(1, 800)
    featurizer = Featurizer(Preprocessing("features", (10,)), parse_views("none"), torch.nn.Identity(), feature_dim=10)
    evidence = ask(FeatureSource(featurizer, new), model.head, labels, np.arange(800))
    for angle in (0.0, 0.05, 0.2):
        tighten(model.head, angle)
        answers = model.predict(new)
        right = int((answers.labels == labels)[answers.matched].sum())
        assert evidence.answers(angle) == pytest.approx((int(answers.matched.sum()), right), abs=1)
        if angle:
            break  # caps shrink for good


def test_matched_answers_are_right_as_often_as_was_asked():
    matched, right = {}, {}
    for level in (0.9, 0.98):
        for seed in range(4):
            x, y = overlapping(seed, 900)
            config = TrainConfig(epochs=5, slots_per_class=1, scale=20.0, closing=slots.ClosingConfig(vouch=level))
            model, result = slots.fit(x, y, config=config)
            new, labels = overlapping(1000 + seed, 4000)
            answers = model.predict(new)
            assert result.closing.vouching.level == level
            matched[level] = matched.get(level, 0) + int(answers.matched.sum())
            right[level] = right.get(level, 0) + int((answers.labels == labels)[answers.matched].sum())
        assert stats.binomtest(right[level], matched[level], level, alternative="less").pvalue > 0.01
    assert matched[0.9] > matched[0.98] > 0
    x, y = overlapping(0, 900)
    free, _ = slots.fit(
        x, y, config=TrainConfig(epochs=5, slots_per_class=1, scale=20.0, closing=slots.ClosingConfig(vouch=None))
    )
    new, labels = overlapping(1000, 4000)
    answers = free.predict(new)
    assert (answers.labels == labels)[answers.matched].mean() < 0.9  # so there was something to do


def test_too_little_evidence_is_said():
    x, y = overlapping(0, 48)
    _, result = slots.fit(x, y)
    assert not result.closing.vouching.shown
    assert "too few" in str(result.closing.vouching)
    assert result.closing.vouching.n_matched == result.closing.vouching.n_right


def test_nobody_is_matched_wrongly_in_training_after_held_out_examples_are_folded_in():
    x, y = overlapping(0, 900)
    model, result = slots.fit(x, y, config=TrainConfig(epochs=5, slots_per_class=1, scale=20.0))
    answers = model.predict(x)
    assert (answers.labels == y)[answers.matched].all()
    assert np.array_equal(answers.matched, result.closing.matched)


def test_the_mode_full_keeps_its_caps_and_says_how_they_do():
    x, y = overlapping(5, 900)
    config = TrainConfig(
        epochs=5, slots_per_class=1, scale=20.0, held_out=0.3, closing=slots.ClosingConfig(mode="full")
    )
    _, full = slots.fit(x, y, config=config)
    vouching = full.closing.vouching
    assert full.closing.matched.all()
    assert (vouching.angle, vouching.shown) == (0.0, False)  # classes overlap
    assert vouching.n_right < 0.98 * vouching.n_matched


@pytest.mark.parametrize("vouch", [0.0, 1.0, -1.0])
def test_a_level_out_of_range_is_refused(vouch):
    with pytest.raises(slots.errors.UsageError, match="vouch"):
        slots.ClosingConfig(vouch=vouch)
