"""Bounds of shares are Wilson's, as scipy gives them."""

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from protocols.summaries.intervals import interval, wilson_lower


def by_scipy(right, total):
    level = 1 - 2 * scipy.stats.norm.sf(1.96)
    return scipy.stats.binomtest(right, total).proportion_ci(level, "wilson").low


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_the_bound_is_that_of_scipy(total, share):
    right = round(share * total)
    assert wilson_lower(right, total) == pytest.approx(by_scipy(right, total), abs=1e-12)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 5), (3, 4), (40, 40), (69_000, 70_000)])
def test_the_bound_of_edges(right, total):
    found = wilson_lower(right, total)
    assert found == pytest.approx(by_scipy(right, total), abs=1e-12)


def test_nothing_was_seen():
    assert wilson_lower(0, 0) == 0.0


@pytest.mark.parametrize(("right", "total"), [(2, 1), (-1, 1), (1, 0)])
def test_more_successes_than_trials(right, total):
    with pytest.raises(ValueError, match=rf"`right` must lie in \[0, {total}\], got {right}\."):
        wilson_lower(right, total)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_an_interval_of_a_mean_is_that_of_scipy(values):
    found = interval(values)
    freedom, scale = len(values) - 1, scipy.stats.sem(values)
    low, high = scipy.stats.t.interval(0.95, freedom, scale=scale) if scale > 0 else (0.0, 0.0)
    assert found.half == pytest.approx((high - low) / 2, abs=1e-12)
