"""P-values by counting, and how many of many tests count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from backbones.explanations.circuits import against, discoveries


def test_a_result_by_hand():
    found = against(2.0, [0.0, 1.0, 2.0, 5.0])
    assert (found.p_value, found.null_mean, found.n_null) == (3 / 5, 2.0, 4)
    assert against(9.0, [0.0, 2.0]).effect == 8.0
    assert against(1.0, [1.0, 1.0]).effect == 0.0
    assert against(1.0, [1.0 + 1e-15]).p_value == 1.0
    assert against(2.0, [1.0, 1.0]).effect == np.inf


@given(st.lists(st.floats(0, 1), max_size=30), st.sampled_from([0.01, 0.05, 0.3]))
def test_discoveries_are_those_of_scipy(values, rate):
    expected = false_discovery_control(values) <= rate if values else np.zeros(0, bool)
    found = discoveries(values, rate=rate)
    near = np.isclose(false_discovery_control(values), rate) if values else np.zeros(0, bool)
    assert (found | near).tolist() == (expected | near).tolist()


@pytest.mark.parametrize(("statistic", "null"), [(1.0, []), (np.nan, [1.0]), (1.0, [np.inf])])
def test_nothing_to_compare_with_is_refused(statistic, null):
    with pytest.raises(ValueError, match="must be finite, with at least one null value"):
        against(statistic, null)


def test_a_p_value_is_a_share():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        discoveries([1.5])
