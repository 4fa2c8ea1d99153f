"""Online ranks: equal to a literal list, uniform and independent where nothing changed, refused where damaged."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from support.reference_drift import online_p_values

from protocols.service.drift import OnlineRanks
from slots.errors import DataError, UsageError

few = st.integers(-3, 3).map(float)
any_score = st.one_of(few, st.floats(allow_nan=False))


@given(
    st.lists(any_score, max_size=8), st.lists(any_score, max_size=25), st.integers(1, 12), st.integers(0, 9),
    st.integers(0, 3),
)  # fmt: skip
def test_equal_to_a_literal_list(calibration, scores, capacity, seed, era):
    calibration = calibration[:capacity]
    ranks = OnlineRanks(calibration, capacity=capacity, seed=seed, era=era)
    drawn = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, era]))).random((len(scores), 2))
    expected, kept = online_p_values(calibration, scores, drawn[:, 0], drawn[:, 1], capacity)
    assert ranks.rank(scores).tolist() == expected
    assert ranks.kept.tolist() == kept
    assert len(ranks) == len(kept) <= capacity
    assert ranks.n_ranked == len(scores)


def test_by_hand():
    """Of four scores below, one equal and one above: between 1 / 7 and 3 / 7, by the tie."""
    ranks = OnlineRanks([1, 2, 3, 4, 5, 6], seed=3)
    tie = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 0]))).random()
    assert ranks.rank([5.0])[0] == (1 + (1 - tie) * 2) / 7
    assert ranks.kept.tolist() == [1, 2, 3, 4, 5, 5, 6]


@example([np.inf, np.inf, -np.inf, -np.inf], 3, 8)
@given(st.lists(any_score, max_size=20), st.integers(0, 20), st.integers(1, 8))
def test_split_anywhere_and_through_json(scores, split, capacity):
    whole, parts = OnlineRanks([0.0], capacity=capacity, seed=5), OnlineRanks([0.0], capacity=capacity, seed=5)
    expected = whole.rank(scores).tolist()
    first = parts.rank(scores[:split]).tolist()
    again = OnlineRanks.from_json(parts.to_json())
    assert first + again.rank(scores[split:]).tolist() == expected
    assert again.to_json() == whole.to_json()


@pytest.mark.parametrize(("n", "capacity"), [(0, 4), (3, 3), (3, 5)])
def test_uniform_and_independent_by_all_orders(n, capacity):
    """All orders of distinct values: the ranks of three items are spread evenly over all triples, forgetting included.

    A p-value names its rank: which of as many equal parts of (0, 1] it lies in. What is forgotten is drawn, anew for
    each order, so counts are compared by chi square.
    """
    values, seeds = [float(it) for it in range(n + 3)], itertools.count()
    counts = {}
    for _ in range(30 if n else 500):
        for order, seed in zip(itertools.permutations(values), seeds, strict=False):
            p = OnlineRanks(order[:n], capacity=capacity, seed=seed).rank(order[n:])
            kept = [min(n + item, capacity) + 1 for item in range(3)]
            key = tuple(int(np.ceil(it * k)) for it, k in zip(p, kept, strict=True))
            counts[key] = counts.get(key, 0) + 1
    cells = int(np.prod([min(n + item, capacity) + 1 for item in range(3)]))
    assert len(counts) == cells
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("capacity", [40, 10_000])
def test_uniform_and_uncorrelated_on_long_streams(capacity):
    """Ties in plenty, and a memory far shorter than the stream."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, 20_000).astype(float)
    p = OnlineRanks(scores[:30], capacity=capacity, seed=1).rank(scores[30:])
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert all(abs(np.corrcoef(p[lag:], p[:-lag])[0, 1]) < 4 / len(p) ** 0.5 for lag in (1, 2, 40, 41))


def test_fixed_calibration_is_not_uniform_and_online_is():
    """The mean p-value of a long stream keeps the luck of a fixed calibration set, and none of online ranks."""
    rng, fixed, online = np.random.default_rng(0), [], []
    for seed in range(60):
        calibration, scores = rng.normal(size=50), rng.normal(size=2000)
        fixed.append(np.mean([1 - np.searchsorted(np.sort(calibration), scores) / 51]))
        online.append(OnlineRanks(calibration, seed=seed).rank(scores).mean())
    usual = (1 / 12 / 2000) ** 0.5
    assert np.std(fixed) > 4 * usual
    assert np.std(online) < 1.4 * usual


def test_too_much_calibration_is_thinned_by_place():
    order = np.random.default_rng(0).permutation(1000).astype(float)
    ranks = OnlineRanks(order, capacity=100, seed=2)
    assert len(ranks) == 100
    assert set(ranks.kept) < set(order)
    places = np.sort(np.argsort(order)[ranks.kept.astype(int)])
    assert places[0] < 100
    assert places[-1] > 900
    other = OnlineRanks(order + 5000, capacity=100, seed=2)
    assert (other.kept - 5000).tolist() == ranks.kept.tolist()


def test_eras_and_seeds_draw_other_numbers():
    found = [OnlineRanks(seed=seed, era=era).rank([0.0] * 4).tolist() for seed, era in [(0, 0), (1, 0), (0, 1), (0, 0)]]
    assert found[0] == found[3]
    assert len({tuple(it) for it in found}) == 3


def test_bad_scores_change_nothing():
    ranks = OnlineRanks([1.0], seed=1)
    before = ranks.to_json()
    with pytest.raises(DataError, match=r"Score 1 of 2 is not a number. Leave out the input"):
        ranks.rank([1.0, np.nan])
    with pytest.raises(DataError, match=r"shape \(item,\), got \(1, 1\)"):
        ranks.rank([[1.0]])
    assert ranks.to_json() == before
    with pytest.raises(DataError, match="not a number"):
        OnlineRanks([np.nan])


@pytest.mark.parametrize(
    ("given", "message"), [({"capacity": 0}, "`capacity`"), ({"seed": -1}, "`seed`"), ({"era": -1}, "`era`")]
)
def test_ranges(given, message):
    with pytest.raises(UsageError, match=message):
        OnlineRanks(**given)


@pytest.mark.parametrize(
    "damage", [{"kept": "AAA"}, {"kept": "AAAAAAAA8D8AAAAAAAAAAA=="}, {"capacity": 1}, {"n_ranked": -1}]
)
def test_damaged_states_are_refused(damage):
    state = OnlineRanks([1.0, 2.0]).to_json()
    OnlineRanks.from_json(state)
    with pytest.raises(DataError, match=r"drift state.*Restart the monitor"):
        OnlineRanks.from_json(state | damage)
