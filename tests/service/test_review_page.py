"""The review by forms alone: groups named, skipped and undone, items thrown out, and an update tried and made."""

import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
from support.inbox_rows import items, put_items, put_labels, with_database
from support.pages import parse, press, wait
from support.service import rows, running

from protocols.service.callers import LOCAL, Role
from protocols.service.gate.keys import add_key
from protocols.service.inbox import reviews
from protocols.service.inbox.reviews import Query, QueryList
from protocols.service.pages.jobs.following import grouped
from protocols.service.pages.review.offers import few, with_keys

pytestmark = pytest.mark.slow

REVIEW = "/models/small/review"
X, Y = rows(600, 5, classes=4)


SIZE = 5  # of a group


@pytest.fixture
def served(own, tmp_path):
    """A service whose newest query list has twenty groups of five unmatched items each."""
    data = tmp_path / "data"
    numbers = put_items(data, own, X)
    known = items(data)
    new = [number for number in numbers if known[number]["answer"] == "unmatched"][: 20 * SIZE]
    groups = [tuple(new[start : start + SIZE]) for start in range(0, len(new), SIZE)]
    asked = QueryList(0, len(new), 20, 0.9, tuple(Query(it[0], SIZE, it) for it in groups))
    with_database(data, lambda it: reviews.put(it, "small", asked))
    with running(own, data) as client:
        client.follow_redirects = True
        yield client, data


def told(page):
    assert parse(page.text).all("p", cls="told") == []
    (said,) = [it.text for it in parse(page.text).all("div", cls="told")]
    return said


def title(page):
    return parse(page.text).by_id("group-title").text


def members(page):
    return [it.attributes["id"] for it in parse(page.text).all("button", cls="pick")]


def test_a_group_is_labelled_and_the_next_one_comes(served):
    client, data = served
    first = client.get(REVIEW)
    numbers = [int(it.removeprefix("item-")) for it in members(first)]
    assert len(numbers) == SIZE
    after = press(client, first, "Label the group", label=" white ")
    assert told(after) == f"Labelled {SIZE} items “white”."
    assert title(after).startswith("Group 2 of")
    states = {number: it["state"] for number, it in items(data).items()}
    assert {number for number, it in states.items() if it == "labelled"} == set(numbers)
    again = press(client, after, "1 white")
    assert title(again).startswith("Group 3 of")
    back = client.get(REVIEW, params={"at": 0})
    assert "labelled white" in title(back)


def test_a_group_in_doubt_says_that_a_slot_answers_and_no_share_exceeds_all(own, tmp_path):
    data = tmp_path / "data"
    known = put_items(data, own, X) and items(data)
    kinds = {
        kind: [it for it, row in known.items() if row["answer"] == kind][:SIZE] for kind in ("matched", "unmatched")
    }
    queries = tuple(Query(it[0], SIZE, tuple(it)) for it in kinds.values())
    with_database(data, lambda it: reviews.put(it, "small", QueryList(0, SIZE, SIZE, None, queries)))
    with running(own, data) as client:
        client.follow_redirects = True
        listed = client.get("/api/v1/models/small/review/1/groups").json()["groups"]
        assert [group["doubted"] for group in listed] == [True, False]
        doubtful = client.get(REVIEW)
        assert f"A slot answers {known[kinds['matched'][0]]['label']}" in parse(doubtful.text).text
        after = press(client, doubtful, "Label the group", label="white")
        assert "The model cannot place them" in parse(after.text).text
        done = press(client, after, "Label the group", label="white")
        (settled,) = [it.text for it in parse(done.text).all("div") if it.text.startswith("of 10 items in groups")]
        assert " ".join(settled.split()) == "of 10 items in groups settled by 2 labels 100 %"


def test_what_was_done_is_undone_and_its_group_shown(served):
    client, data = served
    first = client.get(REVIEW)
    second = press(client, first, "Skip s")
    assert title(second).startswith("Group 2 of")
    undone = press(client, second, "Undo u")
    assert told(undone) == "Undone: a skip."
    assert title(undone) == title(first)
    named = press(client, undone, "Label the group", label="white")
    undone = press(client, named, "Undo u")
    assert told(undone).startswith("Undone: the label of ")
    assert all(it["state"] == "open" for it in items(data).values())
    nothing = client.post(f"{REVIEW}/undo")
    assert nothing.status_code == 409
    assert "nothing that" in parse(nothing.text).text


def test_an_item_thrown_out_gets_no_label(served):
    client, data = served
    first = client.get(REVIEW)
    out, *others = parse(first.text).all("button", cls="pick")
    assert others
    after = client.post(out.attributes["formaction"], data={"item": out.attributes["value"]})
    pressed = {it.attributes["id"]: it.attributes["aria-pressed"] for it in parse(after.text).all("button", cls="pick")}
    assert pressed == {out.attributes["id"]: "true"} | {it.attributes["id"]: "false" for it in others}
    press(client, after, "Label the group", label="white")
    states = {f"item-{number}": it["state"] for number, it in items(data).items()}
    assert states[out.attributes["id"]] == "open"
    assert all(states[it.attributes["id"]] == "labelled" for it in others)


def test_who_is_not_sure_teaches_nothing(served):
    client, _ = served
    press(client, client.get(REVIEW), "Label the group", label="white", unsure="true")
    assert client.get("/api/v1/models/small/labels").json()["labels"][0]["sure"] is False


def test_what_is_no_name_is_refused_in_a_sentence(served):
    client, _ = served
    action = next(it for it in parse(client.get(REVIEW).text).all("form") if it.attributes.get("id") == "group")
    for given in ("", "  ", "a\x07b", "z" * 257):
        found = client.post(action.attributes["action"], data={"label": given})
        assert found.status_code == 422
        assert "label must be text" in parse(found.text).text
    piece = client.post(action.attributes["action"], data={"label": ""}, headers={"hx-request": "true"})
    assert piece.text.startswith('<p class="warning" role="alert">')


def test_a_script_gets_the_changed_part_and_words_for_the_live_region(served):
    client, _ = served

    def by_script(part):
        action = part.by_id("group").attributes["action"]
        return client.post(action, data={"label": "white"}, headers={"hx-request": "true"})

    found = by_script(parse(client.get(REVIEW).text))
    part = parse(found.text)
    assert [it.attributes.get("id") for it in part.children if not isinstance(it, str)] == ["review", "said"]
    said = part.by_id("said")
    assert said.attributes["hx-swap-oob"] == "innerHTML"
    assert re.fullmatch(r"Labelled \d+ items? “white”\. Group 2 of \d+: \d+ items?, \d+ groups open\.", said.text)
    assert found.headers["hx-replace-url"] == f"{REVIEW}?at=1"
    while " groups open" in part.by_id("said").text:
        part = parse(by_script(part).text)
    assert part.by_id("said").text.endswith(", 1 group open.")


def test_a_trial_says_what_an_update_would_change_and_the_update_proves_it(served):
    client, data = served
    page = client.get(REVIEW)
    for _ in range(6):
        number = int(members(page)[0].removeprefix("item-"))
        row = Y[number - 1]
        page = press(client, page, "Label the group", label=("red", "green", "blue", "white")[row])
    before = {number: it["answer"] for number, it in items(data).items()}
    press(client, page, "Update")
    job = wait(client)
    assert job["arguments"]["dry_run"] is True
    trial = client.get(f"/jobs/{job['id']}")
    assert re.search(r"\d+ slots? would be added\. Proven: no matched answer would change\.", parse(trial.text).text)
    assert client.get("/api/v1/models/small").json()["generation"] == 0
    press(client, trial, "Learn it")
    job = wait(client)
    done = client.get(f"/jobs/{job['id']}")
    words = parse(done.text).text
    assert re.search(rf"{job['result']['slots_added']} slots? added\. Proven: no matched answer changed\.", words)
    assert client.get("/api/v1/models/small").json()["generation"] == 1
    kept = [number for number, it in before.items() if it == "matched"]
    assert kept
    after = items(data)
    assert all(after[number]["answer"] == "matched" for number in kept)


def test_a_list_is_made_and_followed_to_its_groups(own, tmp_path):
    put_items(tmp_path / "data", own, X[:100])
    with running(own, tmp_path / "data") as client:
        client.follow_redirects = True
        begun = press(client, client.get(REVIEW), "Group them")
        assert parse(begun.text).all("progress") or "hold" in parse(begun.text).text
        assert wait(client)["state"] == "done"
        moved = client.get("/jobs/1/now", headers={"hx-request": "true"})
        assert moved.headers["hx-redirect"] == REVIEW
        page = client.get(REVIEW)
        assert title(page).startswith("Group 1 of")
        job = client.get("/api/v1/jobs/1").json()
        assert len(parse(page.text).all("button", cls="pick")) >= 1
        assert f"of {job['result']['groups']} " in title(page) + " "


def test_groups_of_matched_items_alone_are_told_of():
    job = SimpleNamespace(result={"groups": 1, "covered": 4, "unmatched": 0})
    assert grouped(job) == "1 group holds 4 items, what settles most doubt first; 0 are unmatched."
    assert "Nothing is open" in grouped(SimpleNamespace(result={"groups": 0, "covered": 0, "unmatched": 0}))


def test_a_job_is_cancelled(served):
    client, _ = served
    client.follow_redirects = False
    address = client.post("/models/small/updates", data={"dry_run": "true", "budget": "3"}).headers["location"]
    cancelled = client.post(f"{address}/cancel")
    job = wait(client)
    assert (cancelled.status_code, job["state"]) in ((303, "cancelled"), (409, "done"))
    (listed,) = parse(client.get("/jobs").text).all("tbody")[0].all("tr")
    assert "Update on trial" in listed.text
    assert job["state"] in listed.text


def test_readers_see_groups_and_change_nothing(served):
    client, data = served
    _, key = with_database(data, lambda it: add_key(it, LOCAL, "reader", Role.READ))
    until = time.monotonic() + 30
    while client.get("/api/v1/models").status_code != 401 and time.monotonic() < until:
        time.sleep(0.02)
    headers = {"authorization": f"Bearer {key}"}
    page = parse(client.get(REVIEW, headers=headers).text)
    assert page.all("span", cls="pick")
    assert [it.text for it in page.all("button")] == ["Leave"]
    assert client.post(f"{REVIEW}/groups/1/label", data={"label": "a"}, headers=headers).status_code == 403


def test_names_keep_their_keys():
    assert [(it.key, it.name) for it in with_keys([str(it) for it in range(10)])] == [
        (str(it), str(it)) for it in range(10)
    ]
    names = [f"name {it}" for it in range(30)]
    given = with_keys(few(names))
    assert [it.name for it in given] == names[:10]
    assert sorted(it.key for it in given) == sorted("1234567890")
    assert np.unique([it.key for it in with_keys(["10", "x", "7", "²", "8"])]).size == 5


def test_a_digit_has_its_own_key_whatever_else_is_in_use(served):
    """Eleven names, the most frequent of which is no digit."""
    client, data = served
    put_labels(data, dict(zip(items(data), ["ten"] * 5 + list("8765432109"), strict=False)))
    offered = parse(client.get(REVIEW).text).all("button", cls="offer")
    assert {it.attributes["data-key"]: it.attributes["value"] for it in offered} == {key: key for key in "0123456789"}
