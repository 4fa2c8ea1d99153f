"""Prometheus: figures that are right, that promtool takes, and no more of them however clients behave."""

import json
import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families
from support.service import rows, running

from protocols.recipes.building import load_model
from slots.head.prediction import Answer


def figures(client):
    """Every sample by its name and labels."""
    found = client.get("/metrics")
    assert found.status_code == 200, found.text
    assert found.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families(found.text)
        for sample in family.samples
    }


def rise(before, after, name, **labels):
    key = (name, *sorted(labels.items()))
    return after.get(key, 0) - before.get(key, 0)


@pytest.fixture
def mine(own, tmp_path):
    with running(own, tmp_path / "data") as client:
        yield client


def test_answers_items_labels_and_requests_are_counted(mine, small):
    x, _ = rows(50, 3, classes=4)
    told = load_model(small).predict(x).answers.tolist()
    before = figures(mine)
    assert mine.post("/api/v1/models/small/predict", json={"inputs": x.tolist()}).status_code == 200
    ids = [f"item {number}" for number in range(50)]
    mine.post("/api/v1/models/small/items", json={"inputs": x.tolist(), "ids": ids, "store": "all"}).raise_for_status()
    given = [{"item": name, "label": "Ada's secret"} for name in ids[:7]]
    mine.post("/api/v1/models/small/labels", json={"labels": given}).raise_for_status()
    assert mine.get("/api/v1/models/none").status_code == 404
    after = figures(mine)
    for answer in Answer:
        counted = rise(before, after, "slots_answers_total", model="small", answer=answer.name.lower())
        assert counted == 2 * told.count(answer), answer
    assert rise(before, after, "slots_items_total", model="small") == 50
    assert rise(before, after, "slots_labels_total", model="small") == 7
    assert rise(before, after, "slots_batch_rows_sum", model="small") == 100
    assert rise(before, after, "slots_batch_rows_count", model="small") == 2
    assert rise(before, after, "slots_model_seconds_count", model="small") == 2
    assert rise(before, after, "slots_commit_seconds_count") >= 2
    for route, method, status in (
        ("/api/v1/models/{model}/predict", "POST", "2xx"),
        ("/api/v1/models/{model}/items", "POST", "2xx"),
        ("/api/v1/models/{model}", "GET", "4xx"),
        ("/metrics", "GET", "2xx"),
    ):
        labels = {"route": route, "method": method, "status": status}
        assert rise(before, after, "slots_request_seconds_count", **labels) == 1, route
    open_ones = told[7:].count(Answer.UNMATCHED)
    assert after["slots_open_unmatched_items", ("model", "small")] == open_ones
    assert after["slots_kept_items",] == 50
    assert after["slots_generation", ("model", "small")] == 0
    assert after["slots_ready",] == 1
    assert after["slots_disk_free_bytes",] > 0
    assert after["slots_queued_rows", ("model", "small")] == 0


def test_what_clients_make_up_adds_no_series(mine):
    def series():
        return {name for name in figures(mine) if name[0].startswith("slots_")}

    series()
    mine.get("/nowhere")
    mine.request("TRACE", "/nowhere")
    mine.request("PROPFIND", "/api/v1/models/small")
    mine.get("/api/v1/models/none")
    mine.post("/api/v1/models/none/predict", content=b" " * (9 << 20))
    before = series()
    for number in range(20):
        mine.get(f"/nowhere-{number}")
        mine.request("TRACE", f"/nowhere-{number}")
        mine.request("SEARCH", f"/api/v1/models/{number}")
        mine.get(f"/api/v1/models/none-{number}")
        mine.post(f"/api/v1/models/none-{number}/predict", content=b" " * (9 << 20))
    assert series() == before
    labels = json.dumps(sorted(map(list, before)))
    assert "red" not in labels
    assert "local" not in labels


def test_too_large_bodies_and_unknown_paths_are_counted(mine):
    before = figures(mine)
    mine.post("/api/v1/models/small/predict", content=b" " * (9 << 20))
    mine.get("/nowhere")
    after = figures(mine)
    assert rise(before, after, "slots_request_seconds_count", route="other", method="POST", status="4xx") == 1
    assert rise(before, after, "slots_request_seconds_count", route="other", method="GET", status="4xx") == 1


def test_open_metrics_where_it_is_asked_for(client):
    found = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert found.headers["content-type"].startswith("application/openmetrics-text")
    assert "slots_answers" in {family.name for family in open_families(found.text)}


def test_promtool_finds_nothing_to_say(client):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    text = client.get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
