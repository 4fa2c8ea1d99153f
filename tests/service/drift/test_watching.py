"""Drift in a running service: fed by answers, kept over restarts, told as event, figure and route."""

import asyncio
import hashlib
import json
from contextlib import closing

import numpy as np
import pytest
from sqlalchemy import select, update
from support.drift_streams import AT, ask, familiar, offline, shifted, told
from support.pages import parse
from support.service import rows, running

from protocols.recipes.building import load_model
from protocols.service.answering.loaded import Loaded
from protocols.service.answering.served_model import ServedModel
from protocols.service.drift import Minute
from protocols.service.drift.rows import find, keep, last_era, minutes
from protocols.service.drift.steps import steps, whole
from protocols.service.drift.watch import Watch
from protocols.service.drift.watching import Watching
from protocols.service.inbox.database import Database
from protocols.service.inbox.events import events
from protocols.service.inbox.tables import kept_state
from protocols.service.settings import Limits
from slots.training import TrainConfig, fit


def test_a_familiar_stream_raises_no_alarm_and_a_shifted_one_does(own, tmp_path):
    with running(own, tmp_path / "data") as client:
        ask(client, familiar(1200, 5))
        calm = client.get(f"{AT}/drift").json()
        ask(client, shifted(600, 6))
        found = client.get(f"{AT}/drift").json()
        figures = client.get("/metrics").text
        page = client.get("/models/small/drift").text
    assert calm["alarm"] is None
    assert (calm["watched"], calm["items"], calm["era"], calm["threshold"]) == (True, 1200, 0, 100)
    assert (calm["compared_with"], calm["calibration"]) == ("calibration", 90)
    assert 1200 <= found["alarm"]["item"] < 1400
    assert found["alarm"]["log10"] >= 2
    assert found["items"] == 1800 == sum(sum(it["histogram"]) for it in found["steps"])
    assert 'slots_drift_alarms_total{model="small"} 1.0' in figures
    assert 'slots_drift_alarm{model="small"} 1.0' in figures
    assert f'slots_drift_log10{{model="small"}} {found["log10"]}' in figures
    assert "has changed" in parse(page).text


def test_the_monitor_sees_what_the_model_says_offline(own, tmp_path):
    x = np.concatenate([familiar(150, 7), shifted(50, 8)])
    monitor = offline(own, x)
    with running(own, tmp_path / "data") as client:
        for part, path in ((x[:64], "predict"), (x[64:70], "items"), (x[70:], "predict")):
            ask(client, part, path)
            ask(client, shifted(10, 12), "explain")  # a look at an input is no further input
        found = client.get(f"{AT}/drift").json()
    assert found["log10"] == pytest.approx(monitor.log10, abs=1e-6)
    expected = dict(sorted(monitor.minute.labels.items()))
    names = load_model(own).class_names
    assert [
        (it["label_id"], it["label"], it["unmatched"], it["ambiguous"], it["matched"]) for it in found["labels"]
    ] == [(label, names[label], *counts) for label, counts in expected.items()]
    for place, kind in enumerate(("unmatched", "ambiguous", "matched")):
        assert sum(it[kind] for it in found["steps"]) == monitor.minute.answers[place]


def test_a_restart_goes_on_where_the_service_stopped(own, tmp_path):
    x = np.concatenate([familiar(100, 9), shifted(100, 10)])
    expected = offline(own, x)
    for part in (x[:90], x[90:]):
        with running(own, tmp_path / "data") as client:
            ask(client, part)
            found = client.get(f"{AT}/drift").json()
    assert (found["items"], found["era"], found["alarm"]["item"]) == (200, 0, expected.alarm.item)
    assert found["log10"] == pytest.approx(expected.log10, abs=1e-6)
    assert np.sum([it["histogram"] for it in found["steps"]], axis=0).tolist() == expected.minute.histogram
    with closing(Database.in_folder(tmp_path / "data")) as database:
        told = [it for it in database.read_now(lambda it: list(events(it))) if it.action == "drift.alarm"]
    assert [(it.model, it.after, it.detail) for it in told] == [("small", 0, {"era": 0, **found["alarm"]})]


def test_an_alarm_is_acknowledged_once_and_the_stream_is_compared_with_itself(own, tmp_path):
    with running(own, tmp_path / "data") as client:
        assert client.post(f"{AT}/drift/acknowledge").status_code == 409
        ask(client, shifted(200, 14))
        wrong = client.post(f"{AT}/drift/acknowledge", json={"compare_with": "nothing"})
        found = client.post(f"{AT}/drift/acknowledge").json()
        again = client.post(f"{AT}/drift/acknowledge")
        ask(client, shifted(400, 15))
        calm = client.get(f"{AT}/drift").json()
        ask(client, familiar(400, 16))
        calmer = client.get(f"{AT}/drift").json()
        back = client.post(f"{AT}/drift/acknowledge", json={"compare_with": "calibration"}).json()
        told = [it["action"] for it in client.get("/api/v1/events").json()]
    assert (wrong.status_code, again.status_code) == (422, 409)
    assert (found["era"], found["alarm"], found["items"], found["compared_with"]) == (1, None, 0, "stream")
    assert calm["alarm"] is None
    assert {it["era"] for it in calm["steps"]} == {0, 1}
    assert calmer["alarm"] is not None
    assert (back["era"], back["compared_with"], back["calibration"]) == (2, "calibration", 90)
    assert told == ["drift.alarm", "drift.acknowledge"] * 2


@pytest.fixture
def database(tmp_path):
    with closing(Database.in_folder(tmp_path / "db")) as it:
        yield it


def stored(database, model, loaded, batches):
    """Feed a service's monitor, with its parts made anew from the database after each batch."""
    for x in batches:
        watching = Watching(database, {"small": model})
        watching.answered(model, told(loaded, x), 0.0)
        asyncio.run(watching.stop())
    return database.read_now(lambda it: find(it, "small"))


def test_state_and_minutes_are_stored_bit_for_bit(own, database):
    model = ServedModel("small", own, "cpu", Limits())
    loaded = model.current
    x = shifted(200, 21)
    watch = Watch(loaded)
    for part in (x[:50], x[50:120], x[120:]):
        watch.tell(told(loaded, part))
    watch.digest()
    kept = stored(database, model, loaded, (x[:50], x[50:120], x[120:]))
    for name in ("log10", "n_items", "era", "generation"):
        assert getattr(kept.monitor, name) == getattr(watch.monitor, name)
    assert kept.monitor.ranks.to_json() == watch.monitor.ranks.to_json()
    (event,) = database.read_now(lambda it: list(events(it)))
    assert (event.action, event.by, event.detail["item"]) == ("drift.alarm", "service", watch.monitor.alarm.item)


def test_another_model_of_the_same_generation_begins_an_era(own, database):
    model = ServedModel("small", own, "cpu", Limits())
    stored(database, model, model.current, [familiar(20, 22)])
    x, y = rows(900, 23)
    other, _ = fit(x, y, config=TrainConfig(epochs=2, slots_per_class=2, held_out=0.2))
    model.current = Loaded(other, 0, ("a", "b", "c"))
    watching = Watching(database, {"small": model})
    found = asyncio.run(watching.standing("small"))
    assert (found.era, found.items, found.generation) == (1, 0, 0)
    assert [it.n for it in found.minutes] == [20]


def test_a_damaged_state_begins_after_the_eras_that_have_minutes(own, database):
    model = ServedModel("small", own, "cpu", Limits())
    watch = Watch(model.current, last_era=6)
    assert watch.monitor.era == 7
    stored(database, model, model.current, [shifted(300, 24)])
    kept = database.read_now(lambda it: find(it, "small"))
    kept.monitor.restart((), generation=0)
    database.write_now(lambda it: it.execute(update(kept_state).values(value=b"{}\nnothing")))
    assert database.read_now(lambda it: find(it, "small")) is None
    assert database.read_now(lambda it: last_era(it, "small")) == -1


def test_a_state_of_an_older_version_begins_an_era_and_keeps_its_minute(own, database):
    model = ServedModel("small", own, "cpu", Limits())
    stored(database, model, model.current, [familiar(20, 22)])

    def as_it_was(connection):
        head, _, state = connection.execute(select(kept_state.c.value)).scalar().partition(b"\n")
        found = json.loads(state)
        found["generation"] = 3
        assert found["minute"].pop("generation") == 0
        scores = model.current.model.novelty.calibration.astype("<f8").tobytes()
        head = json.dumps({**json.loads(head), "of": hashlib.sha256(scores).hexdigest()}).encode()
        connection.execute(update(kept_state).values(value=head + b"\n" + json.dumps(found).encode()))

    database.write_now(as_it_was)
    found = asyncio.run(Watching(database, {"small": model}).standing("small"))
    assert (found.era, found.items, found.generation) == (1, 0, 0)
    assert [(it.era, it.n, it.generation) for it in found.minutes] == [(0, 20, 3)]


def test_minutes_add_up_to_steps():
    def seen(era, start, n, log10, generation):
        labels = {era: [n, 0, 1], 7: [0, 2, 0]}
        return Minute(era, start, [n, *[0] * 19], labels, log10, log10 + 1, generation)

    given = [seen(0, 60, 1, 0.5, 0), seen(0, 120, 2, 0.25, 1), seen(0, 3600, 3, 1.5, 1), seen(1, 3660, 4, -1.0, 2)]
    found = steps(given, 3600)
    assert [(it.era, it.start, it.histogram[0], it.generation) for it in found] == [
        (0, 0, 3, 1), (0, 3600, 3, 1), (1, 3600, 4, 2),
    ]  # fmt: skip
    assert found[0].labels == {0: [3, 0, 2], 7: [0, 4, 0]}
    assert [(it.log10, it.log10_max) for it in found] == [(0.25, 1.5), (1.5, 2.5), (-1.0, 0.0)]
    assert whole(given).labels == {0: [6, 0, 3], 7: [0, 8, 0], 1: [4, 0, 1]}
    assert given[0].histogram[0] == 1  # they are left as they are


@pytest.mark.parametrize("query", ["from=5&to=5", "from=0&to=9999999999", "from=0&to=600000&step=60"])
def test_times_without_sense_are_refused(client, query):
    assert client.get(f"{AT}/drift?{query}").status_code == 400
    assert client.get(f"{AT}/drift?step=61").status_code == 422


def test_stored_minutes_are_read_by_their_time(own, database):
    model = ServedModel("small", own, "cpu", Limits())
    watch = Watch(model.current)
    for minute in range(5):
        watch.tell(told(model.current, familiar(2 + minute, 30 + minute)), 60.0 * minute)
    watch.digest()
    what = watch.unsaved()
    database.write_now(lambda it: keep(it, "small", what.head, what.state, what.minutes))
    database.write_now(lambda it: keep(it, "small", what.head, what.state, what.minutes))  # replaced, not doubled
    found = database.read_now(lambda it: minutes(it, "small", first=60, end=180))
    assert [(it.start, it.n, it.generation) for it in found] == [(60, 3, 0), (120, 4, 0)]
