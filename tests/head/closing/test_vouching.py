"""Matched means it: the calibrated angle, what it is worth on new data, and what a fit says about it."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import backbones
import slots
from slots.closing.evidence import Evidence, ask
from slots.closing.vouching import LEVELS, calibrate, tighten
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


def drawn(seed: int, n_examples: int, n_classes: int = 4) -> Evidence:
    """Evidence with several pairs an example, classes of very different sizes, and errors that get rarer inside."""
    rng = np.random.default_rng(seed)
    labels = (n_classes * rng.random(n_examples) ** 3).astype(np.int64)
    n = int(rng.integers(0, 3 * n_examples + 1))
    depths = rng.exponential(0.3, n) + 1e-3
    return Evidence(
        np.sort(rng.integers(0, n_examples, n)),
        rng.random(n) < 1 - rng.random() * np.exp(-depths / 0.1),
        depths,
        rng.random(n) + 1e-3,
        rng.random(n) < 0.5,
        labels,
    )


@given(seed=st.integers(0, 10_000), angle=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_answers_while_caps_shrink_are_those_of_a_loop(seed, angle):
    evidence = drawn(seed, 20)
    assert evidence.answers(angle) == literal_answers(evidence, angle)


@given(seed=st.integers(0, 10_000), angle=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_tallies_count_every_class_alike_too(seed, angle):
    evidence = drawn(seed, 20)
    alike, *by_class = evidence.tallies(angle)
    assert (alike.matched, alike.matched - alike.wrong) == literal_answers(evidence, angle)
    assert alike.effective == pytest.approx(alike.matched)
    sizes = Counter(evidence.labels.tolist())
    assert len(by_class) == (len(set(sizes.values())) > 1)
    for it in by_class:
        shares = [0.0, 0.0]
        for label, size in sizes.items():
            kept = np.isin(evidence.examples, np.flatnonzero(evidence.labels == label))
            matched, right = literal_answers(replace(evidence, **only(evidence, kept)), angle)
            shares = [shares[0] + matched / size, shares[1] + (matched - right) / size]
        assert [it.matched, it.wrong] == pytest.approx(np.array(shares) * evidence.n / len(sizes))
        assert 0 <= it.effective <= alike.matched + 1e-9


def only(evidence: Evidence, kept: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: getattr(evidence, name)[kept] for name in ("examples", "right", "depths", "support_depths", "trained")
    }


@given(seed=st.integers(0, 10_000), n=st.integers(1, 600), level=st.sampled_from([0.8, 0.95, 0.98]))
@settings(max_examples=50, deadline=None)
def test_what_is_shown_passes_the_test_and_what_is_not_is_expected(seed, n, level):
    evidence = drawn(seed, n)
    found = calibrate(evidence, level)
    wrong = found.n_matched - found.n_right
    assert (found.n_matched, found.n_right) == evidence.answers(found.angle)
    passes = found.n_matched > 0 and stats.binom.cdf(wrong, found.n_matched, 1 - level) <= 0.1
    assert passes or not found.shown
    if not found.shown and wrong:
        assert wrong + 1 <= (1 - level) * found.n_matched
    for matched, bad in ((it.matched, it.wrong) for it in evidence.tallies(found.angle)):
        assert bad <= (1 - level) * matched


@given(seed=st.integers(0, 10_000), n=st.integers(1, 600))
@settings(max_examples=50, deadline=None)
def test_a_lower_level_never_matches_fewer_than_a_higher_one_that_was_shown(seed, n):
    evidence = drawn(seed, n)
    found = [calibrate(evidence, level) for level in LEVELS]
    for lower, higher in itertools.pairwise(found):
        assert not higher.shown or (lower.shown and lower.angle <= higher.angle)


def test_a_walk_that_ended_early_goes_on_where_a_higher_level_does():
    # The 25th match from the inside is wrong: 0.9 is shown by the 24 before it, and then not by 25. 0.95 needs more.
    depths = np.linspace(1, 0.1, 200)
    right = np.arange(200) != 24
    once = Evidence(np.arange(200), right, depths, np.ones(200), np.zeros(200, bool), np.zeros(200, int))
    assert [calibrate(once, level).n_matched for level in (0.9, 0.95)] == [200, 200]


def test_where_matches_are_no_better_inside_nothing_is_matched():
    """The deepest few are right by luck alone; they used to be matched."""
    matched = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        right, depths = rng.random(300) < 0.5, rng.exponential(0.1, 300)
        evidence = Evidence(np.arange(300), right, depths, np.ones(300), np.ones(300, bool), np.arange(300) % 10)
        found = calibrate(evidence, 0.98)
        assert not found.shown
        matched += found.n_matched
    assert matched < 12, "of 12,000"


@pytest.mark.parametrize(
    ("n", "matched", "angle"), [(300, 49, np.inf), (300, 51, 0.0), (40, 19, np.inf), (40, 20, 0.0)]
)
def test_a_few_matches_without_any_error_are_not_enough(n, matched, angle):
    """They are luck where most examples are not matched at all."""
    depths = np.random.default_rng(0).random(matched) + 0.01
    right = np.ones(matched, bool)
    evidence = Evidence(np.arange(matched), right, depths, np.ones(matched), right, np.arange(n) % 2)
    assert calibrate(evidence, 0.98).angle == angle


def test_a_rare_class_that_is_swallowed_counts_as_much_as_others():
    """Of 1,000 examples 10 are of a class that slots of another take, which 98 % of all would hide."""
    labels = np.repeat([0, 1], [990, 10])
    depths = np.concatenate([np.linspace(0.1, 1, 990), np.linspace(0.01, 0.3, 10)])
    evidence = Evidence(np.arange(1000), labels == 0, depths, np.ones(1000), np.ones(1000, bool), labels)
    found = calibrate(evidence, 0.98)
    assert 0.25 < found.angle < 0.35
    assert found.n_right == found.n_matched > 750
    halves = replace(evidence, labels=np.arange(1000) % 2)
    assert calibrate(halves, 0.98).angle < 0.1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_share_of_the_examples_stays_open(share):
    n = 400
    depths = np.random.default_rng(0).random(n) + 0.01
    evidence = Evidence(np.arange(n), np.ones(n, bool), depths, np.ones(n), np.ones(n, bool), np.zeros(n, int))
    found = calibrate(evidence, 0.98, open_share=share)
    assert found.n_matched == n - round(share * n)
    assert (found.open_share, found.left_open) == (share, round(share * n)), "the level alone matches all"
    assert found.shown == (found.n_matched >= 114)


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


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_an_open_share_out_of_range_is_refused(share):
    with pytest.raises(slots.errors.UsageError, match="open_share"):
        slots.ClosingConfig(open_share=share)


def test_features_of_an_unknown_network_leave_a_fifth_open_and_pixels_do_not():
    x, y = overlapping(0, 900)
    x *= np.linspace(1, 4, 10, dtype=np.float32)  # classes far apart
    centres = np.random.default_rng(99).normal(size=(12, 10))[y] * 4
    x = (centres + x * 0.1).astype(np.float32)
    found = {}
    for share in (None, 0.0, 0.5):
        config = TrainConfig(closing=slots.ClosingConfig(open_share=share))
        _, result = slots.fit(x, y, config=slots.training.AutoConfig(config))
        found[share] = result.closing.vouching
    assert found[None].n_matched == 0.8 * 900 < found[0.0].n_matched
    assert found[0.5].n_matched == 450
    _, own = slots.fit(x, y, config=TrainConfig(epochs=5, slots_per_class=1, scale=20.0))
    assert own.closing.vouching.n_matched > 0.8 * 900, "who sets the numbers is not second-guessed"
    images = np.clip(x * 10 + 128, 0, 255).astype(np.uint8).reshape(-1, 2, 5)
    _, seen = slots.fit(images, y, backbone=backbones.build("pixels", input_shape=(1, 2, 5)))
    assert seen.closing.vouching.n_matched > 0.8 * 900, "no network has seen pixels"


def test_matched_answers_are_right_where_classes_differ_in_size():
    """And on new data where they do not: the fit sees 2 to 200 of a class."""
    matched = right = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = np.repeat(np.arange(10), np.geomspace(200, 2, 10).astype(int))
        centres = rng.normal(size=(10, 16))
        x = (centres[y] + rng.normal(size=(len(y), 16)) * 0.6).astype(np.float32)
        model, _ = slots.fit(x, y)
        labels = np.arange(2000) % 10
        answers = model.predict((centres[labels] + rng.normal(size=(2000, 16)) * 0.6).astype(np.float32))
        matched += int(answers.matched.sum())
        right += int((answers.labels == labels)[answers.matched].sum())
    assert matched > 1000
    assert stats.binomtest(right, matched, 0.98, alternative="less").pvalue > 0.01, f"{right} of {matched}"
