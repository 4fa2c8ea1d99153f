"""The monitor: minutes by hand, the same continuation after any split and restart, eras, clear errors."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.service.drift import Alarm, Minute, Monitor, OnlineRanks, SimpleJumper
from protocols.service.drift.monitor import BETS
from slots.errors import DataError, UsageError
from slots.head import Answer

items = st.lists(
    st.tuples(
        st.one_of(st.integers(-2, 2).map(float), st.floats(-9, 9)),
        st.sampled_from([int(kind) for kind in Answer]),
        st.integers(0, 3),
        st.floats(0, 400),
    ),
    max_size=40,
)


def columns(rows):
    scores, answers, labels, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    return list(scores), np.array(answers, np.int8), np.array(labels, np.int64), list(times)


def feed(monitor, rows, splits=(), restart=False):
    """P-values, logarithms, minutes and alarms; with ``restart`` through bytes after each part."""
    p, log10, minutes, alarms = [], [], [], []
    bounds = [0, *sorted(min(it, len(rows)) for it in splits), len(rows)]
    for first, last in itertools.pairwise(bounds):
        seen = monitor.observe(*columns(rows[first:last]))
        p, log10 = p + seen.p_values.tolist(), log10 + seen.log10.tolist()
        minutes, alarms = minutes + list(seen.minutes), alarms + ([seen.alarm] if seen.alarm else [])
        monitor = Monitor.from_bytes(monitor.to_bytes()) if restart else monitor
    return monitor, (p, log10, minutes, alarms)


@given(items, st.lists(st.integers(0, 40), max_size=4), st.integers(1, 12), st.booleans())
def test_same_continuation_whatever_the_batches_and_restarts(rows, splits, capacity, restart):
    made = {
        "threshold": 1.05,
        "capacity": capacity,
        "seed": 3,
    }  # a low threshold, so that alarms are among what is kept
    one, expected = feed(Monitor([0.0, 1.0], **made), rows)
    other, found = feed(Monitor([0.0, 1.0], **made), rows, splits, restart)
    assert found == expected
    assert other.to_bytes() == one.to_bytes()
    assert (other.alarm, other.minute, other.log10, other.n_items) == (one.alarm, one.minute, one.log10, one.n_items)


@given(items)
def test_minutes_and_alarm_by_a_literal_count(rows):
    monitor, (p, log10, minutes, alarms) = feed(Monitor([0.0], threshold=1.05, seed=1), rows, [7, 20])
    assert p == OnlineRanks([0.0], seed=1).rank([row[0] for row in rows]).tolist()
    jumper = SimpleJumper(BETS, jump=0.002, asleep=0.5)
    assert log10 == [float(jumper.bet([it])[0]) / math.log(10) for it in p]
    expected, newest = [], -1
    for place, (_, kind, label, time) in enumerate(rows):
        newest = max(newest, int(time // 60) * 60)
        if not expected or expected[-1].start != newest:
            expected.append(Minute(0, newest))
        row = expected[-1]
        row.histogram[max(0, math.ceil(p[place] * 20) - 1)] += 1
        row.labels.setdefault(label, [0, 0, 0])[kind] += 1
        row.log10, row.log10_max = log10[place], max(row.log10_max, log10[place])
    assert [*minutes, *([monitor.minute] if monitor.minute else [])] == expected
    assert sum(it.n for it in expected) == len(rows) == sum(sum(it.answers) for it in expected)
    reached = [place for place, it in enumerate(log10) if it * math.log(10) >= math.log(1.05)]
    assert alarms == [Alarm(it, rows[it][3], log10[it]) for it in reached[:1]]


def test_minutes_survive_json():
    monitor, (_, _, minutes, _) = feed(Monitor(), [(0.5, 2, 7, 61.0), (0.1, 0, 12, 70.0), (0.2, 1, 7, 130.0)])
    assert [Minute.from_json(json.loads(json.dumps(it.to_json()))) for it in minutes] == minutes
    assert minutes[0].labels == {7: [0, 0, 1], 12: [1, 0, 0]}
    assert minutes[0].to_json()["labels"] == {"7": [0, 0, 1], "12": [1, 0, 0]}
    assert (minutes[0].start, monitor.minute.start) == (60, 120)
    with pytest.raises(DataError, match="another length"):
        Minute.from_json(minutes[0].to_json() | {"histogram": [1]})


def drifted(seed=0):
    rng = np.random.default_rng(seed)
    monitor = Monitor(rng.normal(size=200), seed=seed, generation=4)
    found = monitor.observe(rng.normal(3, size=60), [2] * 60, [0] * 60, 30.0)
    assert found.alarm == monitor.alarm
    assert found.alarm.log10 >= 2 > found.log10[found.alarm.item - 1]
    return monitor, rng


def test_an_alarm_is_told_once_and_stays():
    monitor, rng = drifted()
    alarm = monitor.alarm
    assert monitor.observe(rng.normal(3, size=5), [2] * 5, [0] * 5, 31.0).alarm is None
    assert monitor.alarm == alarm


@pytest.mark.parametrize("again", [(), (1.0, 2.0, 3.0)])
def test_an_acknowledged_alarm_begins_an_era(again):
    monitor, _ = drifted(seed=2)
    ended = monitor.acknowledge(again)
    assert (ended.era, ended.n) == (0, 60)
    assert (monitor.era, monitor.n_items, monitor.log10, monitor.alarm, monitor.minute) == (1, 0, 0.0, None, None)
    assert (monitor.generation, monitor.ranks.kept.tolist()) == (4, list(again))
    seen = monitor.observe([1.5, 2.5], [2, 2], [0, 0], 31.0)
    assert seen.p_values.tolist() == OnlineRanks(again, seed=2, era=1).rank([1.5, 2.5]).tolist()
    assert (monitor.minute.era, monitor.minute.start, monitor.minute.n) == (1, 0, 2)


def test_without_an_alarm_nothing_is_acknowledged():
    monitor = Monitor([1.0])
    with pytest.raises(UsageError, match=r"no alarm to acknowledge.*weakens the promise"):
        monitor.acknowledge()
    assert monitor.era == 0


def test_a_generation_that_scores_otherwise_begins_an_era():
    monitor = Monitor([1.0, 2.0], seed=1)
    monitor.observe([1.5], [2], [0], 5.0)
    ended = monitor.restart([7.0], generation=1)
    assert (ended.n, monitor.era, monitor.generation, monitor.ranks.kept.tolist()) == (1, 1, 1, [7.0])
    assert monitor.restart([], generation=2) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([np.nan], [2], [0], 0.0), "not a number"), (([1.0], [2, 2], [0], 0.0), r"`answers` must have shape \(1,\)"),
        (([1.0], [2], [], 0.0), "`labels` must have shape"), (([1.0], [2], [0], [0.0, 1.0]), "`times` must have shape"),
        (([1.0], [3], [0], 0.0), r"`answers` must be 0 \(unmatched\)"), (([1.0], [0.5], [0], 0.0), "whole numbers"),
        (([1.0], [2], ["cat"], 0.0), "`labels` must be whole numbers"),
        (([1.0], [2], [0], np.nan), "seconds since 1970"),
    ],
)  # fmt: skip
def test_bad_batches_change_nothing(given, message):
    monitor = Monitor([1.0], seed=1)
    monitor.observe([1.5], [2], [0], 5.0)
    before = monitor.to_bytes()
    with pytest.raises(DataError, match=message):
        monitor.observe(*given)
    assert monitor.to_bytes() == before


def test_an_empty_batch_is_nothing():
    monitor = Monitor()
    seen = monitor.observe([], [], [], [])
    assert (len(seen.p_values), seen.minutes, seen.alarm, monitor.minute) == (0, (), None, None)


@pytest.mark.parametrize("threshold", [1.0, math.inf, math.nan])
def test_threshold_is_above_one(threshold):
    with pytest.raises(UsageError, match="`threshold` must be above 1"):
        Monitor(threshold=threshold)


@pytest.mark.parametrize(
    "state", [b"", b"[]", b"null", b"{}", b"\xff", b'{"schema":1}', b'{"schema":1,"threshold":"a","generation":0}']
)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(DataError, match=r"no state of a drift monitor.*Restart the monitor"):
        Monitor.from_bytes(state)


def test_damaged_and_newer_states_are_refused():
    whole = json.loads(Monitor([1.0]).to_bytes())
    with pytest.raises(DataError, match=r"schema 2, this version reads 1"):
        Monitor.from_bytes(json.dumps(whole | {"schema": 2}).encode())
    for damage in ({"ranks": {}}, {"martingale": 3}, {"alarm": {"item": 1}}, {"minute": []}):
        with pytest.raises(DataError, match="no state of a drift monitor"):
            Monitor.from_bytes(json.dumps(whole | damage).encode())


def test_state_is_small():
    monitor = Monitor(np.random.default_rng(0).normal(size=10_000))
    assert len(monitor.to_bytes()) < 12 * 10_000
