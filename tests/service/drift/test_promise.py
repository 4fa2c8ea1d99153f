"""The promise, on streams of fixed seeds: few false alarms, and a half-deviation shift found soon."""

import numpy as np
import pytest
from scipy import stats

from protocols.service.drift import Monitor, SimpleJumper
from protocols.service.drift.monitor import BETS

LENGTH = 1000


def alarm_at(calibration, scores, seed, **given):
    """Number of the input that raised the alarm, or infinity."""
    monitor = Monitor(calibration, seed=seed, **given)
    alarm = monitor.observe(scores, np.full(len(scores), 2), np.zeros(len(scores), int), 0.0).alarm
    return np.inf if alarm is None else alarm.item


@pytest.mark.parametrize("capacity", [150, 10_000])
def test_familiar_streams_seldom_raise_an_alarm(capacity):
    """At most 1 % ever; 300 streams show no more with probability 0.999."""
    alarms = 0
    for seed in range(300):
        scores = np.random.default_rng([1, seed]).normal(size=100 + LENGTH)
        alarms += np.isfinite(alarm_at(scores[:100], scores[100:], seed, capacity=capacity))
    assert alarms <= stats.binom.ppf(0.999, 300, 0.01)


def test_fixed_calibration_breaks_the_promise():
    """The same martingale on p-values against the calibration set alone."""
    alarms = 0
    for seed in range(100):
        scores = np.random.default_rng([1, seed]).normal(size=100 + LENGTH)
        above = 100 - np.searchsorted(np.sort(scores[:100]), scores[100:])
        p = (above + 1 - np.random.default_rng([2, seed]).random(LENGTH)) / 101
        alarms += SimpleJumper(BETS, jump=0.002, asleep=0.5).bet(p).max() >= np.log(100)
    assert alarms > 3 * stats.binom.ppf(0.999, 100, 0.01)


@pytest.mark.parametrize("familiar", [0, 2000])
def test_half_a_deviation_is_found_within_two_hundred(familiar):
    delays = []
    for seed in range(40):
        rng = np.random.default_rng([3, seed])
        scores = np.concatenate([rng.normal(size=500 + familiar), rng.normal(0.5, size=LENGTH)])
        delays.append(alarm_at(scores[:500], scores[500:], seed) - familiar + 1)
    assert sum(it < 1 for it in delays) <= 2
    assert np.median([it for it in delays if it >= 1]) <= 200


def test_one_very_novel_input_in_twenty_is_found():
    delays = []
    for seed in range(20):
        rng = np.random.default_rng([4, seed])
        scores = rng.normal(size=500 + 1000 + 2000)
        foreign = 1500 + np.flatnonzero(rng.random(2000) < 0.05)
        scores[foreign] += 6
        delays.append(alarm_at(scores[:500], scores[500:], seed) - 1000 + 1)
    assert np.median(delays) <= 500
