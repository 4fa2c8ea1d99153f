"""The whole service is killed under load and loses nothing; and whoever looks would see what is lost or doubled."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import support.kill_service
from sqlalchemy import select
from support import nursery
from support.kill_service import Life, fitted
from support.service import running
from support.service_verdict import Rows, check

from protocols.recipes.building import load_model
from protocols.service.inbox import reviews
from protocols.service.inbox.database import Database
from protocols.service.inbox.reviews import Query, QueryList
from protocols.service.inbox.tables import item
from slots.model.editing import relabel

pytestmark = pytest.mark.slow

KILLS = 40


def test_a_killed_service_loses_nothing_and_does_nothing_twice(tmp_path):
    options = ["--kills", KILLS, "--seed", 3]
    options += ["--least", "generations acknowledged=2", "--least", "jobs interrupted=1", "--least", "imports done=1"]
    done = nursery.run(options, script=support.kill_service.__file__, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["kills"] >= KILLS
    # Otherwise the kills came at moments that prove nothing.
    assert counts["items acknowledged"] > KILLS
    assert counts["labels acknowledged"] > KILLS
    assert counts["sent again"] >= 10
    assert counts["generations acknowledged"] >= 2
    assert counts["jobs interrupted"] >= 1
    assert counts["imports done"] >= 1


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A service that was used for a while, all of which is known."""
    fits, folder = tmp_path_factory.mktemp("fits"), tmp_path_factory.mktemp("life")
    life = Life(fits, folder / "life", fitted(fits), 0)
    models = {name: life.folder / name for name in ("small", "pictures")}
    with running(models["small"], life.data, models=models) as client:
        connections = [life.watch, *(it.connection for it in life.people)]
        for connection in connections:
            connection.move(str(client.base_url))
        senders, reviewer = life.people[:2], life.people[2]
        use(senders, 40)
        ask(life)
        use([reviewer], 30)
        yield life
        for connection in connections:
            connection.close()
        life.engine.dispose()


def use(people, n):
    for _ in range(n):
        for person in people:
            person.step()
            assert person.pending is None


def ask(life):
    """A query list of what there is, as a job would store it."""
    database = Database.in_folder(life.data)

    def work(connection):
        numbers = connection.execute(select(item.c.number).where(item.c.model == "small")).scalars().all()
        groups = [numbers[at : at + 4] for at in range(0, len(numbers), 4)]
        queries = tuple(Query(it[0], len(it), tuple(it)) for it in groups)
        return reviews.put(connection, "small", QueryList(0, len(numbers), len(numbers), None, queries))

    database.write_now(work)
    database.close()


def test_a_service_that_nobody_killed_has_what_it_acknowledged(life):
    assert life.check(restarted=None)["items looked at"] > 50
    assert sum(len(it.labels) for it in life.people) > 20
    assert life.people[2].groups


def changed(rows, name, **values):
    return SimpleNamespace(**{**rows[-1]._asdict(), name: values[name]})


@pytest.mark.parametrize(
    ("part", "made", "says"),
    [
        ("items", lambda it: it[1:], "is lost"),
        ("items", lambda it: [*it, it[0]], "there twice"),
        ("items", lambda it: [*it, changed(it, "id", id="made up")], "nobody sent made up"),
        ("items", lambda it: [*it[:-1], changed(it, "content", content=b"1234")], "has another content"),
        ("items", lambda it: [*it[:-1], changed(it, "digest", digest="0" * 64)], "has another digest"),
        ("labels", lambda it: it[:-1], "is lost"),
        ("labels", lambda it: [*it, it[-1]], "are doubled"),
        ("labels", lambda it: [*it[:-1], changed(it, "label", label="teal")], "labels of"),
        ("groups", lambda it: [*it[:-1], changed(it, "state", state="odd")], "are not as cleo left them"),
        ("out", lambda it: [*it, (999, 999)], "are not as cleo left them"),
        ("jobs", lambda it: [SimpleNamespace(number=1, state="running", started=1.0)], "still run"),
        ("jobs", lambda it: [SimpleNamespace(number=at, state="done", started=1.0) for at in (1, 2)], "done twice"),
        ("swaps", lambda it: [SimpleNamespace(before=0, after=1)], "not in the log"),
        ("faults", lambda it: ("Event 1 was removed.",), "was removed"),
    ],
)
def test_what_is_lost_doubled_or_made_up_is_seen(life, part, made, says):
    rows = Rows.read(life.engine)
    rows = replace(rows, **{part: made(getattr(rows, part))})
    with pytest.raises(AssertionError, match=says):
        check(rows, life.people, life.folder / "small", life.data, served=0, restarted=2.0)


def test_a_generation_that_is_lost_or_that_nobody_asked_for_is_seen(life, tmp_path):
    rows, folder = Rows.read(life.engine), tmp_path / "small"
    shutil.copytree(life.folder / "small", folder)
    life.admin.generation = 1
    with pytest.raises(AssertionError, match="generation 1 was acknowledged, and 0 is there"):
        check(rows, life.people, folder, life.data, served=0, restarted=None)
    life.admin.generation = 0
    for _ in range(2):
        model = load_model(folder)
        relabel(model, [0], "blue" if model.class_name(int(model.head.labels[0])) == "red" else "red")
        model.save(folder, keep_history=True)
    with pytest.raises(AssertionError, match="generation 0 was acknowledged, and 2 is there"):
        check(rows, life.people, folder, life.data, served=2, restarted=None)
