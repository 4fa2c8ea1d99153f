"""Embeddings in archives and arrays: which names are understood, where labels lie, and how one part becomes two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.data.dataset import undivided
from protocols.data.loading import load_data
from slots.errors import DataError

ROWS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
NAMES = np.array(["cat", "dog"] * 10)


def whole(data):
    """All rows and the names of their labels, in the order of the source."""
    data = undivided(data)
    names = (*data.class_names, "")
    return data.x_test, [names[label] for label in data.y_test]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("x", "y"),
        ("X", "labels"),
        ("features", "label"),
        ("embeddings", "targets"),
        ("vectors", "target"),
        ("data", "y"),
    ],
)
def test_an_archive_of_one_part(tmp_path, x, y):
    np.savez(tmp_path / "one.npz", **{x: ROWS, y: NAMES})
    data = load_data(tmp_path / "one.npz")
    assert data.class_names == ("cat", "dog")
    assert (len(data.x_train), len(data.x_test)) == (16, 4)
    assert np.bincount(data.y_test).tolist() == [2, 2]
    rows, names = whole(data)
    assert np.array_equal(rows, ROWS)
    assert names == NAMES.tolist()
    assert load_data(tmp_path / "one.npz").digest == data.digest


@pytest.mark.parametrize(
    ("x", "y"),
    [("x_{}", "y_{}"), ("{}", "y_{}"), ("{}_embeddings", "{}_labels"), ("X_{}", "labels_{}"), ("features-{}", "{}-y")],
)
def test_an_archive_of_both_parts(tmp_path, x, y):
    labels = {y.format("train"): NAMES[:15], y.format("test"): NAMES[15:]}
    inputs = {x.format("train"): ROWS[:15], x.format("test"): ROWS[15:]}
    np.savez(tmp_path / "both.npz", **inputs, **labels, oos_train=ROWS, x_val=ROWS, notes=np.array("n"))
    data = load_data(tmp_path / "both.npz")
    assert np.array_equal(data.x_train, ROWS[:15])
    assert np.array_equal(data.x_test, ROWS[15:])
    assert [data.class_names[label] for label in data.y_test] == NAMES[15:].tolist()
    assert data.test_rows is None
    assert undivided(data) is data


def test_parts_win_over_an_array_of_no_part(tmp_path):
    np.savez(tmp_path / "a.npz", x=ROWS, y=NAMES, x_train=ROWS[:4], y_train=np.array([1, 0, 1, 0]))
    data = load_data(tmp_path / "a.npz")
    assert data.y_train.tolist() == [1, 0, 1, 0]
    assert data.class_names == ("0", "1")


def test_names_are_shared_by_the_parts_and_numbers_sort_as_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=ROWS[:3], y_train=np.array(["10", "9", ""]), x_test=ROWS[:2],
             y_test=np.array(["10", "2"]))  # fmt: skip
    data = load_data(tmp_path / "a.npz")
    assert data.class_names == ("2", "9", "10")
    assert data.y_train.tolist() == [2, 1, -1]
    assert data.y_test.tolist() == [2, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_labels_that_are_whole_floats_are_numbers(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", x_train=ROWS.astype(dtype), y_train=np.arange(20.0) % 3)
    data = load_data(tmp_path / "a.npz")
    assert data.y_train.tolist() == [i % 3 for i in range(20)]
    assert data.x_train.dtype == np.float32


@pytest.mark.parametrize(
    ("file", "labels"),
    [
        ("mail.npy", "mail_labels.npy"),
        ("mail.npy", "mail_labels.txt"),
        ("mail.npy", "mail_labels.csv"),
        ("mail.npy", "mail-labels.txt"),
        ("embeddings.npy", "labels.npy"),
        ("mail_embeddings.npy", "mail_labels.txt"),
        ("X.npy", "y.npy"),
        ("features-new.npy", "labels-new.csv"),
    ],
)
def test_an_array_and_its_labels_beside_it(tmp_path, file, labels):
    np.save(tmp_path / file, ROWS)
    if labels.endswith(".npy"):
        np.save(tmp_path / labels, NAMES)
    else:
        (tmp_path / labels).write_text("\n".join(NAMES) + "\n")
    data = load_data(tmp_path / file)
    assert data.name == file.removesuffix(".npy")
    rows, names = whole(data)
    assert np.array_equal(rows, ROWS)
    assert names == NAMES.tolist()


def test_both_parts_lie_in_files_beside_each_other(tmp_path):
    for part, rows in (("train", slice(0, 12)), ("test", slice(12, 20))):
        np.save(tmp_path / f"x_{part}.npy", ROWS[rows])
        np.save(tmp_path / f"y_{part}.npy", NAMES[rows])
    data = load_data(tmp_path / "x_train.npy")
    assert np.array_equal(data.x_test, ROWS[12:])
    assert data.y_train.tolist() == [0, 1] * 6
    alone = load_data(tmp_path / "x_test.npy")
    assert (len(alone.x_train), alone.y_test.tolist()) == (0, [0, 1] * 4)


def test_a_header_of_a_label_file_is_none_of_the_labels(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "a_labels.csv").write_text("intent\n" + "\n".join(f'"{name}, big"' for name in NAMES))
    assert load_data(tmp_path / "a.npy").class_names == ("cat, big", "dog, big")


def test_an_array_without_labels_is_all_test_data(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    data = load_data(tmp_path / "a.npy")
    assert (len(data.x_train), data.y_test.tolist(), data.class_names) == (0, [-1] * 20, ())


def test_images_may_lie_in_an_array(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 4, 4), np.uint8))
    assert load_data(tmp_path / "a.npy").shape == (4, 4, 1)


def test_what_is_wrong_with_files_of_arrays(tmp_path):
    np.savez(tmp_path / "two.npz", x=ROWS, features=ROWS)
    with pytest.raises(DataError, match=r"two\.npz` must hold one array of a kind, got x and features\. Remove one"):
        load_data(tmp_path / "two.npz")
    np.savez(tmp_path / "objects.npz", x=ROWS, y=NAMES.astype(object))
    with pytest.raises(DataError, match=r"Object arrays cannot be loaded.* Strings must be an array of dtype str"):
        load_data(tmp_path / "objects.npz")
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "a_labels.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"a_labels\.txt` must have one label an example, got 2 for 20"):
        load_data(tmp_path / "a.npy")
    (tmp_path / "a_labels.txt").unlink()
    (tmp_path / "a_labels.csv").write_text("row,label\n1,cat\n")
    with pytest.raises(DataError, match=r"a_labels\.csv` must have one column, the labels, got 2"):
        load_data(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"b\.npy` must be a plain array, got: "):
        load_data(tmp_path / "b.npy")
    np.savez(tmp_path / "half.npz", x=ROWS[:2], y=np.array([0.5, 1.0]))
    with pytest.raises(DataError, match=r"half\.npz: y` must be a row of whole numbers, got float64"):
        load_data(tmp_path / "half.npz")


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60))
def test_a_division_keeps_every_row_and_a_fifth_of_each_class(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("any") / "any.npz"
    np.savez(path, x=np.arange(float(len(labels)))[:, None], y=np.array(labels))
    data = load_data(path)
    for label in set(labels) - {-1}:
        n = labels.count(label)
        assert (data.y_test == label).sum() == n // 5
        assert (data.y_train == label).sum() == n - n // 5
    assert not (data.y_train < 0).any()
    rows, _ = whole(data)
    assert rows[:, 0].tolist() == list(range(len(labels)))
    assert undivided(data).y_test.tolist() == labels


def test_label_ids_with_large_gaps_are_refused_and_names_are_not(tmp_path):
    x = np.eye(3, dtype=np.float32)
    np.savez(tmp_path / "far.npz", x_train=x, y_train=np.array([0, 5, 700_000]))
    with pytest.raises(DataError, match="must number the classes from 0 without large gaps, got 700000 among 3"):
        load_data(tmp_path / "far.npz")
    np.savez(tmp_path / "names.npz", x_train=x, y_train=np.array(["0", "5", "1000000000"]))
    assert load_data(tmp_path / "names.npz").class_names == ("0", "5", "1000000000")
