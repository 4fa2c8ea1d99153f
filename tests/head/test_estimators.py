"""The estimators: scikit-learn's own checks, all of them, and what slots promise beyond them."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from slots.errors import DataError, UsageError
from slots.estimators import SlotClassifier, SlotClusterer
from slots.predictions import Answer

ESTIMATORS = [SlotClassifier(), SlotClusterer()]


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)


@parametrize_with_checks(ESTIMATORS)
def test_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_the_check_that_needs_an_environment_variable_passes_too():
    """Scipy reads it at import, so `check_array_api_input` skips itself in this process and runs in another."""
    script = (
        "from functools import partial\n"
        "from sklearn.utils import estimator_checks as checks\n"
        "from slots import estimators\n"
        "for name in estimators.__all__:\n"
        "    found = checks.check_estimator(getattr(estimators, name)(), on_skip=None)\n"
        "    assert len(found) > 45 and {check['status'] for check in found} == {'passed'}, found\n"
        "print('all passed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "all passed", done.stderr


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


def test_remembered_rows_keep_what_no_slot_matches(digits):
    x, x_test, y, y_test = digits
    old = y < 8

    def accuracy(memory):
        classifier = SlotClassifier(random_state=0, memory=memory).fit(x[old], y[old])
        return classifier.partial_fit(x[~old], y[~old]).score(x_test[y_test < 8], y_test[y_test < 8])

    assert accuracy(1000) > accuracy(0) + 0.05


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
        ({"geometry": "flat"}, "`geometry` must be one of lifted, direction, got 'flat'"),
        ({"height": 0.0}, "`height` must be > 0, got 0.0"),
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
