"""Whoever labels, reviews or deletes stands in the log of events, in the transaction that does it."""

import pytest
from support.inbox_rows import put_items, with_database
from support.key_cutter import bearer, cut
from support.service import rows, running

from protocols.service.inbox import events, reviews
from protocols.service.inbox.reviews import Query, QueryList

MODEL, PAGE = "/api/v1/models/small", "/models/small/review"


@pytest.fixture(scope="module")
def served(small, tmp_path_factory):
    """A service with two keys, twelve items and a query list of three groups of four."""
    data = tmp_path_factory.mktemp("acts")
    numbers = put_items(data, small, rows(12, 5, classes=4)[0])
    groups = tuple(Query(numbers[n], 4, tuple(numbers[n : n + 4])) for n in (0, 4, 8))
    with_database(data, lambda it: reviews.put(it, "small", QueryList(0, 12, 3, 0.9, groups)))
    keys = {name: bearer(cut(data, name, "label")) for name in ("ann", "bob")}
    with running(small, data) as client:
        yield client, data, keys


LABEL = {"labels": [{"item": "item-8", "label": "white"}, {"item": "item-9", "label": None}]}
CHOICE = {"result": [{"value": {"choices": ["blue"]}}], "completed_by": 3}
WEBHOOK = {"action": "ANNOTATION_CREATED", "annotation": CHOICE, "task": {"id": 1, "data": {"slots_item": "item-9"}}}

ACTS = [
    ("ann", "POST", f"{MODEL}/labels", {"json": LABEL}, [
        ("label.add", {"items": 1, "source": "api"}), ("label.withdraw", {"items": 1, "source": "api"}),
    ]),
    ("ann", "POST", f"{MODEL}/labels", {"json": {"labels": [{"group": 1, "label": "white"}]}}, [
        ("label.add", {"items": 4, "group": 1, "source": "api"}),
    ]),
    ("bob", "POST", f"{MODEL}/review/groups/2/out", {"json": {"item": 5}}, [
        ("group.throw_out", {"group": 2, "item": 5, "source": "review"}),
    ]),
    ("bob", "POST", f"{MODEL}/review/groups/2/label", {"json": {"label": "okapi"}}, [
        ("label.add", {"items": 3, "group": 2, "source": "review"}),
    ]),
    ("ann", "POST", f"{PAGE}/groups/2/out", {"data": {"item": 5}}, [
        ("group.take_in", {"group": 2, "item": 5, "source": "review"}),
    ]),
    ("ann", "POST", f"{PAGE}/groups/3/skip", {}, [("group.skip", {"group": 3, "source": "review"})]),
    ("ann", "POST", f"{PAGE}/undo", {}, [
        ("label.undo", {"what": "state", "group": 3, "items": 0, "source": "api"}),
    ]),
    ("bob", "POST", f"{MODEL}/labels/undo", {}, [
        ("label.undo", {"what": "labels", "group": 2, "items": 3, "source": "api"}),
    ]),
    ("bob", "DELETE", f"{MODEL}/items/item-11", {}, [("item.delete", {"item": 12})]),
    ("ann", "POST", "/ls/small/webhook", {"json": WEBHOOK}, [("label.add", {"items": 1, "source": "labelstudio"})]),
]  # fmt: skip


def log(data):
    """All events that are no generations and no keys."""
    found = with_database(data, lambda it: list(events.events(it)))
    return [it for it in found if it.action.partition(".")[0] not in ("key", "generation")]


def test_every_act_names_who_did_it(served):
    client, data, keys = served
    for name, method, path, given, expected in ACTS:
        before = len(log(data))
        done = client.request(method, path, headers=keys[name], **given)
        assert done.status_code in (200, 204, 303), (path, done.text)
        found = log(data)[before:]
        assert [(it.action, it.detail) for it in found] == expected, path
        by = f"{name}/3" if path.startswith("/ls") else name
        assert {(it.by, it.model) for it in found} == {(by, "small")}
        assert all(it.key_id == {"ann": 1, "bob": 2}[name] for it in found)
        assert not {"white", "okapi", "blue"} & set(map(str, (value for it in found for value in it.detail.values())))
    assert with_database(data, events.verify).faults == ()


@pytest.mark.parametrize(
    ("method", "path", "given", "status"),
    [
        ("POST", f"{MODEL}/labels", {"labels": [{"item": "item-8", "label": "a"}, {"item": "no", "label": "a"}]}, 404),
        ("POST", f"{MODEL}/review/groups/2/out", {"item": 1}, 404),
        ("POST", f"{MODEL}/review/groups/99/skip", None, 404),
        ("DELETE", f"{MODEL}/items/no", None, 404),
    ],
)
def test_what_is_refused_leaves_no_event(served, method, path, given, status):
    client, data, keys = served
    before = len(log(data))
    assert client.request(method, path, headers=keys["ann"], json=given).status_code == status
    assert len(log(data)) == before


def test_an_act_that_comes_again_is_one_event(served):
    client, data, keys = served
    before = len(log(data))
    for _ in range(3):
        headers = {**keys["ann"], "Idempotency-Key": "again"}
        assert client.post(f"{MODEL}/review/groups/3/skip", headers=headers).status_code == 204
    assert [it.action for it in log(data)[before:]] == ["group.skip"]
