"""Ids and names of labels, and what a user gives as labels, against the words of the documentation."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slots.errors import DataError, UsageError
from slots.graph.discovery import discover
from slots.label_errors.detection import find_label_errors
from slots.labels import LabelNames, check_ids, check_labels, numbered
from slots.training.config import TrainConfig
from slots.training.fitting import fit

NAMES = st.lists(st.sampled_from("abcdefg"), max_size=6)


@given(NAMES, st.lists(st.sampled_from("abcdefghij"), max_size=5), st.integers(0, 9))
def test_ids_and_names_are_each_others_inverse(names, asked, n_labels):
    labels = LabelNames(tuple(names)).reaching(n_labels)
    assert labels.n_labels == max(len(names), n_labels)
    assert [labels.name(i) for i in range(12)] == [names[i] if i < len(names) else str(i) for i in range(12)]
    assert labels.ids(asked).tolist() == [names.index(it) if it in names else -1 for it in asked]
    for name in asked:
        if name in names:
            assert labels.id(name) == names.index(name)
            assert labels.with_name(name) is labels
        else:
            assert labels.with_name(name).id(name) == labels.n_labels


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(UsageError, match=r"`name` must be a label of the model, got 'emu'\. It knows cat, 1"):
        LabelNames(("cat",)).reaching(2).id("emu")


@given(NAMES.filter(lambda names: len(set(names)) == len(names)), st.integers(1, 8), st.data())
def test_given_labels_are_read_one_by_one(names, n, data):
    value = st.one_of(st.integers(0, 9), st.sampled_from("abcxyz"))
    told = data.draw(st.dictionaries(st.integers(0, n - 1), value))
    given_ids, known = LabelNames(tuple(names)).read(told, n)
    wanted, ids = list(names), [-1] * n
    for row, label in told.items():
        if isinstance(label, str) and label not in wanted:
            wanted.append(label)
        ids[row] = wanted.index(label) if isinstance(label, str) else label
    wanted += [str(i) for i in range(len(wanted), max(ids) + 1)]
    assert (given_ids.tolist(), list(known.names)) == (ids, wanted)
    array, same = LabelNames(tuple(names)).read(given_ids, n)
    assert array.tolist() == ids
    assert same.n_labels == max(len(names), max(ids) + 1)


def test_clusters_get_the_next_ids():
    labels = LabelNames(("cat", "dog"), frozenset({1})).with_clusters(2)
    assert labels == LabelNames(("cat", "dog", "cluster 2", "cluster 3"), frozenset({1, 2, 3}))
    assert labels.with_clusters(0) == labels


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({3: 1}, "`labels` must be for rows 0 to 2, got row 3"),
        ({0: -1}, "`labels` must be names or numbers >= 0, got -1 for row 0"),
        (np.zeros(2, int), r"`labels` must be whole numbers >= -1 of shape \(3,\), got int64 of shape \(2,\)"),
        (np.zeros(3), "got float64"),
        (np.full(3, -2), "`labels` must be whole numbers >= -1"),
        (np.full(3, 2**63, np.uint64), "`labels` must be whole numbers .* from 9223372036854775808 to"),
        (np.array([10**9, 0, 1]), "`labels` must number the classes from 0 without large gaps, got 1000000000 among 4"),
        ({0: 10**9}, "`labels` must number the classes from 0 without large gaps, got 1000000000 among 3"),
        ({0: 10**30}, f"`labels` must be names or numbers >= 0, got {10**30} for row 0"),
        ({0: 1.7}, r"`labels` must be names or numbers >= 0, got 1\.7 for row 0"),
        ({0: np.float32(1)}, r"`labels` must be names or numbers >= 0, got .*1\.0.* for row 0"),
        ({0: None}, "`labels` must be names or numbers >= 0, got None for row 0"),
        ({0.5: 1}, r"`labels` must be for rows 0 to 2, got row 0\.5"),
        ({"a": 1}, "`labels` must be for rows 0 to 2, got row 'a'"),
        ({0: " "}, "`label` must not be empty, got ' '"),
    ],
)
def test_messages_of_given_labels(labels, says):
    with pytest.raises(DataError, match=says):
        LabelNames(("cat",)).read(labels, 3)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([], [], "`x` must hold at least one example, got none"),
        ([1, 2], [0], r"`y` must have shape \(2,\), got \(1,\)"),
        ([1, 2], [0, -1], "`y` must hold whole numbers >= 0, got int64 from -1"),
        ([1, 2], [0.0, 1.0], "`y` must hold whole numbers >= 0, got float64 from 0.0"),
        ([1, 2], [0.0, math.nan], "`y` must hold whole numbers >= 0, got float64 from nan"),
        ([1, 2], [None, 1], "`y` must hold whole numbers >= 0, got object"),
        ([1, 2], np.array([0, 2**63], np.uint64), "got uint64 from 0 to 9223372036854775808"),
    ],
)
def test_messages_of_training_labels(x, y, says):
    with pytest.raises(DataError, match=says):
        check_labels(x, y)
    assert check_labels([1, 2], np.array([0, 3], np.int8)).dtype == np.int64


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 10**6))
def test_ids_may_leave_gaps_that_cost_little(largest, n_distinct, n_names):
    fine = largest < n_names or largest < 10**5 or largest < 10 * n_distinct
    if fine:
        check_ids(largest, n_distinct=n_distinct, n_names=n_names)
    else:
        with pytest.raises(DataError, match=rf"got {largest} among {n_distinct} different ids\. Number them anew"):
            check_ids(largest, n_distinct=n_distinct, n_names=n_names)


@pytest.mark.parametrize("largest", [10**5, 10**9, 2**62])
def test_a_huge_id_is_refused_before_anything_is_made(largest):
    x = np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 8]
    y = np.arange(32) % 4
    model, _ = fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1))
    before = model.class_names
    tracemalloc.start()
    for attempt in (
        lambda: fit(x, np.where(y == 3, largest, y)),
        lambda: model.update(x, np.where(y == 3, largest, y)),
        lambda: model.update(x, {0: largest}),
        lambda: discover(x, np.where(y == 3, largest, y)),
    ):
        with pytest.raises(DataError, match="Number") as refused:
            attempt()
        assert len(str(refused.value).splitlines()) == 1
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    assert model.class_names == before
    found = find_label_errors(None, x + np.arange(32)[:, None] % 5 / 50, np.where(y == 3, largest, y))
    assert found.labels.tolist() == [0, 1, 2, largest]  # mapped: it makes no model


def test_ids_with_small_gaps_stay_as_they_are():
    x = np.eye(3, dtype=np.float32)[[0, 1, 2] * 4]
    y = np.array([7, 40_000, 99_999] * 4)
    model, _ = fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1))
    assert (model.predict(x).labels == y).all()
    assert model.n_labels == 100_000


def test_an_empty_name_is_no_label():
    with pytest.raises(DataError, match="`y` must not be empty, got ''"):
        numbered(["a", ""])
