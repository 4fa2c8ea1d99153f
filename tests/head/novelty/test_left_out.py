"""Novelty of a model of few rows: judged on examples that other fits left out, to the letter, promises kept."""

import numpy as np
import pytest
import scipy.stats
import torch
from support import reference_classes as literal
from support.nets import blobs

from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource
from slots.features.views import parse_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel
from slots.novelty.classes_left_out import FOLDS, Kinds, fold_of_classes
from slots.novelty.distances import NoveltyMetric, distances
from slots.novelty.gaussians import fit_gaussians
from slots.novelty.left_out.measures import CrossMeasures, measure_left_out
from slots.novelty.weighting import weighted
from slots.training.config import TrainConfig
from slots.training.fitting import fit

QUICK = TrainConfig(epochs=2, slots_per_class=2, held_out=0.05)


def rows_of(n, seed, *, classes=5, dim=12):
    """Rows of classes that overlap a little; those of the last two far from all others."""
    means = np.random.default_rng(9).normal(0, 2, (classes + 2, dim))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes + 2, n)
    return (means[y] + rng.normal(size=(n, dim))).astype(np.float32), y


def head_and_source(x, y, fitted):
    """Slots at the class means of some of the rows."""
    featurizer = Featurizer(
        Preprocessing("features", (x.shape[1],)), parse_views("none"), torch.nn.Identity(), feature_dim=x.shape[1]
    )
    head = IncrementalNeuralHashing(x.shape[1])
    means = np.stack([x[fitted][y[fitted] == c].mean(0) for c in np.unique(y[fitted])])
    head.add_slots(torch.from_numpy(means), torch.from_numpy(np.unique(y[fitted])))
    return head, FeatureSource(featurizer, x)


def test_what_is_left_out_has_no_part_in_its_measures():
    x, y = rows_of(120, 0)
    left = np.arange(0, 120, 5)
    fitted = np.setdiff1d(np.arange(120), left)
    head, source = head_and_source(x, y, fitted)
    fold = measure_left_out(source, head, y, fitted=fitted, left=left, number=0)
    assert fold.values.shape == (24, 5)
    changed = x.copy()
    changed[left[1:]] = 7 * x[left[1:]][::-1]  # all but the first of them
    others = measure_left_out(FeatureSource(source.featurizer, changed), head, y, fitted=fitted, left=left, number=0)
    assert np.array_equal(others.values[0], fold.values[0])
    assert not np.array_equal(others.values[1:], fold.values[1:])
    known = fold_of_classes(y[fitted], 0)
    assert len(fold.kinds.familiar) == np.isin(y[left], known).sum()
    assert len(fold.kinds.new) == (~np.isin(y[fitted], known)).sum()


def test_classes_go_in_turn():
    y = np.repeat(np.arange(10), 3)
    kept = [set(fold_of_classes(y, number)) for number in range(FOLDS)]
    assert set.intersection(*kept) == set()
    assert all(sum(label in some for some in kept) == FOLDS - 1 for label in range(10))
    assert set(fold_of_classes(y, FOLDS)) == kept[0]
    assert fold_of_classes(np.zeros(4, int), 0) is None
    assert [fold_of_classes(y[:6], number) is None for number in range(FOLDS)] == [False, False, True, True]


def test_scores_are_the_literal_ones_by_the_tails_of_the_other_half():
    rng = np.random.default_rng(0)
    values, weights = rng.gamma(2, size=(40, 5)), np.array([0.3, 0.1, 0.0, 0.6, 0.2])
    half, expected = np.random.default_rng(0).permutation(40) % 2 == 0, []
    for place in range(40):
        by = weighted(values[half != half[place]], weights)
        expected.append(literal.weighted_score(values[place], by.tails, by.weights, by.total))
    found = CrossMeasures(values, Kinds.none()).scores(weights)
    assert found.tolist() == pytest.approx(sorted(expected), abs=1e-9)


def test_two_hundred_rows_offer_five_percent_and_keep_it():
    """Over many small sets; each set's alarms go together, so its share counts once."""
    shares, found, rate = [], [], 0.05
    for seed in range(10):
        x, y = rows_of(1000, seed)
        known, new = np.flatnonzero(y < 5), np.flatnonzero(y >= 5)
        model, _ = fit(x[known[:200]], y[known[:200]], config=QUICK)
        assert len(model.novelty.calibration) == 200
        shares.append(model.assess_novelty(x[known[200:]], false_alarm_rate=rate).novel.mean())
        found.append(model.assess_novelty(x[new], false_alarm_rate=rate).novel.mean())
    assert scipy.stats.ttest_1samp(shares, rate, alternative="greater").pvalue > 0.01, shares
    assert np.mean(shares) > 0.01, "and is not kept by never saying so"
    assert np.mean(found) > 0.5


def test_it_is_stored_and_a_stream_is_not_compared_with_it(tmp_path):
    x, y = blobs(150, spread=1.0)
    model, _ = fit(x, y, config=QUICK)
    twin = SlotModel.load(model.save(tmp_path / "m"))
    assert np.array_equal(twin.novelty.calibration, model.novelty.calibration)
    assert np.array_equal(twin.assess_novelty(x).p_values, model.assess_novelty(x).p_values)
    assert model.novelty.familiar is twin.novelty.familiar is None


def test_who_holds_nothing_out_is_judged_by_nothing_and_many_held_out_judge_alone():
    x, y = blobs(120)
    assert fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1, held_out=0.0))[0].novelty is None
    many, z = blobs(300)
    model, _ = fit(many, z, config=TrainConfig(epochs=1, slots_per_class=1, held_out=0.4))
    assert len(model.novelty.calibration) == 60  # half of those that were held out


def test_few_rows_of_many_features_are_measured_as_many_rows_are():
    """Repeating each row changes no covariance; then rows are more than features, and all directions are found."""
    rng = np.random.default_rng(0)
    residuals, rows = torch.from_numpy(rng.normal(size=(9, 24)) / 30), torch.from_numpy(rng.normal(size=(20, 1, 24)))
    norms, prototypes = torch.ones(9), torch.from_numpy(rng.normal(size=(3, 24))).float()
    few, many = (NoveltyMetric.of(residuals.repeat(k, 1), norms, shrinkage=0.05) for k in (1, 4))
    assert (few.basis.shape, many.basis.shape) == ((24, 9), (24, 24))
    assert torch.allclose(distances(rows, prototypes, few).values, distances(rows, prototypes, many).values, rtol=1e-5)
    labels = torch.arange(9) % 3
    made = fit_gaussians(rows[:9, 0], labels)
    assert made.plane.shape[1] < 9
    for row, values in zip(rows[9:, 0].numpy(), made.evidence(rows[9:, 0]).tolist(), strict=True):
        expected = literal.class_evidence(row, rows[:9, 0].numpy(), labels.numpy())
        assert values == pytest.approx(expected, rel=1e-5, abs=1e-5)
