"""Review, labels, update: in processes of their own, while the service answers."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.inbox_rows import items, put_items, put_labels
from support.service import rows, running
from support.service_jobs import done, groups_of, over

from protocols.recipes.building import load_model
from slots.model.comparison import diff
from slots.model.slot_model import SlotModel

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"


def written(client):
    """The log of events: what, the generations, and the kind of a job."""
    log = client.get("/api/v1/events").json()
    return [(it["action"], it["before"], it["after"], it["detail"].get("kind")) for it in log]


def answers(client, x):
    return client.post(f"{MODEL}/predict", json={"inputs": x.tolist()}).json()["answers"]


@pytest.mark.parametrize("spread", [False, True])
def test_items_are_grouped_labelled_and_learned(own, tmp_path, spread):
    data = tmp_path / "data"
    x, y = rows(300, 5, classes=4)
    numbers = put_items(data, own, x)
    row_of = {number: row for row, number in enumerate(numbers)}
    with running(own, data) as client:
        before = answers(client, x)
        result = done(client, client.post(f"{MODEL}/review"))
        proposal = load_model(own, device="cpu").propose(x, by="doubt")
        groups = groups_of(data, result["review"])
        assert result["groups"] == len(groups) == len(proposal.queries) > 0
        assert [row_of[middle] for middle, _ in groups] == proposal.queries.tolist()
        assert [gain for _, gain in groups] == [len(group) for group in proposal.groups]
        for (middle, gain), members in groups.items():
            assert members[0] == middle
            assert len(members) == gain
            assert len({before[row_of[number]]["answer"] == "unmatched" for number in members}) == 1

        names = ("red", "green", "blue", "white")
        given = {middle: names[y[row_of[middle]]] for middle, _ in groups}
        assert "white" in given.values()
        put_labels(data, given)
        planned = done(client, client.post(f"{MODEL}/updates", json={"dry_run": True, "spread": spread}))
        assert planned["slots_added"] > 0
        assert client.get(MODEL).json()["generation"] == 0
        assert answers(client, x) == before

        result = done(client, client.post(f"{MODEL}/updates", json={"spread": spread}))
        assert {**planned, "dry_run": False, "learned": result["learned"]} == result
        assert client.get(MODEL).json()["generation"] == result["generation"] == 1
        assert result["proven"]
        assert result["changed_matched_answers"] == 0
        assert sorted(result["learned"]) == sorted(given)
        after = answers(client, x)
        fields = ("label", "answer", "slot", "margin")
        for old, new in zip(before, after, strict=True):
            if old["answer"] != "unmatched":
                assert [old[it] for it in fields] == [new[it] for it in fields]
        assert sum(it["label"] == "white" for it in after) > 0.5 * (y == 3).sum()
        stored = items(data)
        for number, row in row_of.items():
            assert stored[number]["state"] == ("learned" if number in given else "open")
            assert stored[number]["generation"] == 1
            assert stored[number]["answer"] == after[row]["answer"]
            assert stored[number]["label"] == after[row]["label"]
            assert stored[number]["margin"] == after[row]["margin"]
    old, new = (SlotModel.load(own, generation=it) for it in (0, 1))
    assert diff(old, new, x).proven
    assert new.exemplar_ids is not None
    assert set(new.exemplar_ids[old.head.n_slots :].ravel()) - {""} <= {f"item-{row}" for row in range(300)}


def test_nothing_to_learn_is_said_in_a_sentence(own, tmp_path):
    data = tmp_path / "data"
    put_items(data, own, rows(20, 6, classes=4)[0])
    with running(own, data) as client:
        found = over(client, client.post(f"{MODEL}/updates"))
        assert found["state"] == "failed"
        assert found["error"]["status"] == 422
        assert "no item was labelled" in found["error"]["detail"]
        assert client.get("/api/v1/jobs").json() == [found]
        assert client.delete(f"/api/v1/jobs/{found['id']}").status_code == 409
        assert client.get("/api/v1/jobs/99").status_code == 404
        assert client.post(f"{MODEL}/updates", json={"budget": 0}).status_code == 422
        assert client.post(f"{MODEL}/updates", json={"buget": 1}).status_code == 422


def test_people_who_differ_and_those_not_sure_teach_nothing(own, tmp_path):
    data = tmp_path / "data"
    x, y = rows(200, 7, classes=4)
    numbers = np.array(put_items(data, own, x))[y == 3]
    put_labels(data, {int(it): "white" for it in numbers[:6]})
    put_labels(data, {int(numbers[0]): "grey"}, by="bob")
    put_labels(data, {int(numbers[1]): "white"}, by="bob")
    put_labels(data, {int(numbers[2]): "white"}, sure=0)
    put_labels(data, {int(numbers[3]): None})
    with running(own, data) as client:
        result = done(client, client.post(f"{MODEL}/updates"))
    assert result["labels_given"] == 3
    assert result["labels_in_doubt"] == 3
    assert sorted(result["learned"]) == sorted(int(it) for it in numbers[[1, 4, 5]])


def test_an_update_is_undone_and_its_items_wait_to_be_learned_again(own, tmp_path):
    data = tmp_path / "data"
    x, y = rows(200, 8, classes=4)
    numbers = np.array(put_items(data, own, x))[y == 3][:8]
    put_labels(data, {int(it): "white" for it in numbers})
    with running(own, data) as client:
        before = answers(client, x)
        done(client, client.post(f"{MODEL}/updates"))
        assert answers(client, x) != before
        assert client.get(f"{MODEL}/diff", params={"from": 0, "to": 1}).json()["proven"]
        assert client.get(f"{MODEL}/diff", params={"from": 7}).status_code == 400
        undone = client.post(f"{MODEL}/undo").json()
        assert (undone["number"], undone["content"]) == (2, 0)
        assert answers(client, x) == before
        stored = items(data)
        assert {stored[int(it)]["state"] for it in numbers} == {"labelled"}
        assert {it["generation"] for it in stored.values()} == {2}
        assert [it["what"] for it in client.get(f"{MODEL}/generations").json()] == ["start", "update", "undo"]
        assert client.post(f"{MODEL}/prune", json={"keep": 1}).json()["removed"] == [1]
        assert client.post(f"{MODEL}/prune", json={"keep": 9, "dry_run": True}).json()["removed"] == []
        assert client.post(f"{MODEL}/undo", json={"to": 1}).status_code == 400
        log = written(client)
    noticed = ("generation.", "drift.")  # by the service itself, whenever it looks
    assert [it for it in log if not it[0].startswith(noticed)] == [
        ("job.add", None, None, "update"),
        ("job.done", 0, 1, "update"),
        ("undo.begin", None, None, None),
        ("undo.done", 1, 2, None),
        ("prune.begin", None, None, None),
        ("prune.done", None, None, None),
        ("undo.begin", None, None, None),
        ("undo.failed", None, None, None),
    ]
    assert [it[:3] for it in log if it[0] == "generation.swap"] == [
        ("generation.swap", 0, 1),
        ("generation.swap", 1, 2),
    ]


def test_an_edit_is_tried_then_done(own, tmp_path):
    x, _ = rows(60, 11)
    with running(own, tmp_path / "data") as client:
        order = {"what": "merge", "labels": ["red"], "label": "crimson"}
        before = answers(client, x)
        tried = done(client, client.post(f"{MODEL}/edits", json={**order, "dry_run": True}))
        assert answers(client, x) == before
        result = done(client, client.post(f"{MODEL}/edits", json=order))
        assert {**tried, "dry_run": False} == result
        assert client.get(MODEL).json()["generation"] == 1
        crimson = [it["label"] == "crimson" for it in answers(client, x)]
        assert crimson == [it["label"] == "red" for it in before]
        found = over(client, client.post(f"{MODEL}/edits", json={"what": "delete", "slots": [999]}))
        assert found["error"]["status"] == 400
        log = client.get("/api/v1/events").json()
    assert [(it["action"], it["after"]) for it in log if it["action"].startswith("job.")] == [
        ("job.add", None),
        ("job.done", None),
        ("job.add", None),
        ("job.done", 1),
        ("job.add", None),
        ("job.failed", None),
    ]
    asked = next(it for it in log if it["action"] == "job.add")
    assert {it["by"] for it in log if it["action"].startswith("job.")} == {"local"}
    assert asked["detail"]["arguments"] == {**order, "slots": [], "dry_run": True, "generation": None}


def test_a_killed_process_is_a_failed_job_and_a_cancelled_one_leaves_the_folder_whole(own, tmp_path):
    data = tmp_path / "data"
    x, y = rows(200, 9, classes=4)
    numbers = np.array(put_items(data, own, x))[y == 3][:8]
    put_labels(data, {int(it): "white" for it in numbers})
    with running(own, data, warm=False) as client:
        first, second, third = (client.post(f"{MODEL}/updates") for _ in range(3))
        assert client.delete(third.headers["Location"]).json()["state"] == "cancelled"
        os.kill(child_pid(), signal.SIGKILL)
        found = over(client, first)
        assert found["state"] == "failed"
        assert "was killed (signal 9)" in found["error"]["detail"]
        child_pid()  # the next job has begun
        assert client.delete(second.headers["Location"]).json()["state"] == "cancelled"
        assert client.get(MODEL).json()["generation"] == 0
        assert load_model(own).generation == 0
        assert done(client, client.post(f"{MODEL}/updates"))["generation"] == 1
        actions = [it[0] for it in written(client) if it[0] != "generation.swap"]
        assert actions[:5] == ["job.add", "job.add", "job.add", "job.cancel", "job.failed"]
        assert actions[5:] == ["job.cancel", "job.cancelled", "job.add", "job.done"]
        events = client.get(second.headers["Location"] + "/events").text
        assert events.count("event: job") >= 2
        assert '"state": "cancelled"' in events.splitlines()[-2]
        last = [line[4:] for line in events.splitlines() if line.startswith("id: ")][-2]
        again = client.get(second.headers["Location"] + "/events", headers={"Last-Event-ID": last}).text
        assert again.count("event: job") == 1


def test_a_job_that_a_stop_cut_off_is_interrupted(own, tmp_path):
    data = tmp_path / "data"
    put_items(data, own, rows(100, 10, classes=4)[0])
    with running(own, data, warm=False) as client:
        started = client.post(f"{MODEL}/review")
        child_pid()
    with running(own, data) as client:
        assert client.get(started.headers["Location"]).json()["state"] == "interrupted"
        assert done(client, client.post(f"{MODEL}/review"))["groups"] > 0


def child_pid():
    """Of the process that does a job, as soon as there is one."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = [it for it in multiprocessing.active_children() if it.name == "slots-job"]
        if found:
            return found[0].pid
        time.sleep(0.02)
    raise AssertionError


def test_a_jobs_process_imports_nothing_of_the_web():
    asks = (
        "import sys, protocols.service.jobs.child.main, protocols.service.jobs.child.work; "
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'sqlalchemy', 'pydantic'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
