"""The protocol `lifetime`: days, labels, measures, the other ways through them, and a week of the service on digits."""

import gc
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from support.service import lightened

from protocols.data.loading import load_data
from protocols.harness.outcome import SeedOutcome
from protocols.harness.protocol import Setting
from protocols.runs.lifetime.calendar import Calendar
from protocols.runs.lifetime.contenders import Evening, Said
from protocols.runs.lifetime.labelling import Labeller
from protocols.runs.lifetime.measures import Diary, Measures
from protocols.runs.lifetime.peers import NightlyRegression, VectorIndex
from protocols.runs.lifetime.protocol import OURS, PROTOCOL, Method, findings, live, run_seed
from protocols.runs.lifetime.replay import ReplayNetwork
from protocols.runs.lifetime.rows import make_rows
from protocols.runs.lifetime.shifts import SHIFTS, shifted
from protocols.runs.lifetime.stream import JUNK, Day, Stream, make_stream
from slots.errors import MissingExtraError, UsageError

pytestmark = pytest.mark.slow

DIGITS = load_data("digits")
WEEK = Calendar(days=8, new=2)
PEERS = (VectorIndex, NightlyRegression, lambda seed: ReplayNetwork(10, seed))


@pytest.fixture(autouse=True, scope="module")
def _collector():
    """A life lets the garbage collector look at all that was imported: not here, nor in the tests that follow."""
    with lightened():
        yield
    gc.collect()
    gc.freeze()


def silent(_step, _share):
    return None


def digits_stream(seed=0, calendar=WEEK, a_day=40):
    return make_stream(DIGITS, calendar, seed, start=300, a_day=a_day, n_test=200)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    setting = Setting(data=DIGITS, backbone="pixels", data_dir=tmp_path_factory.mktemp("nothing"))
    return make_rows(setting, digits_stream(), "rotation", 0, silent)


# --- days


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(7, 30), st.integers(1, 8))
def test_no_example_comes_twice_and_each_class_on_its_day(seed, days, new):
    calendar = Calendar(days=days, new=new)
    stream = digits_stream(seed, calendar, a_day=0)
    came = np.concatenate([stream.start, *(day.rows[day.y != JUNK] for day in stream.days)])
    assert len(set(came.tolist())) == len(came)
    junk = np.concatenate([day.rows[day.y == JUNK] for day in stream.days])
    assert sorted(junk.tolist()) == list(range(stream.n_junk))
    assert sorted(stream.arrived) == list(range(10))
    assert sum(first > 0 for first in stream.arrived.values()) == new
    assert set(DIGITS.y_train[stream.start]) == set(stream.known(0).tolist())
    for number, day in enumerate(stream.days, start=1):
        known = day.y != JUNK
        assert (DIGITS.y_train[day.rows[known]] == day.y[known]).all()
        assert set(day.y[known].tolist()) <= set(stream.known(number).tolist())
        assert not day.shifted[~known].any()
        assert number >= calendar.shift or not day.shifted.any()
        assert (~known).any() == (number % 7 in (6, 0))


def test_the_month_of_the_documentation():
    month = Calendar()
    assert month.arrivals == (5, 8, 12, 15)
    assert (month.shift, month.bad_day) == (21, 26)
    assert [day for day in range(1, 31) if month.junk_share(day)] == [6, 7, 13, 14, 20, 21, 27, 28]
    assert [month.wrong_share(day) for day in (25, 26, 27)] == [0.05, 0.5, 0.05]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Calendar(days=6), "`days` must be >= 7"),
        (lambda: Calendar(wrong=1.0), r"`wrong` must lie in \[0, 1\)"),
        (lambda: digits_stream(calendar=Calendar(new=9)), "`new` must leave at least two classes"),
        (lambda: digits_stream(calendar=Calendar(days=365), a_day=0), "`data` must have 8 inputs for each of 365 days"),
        (lambda: shifted(DIGITS.x_test, "fog", seed=0, like=DIGITS.x_test), "`shift` must be one of rotation"),
    ],
)
def test_what_cannot_be_lived_through_is_refused(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


@pytest.mark.parametrize("how", SHIFTS)
def test_shifted_images_are_images_and_differ(how):
    other = shifted(DIGITS.x_test, how, seed=0, like=DIGITS.x_train)
    assert other.dtype == np.uint8
    assert other.shape == DIGITS.x_test.shape
    assert (other != DIGITS.x_test).any((1, 2, 3)).mean() > 0.99


def test_shifted_rows_have_one_gain_and_offset():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    other = shifted(x, "rotation", seed=3, like=x)
    assert other.dtype == np.float32
    gain = (other[1] - other[0]) / (x[1] - x[0])
    assert np.allclose(other - other[0], gain * (x - x[0]), atol=1e-4)
    assert np.ptp(gain) > 0.1


# --- labels


def test_the_labeller_says_the_same_to_all_and_is_wrong_as_often_as_asked():
    stream = digits_stream()
    one, other = (Labeller(stream, WEEK, 10_000, seed=4) for _ in range(2))
    wrong = {}
    for day in (1, WEEK.bad_day):
        one.begin(day)
        other.begin(day)
        places = range(len(stream.days[day - 1].y))
        said = [one.ask(day, it) for it in places]
        assert said == [other.ask(day, it) for it in reversed(places)][::-1]
        assert set(said) <= {*stream.known(day).tolist(), JUNK}
        wrong[day] = np.mean(np.array(said) != stream.days[day - 1].y)
    assert wrong[1] < 0.2 < 0.3 < wrong[WEEK.bad_day] < 0.7


def test_nobody_gets_more_labels_than_the_budget():
    labeller = Labeller(digits_stream(), WEEK, 2, seed=0)
    for day in (1, 2):
        labeller.begin(day)
        labeller.ask(1, 0)
        labeller.ask(day, 1)
        with pytest.raises(RuntimeError, match=f"The 2 labels of day {day} are spent"):
            labeller.ask(1, 2)
    assert labeller.given == 4


# --- measures


def said(labels, novel=(), matched=None):
    labels = np.array(labels)
    return Said(labels, np.isin(np.arange(len(labels)), novel), None if matched is None else np.array(matched, bool))


def test_figures_by_hand():
    """Ten days of two old classes and a new one from day 4 on: an input of each, and one of junk at weekends."""
    calendar = Calendar(days=10, new=1)
    assert (calendar.arrivals, calendar.shift, calendar.bad_day) == ((4,), 8, 9)
    days = []
    for day in range(1, 11):
        y = [0, 1, *([2] if day >= 4 else []), *([JUNK] if day in (6, 7) else [])]
        days.append(Day(np.arange(len(y)), np.array(y), np.array([day >= 8 and it == 0 for it in y])))
    stream = Stream(np.arange(2), tuple(days), {0: 0, 1: 0, 2: 4}, np.arange(4), 2)
    measures = Measures(stream, calendar, np.array([0, 1, 2, 2]))
    diary = Diary(labels=50, start_s=1.0, answer_s=0.5, nbytes=10, kept_bytes=20)
    for day in range(11):
        plain = [int(day == 9), 0 if day == 10 else 1, 2 if day >= 5 else 0, 2 if day >= 6 else 1]
        diary.plain.append(said(plain, matched=[1, 0, day >= 6, 0]))
        diary.other.append(said([1, 1, 2, 2] if day else [1, 1, 1, 1], matched=[1, 0, day == 0, 0]))
    for came in days:
        answers = [it if it != JUNK else 0 for it in came.y]
        weekend, late = len(answers) == 4, len(diary.stream) in (1, 8)
        diary.stream.append(said(answers, novel=[0, 2] if len(diary.stream) == 3 else [3] if weekend else []))
        diary.evenings.append(Evening(1.0, 2.0, drift=late, note="late" if weekend else ""))
    found = measures.figures(diary)
    assert found["daily"] == 1.0
    assert measures.held_out(diary, 3) == 1.0  # classes 0 and 1 alone
    assert measures.held_out(diary, 4) == 0.5
    assert found["final"] == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert found["gain"] == pytest.approx(100 * (3 / 4 - (2 / 4 + 1 / 4) / 2) / 50 * 100)
    assert (found["new"], found["shifted"]) == (1.0, 0.75)
    assert (found["days_50"], found["days_80"]) == (2, 3)  # right on the evenings of day 5 and 6
    assert found["noticed"] == 1.0
    assert found["false_alarms"] == pytest.approx(1 / 2 / 10)  # one of two on day 4, in ten days
    assert found["junk_caught"] == 1.0
    assert (found["forgetting"], found["lost"]) == (0.5, 0.5)
    assert found["changed"] == 1  # in the other domain, after the start; what was said on the bad day is left out
    assert (found["matched"], found["matched_right"]) == (0.5, 1.0)
    assert (found["evening_s"], found["answer_s"]) == (3.0, 500.0 / sum(len(day.y) for day in days))
    facts = measures.facts(diary)
    assert facts["notes"] == ["late"]
    assert facts["drift"] == {
        "days with an alarm": [2, 9],
        "quiet days": 3,
        "false alarms": 1,
        "days from the shift to an alarm": 2,
    }
    assert measures.days_until(diary, 2, 1.01) == 8  # never: one more than the evenings


# --- the others


def test_nearest_neighbours_are_those_of_scikit_learn(rows):
    index = VectorIndex(0)
    index.start(rows.start, rows.labels)
    known, labels = np.concatenate(index.rows), np.concatenate(index.labels)
    unit = [it / np.linalg.norm(it, axis=1, keepdims=True) for it in (known, rows.plain)]
    theirs = KNeighborsClassifier(5, weights=lambda d: 2 / np.maximum(2e-6, d**2)).fit(unit[0], labels).predict(unit[1])
    assert (index.answer(rows.plain).labels == theirs).mean() > 0.99  # ties of rounding


@pytest.mark.parametrize("make", PEERS)
def test_a_peer_learns_within_the_threshold_and_forgets_a_day(rows, make):
    labeller = Labeller(digits_stream(), Calendar(days=8, new=2, wrong=0), 20, seed=0)
    one = make(0)
    one.start(rows.start, rows.labels)
    assert one.answer(rows.start).novel.mean() < 0.12
    before = one.answer(rows.plain)
    labeller.begin(8)
    one.evening(8, rows.days[7], labeller)
    assert labeller.given == 20
    learned = one.answer(rows.plain)
    assert (learned.labels != before.labels).any()
    one.take_back(8)
    after = one.answer(rows.plain)
    assert (after.labels == before.labels).all()
    assert (after.novel == before.novel).all()
    assert one.kept_bytes > one.nbytes > 0


@pytest.mark.parametrize("make", PEERS)
def test_a_peer_lives_the_same_life_twice(rows, make):
    lives = [
        live(Method("one", lambda: make(5)), rows, WEEK, Labeller(digits_stream(), WEEK, 4, seed=5), silent)
        for _ in range(2)
    ]
    for one, other in zip(lives[0].plain, lives[1].plain, strict=True):
        assert (one.labels == other.labels).all()
    assert lives[0].labels == lives[1].labels == 4 * WEEK.days
    assert len(lives[0].plain) == 1 + WEEK.days


# --- the whole


def test_a_week_of_the_service(tmp_path):
    setting = Setting(
        data=DIGITS,
        backbone="pixels",
        data_dir=tmp_path,
        peers=("index",),
        options={"days": 7, "new": 1, "budget": 6, "a_day": 40, "test": 200},
    )
    outcome = run_seed(setting, 0, silent)
    json.dumps(outcome.as_json())
    assert SeedOutcome.from_json(json.loads(json.dumps(outcome.as_json()))) == SeedOutcome.from_json(outcome.as_json())
    ours, index = outcome.rows
    assert (ours.method, ours.ours, index.ours) == (OURS, True, False)
    assert ours.figures["changed"] == 0
    assert ours.figures["labels"] <= 42
    assert index.figures["labels"] == 42
    assert ours.figures["new"] > 0.25
    assert ours.figures["forgetting"] < 0.1
    assert ours.figures["kept_bytes"] > ours.figures["bytes"] > 10_000
    for row in outcome.rows:
        assert set(row.figures) == {column.key for column in PROTOCOL.columns}
    life = outcome.facts["lives"][OURS]
    assert life["notes"] == []
    assert life["drift"]["false alarms"] <= 1
    assert "The drift monitor raised" in findings([outcome])[0]
    assert {curve.method for curve in outcome.curves} == {ours.method, index.method}


def test_without_the_extra_it_says_so(monkeypatch):
    for name in [it for it in sys.modules if it.startswith(("protocols.service", "protocols.runs.lifetime.served"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"sqlalchemy is not installed.*neural-slots\[serve\]"):
        run_seed(Setting(data=DIGITS, options={"days": 7, "new": 1}), 0, silent)


def test_misuse_is_refused():
    with pytest.raises(UsageError, match="`budget` must be >= 0"):
        run_seed(Setting(data=DIGITS, options={"budget": -1}), 0, silent)
