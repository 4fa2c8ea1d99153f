"""The log of events: written with its effect, and no row can change unseen."""

import asyncio
import json
import time
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update
from support.service import running

from protocols.recipes.building import load_model
from protocols.service.callers import LOCAL, Caller, Role
from protocols.service.inbox.database import Database
from protocols.service.inbox.events import events, record, verify
from protocols.service.inbox.tables import event, meta
from slots.errors import StorageError
from slots.model.editing import relabel


@pytest.fixture
def database(tmp_path):
    opened = Database.in_folder(tmp_path)
    yield opened
    opened.close()


def fill(database, n=6):
    for place in range(n):
        who = Caller(place, f"anna {place}", Role.LABEL)
        database.write_now(
            lambda it, who=who, place=place: record(
                it, who, "label.add", model="small", before=place, after=place + 1, detail={"n": place / 3, "ü": ["😀"]}
            )
        )
    return database.read_now(lambda it: list(events(it)))


def tamper(database, *statements):
    """What somebody with the file does: a transaction of their own that knows nothing of digests."""
    with database._engine.begin() as connection:
        for it in statements:
            connection.execute(it)


def found(database, **options):
    return database.read_now(lambda it: verify(it, **options))


def test_a_log_is_whole_and_reads_as_it_was_written(database):
    rows = fill(database)
    assert [it.number for it in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3].detail == {"n": 1.0, "ü": ["😀"]}
    assert (rows[3].by, rows[3].key_id, rows[3].before, rows[3].after) == ("anna 3", 3, 3, 4)
    assert all(later.previous == it.digest for it, later in pairwise(rows))
    verdict = found(database, expected=rows[2].digest)
    assert (verdict.n_events, verdict.head, verdict.faults) == (6, rows[-1].digest, ())
    assert [it.number for it in database.read_now(lambda it: list(events(it, after=4)))] == [5, 6]


def test_an_empty_log_is_whole(database):
    assert found(database).faults == ()


@pytest.mark.parametrize("column", [it.name for it in event.c if it.name not in ("number", "digest", "previous")])
def test_a_changed_row_is_named(database, column):
    fill(database)
    new = {"detail": {"n": 7}, "at": 1.5, "key_id": 77, "before": 40, "after": 41}.get(column, "other")
    tamper(database, update(event).where(event.c.number == 3).values({column: new}))
    (fault,) = found(database).faults
    assert fault.startswith("Event 3 was changed")


def test_removed_rows_are_named(database):
    fill(database)
    tamper(database, delete(event).where(event.c.number.in_([2, 3])))
    (fault,) = found(database).faults
    assert fault == "Events 2 to 3 were removed."


@pytest.mark.parametrize("number", [6, 1])
def test_the_first_and_the_last_row_are_missed_too(database, number):
    fill(database)
    tamper(database, delete(event).where(event.c.number == number))
    (fault,) = found(database).faults
    assert fault.startswith(f"Event {number} was removed")


def test_an_inserted_row_is_named(database):
    """Somebody computes a fitting digest for a row of their own, and makes room for it."""
    rows = fill(database)
    forged = replace(rows[2], by="mallory", number=4, previous=rows[2].digest)
    forged = replace(forged, digest=forged.computed())
    move = [update(event).where(event.c.number == n).values(number=n + 1) for n in (6, 5, 4)]
    tamper(database, *move, insert(event).values(asdict(forged)))
    faults = found(database).faults
    assert any(it.startswith("Event 5 was changed or moved") for it in faults)
    replaced = replace(rows[2], by="mallory")
    replaced = replace(replaced, digest=replaced.computed())
    fresh = [delete(event), *(insert(event).values(asdict(it)) for it in [*rows[:2], replaced, *rows[3:]])]
    tamper(database, *fresh)
    (fault,) = found(database).faults
    assert fault == "Event 4 does not follow event 3: one of them was replaced or inserted."


def test_an_appended_row_is_named(database):
    rows = fill(database)
    forged = replace(rows[-1], by="mallory", number=7, previous=rows[-1].digest)
    tamper(database, insert(event).values(asdict(replace(forged, digest=forged.computed()))))
    (fault,) = found(database).faults
    assert fault.startswith("Event 6 is noted as the last one, and event 7 is")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(1, 6)).filter(lambda it: it != sorted(it)))
def test_rows_in_another_order_are_found(tmp_path_factory, order):
    database = Database.in_folder(tmp_path_factory.mktemp("log"))
    rows = fill(database, 5)
    away = [update(event).where(event.c.number == n).values(number=100 + n) for n in range(1, 6)]
    back = [update(event).where(event.c.number == 100 + n).values(number=to) for n, to in enumerate(order, 1)]
    tamper(database, *away, *back)
    faults = found(database).faults
    first = next(place for place, to in enumerate(sorted(range(1, 6), key=lambda n: order[n - 1]), 1) if to != place)
    assert faults[0].startswith(f"Event {first} was changed or moved")
    assert len(rows) == 5
    database.close()


def test_a_log_written_anew_is_found_by_a_digest_kept_elsewhere(database):
    rows = fill(database)
    tamper(database, delete(event), delete(meta).where(meta.c.name == "events"))
    fill(database)
    assert found(database).faults == ()
    (fault,) = found(database, expected=rows[-1].digest).faults
    assert rows[-1].digest in fault


def test_an_event_is_kept_with_its_effect_or_not_at_all(database):
    fill(database, 2)

    def failing(connection):
        record(connection, LOCAL, "key.add")
        raise StorageError("no")

    with pytest.raises(StorageError):
        database.write_now(failing)
    assert len(fill(database, 1)) == 3
    assert found(database).faults == ()


def test_numbers_that_json_lacks_are_refused(database):
    with pytest.raises(ValueError, match="JSON"):
        database.write_now(lambda it: record(it, LOCAL, "key.add", detail={"n": float("nan")}))
    stored = database.read_now(lambda it: it.execute(select(event)).all())
    assert json.dumps([list(it) for it in stored]) == "[]"


def test_two_processes_write_one_chain(tmp_path, database):
    """The command line beside a running service: nobody's rows are lost, and none has the number of another."""
    other = Database.in_folder(tmp_path)

    async def both():
        writes = [
            it.write(lambda connection, n=n: record(connection, LOCAL, "key.add", detail={"n": n}))
            for n in range(40)
            for it in (database, other)
        ]
        return await asyncio.gather(*writes)

    assert len({it.number for it in asyncio.run(both())}) == 80
    other.close()
    verdict = found(database)
    assert (verdict.n_events, verdict.faults) == (80, ())


def test_a_swapped_generation_is_in_the_log(own, tmp_path):
    with running(own, tmp_path / "data") as client:
        model = load_model(own)
        relabel(model, [0], "blue")
        model.save(own, keep_history=True)
        until = time.monotonic() + 30
        while client.get("/api/v1/models/small").json()["generation"] == 0 and time.monotonic() < until:
            time.sleep(0.05)
    database = Database.in_folder(tmp_path / "data")
    (row,) = database.read_now(lambda it: list(events(it)))
    database.close()
    assert (row.action, row.by, row.model, row.before, row.after) == ("generation.swap", "service", "small", 0, 1)


def test_a_generation_that_came_while_nobody_served_is_in_the_log_too(own, tmp_path):
    for name in ("blue", "green"):
        with running(own, tmp_path / "data"):
            pass
        model = load_model(own)
        relabel(model, [0], name)
        model.save(own, keep_history=True)
    with running(own, tmp_path / "data"):
        pass
    database = Database.in_folder(tmp_path / "data")
    rows = database.read_now(lambda it: list(events(it)))
    database.close()
    assert [(it.action, it.model, it.before, it.after) for it in rows] == [
        ("generation.swap", "small", 0, 1),
        ("generation.swap", "small", 1, 2),
    ]


def test_the_log_goes_on_where_the_note_of_its_end_is_gone(database):
    fill(database, 2)
    tamper(database, delete(meta).where(meta.c.name == "events"))
    (fault,) = found(database).faults
    assert fault.startswith("Event 0 is noted as the last one, and event 2 is")
    assert len(fill(database, 1)) == 3
