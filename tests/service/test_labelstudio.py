"""The ML backend of Label Studio, by requests as version 1.23.2 sends them."""

import json
import logging
import time

import numpy as np
import pytest
from support.inbox_rows import put_items
from support.service import rows, running

from protocols.recipes.building import load_model
from protocols.service.standards.labelstudio_tasks import Interface
from slots.errors import DataError

TOKEN = "0123456789abcdef-a-users-access-token"
CONFIG = """<View>
  <!-- what a project has -->
  <Text name="words" value="$text"/>
  <Choices name="kind" toName="words"><Choice value="red"/><Choice value="a &amp; b"/></Choices>
</View>"""
LS, API = "/ls/small", "/api/v1/models/small"


def annotation(task, label, by=1, action="ANNOTATION_CREATED", **more):
    """What Label Studio tells of an annotation."""
    choice = {"id": "x", "type": "choices", "value": {"choices": [label]}, "from_name": "kind", "to_name": "words"}
    said = {"id": 12, "completed_by": by, "was_cancelled": False, "lead_time": 3.2, "task": task["id"], **more}
    return {
        "action": action,
        "annotation": {"result": [choice], **said},
        "project": {"id": 3, "title": "new", "label_config": CONFIG, "created_by": {"email": "a@b.c"}},
        "task": {**task, "is_labeled": True, "overlap": 1},
    }


@pytest.fixture
def data(own, tmp_path):
    put_items(tmp_path / "data", own, rows(120, 5, classes=4)[0])
    return tmp_path / "data"


def job_over(client, number):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = client.get(f"/api/v1/jobs/{number}").json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_connecting(client):
    assert client.get(f"{LS}/health").json()["status"] == client.get(LS).json()["status"] == "UP"
    asked = {
        "project": "3.1764",
        "schema": CONFIG,
        "hostname": "http://ls",
        "access_token": TOKEN,
        "extra_params": None,
    }
    assert client.post(f"{LS}/setup", json=asked).json() == {"model_version": "0"}
    assert client.get(f"{LS}/versions").json() == {"versions": ["0"]}
    assert client.post(f"{LS}/validate", json={"config": CONFIG}).json() == {"valid": True}
    assert client.post(f"{LS}/validate", json={"config": "<View/>"}).status_code == 422
    own_config = client.get(f"{LS}/config").text
    assert Interface.parse(own_config) == Interface("label", "item", "text")
    assert all(f'value="{name}"' in own_config for name in ("red", "green", "blue"))
    assert client.get("/ls/none/health").status_code == 404


def test_rows_in_tasks_get_the_models_answers(client, small):
    x, _ = rows(80, 4, classes=4)
    told = load_model(small)
    tasks = [{"id": n, "data": {"features": row, "text": "a row"}} for n, row in enumerate(x.tolist())]
    strange = [{"id": 80, "data": {"image": "http://127.0.0.1/secret.png"}}, {"id": 81, "data": {"slots_item": "gone"}}]
    asked = {"tasks": tasks + strange, "project": "3.1", "label_config": CONFIG, "params": {"login": None}}
    found = client.post(f"{LS}/predict", json=asked).json()
    assert found["model_version"] == "0"
    assert len(found["results"]) == 82
    novelty, labels = told.assess_novelty(x), told.predict(x).labels
    for n, it in enumerate(found["results"][:80]):
        (choice,) = it["result"]
        assert (choice["from_name"], choice["to_name"], choice["type"]) == ("kind", "words", "choices")
        assert choice["value"] == {"choices": [told.class_name(labels[n])]}
        assert it["score"] == choice["score"] == novelty.p_values[n]
        assert it["model_version"] == "0"
    assert [it["result"] for it in found["results"][80:]] == [[], []]


def test_a_query_list_goes_out_comes_back_as_labels_and_is_learned(own, data):
    with running(own, data) as client:
        job = client.post(f"{API}/review").json()
        assert job_over(client, job["id"])["state"] == "done"
        tasks = client.get(f"{LS}/tasks").json()
        gains = [it["data"]["covers"] for it in tasks]
        assert gains == sorted(gains, reverse=True)
        assert len(client.get(f"{LS}/tasks", params={"members": 5, "limit": 1}).json()) == min(5, gains[0])
        for task in tasks:
            (told,) = task["predictions"]
            item = client.get(f"{API}/items/{task['data']['slots_item']}").json()
            assert told["result"][0]["value"]["choices"] == [item["label"]]
            assert json.loads(task["data"]["text"]) == pytest.approx(task["data"]["features"], abs=1e-6)
        again = client.post(f"{LS}/predict", json={"tasks": [{"id": 1, "data": it["data"]} for it in tasks]}).json()
        assert [it["result"][0]["value"] for it in again["results"]] == [
            it["predictions"][0]["result"][0]["value"] for it in tasks
        ]
        for n, task in enumerate(tasks):
            found = client.post(f"{LS}/webhook", json=annotation({"id": n, "data": task["data"]}, "white"))
            assert found.status_code in (200, 202), found.text
        said = client.get(f"{API}/labels").json()["labels"]
        assert {(it["label"], it["source"], it["by"]) for it in said} == {("white", "labelstudio", "local/1")}
        assert len(said) == len(tasks)

        found = client.post(f"{LS}/webhook", json={"action": "START_TRAINING", "project": {"id": 3}})
        assert found.status_code == 200
        assert job_over(client, found.json()["job"])["state"] == "done"
        assert client.get(f"{LS}/versions").json() == {"versions": ["1"]}
        given = [{"id": 1, "data": tasks[0]["data"]}]
        (changed,) = client.post(f"{LS}/predict", json={"tasks": given}).json()["results"]
        assert changed["model_version"] == "1"
        assert changed["result"][0]["value"] == {"choices": ["white"]}


def test_what_label_studio_alone_has_becomes_an_item(own, tmp_path):
    row = rows(1, 9)[0][0].tolist()
    with running(own, tmp_path / "data") as client:
        task = {"id": 7, "data": {"features": row}}
        assert client.post(f"{LS}/webhook", json=annotation(task, "red", by={"id": 4})).json() == {"labelled": True}
        changed = annotation(task, "blue", by={"id": 4}, action="ANNOTATION_UPDATED")
        assert client.post(f"{LS}/webhook", json=changed).json() == {"labelled": True}
        (item,) = client.get(f"{API}/items").json()["items"]
        assert item["id"] == "labelstudio/3/7"
        assert [(it["label"], it["by"]) for it in item["labels"]] == [("blue", "local/4")]
        kept = np.frombuffer(client.get(f"{API}/items/labelstudio/3/7/content").content, "<f4")
        assert np.array_equal(kept, np.float32(row))


@pytest.mark.parametrize(
    "told",
    [
        {"action": "TASKS_CREATED", "tasks": [{"id": 1}]},
        {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}]},
        {"action": "ANNOTATION_CREATED"},
        {"action": "PROJECT_UPDATED", "project": {"id": 3}},
        {},
        annotation({"id": 1, "data": {"features": [1.0] * 6}}, "red", was_cancelled=True),
    ],
)
def test_webhooks_of_everything_else_change_nothing(client, told):
    found = client.post(f"{LS}/webhook", json=told)
    assert (found.status_code, found.json()) == (200, {"labelled": False})
    assert client.get(f"{API}/items").json()["items"] == []


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (annotation({"id": 1, "data": {"image": "/data/upload/a.png"}}, "red"), 422),
        (annotation({"id": 1, "data": {"slots_item": "gone"}}, "red"), 404),
        (annotation({"id": 1, "data": {"features": [1.0] * 6}}, "a\nb"), 422),
        ({"action": ["ANNOTATION_CREATED"]}, 422),
    ],
)
def test_annotations_that_cannot_be_labels_are_refused(client, told, status):
    assert client.post(f"{LS}/webhook", json=told).status_code == status


class Kept(logging.Handler):
    """Everything that is logged."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def logged():
    kept, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    yield kept.records
    root.removeHandler(kept)
    root.setLevel(level)


def test_the_users_token_is_neither_logged_nor_kept(own, tmp_path, logged, capfd):
    with running(own, tmp_path / "data") as client:
        for path in ("setup", "predict", "webhook", "validate"):
            for more in ({"schema": "<View/>"}, {"schema": 3, "tasks": 3, "action": 3, "config": 3}):
                said = client.post(f"{LS}/{path}", json={"access_token": TOKEN, "tasks": [], **more}).text
                assert TOKEN not in said
            assert TOKEN not in client.post(f"{LS}/{path}", content=f'{{"access_token": "{TOKEN}"').text
        told = annotation({"id": 7, "data": {"features": [1.0] * 6}}, "red")
        told["project"]["access_token"] = told["access_token"] = told["annotation"]["access_token"] = TOKEN
        assert client.post(f"{LS}/webhook", json=told).status_code == 200
        assert TOKEN not in client.get("/metrics").text
    said = capfd.readouterr()
    records = [it for it in logged if not it.name.startswith(("httpcore", "httpx", "asyncio"))]
    assert TOKEN not in said.out + said.err + "".join(it.getMessage() for it in records)
    files = [it for it in tmp_path.rglob("*") if it.is_file()]
    assert any(it.name == "inbox.db" for it in files)
    assert [it for it in files if TOKEN.encode() in it.read_bytes()] == []


@pytest.mark.parametrize(
    "config",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>',
        "<View>",
        "no",
        "<View><Choices name='a'/></View>",
        "<?xml version='1.0' encoding='x'?><View/>",
    ],
)
def test_configurations_that_cannot_be_read(config):
    with pytest.raises(DataError, match="label_config"):
        Interface.parse(config)
