"""The estimators: scikit-learn's own checks, all of them, and what slots promise beyond them."""

import os
import pickle
import subprocess
import sys
from unittest import SkipTest

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score, homogeneity_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from slots.errors import DataError, UsageError
from slots.estimators.classifier import SlotClassifier
from slots.estimators.clusterer import SlotClusterer
from slots.estimators.outlier_detector import SlotOutlierDetector
from slots.estimators.projection import SphereProjection
from slots.head.prediction import Answer

NEEDS_A_VARIABLE = "check_array_api_input"
ESTIMATORS = [SlotClassifier(), SlotClusterer(), SlotOutlierDetector()]


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)


@parametrize_with_checks(ESTIMATORS)
def test_passes_the_checks_of_scikit_learn(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        if check.func.__name__ != NEEDS_A_VARIABLE:
            pytest.fail(f"skipped: {skipped}")
        raise


@pytest.mark.slow
@pytest.mark.skipif(
    Version(sklearn.__version__) < Version("1.9"), reason="this scikit-learn asks it of none but its own estimators"
)
def test_the_check_that_needs_an_environment_variable_passes_too():
    """Scipy reads it at import, so the check skips itself in this process and runs in another."""
    script = (
        "from sklearn.utils.estimator_checks import estimator_checks_generator\n"
        "from slots import estimators\n"
        "for name in estimators.__all__:\n"
        "    for estimator, check in estimator_checks_generator(getattr(estimators, name)()):\n"
        f"        if check.func.__name__ == {NEEDS_A_VARIABLE!r}:\n"
        "            check(estimator)\n"
        "            print(name, 'passed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[:-1] == [f"{type(e).__name__} passed" for e in ESTIMATORS], done.stderr


# --- the classifier


LABELS = [
    np.array(["red", "green", "blue"]),
    np.array(["red", "green", "blue"], dtype=object),
    np.array([-7, 10**12, 3]),
    np.array([0.0, 2.0, -1.0]),
]


@pytest.mark.parametrize("names", LABELS, ids=["str", "object", "int", "float"])
def test_labels_of_any_kind_come_back_as_they_were_given(names):
    x, y = load_iris(return_X_y=True)
    classifier = SlotClassifier(random_state=0).fit(x, names[y])
    assert classifier.classes_.tolist() == np.unique(names).tolist()
    assert classifier.predict(x).dtype == names.dtype
    assert classifier.score(x, names[y]) > 0.9


def test_booleans_are_classes():
    x, y = load_iris(return_X_y=True)
    classifier = SlotClassifier(random_state=0).fit(x, y == 0)
    assert classifier.predict(x).dtype == bool
    assert classifier.score(x, y == 0) == 1.0


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([[3.0]], ["one"]),
        ([[3.0], [4.0]], [0, 1]),
        ([[0.0, 0.0], [0.0, 0.0]], [1, 1]),
        ([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]], [2, 2, 9]),
        ([[1.0] * 30, [2.0] * 30, [3.0] * 30, [-10.0] * 30], list("abcd")),
    ],
)
@pytest.mark.parametrize("geometry", ["lifted", "direction"])
def test_tiny_data(x, y, geometry):
    classifier = SlotClassifier(random_state=0, geometry=geometry).fit(x, y)
    assert np.isfinite(classifier.decision_function(x)).all()
    assert np.allclose(classifier.predict_proba(x).sum(1), 1)
    if geometry == "lifted" or len(x[0]) == 2:
        assert classifier.predict(x).tolist() == y


def test_one_example_a_class_is_welcome_without_a_warning():
    x = np.random.default_rng(0).normal(size=(40, 16))
    assert SlotClassifier(random_state=0).fit(x, np.arange(40)).predict(x).tolist() == list(range(40))


def test_equal_rows_with_two_labels_do_not_break_it():
    x = np.ones((6, 2))
    classifier = SlotClassifier(random_state=0).fit(x, [0, 0, 0, 0, 1, 1])
    assert set(classifier.predict(x)) <= {0, 1}


def test_scores_probabilities_and_predictions_agree_with_the_slots(digits):
    x, x_test, y, _ = digits
    some = y < 7
    classifier = SlotClassifier(random_state=0, epochs=5).fit(x[some], y[some])
    classifier.partial_fit(x[~some], y[~some])
    rng = np.random.default_rng(0)
    probes = np.concatenate([x_test, rng.uniform(-30, 40, (500, 64)), np.zeros((1, 64))])
    predicted = classifier.predict(probes)
    assert (predicted == classifier.classes_[classifier.decision_function(probes).argmax(1)]).all()
    probabilities = classifier.predict_proba(probes)
    assert (predicted == classifier.classes_[probabilities.argmax(1)]).all()
    assert np.allclose(probabilities.sum(1), 1)
    answers = classifier.model_.predict(classifier.lift_(probes))
    by_order_of_appearance = np.arange(10)  # labels 0-6 came first, sorted, then 7-9
    assert (predicted == by_order_of_appearance[answers.labels]).all()
    assert set(answers.answers) >= {Answer.MATCHED, Answer.UNMATCHED}


def test_two_classes_have_one_column_whose_sign_is_the_answer():
    x, y = load_iris(return_X_y=True)
    x, y = x[y > 0], np.array(["no", "yes"])[y[y > 0] - 1]
    classifier = SlotClassifier(random_state=0).fit(x, y)
    lead = classifier.decision_function(x)
    assert lead.shape == (len(x),)
    assert ((lead > 0) == (classifier.predict(x) == "yes")).all()


def test_repeats_with_a_seed_and_leaves_torch_its_random_numbers():
    x, y = make_blobs(200, centers=4, random_state=0)
    torch.manual_seed(5)
    first = SlotClassifier(random_state=3).fit(x, y)
    drawn = torch.rand(1)
    second = clone(first).fit(x, y)
    assert (first.decision_function(x) == second.decision_function(x)).all()
    assert not np.array_equal(first.decision_function(x), SlotClassifier(random_state=4).fit(x, y).decision_function(x))
    torch.manual_seed(5)
    assert drawn == torch.rand(1)


def test_new_classes_at_any_time_change_no_answer_of_a_slot(digits):
    x, x_test, y, y_test = digits
    classifier = SlotClassifier(random_state=0)
    rng = np.random.default_rng(1)
    probes = np.concatenate([x_test, x_test + rng.normal(0, 2, x_test.shape), rng.uniform(0, 16, (500, 64))])
    n_matched = 0
    for label in [3, 1, 7, 0, 2, 9, 8, 4, 5, 6]:
        before = classifier.answer(probes) if hasattr(classifier, "model_") else None
        names = classifier.predict(probes) if before is not None else None
        classifier.partial_fit(x[y == label], y[y == label])
        if before is not None:
            matched = before.matched
            n_matched += int(matched.sum())
            assert (classifier.predict(probes)[matched] == names[matched]).all()
            assert (classifier.answer(probes).slots[matched] == before.slots[matched]).all()
        assert classifier.classes_.tolist() == sorted(classifier.classes_)
    assert n_matched > 500
    assert classifier.classes_.tolist() == list(range(10))
    assert classifier.score(x_test, y_test) > 0.95


@pytest.mark.parametrize("memory", [0, 1000])
def test_two_new_classes_take_nothing_from_eight(digits, memory):
    x, x_test, y, y_test = digits
    old, old_test = y < 8, y_test < 8
    classifier = SlotClassifier(random_state=0, memory=memory).fit(x[old], y[old])
    before = classifier.score(x_test[old_test], y_test[old_test])
    classifier.partial_fit(x[~old], y[~old])
    assert classifier.score(x_test[old_test], y_test[old_test]) > before - 0.01


def test_remembered_rows_keep_what_no_slot_matches(digits):
    """Few unwhitened slots, as every fit had before it looked at the data, need them."""
    x, x_test, y, y_test = digits
    old = y < 8
    few = {"slots_per_class": 6, "epochs": 40, "batch_size": 32, "geometry": "lifted", "whitening": None, "scale": 20}

    def accuracy(memory):
        classifier = SlotClassifier(random_state=0, memory=memory, **few).fit(x[old], y[old])
        return classifier.partial_fit(x[~old], y[~old]).score(x_test[y_test < 8], y_test[y_test < 8])

    assert accuracy(1000) > accuracy(0) + 0.05


@pytest.mark.parametrize("memory", [0, 1000])
def test_whitened_rows_leave_room_for_two_new_classes(digits, memory):
    x, x_test, y, y_test = digits
    old, new_test = y < 8, y_test >= 8
    classifier = SlotClassifier(random_state=0, memory=memory, whitening=0.3).fit(x[old], y[old])
    classifier.partial_fit(x[~old], y[~old])
    assert classifier.score(x_test[new_test], y_test[new_test]) > 0.9


def test_a_stream_that_begins_with_two_easy_classes_has_room_for_the_others(digits):
    x, x_test, y, y_test = digits
    classifier = SlotClassifier(random_state=0)
    for pair in range(5):
        classifier.partial_fit(x[y // 2 == pair], y[y // 2 == pair])
    assert classifier.score(x_test, y_test) > 0.95


def test_a_fit_on_two_easy_classes_has_room_for_a_third():
    x, y = load_iris(return_X_y=True)
    for seed in range(3):
        classifier = SlotClassifier(random_state=seed).fit(x[y < 2], y[y < 2])
        assert classifier.partial_fit(x[y == 2], y[y == 2]).score(x, y) > 0.9


def test_memory_keeps_an_even_share_of_each_class():
    x, y = make_blobs([300, 30, 5], random_state=0)
    classifier = SlotClassifier(random_state=0, epochs=1, memory=60).fit(x, y)
    rows, ids = classifier._memory
    assert np.bincount(ids).tolist() == [28, 27, 5]
    assert (rows == classifier.lift_(x[[np.flatnonzero((classifier.lift_(x) == row).all(1))[0] for row in rows]])).all()


def test_classes_can_be_named_ahead():
    x, y = load_iris(return_X_y=True)
    classifier = SlotClassifier(random_state=0).partial_fit(x[y == 1], y[y == 1], classes=[2, 1, 0])
    assert classifier.classes_.tolist() == [0, 1, 2]
    assert (classifier.predict(x) == 1).all()
    assert (classifier.predict_proba(x) == [0, 1, 0]).all()
    classifier.partial_fit(x[y != 1], y[y != 1])
    assert classifier.score(x, y) > 0.85


def test_a_label_that_contradicts_a_slot_is_told_and_the_slot_stands():
    x, y = make_blobs(60, centers=[[-5, 0], [5, 0]], random_state=0)
    classifier = SlotClassifier(random_state=0).fit(x, y)
    row = int(np.flatnonzero(classifier.answer(x).matched)[0])
    classifier.partial_fit(x[[row]], 1 - y[[row]])
    assert classifier.contradictions_.tolist() == [0]
    assert classifier.predict(x[[row]]) == y[[row]]


def test_score_samples_is_higher_for_what_is_normal(digits):
    x, x_test, y, _ = digits
    classifier = SlotClassifier(random_state=0, epochs=2).fit(x, y)
    noise = np.random.default_rng(0).uniform(0, 16, (200, 64))
    assert np.quantile(classifier.score_samples(x_test), 0.05) > classifier.score_samples(noise).max()
    assert classifier.score_samples(x_test).max() <= 0


def test_pipeline_search_data_frames_and_pickles():
    import pandas as pd

    x, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), SlotClassifier(random_state=0, epochs=3)).set_output(transform="pandas")
    search = GridSearchCV(pipeline, {"slotclassifier__slots_per_class": [1, 3]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.9
    best = search.best_estimator_[-1]
    assert best.feature_names_in_.tolist() == x.columns.tolist()
    assert best.n_features_in_ == 4
    again = pickle.loads(pickle.dumps(search))
    assert (again.decision_function(x) == search.decision_function(x)).all()
    with pytest.raises(ValueError, match="feature names"):
        search.predict(pd.DataFrame(x.to_numpy(), columns=list("abcd")))


def test_full_closing_matches_every_training_row():
    x, y = load_iris(return_X_y=True)
    same = {tuple(row) for row in x[y == 1]} & {tuple(row) for row in x[y == 2]}
    assert not same
    classifier = SlotClassifier(random_state=0, closing="full", reach=1.0).fit(x, y)
    assert classifier.answer(x).matched.all()
    assert classifier.score(x, y) == 1.0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (csr_array(np.eye(3)), [0, 1, 2], "Sparse data was passed"),
        (np.eye(3), [0.1, 0.2, 0.3], "Unknown label type"),
        (np.full((3, 3), np.nan), [0, 1, 2], "contains NaN"),
    ],
)
def test_bad_data_gets_the_sentences_of_scikit_learn(x, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SlotClassifier().fit(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "robust"}, "`scaling` must be one of auto, standard, common, none, got 'robust'"),
        ({"geometry": "flat"}, "`geometry` must be one of auto, lifted, direction, got 'flat'"),
        ({"height": 0.0}, "`height` must be > 0, got 0.0"),
        ({"whitening": "much"}, "`whitening` must be 'auto', None or a number, got 'much'"),
        ({"whitening": 2.0}, r"`whitening` must lie in \(0, 1\], got 2.0"),
        ({"scale": 0.0}, "`scale` and `slot_lr` must be > 0"),
        ({"vouch": 1.5}, r"`vouch` must lie in \(0, 1\), got 1.5"),
        ({"memory": -1}, "`memory` must be >= 0, got -1"),
        ({"epochs": -1}, "`epochs` must be >= 0, got -1"),
        ({"slots_per_class": -1}, "`slots_per_class` must be >= 0, got -1"),
        ({"batch_size": 0}, "`batch_size` must be >= 1, got 0"),
    ],
)
def test_bad_options_are_named_at_fit(options, message):
    with pytest.raises(UsageError, match=message):
        SlotClassifier(**options).fit(np.eye(3), [0, 1, 2])


def test_names_after_numbers_are_refused_and_nothing_changes():
    classifier = SlotClassifier(random_state=0).fit(np.eye(3), [0, 1, 2])
    with pytest.raises(DataError, match="`y` must hold labels of the same kind as before, got <U1 after int64"):
        classifier.partial_fit(np.eye(3), ["a", "b", "c"])
    assert classifier.classes_.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="`y` must hold labels of the same kind"):
        SlotClassifier().partial_fit(np.eye(2), [0, 1], classes=["a", "b"])


def test_accuracy_is_that_of_good_neighbours():
    x, y = load_digits(return_X_y=True)
    assert cross_val_score(SlotClassifier(random_state=0, epochs=10), x, y, cv=3).mean() > 0.93


def noisy_norms(n=400, d=12):
    """Classes are directions; the norm of a row, over three decades, says nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 4
    x = rng.normal(size=(4, d))[y] + 0.6 * rng.normal(size=(n, d))
    return x * 10 ** rng.uniform(0, 3, (n, 1)), y


def test_geometry_is_the_one_that_answers_held_out_rows():
    x, y = noisy_norms()
    assert SlotClassifier(random_state=0).fit(x, y).lift_.height is None
    x, y = make_blobs(300, n_features=2, centers=[[1, 1], [3, 3], [9, 9]], cluster_std=0.3, random_state=0)
    classifier = SlotClassifier(random_state=0).fit(x, y)  # one direction, three norms
    assert classifier.lift_.height is not None
    assert classifier.score(x, y) > 0.98


def test_many_rows_get_a_short_look_at_each_geometry_and_the_better_one_a_full_look():
    x, y = noisy_norms(n=5000)
    classifier = SlotClassifier(random_state=0).fit(x[:4500], y[:4500])
    assert classifier.lift_.height is None
    lifted = SlotClassifier(geometry="lifted", random_state=0).fit(x[:4500], y[:4500])
    assert classifier.score(x[4500:], y[4500:]) > lifted.score(x[4500:], y[4500:])


def test_what_is_given_is_not_chosen(digits):
    x, _, y, _ = digits
    options = {"slots_per_class": 3, "scale": 33.0, "geometry": "direction", "epochs": 2}
    bare = SlotClassifier(whitening=None, **options, random_state=0).fit(x, y)
    assert (bare.model_.head.scale, bare.lift_.height, bare.model_.featurizer.whitening) == (33.0, None, None)
    whitened = SlotClassifier(whitening=0.5, **options, random_state=0).fit(x, y)
    assert whitened.model_.featurizer.whitening is not None


def test_matched_answers_are_right_as_often_as_asked(digits):
    x, x_test, y, y_test = digits
    thin = np.concatenate([np.flatnonzero(y == label)[:15] for label in range(10)])
    matched, right = {}, {}
    for vouch in (None, 0.98):
        classifier = SlotClassifier(vouch=vouch, random_state=0).fit(x[thin], y[thin])
        inside = classifier.answer(x_test).matched
        matched[vouch], right[vouch] = inside.sum(), (classifier.predict(x_test) == y_test)[inside].mean()
    assert 0 < matched[0.98] < matched[None]
    assert right[0.98] >= 0.98


# --- the clusterer


def test_clusters_are_found_and_numbered_by_size():
    x, y = make_blobs([90, 60, 30], centers=[[0, 0], [20, 0], [0, 20]], random_state=0)
    clusterer = SlotClusterer(random_state=0).fit(x)
    assert clusterer.n_clusters_ == 3
    assert (clusterer.labels_ == y).all()
    assert (clusterer.predict(x) == y).all()
    assert (clusterer.transform(x).argmin(1) == y).all()
    assert clusterer.predict([[100.0, 100.0]]).tolist() == [-1]


def test_clusters_keep_their_numbers_while_new_ones_come():
    x, y = make_blobs(1200, centers=[[0, 0], [20, 0], [0, 20], [20, 20], [40, 0], [40, 20]], random_state=0)
    rng = np.random.default_rng(0)
    probes = np.concatenate([x, rng.uniform(-20, 60, (2000, 2))])
    clusterer, before = SlotClusterer(random_state=0), None
    for wave in ([0, 1], [2], [0, 1, 2], [3, 4], [5]):
        rows = np.isin(y, wave)
        clusterer.partial_fit(x[rows])
        after = clusterer.predict(probes)
        assert len(clusterer.labels_) == rows.sum()
        if before is not None:
            assert (after[before >= 0] == before[before >= 0]).all()
        before = after
    assert clusterer.n_clusters_ == 6
    found = after[: len(y)]
    assert (found >= 0).mean() > 0.9
    assert all(len(set(y[found == label])) == 1 for label in range(6))
    assert clusterer.model_.clusters >= {2, 3, 4, 5}


def test_the_fringe_of_a_cluster_and_a_lonely_row_make_no_cluster():
    x, _ = make_blobs(400, centers=[[0, 0], [20, 0]], random_state=0)
    fringe = make_blobs(100, centers=[[0, 0], [20, 0]], cluster_std=1.3, random_state=1)[0]
    clusterer = SlotClusterer(random_state=0).fit(x)
    clusterer.partial_fit(np.concatenate([fringe, [[90.0, 90.0]], [[-90.0, 0.0]] * 4]))
    assert clusterer.n_clusters_ == 2
    assert clusterer.labels_[-5:].tolist() == [-1] * 5
    clusterer.partial_fit([[-90.0, 0.0]] * 5)
    assert clusterer.n_clusters_ == 3
    assert clusterer.predict([[-90.0, 0.0]]).tolist() == [2]


def test_any_number_of_clusters_is_found_and_the_new_ones_too():
    x, y = make_blobs(600, centers=40, n_features=8, center_box=(-20, 20), random_state=0)
    first = y < 30
    clusterer = SlotClusterer(random_state=0).fit(x[first])
    assert clusterer.n_clusters_ == clusterer.graph_.n_communities == 30
    assert adjusted_rand_score(y[first], clusterer.labels_) > 0.95
    before = clusterer.predict(x)
    clusterer.partial_fit(x[~first])
    after = clusterer.predict(x)
    assert (after[before >= 0] == before[before >= 0]).all()
    assert clusterer.n_clusters_ == 40
    new, found = y[~first], clusterer.labels_ >= 0
    assert (clusterer.labels_[found] >= 30).all()
    assert adjusted_rand_score(new[found], clusterer.labels_[found]) > 0.95
    assert found.mean() > 0.6  # a cluster of 15 rows has a fringe that no slot reaches


@pytest.mark.parametrize("most", [2, 7])
def test_no_more_clusters_are_found_than_may_be(most):
    x, y = make_blobs(300, centers=15, n_features=8, center_box=(-20, 20), random_state=0)
    clusterer = SlotClusterer(max_clusters=most, random_state=0).fit(x)
    assert 2 <= clusterer.n_clusters_ <= most
    # none of the 15 is torn apart
    assert homogeneity_score(clusterer.labels_[clusterer.labels_ >= 0], y[clusterer.labels_ >= 0]) > 0.9


@pytest.mark.parametrize("merge", ["auto", "graph", "none"])
@pytest.mark.parametrize("sizes", [(100, 6, 6, 6), (30, 6, 5, 8)])
def test_small_new_clusters_stay_apart(merge, sizes):
    x, _ = make_blobs(200, centers=3, n_features=4, center_box=(-10, 10), random_state=0)
    clusterer, rng = SlotClusterer(merge=merge, random_state=0).fit(x), np.random.default_rng(0)
    y = np.repeat(range(4), sizes)
    new = 40 * np.array([1, -1, 1, -1])[y, None] * np.eye(4)[y] + rng.normal(size=(len(y), 4))
    labels = clusterer.partial_fit(new).labels_
    found = [set(labels[(y == it) & (labels >= 0)]) for it in range(4)]
    assert all(found)
    assert not any(found[i] & found[j] for i in range(4) for j in range(i))


def test_twins_are_no_clusters_of_their_own():
    x, y = make_blobs(240, centers=6, n_features=10, center_box=(-5, 5), random_state=0)
    once = SlotClusterer(random_state=0).fit(x)
    twice = SlotClusterer(random_state=0).fit(np.repeat(x, 2, 0))
    assert once.n_clusters_ == twice.n_clusters_ == 6
    assert adjusted_rand_score(np.repeat(y, 2), twice.labels_) > 0.9


def test_clusters_have_the_numbers_by_which_the_graph_explains_them():
    """The cluster of fewest different rows has most rows, and so is number 0."""
    x, y = make_blobs([90, 70, 50], n_features=4, centers=20 * np.eye(4)[:3], random_state=0)
    often = np.repeat(np.arange(len(x)), np.array([1, 2, 4])[y])
    clusterer = SlotClusterer(random_state=0).fit(x[often])
    assert (clusterer.labels_ == 2 - y[often]).all()
    placed = clusterer.graph_.place(clusterer.lift_(x)).communities
    assert (placed.numpy() == 2 - y).all()
    assert [clusterer.graph_.explain(it).size for it in range(3)] == [50, 70, 90]


@pytest.mark.parametrize("options", [{"n_clusters": 2}, {"max_clusters": 2}])
def test_the_scaling_is_that_of_the_number_of_clusters_that_is_wanted(options):
    """Two clear groups in one wide feature, and twelve small ones in the others."""
    rng = np.random.default_rng(0)
    wide, small = rng.integers(0, 2, 400), rng.integers(0, 12, 400)
    others = 4 * rng.normal(size=(12, 6))[small] + 0.3 * rng.normal(size=(400, 6))
    x = np.c_[16 * wide + 2 * rng.normal(size=400), others / 4]
    assert adjusted_rand_score(wide, SlotClusterer(**options, random_state=0).fit_predict(x)) > 0.9


def test_few_rows_are_clustered_by_k_means():
    x, _ = make_blobs(150, centers=3, random_state=0)
    clusterer = SlotClusterer(random_state=0).fit(x)
    assert clusterer.graph_.n_communities == 3
    assert not hasattr(clusterer.fit(x[:99]), "graph_")
    assert SlotClusterer(3, random_state=0).fit(x).graph_.n_communities == 3
    for options in ({"n_clusters": 16}, {"n_clusters": 1}, {"n_clusters": 3, "merge": "none"}):
        told = SlotClusterer(**options, random_state=0).fit(x)
        assert not hasattr(told, "graph_")
        assert told.n_clusters_ == options["n_clusters"]


@given(seed=st.integers(0, 1000), k=st.integers(2, 12), shape=st.sampled_from(["blobs", "cloud", "twins", "line"]))
@settings(max_examples=10, deadline=None)
def test_as_many_clusters_are_found_as_are_told(seed, k, shape):
    rng = np.random.default_rng(seed)
    rows = {
        "blobs": make_blobs(120, centers=3, n_features=3, random_state=seed)[0],
        "cloud": rng.normal(size=(120, 5)),
        "twins": rng.integers(0, 4, (120, 2)).astype(float),
        "line": np.arange(120.0)[:, None] * [1.0, 2.0],
    }[shape]
    assert SlotClusterer(k, random_state=0).fit(rows).n_clusters_ == k


def test_clusters_of_any_shape_are_found_where_their_number_is_told():
    x, y = make_moons(400, noise=0.08, random_state=0)
    assert adjusted_rand_score(y, SlotClusterer(2, random_state=0).fit_predict(x)) > 0.95


@pytest.mark.parametrize("x", [[[1.0]], [[1.0], [1.0]], [[0.0, 0.0]] * 5, [[1.0, 2.0], [3.0, 4.0]], np.eye(3)])
@pytest.mark.parametrize("n_clusters", ["auto", 1, 2])
def test_clusters_of_tiny_data(x, n_clusters):
    labels = SlotClusterer(n_clusters, random_state=0).fit_predict(x)
    assert labels.min() == 0
    assert sorted(set(labels)) == list(range(labels.max() + 1))


def test_angles_to_clusters_go_on_in_a_pipeline_with_names():
    x, _ = make_blobs(60, centers=3, random_state=0)
    names = SlotClusterer(3, random_state=0).set_output(transform="pandas").fit_transform(x)
    assert names.columns.tolist() == ["slotclusterer0", "slotclusterer1", "slotclusterer2"]
    assert names.to_numpy().min() >= 0
    assert pickle.loads(pickle.dumps(SlotClusterer(3, random_state=0).fit(x))).predict(x).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 0}, "`n_clusters` must be 'auto' or >= 1, got 0"),
        ({"n_clusters": "many"}, "`n_clusters` must be 'auto' or >= 1, got 'many'"),
        ({"n_clusters": None}, "`n_clusters` must be 'auto' or >= 1, got None"),
        ({"n_clusters": 2.5}, "`n_clusters` must be 'auto' or >= 1, got 2.5"),
        ({"max_clusters": 2.5}, "`max_clusters` must be >= 2, got 2.5. Pass a larger whole number"),
        ({"max_clusters": 1}, "`max_clusters` must be >= 2, got 1"),
        ({"min_cluster_size": 0}, "`min_cluster_size` must be >= 1, got 0"),
    ],
)
def test_bad_numbers_of_clusters_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        SlotClusterer(**options).fit(np.eye(3))


# --- the outlier detector


def test_false_alarms_stay_at_the_promised_rate_for_any_distribution():
    alarms = []
    for seed in range(200):
        draw = np.random.default_rng(seed).standard_t(3, size=(300, 3))
        detector = SlotOutlierDetector(false_alarm_rate=0.1, random_state=seed).fit(draw[:150])
        alarms.append((detector.predict(draw[150:]) == -1).mean())
    # 3 of 31 ranks are flagged: 0.0968; the mean of 200 calibrations strays by 0.004.
    assert 0.0968 - 4 * 0.004 < np.mean(alarms) < 0.0968 + 3 * 0.004


def test_decisions_are_those_of_the_p_values():
    rng = np.random.default_rng(0)
    x, probes = rng.normal(size=(300, 4)), rng.normal(size=(500, 4)) * 1.5
    detector = SlotOutlierDetector(false_alarm_rate=0.2, random_state=0).fit(x)
    flagged = detector.predict(probes) == -1
    assert 0 < flagged.sum() < 500
    assert (flagged == (detector.p_values(probes) <= 0.2)).all()
    assert (flagged == (detector.decision_function(probes) < 0)).all()
    assert (flagged == detector.detector_.is_novel(detector.lift_(probes))).all()


def test_what_is_far_is_flagged_and_scores_lower():
    x, y = load_digits(return_X_y=True)
    detector = SlotOutlierDetector(random_state=0).fit(x[y < 8])
    assert (detector.predict(x[y >= 8]) == -1).mean() > 0.5
    assert detector.score_samples(x[y < 8]).mean() > detector.score_samples(x[y >= 8]).mean()


def test_too_few_rows_for_the_promise_flag_nothing():
    detector = SlotOutlierDetector(random_state=0).fit(np.random.default_rng(0).normal(size=(40, 2)))
    assert detector.predict([[1e6, 1e6]]).tolist() == [1]
    assert detector.decision_function([[1e6, 1e6]]) == np.inf
    few = SlotOutlierDetector(random_state=0).fit(np.random.default_rng(0).normal(size=(10, 2)))
    assert few.p_values([[1e6, 1e6]]).tolist() == [1.0]


def test_contamination_is_the_share_of_training_rows_flagged():
    x = np.random.default_rng(0).normal(size=(200, 3))
    assert (SlotOutlierDetector(0.15, random_state=0).fit_predict(x) == -1).sum() == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contamination": 0.6}, r"`contamination` must be 'auto' or lie in \(0, 0.5\], got 0.6"),
        ({"contamination": "much"}, r"`contamination` must be 'auto' or lie in \(0, 0.5\], got 'much'"),
        ({"false_alarm_rate": 0.0}, r"`false_alarm_rate` must lie in \(0, 1\), got 0.0"),
        ({"n_prototypes": 0}, "`n_prototypes` must be >= 1, got 0"),
    ],
)
def test_bad_rates_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        SlotOutlierDetector(**options).fit(np.random.default_rng(0).normal(size=(20, 2)))


# --- the lift


def test_lifted_angles_are_distances_where_the_lift_is_flat():
    x = np.random.default_rng(0).normal(size=(40, 3))
    lift = SphereProjection.of(x, height=200.0)
    u = lift(x).astype(float)
    angles = 2 * np.arcsin(np.linalg.norm(u[:, None] - u[None], axis=2) / 2)
    z = (x - x.mean(0)) / lift.scale
    distances = np.linalg.norm(z[:, None] - z[None], axis=2)
    off = ~np.eye(40, dtype=bool)
    assert np.allclose((angles * lift.height)[off], distances[off], rtol=1e-3)


def test_lift_by_hand():
    x = np.array([[1.0, 10.0], [3.0, 10.0]])  # the second feature is constant
    assert SphereProjection.of(x, scaling="standard").height == 1.0
    assert np.allclose(SphereProjection.of(x, scaling="standard")(x), np.array([[-1, 0, 1], [1, 0, 1]]) / np.sqrt(2))
    assert np.allclose(
        SphereProjection.of(x, scaling="none", geometry="direction")([[3.0, 4.0], [0.0, 0.0]]),
        [[0.6, 0.8, 0], [0, 0, 1]],
    )


@pytest.mark.parametrize(("largest", "expected"), [(9.0, "common"), (11.0, "standard")])
def test_auto_scaling_asks_whether_features_share_a_unit(largest, expected):
    x = np.random.default_rng(0).normal(size=(500, 5))
    x = (x - x.mean(0)) / x.std(0) * [1, 1, 1, 1, largest]
    assert SphereProjection.of(x).scale.tolist() == SphereProjection.of(x, scaling=expected).scale.tolist()


def test_every_row_has_a_direction_and_depends_on_itself_alone():
    x = np.random.default_rng(0).normal(size=(100, 7)) * 1e3
    x[0], x[1], x[2] = 0, 1e300, -1e-300
    for geometry in ("lifted", "direction"):
        lift = SphereProjection.of(x[3:], geometry=geometry)
        whole = lift(x)
        assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
        assert all((lift(x[[i]]) == whole[i]).all() for i in range(100))
