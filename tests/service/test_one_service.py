"""One service at a time on a data folder and on a database; a killed one makes room at once, a lost one stops."""

import asyncio
import os
import signal
import time

import httpx
import pytest
from sqlalchemy import text
from support.nursery import run
from support.served_process import served
from support.service import rows, running

from protocols.service.engines.engine import make_engine
from protocols.service.gate.holding import FolderHold, ServerHold, TakenError
from protocols.service.inbox.database import Database
from protocols.service.service import Service
from protocols.service.settings import Settings

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"


def slots(*words, timeout=120):
    """A command in a process of its own: its status and what it said."""
    done = run(words, timeout=timeout)
    return done.returncode, done.stderr


def holders(url, what="pid"):
    """Of the connections that hold a lock, what is asked."""
    engine = make_engine(url)
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with engine.connect() as connection:
        asked = f"SELECT {what} FROM pg_locks WHERE locktype = 'advisory' AND {here}"
        found = connection.execute(text(asked)).scalars().all()
    engine.dispose()
    return found


def cut(url):
    """End the connection that holds the lock, as a network that fails would."""
    assert holders(url, "pg_terminate_backend(pid)") in ([True], [])


def test_a_second_service_on_a_data_folder_is_told_in_one_line_and_keys_are_made_all_the_same(small, tmp_path):
    data = tmp_path / "data"
    with served(small, "--data", data, program=None) as first:
        status, said = slots("serve", small, "--data", data, "--port", "0")
        assert status == 5
        (line,) = [it for it in said.splitlines() if it]
        assert f"`{data}` must be free, but another `slots serve` keeps its data there." in line
        assert slots("keys", "add", "anna", "--role", "admin", "--data", data)[0] == 0
        assert slots("audit", "verify", "--data", data)[0] == 0
        with httpx.Client(base_url=first.address, timeout=30) as client:
            until = time.monotonic() + 20
            while client.get(MODEL).status_code != 401:
                assert time.monotonic() < until
                time.sleep(0.1)
        first.stop(signal.SIGKILL)
        with served(small, "--data", data, program=None) as second:
            assert httpx.get(f"{second.address}/api/v1/ready").status_code == 200
            assert second.stop()[0] == 0


def test_a_start_that_fails_makes_room_for_the_next(small, tmp_path):
    (tmp_path / "none").mkdir()
    for _ in range(2):
        with pytest.raises(Exception, match=r"slots\.json"):
            Service.open(Settings({"small": tmp_path / "none"}, tmp_path / "data"))
    with running(small, tmp_path / "data") as client:
        assert client.get("/api/v1/ready").status_code == 200
        with pytest.raises(TakenError, match="another --data"):
            Service.open(Settings({"small": small}, tmp_path / "data"))
    FolderHold(tmp_path / "data").close()


def test_a_database_on_a_server_has_one_service_wherever_its_data_lie(small, tmp_path, postgresql):
    url = postgresql.new()
    with served(small, "--data", tmp_path / "one", "--db", url, program=None) as first:
        with pytest.raises(TakenError, match="another `slots serve` uses it"):
            ServerHold(url, wait=0.3)
        status, said = slots("serve", small, "--data", tmp_path / "two", "--db", url, "--port", "0")
        assert (status, len([it for it in said.splitlines() if it])) == (5, 1), said
        assert "The database must be free, but another `slots serve` uses it." in said
        assert slots("keys", "list", "--db", url)[0] == 0
        os.kill(first.pid, signal.SIGKILL)
        with served(small, "--data", tmp_path / "two", "--db", url, program=None) as second:
            assert httpx.get(f"{second.address}/api/v1/ready").status_code == 200


def test_a_lost_connection_is_taken_up_again_and_nobody_notices(small, tmp_path, postgresql):
    url = postgresql.new()
    x, _ = rows(3, 1)
    with running(small, tmp_path / "data", database=url) as client:
        for turn in range(3):
            cut(url)
            body = {"inputs": x.tolist(), "ids": [f"{turn}/{it}" for it in range(3)], "store": "all"}
            assert client.post(f"{MODEL}/items", json=body).status_code == 200
            until = time.monotonic() + 20
            while not holders(url):  # taking it here would be taking over
                assert time.monotonic() < until
                time.sleep(0.05)
            with pytest.raises(TakenError):
                ServerHold(url, wait=0)
        assert len(client.get(f"{MODEL}/items").json()["items"]) == 9


def test_who_was_taken_over_writes_nothing_more_and_stops(small, tmp_path, postgresql):
    url = postgresql.new()
    with served(small, "--data", tmp_path / "data", "--db", url, program=None) as first:
        successor = None
        for _ in range(20):  # the first one looks every second, and may be faster
            cut(url)
            try:
                successor = ServerHold(url, wait=0)
                break
            except TakenError:
                continue
        assert successor is not None
        x, _ = rows(1, 1)
        answer = httpx.post(f"{first.address}{MODEL}/items", json={"inputs": x.tolist(), "store": "all"}, timeout=30)
        assert answer.status_code == 503
        assert "Another `slots serve` uses the database now" in answer.json()["detail"]
        assert first.process.wait(60) == 5
        assert any("Another `slots serve` uses the database now" in it for it in first.lines)
        successor.close()
    database = Database(url)
    assert asyncio.run(database.read(lambda it: it.execute(text("SELECT count(*) FROM item")).scalar())) == 0
    database.close()


def test_while_the_server_is_away_the_lock_is_only_waited_for(postgresql):
    url = postgresql.new()
    Database(url).close()
    hold = ServerHold(url)
    assert hold.look()
    cut(url)
    assert hold.look()
    hold.close()
    ServerHold(url, wait=0).close()


def test_services_of_tests_may_end_in_any_order(small, tmp_path):
    """The routes of one that has ended are taken by the next, and not those of one that still answers."""
    first, second, third, fourth = (running(small, tmp_path / name) for name in "abcd")
    first.__enter__()
    with second as kept:
        first.__exit__(None, None, None)
        with third, fourth:
            pass
        assert kept.get("/api/v1/models").status_code == 200
        body = {"inputs": [{"name": "input", "shape": [1, 6], "datatype": "FP32", "data": [0.0] * 6}]}
        assert kept.post("/v2/models/small/infer?ordinary", json=body).status_code == 200
