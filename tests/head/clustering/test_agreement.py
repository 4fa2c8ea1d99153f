"""The agreement of two groupings is that of scikit-learn, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from slots.clustering.agreement import adjusted_rand, paired_counts

GROUPINGS = st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=60)


@given(GROUPINGS)
def test_small_groupings(points):
    first, second = (np.array(it) for it in zip(*points, strict=True))
    assert adjusted_rand(first, second) == adjusted_rand_score(first, second)


@pytest.mark.parametrize("groups", [1, 2, 40, 3000])
def test_large_groupings(groups):
    rng = np.random.default_rng(groups)
    first = rng.integers(-1, groups, 3000)
    for second in (first, rng.integers(0, 30, 3000), np.where(rng.random(3000) < 0.4, first, rng.integers(0, 9, 3000))):
        assert adjusted_rand(first, second) == adjusted_rand_score(first, second)


def test_pairs_are_those_that_occur():
    rows, columns, counts = paired_counts(np.array([4, 4, 4, 9, 9]), np.array([1, 0, 1, 7, 7]))
    assert list(zip(rows, columns, counts, strict=True)) == [(0, 0, 1), (0, 1, 2), (1, 2, 2)]


def test_no_input_at_all():
    nothing = np.zeros(0, np.int64)
    assert adjusted_rand(nothing, nothing) == adjusted_rand_score(nothing, nothing) == 1.0
