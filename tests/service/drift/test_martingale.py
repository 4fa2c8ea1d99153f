"""The jumper: equal to the published algorithm, to a mean of fresh jumpers and to crepes; Ville's bound is held."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reference_drift import jumper_of_functions, published_jumper, sleeping_jumper

from protocols.service.drift import Bets, SimpleJumper
from slots.errors import DataError, UsageError

p_values = st.lists(st.floats(1e-12, 1), min_size=1, max_size=60)
slopes = st.lists(st.floats(-1.9, 1.9), min_size=1, max_size=5, unique=True)
POWERS = (0.7, 0.9)


def functions(bets):
    linear = [lambda p, slope=slope: 1 + slope * (p - 0.5) for slope in bets.slopes]
    return linear + [lambda p, power=power: power * p ** (power - 1) for power in bets.powers]


@given(p_values, slopes, st.floats(0, 1))
def test_equal_to_the_published_algorithm(p, slopes, jump):
    found = np.exp(SimpleJumper(Bets(tuple(slopes)), jump=jump).bet(p))
    assert np.allclose(found, published_jumper(p, slopes, jump), rtol=1e-9, atol=0)


@given(p_values, st.floats(0, 0.99), st.floats(0.01, 1), st.floats(0, 1))
def test_equal_to_a_mean_of_fresh_jumpers(p, asleep, wake, jump):
    bets = Bets((-1, 0, 1), POWERS)
    found = np.exp(SimpleJumper(bets, jump=jump, asleep=asleep, wake=wake).bet(p))
    assert np.allclose(found, sleeping_jumper(p, functions(bets), jump, asleep, wake), rtol=1e-9, atol=0)


@pytest.mark.parametrize("shifted", [1.0, 0.6, 1.7])
def test_equal_to_crepes(shifted):
    martingales = pytest.importorskip("crepes.martingales", reason="crepes is not installed: pip install crepes")
    p = 1 - np.random.default_rng(0).random(3000) ** shifted
    for jump, slopes in ((0.01, (-1.0, 0.0, 1.0)), (0.001, (-1.0, -0.5, 0.0, 0.5, 1.0)), (0.3, (-1.9, 1.9))):
        theirs = martingales.SimpleJumper(J=jump, bf=martingales.EpsilonBettingFunction(list(slopes))).apply(p)
        ours = SimpleJumper(Bets(slopes), jump=jump).bet(p)
        assert np.allclose(ours, np.log(theirs), rtol=1e-9, atol=1e-9)


def test_equal_to_crepes_with_powers():
    martingales = pytest.importorskip("crepes.martingales", reason="crepes is not installed: pip install crepes")
    bets = Bets((-1, 0, 1), POWERS)

    class Ours(martingales.BettingFunction):
        def apply(self, p):
            return np.array([[f(it) for f in functions(bets)] for it in p])

    p = 1 - np.random.default_rng(1).random(2000)
    theirs = martingales.SimpleJumper(J=0.002, bf=Ours()).apply(p)
    assert np.allclose(SimpleJumper(bets, jump=0.002).bet(p), np.log(theirs), rtol=1e-9, atol=1e-9)


def test_by_hand():
    found = np.exp(SimpleJumper(Bets((-1, 1)), jump=0.5).bet([0.25, 0.25]))
    # 1/2 each; pays 1.25 and 0.75: 0.625 + 0.375 = 1; half is spread: 0.5625 and 0.4375; pays 0.703125 + 0.328125
    assert np.allclose(found, [1.0, 1.03125], rtol=1e-12)


@pytest.mark.parametrize(("slope", "power"), [(-2, 0), (-1, 0), (0, 0), (0.5, 0), (2, 0), (0, 0.2), (0, 0.7), (0, 1)])
def test_each_bet_is_fair(slope, power):
    bets = Bets((), (power,)) if power else Bets((slope,))
    tenths = np.linspace(0, 1, 11)
    integral = (lambda p: p**power) if power else (lambda p: p + slope * (p * p / 2 - p / 2))
    assert math.isclose(integral(1.0) - integral(0.0), 1)
    for low, high in itertools.pairwise(tenths[1:]):
        grid = np.linspace(low, high, 2001)
        mean = np.trapezoid([bets.odds(p)[0] for p in grid], grid)
        assert math.isclose(mean, integral(high) - integral(low), rel_tol=1e-5, abs_tol=1e-9)


def test_capital_beyond_float64():
    """A million p-values of a stream that changed wholly, and none of what would overflow."""
    jumper = SimpleJumper()
    assert jumper.bet([1e-9] * 3000)[-1] > 1000
    assert jumper.bet(np.full(3000, 0.5))[-1] < jumper.log_capital + 1e-9
    asleep = SimpleJumper(Bets((1.0,)), jump=0.01, asleep=0.5).bet([1e-9] * 5000)
    assert asleep[-1] > math.log(0.5 * (100 / 5100) ** 0.5) - 0.01  # what sleeps cannot be lost


@given(p_values, st.integers(0, 60), st.floats(0, 0.9))
def test_split_anywhere_and_through_json(p, split, asleep):
    whole, parts = (SimpleJumper(Bets((-1, 0, 1), POWERS), asleep=asleep) for _ in range(2))
    expected = whole.bet(p).tolist()
    first = parts.bet(p[:split]).tolist()
    again = SimpleJumper.from_json(parts.to_json())
    assert first + again.bet(p[split:]).tolist() == expected
    assert again.to_json() == whole.to_json()


def test_late_changes_are_found_sooner_with_sleep():
    """After 20,000 familiar p-values; the literal jumper is the other one."""
    rng = np.random.default_rng(0)
    p = 1 - np.concatenate([rng.random(20_000), rng.random(2000) ** 0.6])
    bets, found = Bets(), []
    for log_capital in (
        np.log(jumper_of_functions(p.tolist(), functions(bets), 0.01)),
        SimpleJumper(bets, asleep=0.5).bet(p),
    ):
        found.append(int(np.argmax(log_capital >= math.log(100))) - 20_000)
    assert 0 < found[1] < found[0] / 2


def test_bad_p_values_change_nothing():
    jumper = SimpleJumper()
    for p in ([0.5, 0.0], [1.1], [np.nan], [[0.5]]):
        with pytest.raises(DataError, match=r"shape \(item,\) and lie in \(0, 1\]"):
            jumper.bet(p)
    assert jumper.to_json() == SimpleJumper().to_json()
    with pytest.raises(DataError, match=r"lost all on the p-value 1\.0"):
        SimpleJumper(Bets((-2.0,)), jump=0).bet([1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bets(()), "at least one bet"), (lambda: Bets((2.1,)), "`slopes`"),
        (lambda: Bets((), (0,)), "`powers`"), (lambda: SimpleJumper(jump=1.1), "`jump`"),
        (lambda: SimpleJumper(asleep=1), "`asleep`"),
        (lambda: SimpleJumper(wake=0), "`wake`"),
    ],
)  # fmt: skip
def test_ranges(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    "damage", [{"shares": [0.5, 0.5]}, {"sleeping": 0.1}, {"shares": [-1, 1, 1]}, {"log_capital": math.inf}]
)
def test_damaged_states_are_refused(damage):
    state = SimpleJumper().to_json()
    SimpleJumper.from_json(state)
    with pytest.raises(DataError, match=r"drift state is damaged. Restart"):
        SimpleJumper.from_json(state | damage)
