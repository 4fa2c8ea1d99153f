"""False alarms where the familiar classes have few and many examples: every class alike keeps the promise too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.novelty.conformal import p_values
from slots.novelty.detector import NoveltyDetector
from slots.novelty.left_out.sizes import THINNED, alike, known_of, thinned, uneven

RATE = 0.05


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=80), st.integers(0, 100))
def test_a_class_is_thinned_to_few_and_all_others_stay(labels, seed):
    y = np.array(labels)
    sizes = np.bincount(y)
    pairs = list(thinned(y, np.random.default_rng(seed)))
    smallest = sizes[sizes > 0].min()
    assert len(pairs) == sum(smallest <= few < sizes.max() for few in THINNED)
    for few, (learned, kept) in zip([it for it in THINNED if it >= smallest], pairs, strict=False):
        assert sorted([*learned, *kept]) == list(range(len(y)))
        left = np.bincount(y[learned], minlength=len(sizes))
        touched = np.unique(y[kept])
        assert (left[touched] == few).all()
        assert 1 <= len(touched) <= max(1, round(len(np.unique(y)) / 4))
        assert known_of(y, learned, kept).tolist() == [few] * len(kept)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_scores_of_classes_alike_are_the_literal_ones(seed, classes):
    rng = np.random.default_rng(seed)
    scores, known, sizes = rng.normal(size=50), rng.integers(0, 30, 50), rng.integers(1, 60, classes)
    usable = [i for i in range(50) if known[i] > 0]
    weights = dict.fromkeys(usable, 0.0)
    for size in sizes:
        gap = {i: abs(np.log(known[i] / size)) for i in usable}
        limit = sorted(gap.values())[19]
        voters = [i for i in usable if gap[i] <= limit]
        for i in voters:
            weights[i] += 1 / len(voters)
    n = int(sum(weights.values()) ** 2 / sum(w * w for w in weights.values()) + 1e-9)
    found = alike(scores, known, sizes)
    assert len(found) == n
    ranked, expected = sorted(usable, key=lambda i: scores[i]), []
    for k in range(len(found)):
        total, wanted = 0.0, (k + 0.5) / len(found) * classes
        for i in ranked:
            total += weights[i]
            if total >= wanted - 1e-9 * classes:
                expected.append(scores[i])
                break
    assert found.tolist() == expected


def test_nothing_is_said_of_classes_of_which_nothing_was_known():
    assert len(alike(np.ones(3), np.zeros(3, int), np.array([1, 2]))) == 0
    assert [uneven(np.array(sizes)) for sizes in ([5, 5, 5], [4, 6, 8], [1, 10, 10])] == [False, False, True]


def rows_of(sizes, seed, dim=16):
    """Rows of classes of these sizes, whose means differ as much as rows of one class do."""
    means = np.random.default_rng(5).normal(size=(12, dim)) * 1.5
    y = np.repeat(np.arange(len(sizes)), sizes)
    return (means[y] + np.random.default_rng(seed).normal(size=(len(y), dim))).astype(np.float32), y


def test_few_alarms_where_rare_classes_come_as_often_as_others():
    """Classes of 1 to 100 examples, asked with 40 of each: the calibration by examples alone gives too many alarms."""
    sizes = np.geomspace(100, 1, 10).round().astype(int)
    shares, alone, found = [], [], []
    for seed in range(8):
        x, y = rows_of(sizes, seed)
        detector = NoveltyDetector(false_alarm_rate=RATE, seed=seed).fit(x, y)
        familiar, foreign = rows_of([40] * 10, 100 + seed)[0], rows_of([0] * 10 + [100, 100], 200 + seed)[0]
        told = detector.assess(familiar)
        expected = np.maximum(p_values(told.scores, detector.calibration), p_values(told.scores, detector.alike))
        assert np.array_equal(told.p_values, expected)
        shares.append(told.novel.mean())
        alone.append((p_values(told.scores, detector.calibration) <= RATE).mean())
        found.append(detector.is_novel(foreign).mean())
    assert np.mean(alone) > 1.5 * RATE, "so the case is one"
    assert np.mean(shares) <= RATE, shares
    assert np.mean(found) > 2 * np.mean(shares), "and what is foreign is still told from it"


@pytest.mark.parametrize("labelled", [True, False])
def test_even_classes_and_own_calibrations_are_left_to_the_examples(labelled):
    x, y = rows_of([30] * 6, 0)
    detector = NoveltyDetector().fit(x, y if labelled else None)
    assert len(detector.alike) == 0
    told = detector.assess(x)
    assert np.array_equal(told.p_values, p_values(told.scores, detector.calibration))
    x, y = rows_of([100, 50, 2], 0)
    detector.fit(x, y)
    assert len(detector.alike) > 0
    other = rows_of([50, 20, 20], 1)[0]
    assert len(detector.calibrate(other).alike) == 0
    assert len(detector.fit(x).alike) == 0
