"""The `lifetime` protocol: a month of a service with few labels a day, beside what people would build instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.lifetime.calendar import Calendar
from protocols.runs.lifetime.contenders import Contender
from protocols.runs.lifetime.labelling import Labeller
from protocols.runs.lifetime.measures import Diary, Measures
from protocols.runs.lifetime.peers import NightlyRegression, VectorIndex
from protocols.runs.lifetime.replay import MEMORY, ReplayNetwork
from protocols.runs.lifetime.rows import Rows, make_rows
from protocols.runs.lifetime.stream import Stream, make_stream
from slots.errors import MissingExtraError, UsageError
from slots.progress import Progress, part

OURS = "slots: the service"
_BUDGET, _SHARE = 20, 0.25  # labels a day where none are asked for: so many, and at most this share of a day
_NOTE = (
    "A label is given to a whole group, by the input in its middle. The service's own parts in this process, without "
    "HTTP; it keeps the last seven generations, the first and the inbox."
)


@dataclass(frozen=True)
class Method:
    """One way through the days, by its name in the table."""

    name: str
    make: Callable[[], Contender]
    ours: bool = False
    note: str = ""


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Every method through the same days."""
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    calendar = Calendar(**{key: option[key] for key in ("days", "new", "junk", "shifted", "wrong", "wrong_once")})
    data, budget = setting.data, int(option["budget"])
    if budget < 0 or option["start"] < 40 or option["a_day"] < 0 or option["test"] < 20:
        raise UsageError(
            "`budget` must be >= 0, `start` >= 40, `a_day` >= 0 and `test` >= 20, got "
            f"{budget}, {option['start']}, {option['a_day']} and {option['test']}. Leave them out for the defaults."
        )
    stream = make_stream(data, calendar, seed, start=option["start"], a_day=option["a_day"], n_test=option["test"])
    budget = budget or max(1, min(_BUDGET, round(len(stream.days[0].y) * _SHARE)))
    rows = make_rows(setting, stream, option["shift"], seed, part(progress, 0.0, 0.1))
    measures = Measures(stream, calendar, data.y_test[stream.test])
    methods = list(_methods(setting, seed, option))
    found: list[Row] = []
    curves: list[Curve] = []
    lives: dict[str, Any] = {}
    for place, method in enumerate(methods):
        within = part(progress, *(0.1 + 0.9 * it / len(methods) for it in (place, place + 1)))
        diary = live(method, rows, calendar, Labeller(stream, calendar, budget, seed), within)
        found.append(Row(method.name, measures.figures(diary), ours=method.ours, note=method.note))
        curves += _curves(method, measures, diary)
        lives[method.name] = measures.facts(diary)
    return SeedOutcome(found, curves, _facts(setting, stream, calendar) | {"labels a day": budget, "lives": lives})


def live(method: Method, rows: Rows, calendar: Calendar, labeller: Labeller, progress: Progress) -> Diary:
    """One method through all days.

    Parameters
    ----------
    method : Method
        Which.
    rows : Rows
        What it sees.
    calendar : Calendar
        Knows which day is taken back.
    labeller : Labeller
        Whom it may ask.
    progress : callable
        ``progress(step, share)``, told the days.

    Returns
    -------
    Diary
    """
    diary, one = Diary(), method.make()
    try:
        progress(f"{method.name}: the start", 0.0)
        began = time.perf_counter()
        one.start(rows.start, rows.labels)
        diary.start_s = time.perf_counter() - began
        _ask(one, rows, diary)
        for day, came in enumerate(rows.days, start=1):
            progress(f"{method.name}: day {day}", day / (1 + len(rows.days)))
            if day == calendar.bad_day + 1:
                one.take_back(calendar.bad_day)
            labeller.begin(day)
            began = time.perf_counter()
            diary.stream.append(one.stream(day, came))
            diary.answer_s += time.perf_counter() - began
            diary.evenings.append(one.evening(day, came, labeller))
            _ask(one, rows, diary)
        diary.labels, diary.nbytes, diary.kept_bytes = labeller.given, one.nbytes, one.kept_bytes
    finally:
        one.close()
    return diary


def _ask(one: Contender, rows: Rows, diary: Diary) -> None:
    """What it would answer now to what nobody learns."""
    diary.plain.append(one.answer(rows.plain))
    diary.other.append(one.answer(rows.other))


def _methods(setting: Setting, seed: int, option: dict[str, Any]) -> Iterator[Method]:
    try:
        from protocols.runs.lifetime.served import Served, Ways
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"`lifetime` needs the service, and {error.name} is not installed. pip install 'neural-slots[serve]'"
        ) from error
    names = setting.data.class_names
    ways = Ways(spread=option["spread"], reach=option["reach"])
    yield Method(OURS, lambda: Served(names, seed, ways), ours=True, note=_NOTE)
    peers = {
        "index": Method("5-NN on a vector index, random labels", lambda: VectorIndex(seed)),
        "nightly": Method("logistic regression each night, margin sampling", lambda: NightlyRegression(seed)),
        "replay": Method(
            f"network with replay of {MEMORY}, random labels",
            lambda: ReplayNetwork(len(names), seed),
            note="After Chaudhry et al. 2019; told the number of classes beforehand.",
        ),
    }
    yield from (peers[name] for name in setting.peers)


def _curves(method: Method, measures: Measures, diary: Diary) -> list[Curve]:
    """Accuracy by day: on test examples each evening, on the stream, and on the new classes."""
    days = range(1, measures.calendar.days + 1)
    lines: dict[str, list[float | None]] = {
        "Accuracy on the test examples of all that has come": [measures.held_out(diary, day) for day in days],
        "Accuracy on the day's inputs": [measures.of_day(diary, day) for day in days],
        "Recall of the new classes that have come": [measures.recall_of_new(diary, day) for day in days],
    }
    found = []
    for title, y in lines.items():
        known = [(float(day), it) for day, it in zip(days, y, strict=True) if it is not None]
        x, shares = [day for day, _ in known], [it for _, it in known]
        found.append(Curve(title, method.name, x, shares, "day", "share right", ours=method.ours))
    return found


def _facts(setting: Setting, stream: Stream, calendar: Calendar) -> dict[str, Any]:
    return {
        "start": len(stream.start),
        "inputs a day": [len(day.y) for day in stream.days],
        "junk": stream.n_junk,
        "day of each class": {setting.data.class_names[it]: day for it, day in sorted(stream.arrived.items())},
        "first day of the other domain": calendar.shift,
        "bad day": calendar.bad_day,
        "test examples": len(stream.test),
    }


def findings(outcomes: Sequence[SeedOutcome]) -> list[str]:
    """What the drift monitor said, and what went wrong, over all seeds."""
    lives = [outcome.facts["lives"][OURS] for outcome in outcomes]
    told = sorted({f"{OURS}: {note}" for it in lives for note in it["notes"]})
    watched = [it["drift"] for it in lives if it["drift"] is not None]
    if not watched:
        return [*told, "Too few examples were held out at the start for a drift monitor."]
    quiet, false = (sum(it[key] for it in watched) for key in ("quiet days", "false alarms"))
    waited = [it["days from the shift to an alarm"] for it in watched]
    said = ", ".join("never" if it is None else str(it) for it in waited)
    return [
        *told,
        f"The drift monitor raised {false} alarms on {quiet} days on which nothing was new; days from the shift to an "
        f"alarm, the day itself counted, seed by seed: {said}.",
    ]


PROTOCOL = Protocol(
    name="lifetime",
    title="A life of a model",
    about=(
        "A month of days. A model is given labelled examples of some classes; then inputs come day by day, each once: "
        "of the known classes, from certain days on of new ones, at weekends foreign ones (junk), and in the last "
        "third half of them from another domain. Each evening a method may ask a labeller about the inputs so far, so "
        "many labels a day; a twentieth of the labels is wrong, on one day half of them, which is noticed in the "
        "morning and taken back. All methods see the same rows and the same labeller, and may call one in twenty "
        "familiar inputs novel. Day by day: accuracy on the inputs as they come. Test: on test examples of all "
        "classes that have come, half of them in the other domain once it is there, mean over the evenings; final: on "
        "the last evening. Gained: points of the final figure over what the method's start would have had, for 100 "
        "labels. Days until known: evenings until half, or four fifths, of a new class's test examples are named "
        "right, and one more than there were where they never are. Noticed: inputs of a new class that are called "
        "novel on its first day. False alarms: inputs of the first classes and domain that are called novel, mean "
        "over the days. Junk caught: called novel, or named junk. Forgetting: points that the first classes lost from "
        "start to end; lost: their test examples that were right at the start and are wrong at the end. Changed: test "
        "inputs whose matched answer was another on a later evening. Seconds: of an evening, choosing and learning, "
        "and of 1,000 answers."
    ),
    columns=(
        Column("final", "final"),
        Column("held_out", "test"),
        Column("daily", "day by day"),
        Column("new", "new classes, final"),
        Column("shifted", "other domain, final"),
        Column("gain", "gained, points a 100 labels", "score"),
        Column("days_50", "days until known, half", "count", "lower"),
        Column("days_80", "days until known, 4 of 5", "count", "lower"),
        Column("noticed", "noticed"),
        Column("false_alarms", "false alarms", better="lower"),
        Column("junk_caught", "junk caught"),
        Column("forgetting", "forgetting", better="lower"),
        Column("lost", "right answers lost", better="lower"),
        Column("changed", "matched answers changed", "count", "lower"),
        Column("matched", "matched", better=None),
        Column("matched_right", "right when matched"),
        Column("labels", "labels", "count", None),
        Column("evening_s", "an evening", "seconds", "lower"),
        Column("answer_s", "1,000 answers", "seconds", "lower"),
        Column("start_s", "the start", "seconds", "lower"),
        Column("bytes", "what answers", "bytes", "lower"),
        Column("kept_bytes", "all that is kept", "bytes", "lower"),
    ),
    headline="final",
    peers=("index", "nightly", "replay"),
    defaults={
        "days": 30,
        "new": 4,
        "budget": 0,
        "start": 3000,
        "a_day": 0,
        "test": 2000,
        "shift": "rotation",
        "shifted": 0.5,
        "junk": 0.15,
        "wrong": 0.05,
        "wrong_once": 0.5,
        "reach": 0.8,
        "spread": True,
    },
    run_seed=run_seed,
    findings=findings,
)
