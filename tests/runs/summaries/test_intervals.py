"""Bounds of shares are Wilson's, as they were before scipy gave them."""

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from protocols.summaries.intervals import wilson_lower


def by_the_formula(right, total, z=1.96):
    share = right / total
    centre = share + z**2 / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return min(max((centre - spread) / (1 + z**2 / total), 0.0), 1.0)


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_the_bound_is_that_of_the_formula(total, share):
    right = round(share * total)
    assert wilson_lower(right, total) == pytest.approx(by_the_formula(right, total), abs=1e-12)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 5), (3, 4), (40, 40), (69_000, 70_000)])
def test_the_bound_of_edges(right, total):
    found = wilson_lower(right, total)
    assert found == pytest.approx(by_the_formula(right, total), abs=1e-12)
    assert found == pytest.approx(scipy.stats.binomtest(right, total).proportion_ci(0.95, "wilson").low, abs=1e-5)


def test_nothing_was_seen():
    assert wilson_lower(0, 0) == 0.0


@pytest.mark.parametrize(("right", "total"), [(2, 1), (-1, 1), (1, 0)])
def test_more_successes_than_trials(right, total):
    with pytest.raises(ValueError, match=rf"`right` must lie in \[0, {total}\], got {right}\."):
        wilson_lower(right, total)
