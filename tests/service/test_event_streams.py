"""Streams of events are bounded, for a key and in all; one that ends makes room for the next."""

import contextlib
import time
from dataclasses import replace

import httpx
from support.served_process import served
from support.service import running
from support.small_keys import keyed

from protocols.service.callers import LOCAL, Role
from protocols.service.gate.keys import add_key
from protocols.service.inbox.database import Database
from protocols.service.settings import Limits

EVENTS = "/api/v1/events/stream"


@contextlib.contextmanager
def opened(client, path=EVENTS, **headers):
    """An open stream whose beginning was read."""
    with client.stream("GET", path, headers=headers) as answer:
        if answer.status_code == 200:
            chunks = answer.iter_text()  # kept: without it httpx closes the connection
            assert next(chunks)
        else:
            answer.read()
        yield answer


def refused(answer, status, says):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert int(answer.headers["retry-after"]) > 0
    assert says in answer.json()["detail"]


def test_a_key_has_its_bound_and_all_have_theirs(own, tmp_path):
    data = tmp_path / "data"
    first = {"Authorization": f"Bearer {keyed(data)}"}
    database = Database.in_folder(data)
    second = {"Authorization": f"Bearer {database.write_now(lambda it: add_key(it, LOCAL, 'zoe', Role.ADMIN))[1]}"}
    database.close()
    limits = replace(Limits(), streams=3, streams_per_key=2)
    with running(own, data, limits=limits) as client, contextlib.ExitStack() as held:
        assert [held.enter_context(opened(client, **first)).status_code for _ in range(2)] == [200, 200]
        refused(held.enter_context(opened(client, **first)), 429, "may have 2 streams")
        with opened(client, **second) as third:
            assert third.status_code == 200
            refused(held.enter_context(opened(client, **second)), 503, "As many streams")
            assert client.get("/api/v1/events", headers=first).status_code == 200
        until = time.monotonic() + 10
        while True:  # that it went is seen a moment later
            with opened(client, **second) as again:
                if again.status_code == 200:
                    break
            assert time.monotonic() < until
            time.sleep(0.05)


def test_streams_of_jobs_count_too_and_an_end_makes_room(own, tmp_path):
    with running(own, tmp_path / "data", limits=replace(Limits(), streams=1)) as client:
        begun = client.post("/api/v1/models/small/review")
        path = f"{begun.headers['Location']}/events"
        for _ in range(3):
            with client.stream("GET", path) as answer:
                assert answer.status_code == 200
                assert '"state": "done"' in answer.read().decode()
        with opened(client) as answer:
            assert answer.status_code == 200
            refused(client.get(path), 503, "As many streams")


def test_the_bounds_are_options_and_variables(small, tmp_path):
    options = ("--data", tmp_path, "--max-streams", "2")
    with (
        served(small, *options, environment={"SLOTS_STREAMS_PER_KEY": "1"}, program=None) as it,
        httpx.Client(base_url=it.address, timeout=30) as client,
        contextlib.ExitStack() as held,
    ):
        assert [held.enter_context(opened(client)).status_code for _ in range(3)] == [200, 200, 503]
