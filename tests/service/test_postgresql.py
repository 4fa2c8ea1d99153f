"""The service on PostgreSQL: it goes on by itself after its database was away, and loses nothing."""

import json
import time

import pytest
import support.stop_postgresql
from sqlalchemy import select
from support import nursery
from support.postgresql import Server
from support.service import rows, running

from protocols.service.engines.engine import make_engine
from protocols.service.engines.failures import is_away
from protocols.service.inbox.database import Database
from protocols.service.inbox.tables import job
from slots.errors import StorageError, UsageError

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"
STOPS = 4


@pytest.fixture(scope="module")
def server(postgresql):
    """Another server, which may be stopped."""
    with Server() as own:
        yield own


def test_while_the_database_is_away_models_answer_and_the_rest_comes_again(own, tmp_path, server):
    x, _ = rows(4, 5, classes=4)
    given, key = {"inputs": x.tolist(), "store": "all"}, {"Idempotency-Key": "once"}
    with running(own, tmp_path / "data", database=server.new()) as client:
        first = client.post(f"{MODEL}/items", json=given, headers=key)
        assert first.status_code == 200
        server.stop()
        for asked in (
            lambda: client.get(f"{MODEL}/items"),
            lambda: client.post(f"{MODEL}/items", json={"inputs": [[9.0] * 6], "store": "all"}),
            lambda: client.post(f"{MODEL}/review"),
        ):
            refused = asked()
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "The database cannot be reached. Come again" in refused.json()["detail"]
            assert str(server.folder) not in refused.text
        assert client.post(f"{MODEL}/predict", json={"inputs": x.tolist()}).status_code == 200
        assert client.get("/api/v1/ready").status_code == 200
        server.start()
        assert client.post(f"{MODEL}/items", json=given, headers=key).json() == first.json()
        assert len(client.get(f"{MODEL}/items").json()["items"]) == 4
        begun = client.post(f"{MODEL}/review")  # jobs go on too
        assert begun.status_code == 202
        until = time.monotonic() + 120
        while client.get(begun.headers["Location"]).json()["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_database_that_is_away_stops_no_job_and_no_start_forgets_it(own, tmp_path, server):
    """A job that was ordered is in the database: the next start does it."""
    url = server.new()
    with running(own, tmp_path / "data", database=url) as client:
        begun = client.post(f"{MODEL}/review")
        server.stop()
    server.start()
    with running(own, tmp_path / "data", database=url) as client:
        found = client.get(begun.headers["Location"]).json()
        assert found["state"] in ("interrupted", "queued", "running", "done")
    database = Database(url)
    assert database.read_now(lambda it: it.execute(select(job.c.number)).scalars().all()) == [found["id"]]
    database.close()


def test_readers_see_one_state_and_change_nothing(server):
    database = Database(server.new())

    def look(connection):
        before = connection.execute(select(job)).all()
        database.write_now(
            lambda it: it.execute(
                job.insert().values(model="m", kind="review", arguments={}, state="done", created=0.0, by="ann")
            )
        )
        assert connection.execute(select(job)).all() == before == []
        connection.execute(job.delete())

    with pytest.raises(Exception, match="read-only transaction"):
        database.read_now(look)
    assert len(database.read_now(lambda it: it.execute(select(job)).all())) == 1
    database.close()


def test_what_is_committed_is_on_the_disk_whatever_the_servers_default(server):
    url = f"{server.new()}&options=-c%20synchronous_commit%3Doff"
    for given, found in (("off", "on"), ("remote_apply", "remote_apply")):
        engine = make_engine(url.replace("off", given))
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == found
        engine.dispose()


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://nobody@127.0.0.1:1/none", "postgresql://nobody@127.0.0.1:1/none"]
)
def test_a_database_that_is_not_there_is_said_at_the_start(postgresql, url):
    with pytest.raises(StorageError, match=r"The database cannot be reached: .*127\.0\.0\.1"):
        Database(url)


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "no url", "postgresql+nothing://a:secret@b/c", "sqlite+no://"])
def test_other_databases_are_refused_without_their_password(url):
    with pytest.raises(UsageError, match="`database` must be a URL of SQLite or PostgreSQL") as error:
        Database(url)
    assert "secret" not in str(error.value)


def test_a_statements_own_fault_is_nobody_elses(server):
    database = Database(server.new())
    with pytest.raises(Exception, match="division by zero") as error:
        database.write_now(lambda it: it.exec_driver_sql("SELECT 1 / 0"))
    assert not is_away(error.value)
    database.close()


def test_a_database_stopped_at_once_under_load_loses_nothing(postgresql):
    done = nursery.run(["--stops", STOPS, "--seed", 5], script=support.stop_postgresql.__file__, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["stops"] == STOPS
    assert counts["asked to come again"] >= STOPS
    assert counts["items acknowledged"] > STOPS
