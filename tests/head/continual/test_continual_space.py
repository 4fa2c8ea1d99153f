"""Rows of few features, and columns with units of their own, in a stream."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from slots import ContinualSlots
from slots.continual.space import FEW, FIRST, Space


def literal(rows: np.ndarray, first: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The map, one row and one column at a time."""
    n_features = first.shape[1]
    scale = 2.0 ** np.frexp(np.max(np.abs(first)))[1]
    rows, first = rows / scale, first / scale
    apart = len(set(ids.tolist())) == len(ids)
    centre = {i: first[ids == i].mean(0) for i in ids} if not apart else dict.fromkeys(ids.tolist(), first.mean(0))
    inner = np.array([row - centre[i] for row, i in zip(first, ids.tolist(), strict=True)])
    spread = [float(np.sqrt(np.mean(inner[:, j] ** 2))) for j in range(n_features)]
    varying = [it for it in spread if it > 0]
    uneven = bool(varying) and max(varying) > 10 * np.median(varying)
    divisor = np.ones(n_features)
    if uneven:
        divisor = np.array([max(it, np.median(varying) / 10) if it > 0 else np.median(varying) for it in spread])
    if n_features >= FEW and not uneven:
        found = rows
    else:
        found = (rows - first.mean(0)) / divisor
        if n_features < FEW:
            length = np.sqrt(np.mean([np.sum((it / divisor) ** 2) for it in inner]))
            found = np.column_stack([found, np.full(len(rows), 3 * length if length > 0 else 1.0)])
    return np.array([it / np.linalg.norm(it) if np.any(it) else it for it in found])


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 40),
    n_features=st.sampled_from([1, 2, 7, FEW - 1, FEW, FEW + 20]),
    units=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_mapped_as_a_loop_maps_them(seed, n, n_features, units):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-4, 5, n_features) if units else np.ones(n_features)
    scales[rng.random(n_features) < 0.1] = 0  # columns that do not vary
    first, rows = (rng.normal(size=(it, n_features)) * scales + 3 for it in (n, 9))
    ids = rng.integers(0, 4, n)
    space = Space.of(first, ids)
    found = space.units(rows)
    assert found.shape == (9, Space.width(n_features))
    np.testing.assert_allclose(found, literal(rows, first, ids), atol=1e-9)


def stream(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of their classes, then drawn test rows, of a table that comes with scikit-learn."""
    made = {
        "wine": lambda: datasets.load_wine(return_X_y=True),
        "cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
        "moons": lambda: datasets.make_moons(1000, noise=0.15, random_state=0),
        "rings": lambda: datasets.make_circles(1000, noise=0.08, factor=0.5, random_state=0),
    }
    return made[name]()


@pytest.mark.parametrize(("name", "least"), [("wine", 0.95), ("cancer", 0.95), ("moons", 0.95), ("rings", 0.98)])
def test_tables_need_no_scaling(name, least):
    x, y = stream(name)
    mixed = np.random.default_rng(0).permutation(len(y))
    train, test = mixed[: len(y) // 2], mixed[len(y) // 2 :]
    train = train[np.argsort(y[train], kind="stable")]
    learner = ContinualSlots(random_state=0)
    for part in np.array_split(train, 10):
        learner.partial_fit(x[part], y[part])
    assert learner.score(x[test], y[test]) >= least


def test_units_of_columns_change_next_to_nothing():
    x, y = datasets.load_wine(return_X_y=True)
    scaled = StandardScaler().fit_transform(x)
    answers = [ContinualSlots(random_state=0).fit(it, y).predict(it) for it in (x, scaled)]
    assert np.mean(answers[0] == answers[1]) > 0.97


def test_the_state_does_not_depend_on_the_cut_and_asking_changes_nothing():
    x, y = datasets.make_moons(700, noise=0.15, random_state=0)
    whole = ContinualSlots(random_state=0, pending=60, probation=100).fit(x, y)
    cut = ContinualSlots(random_state=0, pending=60, probation=100)
    for part in np.split(np.arange(len(x)), [1, 3, FIRST - 1, FIRST, FIRST + 1, 500]):
        cut.partial_fit(x[part], y[part])
        cut.predict(x[:5])
        cut.evidence(x[:5])
    np.testing.assert_array_equal(whole.evidence(x), cut.evidence(x))
    assert pickle.dumps(whole.slots_) == pickle.dumps(cut.slots_)


@pytest.mark.parametrize("n_features", [3, 10])
def test_a_sealed_answer_stands_whatever_follows(n_features):
    x, y = datasets.make_blobs(4000, n_features=n_features, centers=6, cluster_std=1.5, random_state=1)
    x = x * np.r_[np.ones(n_features - 1), 500]
    learner = ContinualSlots(random_state=0, pending=60, held_out=30, probation=300, first_slots=2, slot_share=2000)
    learner.fit(x[:3000], y[:3000])
    before = learner.decide(x)
    assert before.matched.mean() > 0.3
    learner.partial_fit(x[3000:] * 3 + 7, (y[3000:] + 1) % 8)
    after = learner.decide(x)
    assert after.matched[before.matched].all()
    np.testing.assert_array_equal(after.labels[before.matched], before.labels[before.matched])


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**-40, 2.0**40, 2.0**900])
@pytest.mark.parametrize("n_features", [4, 80])
def test_the_scale_of_all_rows_changes_nothing(scale, n_features):
    x, y = datasets.load_iris(return_X_y=True)
    x = np.tile(x, (1, 20))[:, :n_features]
    wanted, found = (ContinualSlots(random_state=0).fit(x * it, y).evidence(x * it) for it in (1.0, scale))
    np.testing.assert_array_equal(found, wanted)


def test_few_rows_are_answered_and_kept_by_settling():
    x, y = datasets.load_iris(return_X_y=True)
    learner = ContinualSlots(random_state=0).fit(x[::2], y[::2])
    asked = learner.predict(x)
    assert (asked == learner.settle().predict(x)).mean() > 0.95
    assert (asked == y).mean() > 0.9


def test_a_learner_pickled_before_there_was_a_space_goes_on_as_it_was(monkeypatch):
    x, y = datasets.load_iris(return_X_y=True)
    monkeypatch.setattr("slots.continual.space.FEW", 0)
    monkeypatch.setattr("slots.continual.learner.FIRST", 1)
    old = ContinualSlots(random_state=0, pending=40).fit(x[::2], y[::2])
    kept = pickle.dumps({key: value for key, value in old.__getstate__().items() if key not in {"_space", "_first"}})
    wanted = old.partial_fit(x[1::2], y[1::2]).evidence(x)
    monkeypatch.undo()
    again = ContinualSlots.__new__(ContinualSlots)
    again.__setstate__(pickle.loads(kept))
    np.testing.assert_array_equal(again.partial_fit(x[1::2], y[1::2]).evidence(x), wanted)
