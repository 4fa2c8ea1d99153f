"""The pages: each is there, whole without scripts, and asks no other host for anything."""

import re

import numpy as np
import pytest
from support.pages import asked_for, parse
from support.service import rows, running

from protocols.service.answering.loaded import Loaded
from protocols.service.answering.recent import Recent

MODEL_PAGES = (
    "",
    "/live",
    "/slots",
    "/slots/0",
    "/explain",
    "/review",
    "/history",
    "/clusters",
    "/drift",
    "/drift?span=month",
)
PAGES = [*(f"/models/small{end}" for end in MODEL_PAGES), "/jobs", "/keys", "/audit", "/login"]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_there_and_asks_no_other_host(client, path):
    found = client.get(path)
    assert found.status_code == 200, found.text
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    addresses = asked_for(parse(found.text))
    assert addresses or path.endswith("live")
    assert all(it.startswith(("/", "data:", "#", "?")) and not it.startswith("//") for it in addresses), addresses
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! src=\"/static/)|javascript:", found.text)


def test_the_first_page_is_the_overview_of_the_first_model(client):
    found = client.get("/")
    assert found.status_code == 303
    assert found.headers["location"] == "/models/small"


@pytest.mark.parametrize(
    "name", ["report.css", "service.css", "pages.js", "review.js", "htmx.min.js", "htmx.LICENSE.txt"]
)
def test_files_of_the_pages_come_from_this_host_and_are_sent_once(client, name):
    found = client.get(f"/static/{name}")
    assert found.status_code == 200
    assert found.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/static/{name}", headers={"if-none-match": found.headers["etag"]}).status_code == 304
    assert not re.search(r"url\((?!data:)|@import|importScripts", found.text)


def test_no_other_file_can_be_asked_for(client):
    for name in ("rendering.py", "..%2frendering.py", "%2e%2e/rendering.py"):
        assert client.get(f"/static/{name}").status_code == 404


def test_what_goes_wrong_is_a_page(client):
    found = client.get("/models/small/slots/99999")
    assert found.status_code == 404
    assert "There is no slot 99999" in parse(found.text).text
    assert client.get("/models/small/slots?order=wrong").status_code == 422
    piece = client.get("/models/small/slots/99999", headers={"hx-request": "true"})
    assert "<html" not in piece.text
    assert "There is no slot 99999" in piece.text


def test_the_gallery_shows_the_slots_that_its_filter_lets_through(client, small):
    head = Loaded.load(small, "cpu").model.head
    labels, hits = head.labels.numpy(), head.hits.numpy()
    wanted = np.flatnonzero((labels == 1) & (hits >= 20))
    assert 0 < len(wanted) < len(labels)
    page = parse(client.get("/models/small/slots", params={"label": "green", "hits": 20, "order": "size"}).text)
    shown = [int(it.attributes["href"].rsplit("/", 1)[1]) for it in page.all("a", cls="whole")]
    assert sorted(shown) == wanted.tolist()
    assert [hits[it] for it in shown] == sorted(hits[wanted], reverse=True)


def test_the_overview_counts_what_was_answered(own, tmp_path):
    x, _ = rows(40, 1, classes=4)
    with running(own, tmp_path / "data") as client:
        answers = client.post("/api/v1/models/small/predict", json={"inputs": x.tolist()}).json()["answers"]
        page = parse(client.get("/models/small").text)
    told = {"matched": 0, "ambiguous": 0, "unmatched": 0}
    for it in answers:
        told[it["answer"]] += 1
    (legend,) = page.all("ul", cls="legend")
    assert [it.text.split()[-1] for it in legend.all("li")] == [str(it) for it in told.values()]
    assert told["unmatched"] > 0


def test_counts_by_the_second_forget_what_is_old(small):
    now = [1000.0]
    recent, loaded = Recent(lambda: now[0]), Loaded.load(small, "cpu")
    x, _ = rows(64, 2, classes=4)
    answers = loaded.answer(x, false_alarm_rate=0.05)
    n_matched = int((answers.prediction.answers == 2).sum())
    recent.add(answers)
    now[0] = 1007.0
    recent.add(answers)
    assert [it.matched for it in recent.tallies(seconds=10, parts=2)] == [n_matched, n_matched]
    now[0] = 1000.0 + 900
    assert [it.total for it in recent.tallies(seconds=900)] == [64]  # what came at 1000 is too old
    recent.add(answers)
    assert [it.total for it in recent.tallies(seconds=900)] == [128]
    by_slot = recent.by_slot(loaded.model.head.n_slots, loaded.generation)
    fired = answers.prediction.slots[answers.prediction.answers > 0]
    assert by_slot.tolist() == (3 * np.bincount(fired, minlength=len(by_slot))).tolist()
    assert recent.by_slot(len(by_slot), loaded.generation + 1).sum() == 0


def test_an_explanation_names_the_slots_that_answered(client, small):
    x, _ = rows(16, 4, classes=4)
    told = Loaded.load(small, "cpu").answer(x, false_alarm_rate=0.05).prediction
    answers = client.post("/api/v1/models/small/explain", json={"inputs": x.tolist()}).json()["answers"]
    assert [it["why"]["behind"]["slot"] for it in answers] == told.slots.tolist()
    assert [it["why"]["foreign"]["slot"] for it in answers if it["why"]["foreign"]] == [
        slot for slot in told.runner_up_slots.tolist() if slot >= 0
    ]
    assert np.allclose([it["why"]["behind"]["margin"] for it in answers], np.degrees(told.margins))
    assert all(it["why"]["foreign"]["label"] != it["label"] for it in answers if it["why"]["foreign"])
    assert client.post("/api/v1/models/small/explain", json={"inputs": [x[0].tolist()] * 17}).status_code == 422


def test_a_pasted_row_is_explained_with_and_without_scripts(client):
    x, _ = rows(1, 5)
    answer = client.post("/api/v1/models/small/predict", json={"inputs": x.tolist()}).json()["answers"][0]
    sent = {"text": " ; ".join(str(it) for it in x[0].tolist())}
    whole = parse(client.post("/models/small/explain", data=sent).text)
    piece = parse(client.post("/models/small/explain", data=sent, headers={"hx-request": "true"}).text)
    for found in (whole, piece):
        (verdict,) = found.all("div", cls="verdict")
        assert answer["answer"] in verdict.attributes["class"].split()
        (ruler,) = found.all("table", cls="ruler")
        assert ruler.all("tbody")[0].all("a")[0].text == str(answer["slot"])
    assert not piece.all("html")
    for wrong in ("1, 2, three", "1 2 3", ""):
        assert client.post("/models/small/explain", data={"text": wrong}).status_code == 422
