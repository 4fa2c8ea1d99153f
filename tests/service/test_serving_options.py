"""What `slots serve` is told on its command line and by variables, and what all routes have in common."""

import inspect

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from support.served_process import served
from support.service import rows
from typer.testing import CliRunner

from protocols.commands.app import app
from protocols.service.application import ROUTERS

PATH = "/api/v1/models/small/items"


def test_bounds_come_from_options_and_variables(small, tmp_path):
    x, _ = rows(40, 1)
    options = ("--data", tmp_path, "--max-items", "30", "--max-body-mib", "0.01", "--batch-rows", "1")
    with (
        served(small, *options, environment={"SLOTS_STORE": "all", "SLOTS_KEEP_DAYS": "7"}, program=None) as it,
        httpx.Client(base_url=it.address, timeout=60) as client,
    ):
        first = client.post(PATH, json={"inputs": x[:30].tolist()})
        assert [receipt["fate"] for receipt in first.json()["items"]] == ["stored"] * 30
        full = client.post(PATH, json={"inputs": x[30:].tolist()})
        assert (full.status_code, "30 of at most 30 items" in full.json()["detail"]) == (507, True)
        large = client.post(PATH, content=b" " * 10_487)
        assert (large.status_code, "10486 bytes" in large.json()["detail"]) == (413, True)
        assert it.stop()[0] == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--store", "seen:all"], "unmatched, ambiguous and matched"),
        (["--store", "matched:110%"], "must lie in [0, 1], got 1.1"),
        (["--max-items", "-1"], "--max-items"),
        (["--batch-rows", "0"], "--batch-rows"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(small, given, says):
    found = CliRunner().invoke(app, ["serve", str(small), *given])
    assert found.exit_code != 0
    assert says in (found.output + str(found.exception))


def test_no_dependency_of_a_route_runs_in_a_thread():
    """A dependency that is no coroutine is handed to a thread and back: longer than a small model's answer takes."""

    def calls(dependant: Dependant):
        for below in dependant.dependencies:
            yield below.call
            yield from calls(below)

    found = {call for router in ROUTERS for route in router.routes for call in calls(route.dependant)}
    assert len(found) > 4
    slow = [it for it in found if not inspect.iscoroutinefunction(it) and not _is_coroutine_object(it)]
    assert slow == []


def _is_coroutine_object(it):
    return inspect.iscoroutinefunction(getattr(it, "__call__", None))  # noqa: B004
