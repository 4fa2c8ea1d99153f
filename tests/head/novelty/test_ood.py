"""Novelty: the sign, the promise on false alarms, what noise can and cannot hide in, and what learning changes."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_ood as literal
from support.nets import blobs

from slots.errors import DataError, UsageError
from slots.model.slot_model import SlotModel
from slots.novelty.conformal import check_rate, p_values, threshold
from slots.novelty.detector import NoveltyDetector
from slots.novelty.distances import Distances, NoveltyMetric, distances
from slots.novelty.slot_novelty import recalibrate
from slots.novelty.tails import REASONS, bonferroni_score, fit_tails
from slots.training.config import TrainConfig
from slots.training.fitting import fit

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


def cloud(n, *, seed, spread=0.3, dim=8):
    """Rows about two directions, of lengths near 5."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, spread, (n, dim))
    rows[np.arange(n), rng.integers(0, 2, n)] += 5
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def detector():
    return NoveltyDetector(8).fit(cloud(800, seed=0))


# --- conformal p-values


@given(SCORES, SCORES)
def test_p_values_are_the_literal_ones(scores, calibration):
    assert p_values(scores, calibration).tolist() == [literal.p_value(s, calibration) for s in scores]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3).map(float), min_size=2, max_size=6))
def test_no_exchangeable_data_break_the_promise_ties_or_not(values):
    """Of all orders of the same values the last is the input: at most a share ``a`` of them has p <= a, exactly."""
    orders = list(itertools.permutations(values))
    found = np.array([p_values([order[-1]], order[:-1])[0] for order in orders])
    for rate in np.unique(found):
        assert (found <= rate).mean() <= rate + 1e-12


@given(SCORES, SCORES, st.integers(1, 99))
def test_the_threshold_says_what_the_p_values_say(scores, calibration, percent):
    rate = percent / 100
    if rate * (len(calibration) + 1) * (1 + 1e-12) < 1:
        with pytest.raises(UsageError, match="must be at least"):
            threshold(calibration, rate)
        return
    beyond = np.array(scores) > threshold(calibration, rate)
    assert beyond.tolist() == (p_values(scores, calibration) <= rate * (1 + 1e-12)).tolist()


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_false_alarm_rate_is_held(detector, rate):
    """One input a calibration set, so the alarms are independent: binomial with the promised rate, to the letter."""
    n, repeats = 99, 3000
    scores = detector.predict(cloud(repeats * (n + 1), seed=1)).reshape(repeats, n + 1)
    alarms = sum(p_values(row[-1:], row[:-1])[0] <= rate * (1 + 1e-12) for row in scores)
    law = scipy.stats.binom(repeats, rate)  # n + 1 = 100 makes each of these rates exact, not only a bound
    assert law.ppf(1e-5) <= alarms <= law.ppf(1 - 1e-5)


def test_the_promise_holds_from_fit_to_answer():
    """Detectors fitted anew: the alarms among many inputs follow the beta-binomial law of split conformal tests."""
    rate, n_test, tails = 0.1, 200, []
    for seed in range(40):
        found = NoveltyDetector(4, false_alarm_rate=rate, seed=seed).fit(cloud(495, seed=2 * seed))
        n = len(found.calibration)
        assert n == 99
        allowed = int(rate * (n + 1) * (1 + 1e-12))
        alarms = int(found.is_novel(cloud(n_test, seed=2 * seed + 1)).sum())
        law = scipy.stats.betabinom(n_test, allowed, n + 1 - allowed)
        tails.append((law.cdf(alarms) + law.cdf(alarms - 1)) / 2)
    assert scipy.stats.kstest(tails, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_rates_are_shares(rate):
    with pytest.raises(UsageError, match=r"`false_alarm_rate` must lie in \(0, 1\)"):
        check_rate(rate, 100)
    with pytest.raises(UsageError, match=r"`false_alarm_rate` must lie in \(0, 1\)"):
        NoveltyDetector(false_alarm_rate=rate)


def test_too_few_to_vouch_for_a_rate():
    with pytest.raises(UsageError, match=r"must be at least 0.05 with 19 calibration examples, got 0.01\. Calibrate"):
        check_rate(0.01, 19)
    check_rate(0.05, 19)
    small = NoveltyDetector(2, false_alarm_rate=0.01).fit(cloud(50, seed=0))
    with pytest.raises(UsageError, match="with 50 calibration examples"):
        small.assess(cloud(5, seed=1))


@pytest.mark.parametrize("labelled", [False, True])
def test_few_rows_are_scored_by_what_the_others_teach(labelled):
    x, rate = cloud(60, seed=3), 0.05  # a fifth of them, 12, could not hold 5 %
    y = (x[:, 0] > np.median(x[:, 0])).astype(int) if labelled else None
    found = NoveltyDetector(4, false_alarm_rate=rate, seed=1).fit(x, y)
    order, scores = np.random.default_rng(1).permutation(60), []
    for fold in range(5):
        left = order[fold::5]
        kept = np.array([i for i in order if i not in left])
        other = NoveltyDetector(4, seed=1)
        other._learn(torch.tensor(x), None if y is None else y, kept, 36, torch.device("cpu"))
        scores += other.predict(x[left]).tolist()
    assert found.calibration.tolist() == sorted(scores)
    assert found.is_novel(50 * x[:5]).all()


@pytest.mark.parametrize("n", [20, 45, 90])
def test_few_rows_hold_the_rate_on_average(n):
    """Forty detectors: one false alarm in ten at most, but for five deviations of their mean."""
    rate, repeats = 0.1, 40
    shares = [
        NoveltyDetector(4, false_alarm_rate=rate, seed=i).fit(cloud(n, seed=2 * i)).is_novel(cloud(500, seed=2 * i + 1))
        for i in range(repeats)
    ]
    assert np.mean(shares) <= rate + 5 * np.sqrt(rate * (1 - rate) / n / repeats)


@pytest.mark.parametrize("n", [90, 91, 95, 400])
def test_enough_rows_are_split(n):
    found = NoveltyDetector(4, false_alarm_rate=0.05).fit(cloud(n, seed=0))
    assert len(found.calibration) == (n if n < 91 else n - int(0.8 * n))


# --- scores


def test_higher_is_more_novel(detector):
    """The sign: farther from all that was seen never scores lower, and the familiar lie below the foreign."""
    away = np.zeros((6, 8), np.float32)
    away[:, 0], away[:, 5] = 5 * np.cos(np.linspace(0, 1.5, 6)), 5 * np.sin(np.linspace(0, 1.5, 6))
    scores = detector.predict(away)
    assert (np.diff(scores) > 0).all()
    assert np.median(detector.predict(cloud(200, seed=3))) < 0.5 < 1 < scores[-1]
    chances = detector.assess(away).p_values
    assert (np.diff(chances) <= 0).all()
    assert chances[-1] == 1 / (len(detector.calibration) + 1)


@pytest.mark.parametrize("views", [1, 3])
def test_distances_are_the_literal_ones(views):
    rng = np.random.default_rng(views)
    residuals, prototypes = rng.normal(0, 0.1, (50, 5)), rng.normal(size=(7, 5))
    norms = rng.uniform(1, 3, 50)
    metric = NoveltyMetric.of(torch.from_numpy(residuals), torch.from_numpy(norms), shrinkage=0.05)
    inverse, middle = literal.precision(residuals, 0.05), float(torch.from_numpy(norms).log().median())
    x = rng.normal(size=(20, views, 5)).astype(np.float32)
    found = distances(torch.from_numpy(x), torch.from_numpy(prototypes).float(), metric)
    for i, row in enumerate(x.astype(np.float64)):
        *expected, nearest = literal.distances(row, prototypes.astype(np.float32).astype(np.float64), inverse, middle)
        assert found.values[i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert found.nearest[i] == nearest


def test_wide_features_keep_few_directions_and_one_spread_for_the_rest(monkeypatch):
    """Whole and shortened metric agree where the directions left out all vary alike."""
    rng = np.random.default_rng(0)
    stretched = rng.normal(size=(4000, 12)) * np.array([3.0] * 3 + [1.0] * 9)
    rows = torch.from_numpy(stretched / 20)
    whole = NoveltyMetric.of(rows, torch.ones(4000), shrinkage=0.01)
    monkeypatch.setattr("slots.novelty.distances._FULL_BASIS", 8)
    monkeypatch.setattr("slots.novelty.distances._LOW_BASIS", 3)
    short = NoveltyMetric.of(rows, torch.ones(4000), shrinkage=0.01)
    assert short.basis.shape == (12, 3)
    assert short.residual_inverse_scale > 0
    x, prototypes = torch.randn(30, 1, 12), torch.randn(5, 12)
    ours, theirs = distances(x, prototypes, short).values, distances(x, prototypes, whole).values
    assert torch.allclose(ours[:, 1], theirs[:, 1], rtol=0.05)
    assert torch.equal(ours[:, 0], theirs[:, 0])


def test_a_score_depends_on_its_input_alone(detector):
    x = np.concatenate([cloud(40, seed=4), np.random.default_rng(5).normal(size=(10, 8)).astype(np.float32)])
    whole = detector.predict(x)
    alone = np.concatenate([detector.predict(row[None]) for row in x])
    assert np.allclose(whole, alone, rtol=1e-6, atol=1e-6)
    assert np.array_equal(detector.predict(x[::-1]), whole[::-1])
    assert np.array_equal(detector.predict(torch.from_numpy(x)), whole)


def test_the_same_seed_gives_the_same_detector():
    x, new = cloud(300, seed=6), cloud(50, seed=7)
    first, second = (NoveltyDetector(5, seed=3).fit(x).assess(new) for _ in range(2))
    assert np.array_equal(first.scores, second.scores)
    assert np.array_equal(first.p_values, second.p_values)
    assert not np.array_equal(NoveltyDetector(5, seed=4).fit(x).predict(new), first.scores)


# --- what the direction does not see


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_size_alone_is_found_and_named(detector, factor):
    """The same directions, shorter or longer: cosine sees nothing; the test of the norm flags them, both ways."""
    x = cloud(300, seed=8)
    usual, scaled = detector.assess(x), detector.assess(factor * x)
    assert usual.novel.mean() < 0.15
    assert scaled.novel.all()
    assert set(scaled.reasons) == {"size"}
    assert np.array_equal(usual.nearest, scaled.nearest)
    blind = NoveltyDetector(8, shares=(0.6, 0.4, 0)).fit(cloud(800, seed=0))
    assert np.allclose(blind.predict(factor * x), blind.predict(x), atol=1e-5)


def test_noise_in_the_right_direction_is_rejected():
    """The trap of pixels: all-positive images share one direction, so noise about the mean has a small angle to them.

    The angle alone accepts nearly all of this noise; the whole score rejects it.
    """
    rng = np.random.default_rng(0)
    smooth = rng.uniform(0.3, 1, (2000, 4)) @ np.kron(np.eye(4), np.ones((1, 16)))
    images = (smooth + rng.normal(0, 0.01, smooth.shape)).astype(np.float32)
    noise = (images.mean() + rng.normal(0, 0.1, (500, 64))).astype(np.float32)
    detector = NoveltyDetector(4).fit(images[:1500])
    found = distances(torch.from_numpy(noise)[:, None], detector.prototypes, detector.metric).values[:, 0]
    familiar = distances(torch.from_numpy(images[1500:])[:, None], detector.prototypes, detector.metric).values[:, 0]
    assert (found <= torch.quantile(familiar, 0.95)).float().mean() > 0.95
    assert detector.assess(noise).novel.all()
    assert set(detector.assess(noise).reasons) == {"pattern"}
    assert detector.assess(images[1500:]).novel.mean() < 0.1


def test_without_a_share_the_size_says_nothing_and_hides_nothing():
    blind = NoveltyDetector(8, shares=(0.6, 0.4, 0)).fit(cloud(800, seed=0))
    scores = blind.predict(cloud(400, seed=9))
    assert len(np.unique(scores)) > 390
    assert "size" not in blind.assess(cloud(400, seed=9)).reasons


# --- learning


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_more_prototypes_never_raise_a_score(seed):
    """So with an old calibration p-values only rise, and the false alarms stay within the promise."""
    rng = np.random.default_rng(seed)
    metric = NoveltyMetric.of(torch.from_numpy(rng.normal(0, 0.2, (40, 6))), torch.ones(40), shrinkage=0.05)
    usual = np.linspace(0, 1, 100)[:, None] * [1.0, 5.0, 1.0]
    metric = fit_tails(metric, Distances(torch.from_numpy(usual), torch.zeros(100, dtype=torch.long)), (0.6, 0.3, 0.1))
    x = torch.from_numpy(rng.normal(size=(30, 2, 6))).float()
    known, more = torch.from_numpy(rng.normal(size=(2, 5, 6))).float()
    before = bonferroni_score(distances(x, known, metric), metric)[0]
    after = bonferroni_score(distances(x, torch.cat([known, more]), metric), metric)[0]
    assert (after <= before + 1e-5).all()
    assert (after < before - 1e-5).any()


@pytest.fixture(scope="module")
def fitted():
    """A model of three blobs, with a part held out."""
    x, y = blobs(400, spread=0.3)
    model, _ = fit(x, y, config=TrainConfig(epochs=3, slots_per_class=4, held_out=0.2))
    return model, x


def test_a_model_judges_its_inputs_and_keeps_its_judgement(fitted, tmp_path):
    model, x = fitted
    assert len(model.novelty.calibration) >= 20
    found = model.assess_novelty(x, false_alarm_rate=0.1)
    assert found.novel.mean() < 0.2
    assert set(found.reasons) <= set(REASONS)
    back = SlotModel.load(model.save(tmp_path / "m")).assess_novelty(x, false_alarm_rate=0.1)
    for name in ("scores", "p_values", "novel", "nearest", "reasons"):
        assert np.array_equal(getattr(found, name), getattr(back, name)), name
    opposite = model.assess_novelty(-x, false_alarm_rate=0.1)
    assert opposite.novel.mean() > 0.9
    assert len(model.assess_novelty(x[:0])) == 0


def test_what_was_learned_is_novel_no_longer(fitted, tmp_path):
    model, x = fitted
    changed = SlotModel.load(model.save(tmp_path / "m"))
    foreign = -x[:60]
    before, usual = changed.assess_novelty(foreign), changed.assess_novelty(x)
    changed.update(foreign)
    after = changed.assess_novelty(foreign)
    assert before.novel.mean() > 0.9
    assert after.novel.mean() < 0.5
    assert (changed.assess_novelty(x).p_values >= usual.p_values).all()


def test_calibration_can_be_replaced(fitted):
    model, x = fitted
    found = recalibrate(model, x[:150])
    assert len(found.calibration) == 150
    assert np.array_equal(found.calibration, np.sort(model.assess_novelty(x[:150]).scores))
    assert found.metric is model.novelty.metric


def test_an_assessment_by_other_familiar_inputs_leaves_the_model_as_it_is(fitted):
    model, x = fitted
    own = model.novelty
    found = model.assess_novelty(x[150:], calibration=x[:150], false_alarm_rate=0.1)
    assert model.novelty is own
    usual = model.assess_novelty(x[150:], false_alarm_rate=0.1)
    assert np.array_equal(found.scores, usual.scores)
    assert np.array_equal(found.p_values, p_values(found.scores, recalibrate(model, x[:150]).calibration))
    assert not np.array_equal(found.p_values, usual.p_values)


def test_a_model_without_calibration_says_so(fitted, tmp_path):
    model, x = fitted
    bare = SlotModel.load(model.save(tmp_path / "m"))
    bare.novelty = None
    with pytest.raises(UsageError, match=r"must have held-out scores to judge novelty by, and has none\. Fit it"):
        bare.assess_novelty(x)
    with pytest.raises(UsageError, match=r"must have a novelty metric, and has none\. Fit it"):
        recalibrate(bare, x)
    with pytest.raises(UsageError, match=r"must have a novelty metric, and has none\. Fit it"):
        bare.assess_novelty(x, calibration=x)


# --- the edges of what may come


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((20, 2, 2), np.float32), r"`x` must be numbers of shape \(example, feature\), got float32"),
        (np.full((20, 2), "a"), r"`x` must be numbers of shape"),
        (np.full((20, 2), np.nan, np.float32), "`x` must be finite, got NaN or infinity"),
        (np.ones((9, 2), np.float32), "`x` must have at least 10 rows, got 9"),
    ],
)
def test_messages_on_data(x, says):
    with pytest.raises(DataError, match=says):
        NoveltyDetector().fit(x)


def test_messages_on_use(detector):
    with pytest.raises(DataError, match="`x` must have 8 features, got 3"):
        detector.predict(np.ones((2, 3), np.float32))
    with pytest.raises(UsageError, match="must be fitted first"):
        NoveltyDetector().predict(np.ones((2, 3), np.float32))
    with pytest.raises(UsageError, match="`n_prototypes` must be >= 1, got 0"):
        NoveltyDetector(0)
    with pytest.raises(UsageError, match=r"`shares` must be three or four numbers >= 0 with sum 1, got \(1, 1, 0\)"):
        NoveltyDetector(shares=(1, 1, 0))
    with pytest.raises(UsageError, match="`shrinkage` must be > 0, got 0"):
        NoveltyDetector(shrinkage=0)


@pytest.mark.parametrize("kind", ["constant", "zero", "huge", "tiny", "whole numbers", "one feature"])
def test_degenerate_data_give_finite_scores(kind):
    rng = np.random.default_rng(0)
    x = {
        "constant": np.ones((60, 4)),
        "zero": np.zeros((60, 4)),
        "huge": 1e15 * rng.normal(size=(60, 4)),
        "tiny": 1e-15 * rng.normal(size=(60, 4)),
        "whole numbers": rng.integers(0, 256, (60, 4)),
        "one feature": rng.normal(size=(60, 1)),
    }[kind]
    detector = NoveltyDetector(5, false_alarm_rate=0.2).fit(x)
    found = detector.assess(x)
    assert np.isfinite(found.scores).all()
    assert ((found.p_values > 0) & (found.p_values <= 1)).all()
    assert len(detector.assess(x[:0])) == 0
    if kind in ("constant", "zero"):
        assert not found.novel.any()
