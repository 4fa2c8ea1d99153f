"""What people say of items, one by one and in groups, and how it is taken back."""

import pytest
from support.service import rows, running

from protocols.service.inbox import labels, reviews
from protocols.service.inbox.database import Database
from protocols.service.inbox.labels import Person
from protocols.service.inbox.reviews import Query, QueryList
from protocols.service.settings import Keeping, Policy

MODEL = "/api/v1/models/small"
ANN, BOB = Person(1, "ann"), Person(2, "bob")


@pytest.fixture(scope="module")
def served(small, tmp_path_factory, new_database):
    """A service and the URL of its database."""
    data, url = tmp_path_factory.mktemp("labels"), new_database()
    with running(small, data, keeping=Keeping(policy=Policy(1.0, 1.0, 1.0)), database=url) as client:
        yield client, url or f"sqlite:///{data / 'inbox.db'}"


@pytest.fixture
def numbers(served, request):
    """Six items that only this test has, by their numbers."""
    client, _ = served
    ids = [f"{request.node.name}-{it}" for it in range(6)]
    x, _ = rows(6, len(request.node.name))
    assert client.post(f"{MODEL}/items", json={"inputs": x.tolist(), "ids": ids}).status_code == 200
    return {it: client.get(f"{MODEL}/items/{it}").json()["number"] for it in ids}


def direct(url, work):
    """Do something in the database beside the service, as other people."""
    database = Database(url)
    try:
        return database.write_now(work)
    finally:
        database.close()


def test_labels_are_given_taken_back_and_undone(served, numbers):
    client, _ = served
    (first, number), (second, _) = list(numbers.items())[:2]
    post = lambda *given: client.post(f"{MODEL}/labels", json={"labels": list(given)})  # noqa: E731
    state = lambda name: client.get(f"{MODEL}/items/{name}").json()["state"]  # noqa: E731
    assert post({"item": first, "label": " ze\u0308bra "}).json() == {"items": 1}
    shown = client.get(f"{MODEL}/items", params={"label": "zëbra"}).json()["items"]
    assert [it["number"] for it in shown] == [number]
    assert (shown[0]["state"], shown[0]["labels"][0]["by"]) == ("labelled", "local")
    wrong = post({"item": second, "label": "okapi"}, {"item": "nowhere", "label": "okapi"})
    assert wrong.status_code == 404
    assert state(second) == "open"  # all of a request, or nothing
    post({"item": first, "label": "okapi"}, {"item": second, "label": "okapi"})
    assert client.post(f"{MODEL}/labels/undo").json() == {"what": "labels", "group": None, "items": 2}
    assert client.get(f"{MODEL}/items/{first}").json()["labels"][0]["label"] == "zëbra"
    assert state(second) == "open"
    post({"item": first, "label": None})
    assert (state(first), client.get(f"{MODEL}/items/{first}").json()["labels"]) == ("open", [])
    given = [it["label"] for it in client.get(f"{MODEL}/labels").json()["labels"] if it["item"] == number]
    assert given == ["zëbra", "okapi", "zëbra", None]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"item": "a", "label": "x" * 257}, "1 to 256 characters"),
        ({"item": "a", "label": "a\x00b"}, "control characters"),
        ({"item": "a", "label": "  "}, "1 to 256 characters"),
        ({"label": "x"}, "either an item or a group"),
        ({"group": 3, "label": None}, "no label of its own"),
    ],
)
def test_wrong_labels_are_refused_in_a_sentence(served, given, says):
    found = served[0].post(f"{MODEL}/labels", json={"labels": [given]})
    assert (found.status_code, found.headers["content-type"]) == (422, "application/problem+json")
    assert says in found.json()["detail"]


def test_a_request_that_comes_again_is_done_once(served, numbers):
    client, _ = served
    name, number = next(iter(numbers.items()))
    given, key = {"labels": [{"item": name, "label": "one"}]}, {"Idempotency-Key": "labels-once"}
    assert client.post(f"{MODEL}/labels", json=given, headers=key).json() == {"items": 1}
    assert client.post(f"{MODEL}/labels", json=given, headers=key).json() == {"items": 1}
    assert [it["item"] for it in client.get(f"{MODEL}/labels").json()["labels"]].count(number) == 1
    other = {"labels": [{"item": name, "label": "two"}]}
    found = client.post(f"{MODEL}/labels", json=other, headers=key)
    assert (found.status_code, "with another request" in found.json()["detail"]) == (422, True)


def test_people_who_disagree_are_listed_and_who_is_not_sure_gives_way(served, numbers):
    client, url = served
    both, unsure, agreed = list(numbers.values())[:3]

    def work(connection):
        labels.give(connection, {both: "red", unsure: "red", agreed: "red"}, ANN)
        labels.give(connection, {both: "blue", agreed: "red"}, BOB)
        labels.give(connection, {unsure: "blue"}, BOB, sure=False)
        return labels.stands(connection, [both, unsure, agreed])

    assert direct(url, work) == {both: None, unsure: ("red", True), agreed: ("red", True)}
    listed = {it["item"]: it for it in client.get(f"{MODEL}/labels/conflicts").json()["conflicts"]}
    assert {it["by"]: it["label"] for it in listed[both]["labels"]} == {"ann": "red", "bob": "blue"}
    assert unsure not in listed
    assert agreed not in listed


def test_a_query_list_is_worked_through_and_undone(served, numbers):
    client, url = served
    a, b, c, d, e, f = numbers.values()
    asked = QueryList(0, 6, 6, 0.95, (Query(b, 3, (a, b, c)), Query(d, 2, (d, e)), Query(f, 1, (f, 10**9))))
    review = direct(url, lambda connection: reviews.put(connection, "small", asked))
    path = f"{MODEL}/review"
    newest = client.get(path).json()
    assert (newest["number"], newest["groups"], newest["covered"]) == (review, 3, 6)
    groups = client.get(f"{path}/{review}/groups").json()["groups"]
    assert [[it["number"] for it in group["members"]] for group in groups] == [[b, a, c], [d, e], [f]]
    first, second, third = (f"{path}/groups/{it['number']}" for it in groups)
    assert client.post(f"{first}/out", json={"item": c}).status_code == 204
    assert client.post(f"{first}/out", json={"item": d}).status_code == 404
    assert client.post(f"{first}/label", json={"label": "zebra"}).json() == {"items": 2}
    assert client.post(f"{second}/skip").status_code == 204
    assert client.post(f"{third}/out", json={"item": f}).status_code == 204
    assert client.post(f"{third}/label", json={"label": "zebra"}).status_code == 409
    states = lambda: [it["state"] for it in client.get(f"{path}/{review}/groups").json()["groups"]]  # noqa: E731
    labelled = lambda: {  # noqa: E731
        it["number"] for it in client.get(f"{MODEL}/items", params={"label": "zebra"}).json()["items"]
    }
    assert states() == ["labelled", "skipped", "open"]
    assert labelled() == {a, b}
    assert client.get(f"{path}/{review}").json()["answered"] == 3
    undo = lambda: client.post(f"{MODEL}/labels/undo").json()["what"]  # noqa: E731
    assert [undo() for _ in range(3)] == ["out", "state", "labels"]
    assert states() == ["open"] * 3
    assert labelled() == set()
    assert undo() == "out"
    assert client.get(first).json()["out"] == []
    assert client.get(f"{path}/groups/999999").status_code == 404


def test_acts_that_come_again_are_done_once(served, numbers):
    client, url = served
    name, number = next(iter(numbers.items()))
    asked = QueryList(0, 6, 6, 0.95, (Query(number, 6, tuple(numbers.values())),))
    review = direct(url, lambda connection: reviews.put(connection, "small", asked))
    group = client.get(f"{MODEL}/review/{review}/groups").json()["groups"][0]["number"]
    path = f"{MODEL}/review/groups/{group}"
    twice = lambda path, key, **given: [  # noqa: E731
        (it.status_code, it.content)
        for it in (client.post(path, headers={"Idempotency-Key": key}, **given) for _ in range(2))
    ]
    said = lambda: client.get(f"{MODEL}/items/{name}").json()["labels"]  # noqa: E731
    rows_of = lambda: [it["label"] for it in client.get(f"{MODEL}/labels?limit=1000").json()["labels"]]  # noqa: E731
    client.post(f"{MODEL}/labels", json={"labels": [{"item": name, "label": "mauve"}]})
    for path_of, key, given in (
        (f"{path}/out", "out", {"json": {"item": list(numbers.values())[1]}}),
        (f"{path}/label", "label", {"json": {"label": "puce"}}),
        (f"{path}/skip", "skip", {}),
    ):
        first, second = twice(path_of, f"{key} once", **given)
        assert first == second
        assert first[0] in (200, 204)
    assert rows_of().count("puce") == 5  # one was thrown out
    for state, left in (("labelled", "puce"), ("open", "mauve")):
        first, second = twice(f"{MODEL}/labels/undo", f"back to {state}")
        assert first == second
        assert (client.get(path).json()["state"], said()[0]["label"]) == (state, left)
    assert client.get(path).json()["out"] == [list(numbers.values())[1]]
    other = client.post(f"{path}/label", headers={"Idempotency-Key": "label once"}, json={"label": "teal"})
    assert other.status_code == 422
