"""Centres found in compiled loops: as good as scikit-learn's, and means of their rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from slots.clustering.kmeans import directions
from slots.clustering.quick_kmeans import _drawn, _first, _moved, quick_directions


def squares(rows, centres):
    """Squared distance of each row to each centre."""
    return ((rows[:, None].astype(np.float64) - centres[None]) ** 2).sum(2)


def drawn_rows(seed, n, features=5, copies=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, features)) + 2 * rng.normal(size=(3, features))[rng.integers(0, 3, n)]
    rows[n - copies :] = rows[n - 1] if n else 0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("count", [4, 12, 30])
def test_as_good_as_scikit_learn(count):
    x, y = load_digits(return_X_y=True)
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    ours, theirs = (
        sum(
            squares(rows, way(rows, count, seed=seed)).min(1).sum()
            for seed in range(4)
            for rows in (unit[y == label] for label in range(10))
        )
        for way in (quick_directions, directions)
    )
    assert ours < 1.02 * theirs


@given(seed=st.integers(0, 2**16), n=st.integers(2, 60), count=st.integers(1, 8), passes=st.integers(1, 6))
def test_a_pass_takes_each_centre_to_the_mean_of_its_rows(seed, n, count, passes):
    rows = drawn_rows(seed, n)
    start = rows[np.random.default_rng(seed).choice(n, min(count, n), replace=False)]
    wanted = start.astype(np.float64)
    for _ in range(passes):
        gaps = squares(rows, wanted)
        owner = gaps.argmin(1)
        if len(wanted) > 1 and np.diff(np.sort(gaps, 1)[:, :2]).min() < 1e-5:
            return  # as near to one as to another: rounding decides
        wanted = np.stack([rows[owner == k].mean(0) if (owner == k).any() else it for k, it in enumerate(wanted)])
    assert np.allclose(_moved(rows, start.copy(), passes), wanted, atol=1e-5)


@given(seed=st.integers(0, 2**16), n=st.integers(1, 40), count=st.integers(1, 12), copies=st.integers(0, 30))
def test_first_centres_are_different_rows_as_many_as_there_are(seed, n, count, copies):
    rows = drawn_rows(seed, n, copies=min(copies, n))
    found = _first(rows, np.random.default_rng(seed).random((count, 3)))
    there = {it.tobytes() for it in rows}
    assert len({it.tobytes() for it in found}) == len(found) == min(count, len(there))
    assert {it.tobytes() for it in found} <= there


def test_of_several_draws_the_one_that_leaves_least_is_taken():
    rows = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [-1, 0], [-0.96, 0.28], [-0.8, 0.6]], np.float32)
    draws = np.full((2, 64), 0.0)
    draws[1] = np.linspace(0, 1, 64, endpoint=False)  # every row is drawn
    found = _first(rows, draws)
    left = [np.minimum(squares(rows, rows[:1]), squares(rows, rows[k : k + 1])).sum() for k in range(6)]
    assert found.tolist() == rows[[0, int(np.argmin(left))]].tolist()


def test_chances_are_the_squared_distances():
    chances, rng = np.array([0.0, 1.0, 0.0, 3.0, 0.0]), np.random.default_rng(0)
    found = np.bincount([_drawn(chances, it) for it in 4 * rng.random(4000)], minlength=5)
    assert found[[0, 2, 4]].sum() == 0
    assert abs(found[3] / 4000 - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5
    assert _drawn(chances, 4.0) == 3  # rounding may draw the very end


def test_rows_without_a_direction_take_no_part_and_no_centre_is_zero():
    rows = np.array([[1, 0]] * 3 + [[0, 0]] * 2 + [[-1, 0]] * 3, np.float32)
    assert sorted(quick_directions(rows, 5, seed=0).tolist()) == [[-1, 0], [1, 0]]
    assert quick_directions(rows, 1, seed=0).tolist() == []  # opposite rows have no direction between them
    assert quick_directions(rows[3:5], 2, seed=0).shape == (0, 2)


def test_the_same_for_the_same_seed():
    rows = drawn_rows(1, 300)
    one, same, other = (quick_directions(rows, 9, seed=seed) for seed in (2, 2, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
