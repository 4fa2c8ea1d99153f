"""The pages of generations, clusters, keys and the log of events, by forms alone."""

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import update
from support.inbox_rows import put_items, with_database
from support.pages import parse, press, wait
from support.service import CENTRES, rows, running

from protocols.service.inbox.tables import event
from slots.model.slot_model import SlotModel
from slots.storage.generations import log

HISTORY, CLUSTERS = "/models/small/history", "/models/small/clusters"


def learned(folder):
    """A generation with clusters of a class that is new to the model."""
    model = SlotModel.load(folder)
    x, y = rows(200, 9, classes=4)
    proposal = model.propose(x[y == 3], budget=5)
    assert model.update(x[y == 3], {}, proposal=proposal).clusters_added
    model.save(folder, keep_history=True)
    return model


@pytest.fixture
def served(own, tmp_path):
    learned(own)
    put_items(tmp_path / "data", own, (CENTRES[:3] - 5).astype("float32"))
    with running(own, tmp_path / "data") as client:
        client.follow_redirects = True
        yield client, own, tmp_path / "data"


def table(page):
    """The cells of the first table, line by line."""
    return [[it.text for it in line.all("th") + line.all("td")] for line in parse(page.text).all("tbody")[0].all("tr")]


def told(page):
    return [it.text for it in parse(page.text).all("p", cls="told")]


def test_the_history_leads_to_what_changed_and_back(served):
    client, folder, _ = served
    page = client.get(HISTORY)
    lines = table(page)
    assert [line[0] for line in lines] == ["1", "0"]
    assert "answers now" in lines[0]
    assert lines[0][4] == f"+{log(folder)[1].slots_gained}"
    (link,) = [it for it in parse(page.text).all("a") if it.text.startswith("What changed")]
    assert parse_qs(urlsplit(link.attributes["href"]).query) == {"from": ["0"], "to": ["1"]}
    words = parse(client.get(link.attributes["href"]).text).text
    assert "Proven: no matched answer changed." in words
    assert f"slots added {log(folder)[1].slots_gained} of them" in words
    back = press(client, page, "Go back to generation 0")
    assert told(back) == ["Undone: generation 2 answers now, with the content of generation 0."]
    assert [it.content for it in log(folder)] == [0, 1, 0]
    assert client.get("/api/v1/models/small").json()["generation"] == 2
    assert told(client.get(HISTORY)) == []  # it is said once
    words = parse(client.get(f"{HISTORY}/diff?from=1&to=2").text).text
    assert "Not proven" in words
    assert "slots are gone" in words


def test_old_generations_are_pruned_after_a_look(served):
    client, folder, _ = served
    page = press(client, press(client, client.get(HISTORY), "Go back to generation 0"), "See what would go", keep="1")
    assert told(page)[0].startswith("Generations 1 would go and free ")
    assert all(it.kept for it in log(folder))
    page = press(client, page, "Remove older ones", keep="1")
    assert told(page)[0].startswith("Generations 1 are gone; freed ")
    assert [it.kept for it in log(folder)] == [True, False, True]
    assert "content removed" in table(page)[1]
    assert client.get(f"{HISTORY}/diff?from=0&to=1").status_code == 400
    assert client.get(f"{HISTORY}/diff?from=x").status_code == 422


def test_a_cluster_gets_a_name_after_a_trial(served):
    client, _, _ = served
    page = client.get(CLUSTERS)
    cards = parse(page.text).all("li", cls="cluster")
    names = [card.all("h3")[0].text for card in cards]
    assert names
    assert all(it.startswith("cluster ") for it in names)
    press(client, page, "Try", label="white")
    job = wait(client)
    assert (job["kind"], job["arguments"]["labels"]) == ("edit", names[:1])
    trial = client.get(f"/jobs/{job['id']}")
    assert "would be merged" in parse(trial.text).text
    press(client, trial, "Do it")
    assert wait(client)["state"] == "done"
    left = [card.all("h3")[0].text for card in parse(client.get(CLUSTERS).text).all("li", cls="cluster")]
    assert left == names[1:]
    assert "white" in [it.text for it in parse(client.get("/models/small/slots").text).all("option")]


def test_open_items_are_shown_and_can_be_grouped(served):
    client, _, _ = served
    assert "3 open items are matched by no slot" in parse(client.get(CLUSTERS).text).text


def test_a_key_is_shown_once_and_closes_the_service(served):
    client, _, _ = served
    page = client.get("/keys")
    assert "There are no keys" in parse(page.text).text
    made = press(client, page, "Make a key", name="anna", role="admin")
    (key,) = [it.text for it in parse(made.text).all("code", cls="secret")]
    assert client.get("/keys", headers={"accept": "text/html"}).url.path == "/login"

    refused = client.post("/login", data={"key": "wrong", "next": "/keys"}, headers={"accept": "text/html"})
    assert "no key that is in use" in parse(refused.text).text
    assert "small" not in refused.text  # the form says nothing of the models
    origin = {"origin": str(client.base_url).rstrip("/")}
    entered = client.post("/login", data={"key": key, "next": "/keys"}, headers=origin)
    assert table(entered)[0][:4] == ["1", "anna", "admin", "all"]
    assert key not in entered.text
    client.headers.update(origin)
    press(client, entered, "Make a key", name="bob", role="label", model="small")
    page = client.get("/keys")
    assert [line[1:4] for line in table(page)] == [["bob", "label", "small"], ["anna", "admin", "all"]]
    page = press(client, page, "For good")
    assert told(page) == ["Key 2, bob, is revoked."]
    assert [line[1] for line in table(page)] == ["anna"]

    lines = table(client.get("/audit"))
    assert [line[3] for line in lines if line[3].startswith("key.")] == ["key.revoke", "key.add", "key.add"]
    left = client.post("/logout")
    assert left.url.path == "/login"
    assert client.get("/api/v1/models").status_code == 401


def test_the_page_of_the_log_shows_whether_it_is_whole(served):
    client, _, data = served
    assert "Nothing was done yet" in parse(client.get("/audit").text).text
    press(client, client.get(HISTORY), "Go back to generation 0")
    until = time.monotonic() + 30
    while "whole" not in (words := parse(client.get("/audit").text).text) and time.monotonic() < until:
        time.sleep(0.02)
    assert "whole" in words
    (head,) = [it.text for it in parse(client.get("/audit?whole=true").text).all("code", cls="digest")]
    last = client.get("/api/v1/events").json()[-1]
    assert head == last["digest"]
    with_database(data, lambda it: it.execute(update(event).where(event.c.number == 1).values(by="nobody")))
    words = parse(client.get("/audit").text).text
    assert "The log is not whole." in words
    assert "Event 1 was changed or moved" in words
    assert parse(client.get("/audit?before=1").text).all("tbody") == []
