"""The quick way of plain requests and the ordinary way of all others: nobody can tell them apart by what they do."""

import gzip
import json
import time
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as families
from support.key_cutter import bearer, cut
from support.service import rows, running

from protocols.service.answering.batching import Expired, Overloaded
from protocols.service.answering.served_model import ServedModel
from protocols.service.settings import Limits
from protocols.service.web import quick

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"
PLAIN, ORDINARY = {"Content-Type": "application/json"}, {"Content-Type": "application/json; charset=utf-8"}
X = rows(6, 11, classes=4)[0].tolist()
INPUTS = [
    {"inputs": X},
    {"inputs": X[:1]},
    {"inputs": [[True, 0, 2, 3, 4, 5]]},
    {"inputs": [["1", "2.5", 0, 0, 0, 0]]},
    {"inputs": X[:1], "further": {"deep": [1]}},
    {"inputs": [[2**70, 1, 1, 1, 1, 1]]},
    {"inputs": [[10**400, 1, 1, 1, 1, 1]]},
    {"inputs": []},
    {"inputs": [[]]},
    {"inputs": [[1.0, 2.0]]},
    {"inputs": [[1, 2, 3, 4, 5, 6], [1, 2]]},
    {"inputs": ["text"]},
    {"inputs": [[None] * 6]},
    {"inputs": [[1e300] * 6]},
    {"inputs": X[:1] * 4097},
    {"inputs": "text"},
    {},
    [],
    None,
]
BODIES = [
    b"",
    b"{",
    b'{"inputs": [[1, 2, 3, 4, 5, NaN]]}',
    b'{"inputs": [[1, 2, 3, 4, 5, 1e999]]}',
    b'{"inputs": [["\\ud800"]]}',
    b'{"inputs": [[1, 2, 3, 4, 5, 6]], "inputs": []}',
    b"\xff",
    "\ufeff{}".encode(),
]
ITEMS = [
    {"inputs": X[:3], "ids": ["a", "b", None], "store": "all"},
    {"inputs": X[:3], "ids": ["a", "b", None], "store": "all"},
    {"inputs": X[3:4], "ids": ["a"], "store": "all"},
    {"inputs": X[3:4], "ids": ["e\u0301"], "store": "all"},
    {"inputs": X[4:5], "ids": ["none"], "store": "none"},
    {"inputs": X[4:5], "ids": None, "store": None},
    {"inputs": X[4:6], "ids": ["one"]},
    {"inputs": X[4:5], "ids": ["\u0007"]},
    {"inputs": X[4:5], "ids": ["x" * 257]},
    {"inputs": X[4:5], "ids": [7]},
    {"inputs": X[4:5], "ids": "a"},
    {"inputs": X[4:5], "store": "matched:much"},
    {"inputs": X[4:5], "store": "x" * 101},
    {"inputs": [[1.0]], "store": "all"},
]


@pytest.fixture
def taken(monkeypatch):
    """Templates of the routes whose requests went the quick way."""
    names, note = [], quick.note

    def told(scope, template):
        names.append(template.rpartition("/")[2])
        note(scope, template)

    monkeypatch.setattr(quick, "note", told)
    return names


@pytest.fixture
def two(small, tmp_path):
    """Two services that know nothing of each other: one is asked the quick way, the other the ordinary one."""
    keys = [{it: cut(tmp_path / where, it, it) for it in ("read", "ingest")} for where in "qo"]
    bound = [cut(tmp_path / where, "bound", "admin", "other") for where in "qo"]
    with running(small, tmp_path / "q") as one, running(small, tmp_path / "o") as other:
        yield [(one, PLAIN, {**keys[0], "bound": bound[0]}), (other, ORDINARY, {**keys[1], "bound": bound[1]})]


def asked(side, path, body, key="ingest", **headers):
    client, media, keys = side
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers={**media, **bearer(keys[key]), **headers})


def said(found):
    """What a client sees; the length differs where versions of the framework write numbers in other ways."""
    headers = {name: value for name, value in found.headers.items() if name not in ("date", "content-length")}
    return found.status_code, headers, found.json()


def requests(client, key):
    """Requests by route and status, as they are counted."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in families(client.get("/metrics", headers=bearer(key)).text)
        for sample in family.samples
        if sample.name == "slots_request_seconds_count" and "models" in sample.labels["route"]
    }


def test_both_ways_give_the_same(two, taken):
    """Answers, refusals, what is kept, who may, and what is counted."""
    answered = 0
    for path, body in [
        *((f"{MODEL}/predict", it) for it in (*INPUTS, *BODIES)),
        *((f"{MODEL}/items", it) for it in (*INPUTS, *BODIES, *ITEMS)),
        *((path, INPUTS[0]) for path in (f"{MODEL}/predict?rate=0.2", f"{MODEL}/predict?rate=2", f"{MODEL}/predict/")),
        *((f"/api/v1/models/{name}/predict", INPUTS[0]) for name in ("none", "sm%61ll", "small%2F..", "", "small ")),
    ]:
        for key in ("ingest", "read", "bound"):
            (one, other) = (asked(side, path, body, key) for side in two)
            assert said(one) == said(other), (path, body, key)
            answered += one.status_code == 200
    assert 0 < len(taken) < 2 * answered
    listed = [
        [{**it, "received": 0} for it in client.get(f"{MODEL}/items", headers=bearer(keys["ingest"])).json()["items"]]
        for client, _, keys in two
    ]
    assert listed[0] == listed[1]
    assert len(listed[0]) > 4
    counted = [requests(client, keys["read"]) for client, _, keys in two]
    assert counted[0] == counted[1]
    assert counted[0]["POST", "/api/v1/models/{model}/items", "2xx"] > 0


def test_a_request_that_comes_again_is_done_once(two, taken):
    first = {"inputs": X[:2], "ids": ["a", "b"], "store": "all"}
    for body, key, status in [
        (first, "k", 200),
        (first, "k", 200),
        ({**first, "ids": ["a", "c"]}, "k", 422),
        (first, "other", 200),
        (first, "x" * 255, 200),
        (first, "x" * 256, 422),
        (first, "", 422),
        (first, "a\tk", 422),
        (first, "b\u00e4r", 200),
    ]:
        headers = {"Idempotency-Key": key.encode("latin-1")}
        (one, other) = (asked(side, f"{MODEL}/items", body, **headers) for side in two)
        assert said(one) == said(other), key
        assert one.status_code == status, (key, one.text)
    assert taken.count("items") > 4
    fates = [[it["fate"] for it in asked(side, f"{MODEL}/items", first).json()["items"]] for side in two]
    assert fates == [["there", "there"]] * 2


def tensor(**changes):
    flat = [number for row in X for number in row]
    return {"name": "input", "shape": [len(X), 6], "datatype": "FP32", "data": flat, **changes}


INFERENCES = [
    ({"inputs": [tensor()], "id": "mine"}, {}),
    ({"inputs": [tensor()], "outputs": [{"name": "label_id"}], "parameters": {"false_alarm_rate": 0.5}}, {}),
    ({"inputs": [tensor()], "parameters": {"timeout": 1}}, {}),
    ({"inputs": [tensor(shape=[5, 6])]}, {}),
    ({"inputs": [tensor(name="other")]}, {}),
    ({"inputs": []}, {}),
    ([], {}),
    (b"{", {}),
    (np.float32(X).tobytes(), {"Inference-Header-Content-Length": "0"}),
    (np.float32(X).tobytes()[:-1], {"Inference-Header-Content-Length": "0"}),
    (np.float32(X).tobytes(), {"Inference-Header-Content-Length": "many"}),
    ({"inputs": [tensor(shape=[1, 6], data=X[0])] * 2}, {}),
    ({"inputs": [tensor(shape=[600, 6], data=[1.0] * 3600)]}, {"Accept-Encoding": "gzip"}),
]


@pytest.mark.parametrize(("body", "headers"), INFERENCES)
def test_the_open_inference_protocol_has_a_quick_way_too(client, taken, body, headers):
    """The other way is that of a request with a query, of which the route takes no notice."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = "/v2/models/small/infer"
    one, other = (client.post(it, content=content, headers=headers) for it in (path, f"{path}?ordinary"))
    assert taken == ["infer"]
    assert (one.status_code, one.content) == (other.status_code, other.content)
    assert {**one.headers, "date": ""} == {**other.headers, "date": ""}
    assert one.headers.get("content-encoding") == headers.get("Accept-Encoding")


def test_who_may_not_infer_is_told_alike(two, taken):
    for side in two:
        found = [asked(side, f"/v2/models/small/infer{query}", INFERENCES[0][0], "bound") for query in ("", "?")]
        assert [it.status_code for it in found] == [403, 403]
        assert found[0].json() == found[1].json()
        assert "error" in found[0].json()
    assert taken == []


@pytest.mark.parametrize("headers", [{"X-Request-Timeout": "1e-9"}, {"X-Request-Timeout": "-1"}])
def test_a_request_with_its_own_deadline_goes_the_ordinary_way(two, taken, headers):
    (one, other) = (asked(side, f"{MODEL}/predict", INPUTS[0], **headers) for side in two)
    assert said(one) == said(other)
    assert one.status_code in (422, 503)
    assert taken == []


@pytest.mark.parametrize(("error", "status"), [(Overloaded(), 503), (Expired(), 503), (KeyError("secret"), 500)])
@pytest.mark.parametrize("route", ["predict", "items"])
def test_what_goes_wrong_later_is_told_alike(two, taken, monkeypatch, error, status, route):
    async def failing(*_arguments, **_options):
        raise error

    monkeypatch.setattr(ServedModel, "answer", failing)
    (one, other) = (asked(side, f"{MODEL}/{route}", INPUTS[0]) for side in two)
    assert said(one) == said(other)
    assert one.status_code == status
    assert "secret" not in one.text
    assert taken == [route]
    counted = [requests(client, keys["read"]) for client, _, keys in two]
    assert counted[0] == counted[1] == {("POST", f"/api/v1/models/{{model}}/{route}", "5xx"): 1}


@pytest.mark.parametrize("media", [PLAIN, ORDINARY], ids=["quick", "ordinary"])
def test_a_connection_stays_open_after_an_unexpected_error_that_was_answered(small, tmp_path, monkeypatch, media):
    """Its answer did not say that it closes; a client that sends the next request at once must not lose it."""
    real, errors = ServedModel.answer, [KeyError("secret")]

    async def failing(*arguments, **options):
        if errors:
            raise errors.pop()
        return await real(*arguments, **options)

    monkeypatch.setattr(ServedModel, "answer", failing)
    with running(small, tmp_path / "data") as client:
        connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
        connection.connect()
        opened, statuses = connection.sock, []
        for _ in range(2):
            connection.request("POST", f"{MODEL}/predict", json.dumps(INPUTS[0]), media)
            answer = connection.getresponse()
            statuses.append((answer.status, bool(answer.read()), connection.sock is opened))
            time.sleep(0.2)  # what would close it has done so
        connection.close()
    assert statuses == [(500, True, True), (200, True, True)]


def test_a_key_that_sends_too_much_is_told_so(small, tmp_path, taken):
    key = cut(tmp_path / "data", "one", "read")
    with running(small, tmp_path / "data", limits=Limits(requests_per_second=0.5)) as client:
        found = [client.post(f"{MODEL}/predict", json=INPUTS[1], headers=bearer(key)) for _ in range(3)]
    assert [it.status_code for it in found] == [200, 429, 429]
    assert found[1].headers["retry-after"] == "2"
    assert taken == ["predict"]


def test_a_request_from_another_sites_page_is_refused(client, taken):
    headers = {"Origin": "https://evil.example", **PLAIN}
    found = client.post(f"{MODEL}/predict", content=json.dumps(INPUTS[1]), headers=headers)
    assert found.status_code == 403
    assert taken == []


def test_a_compressed_body_goes_the_quick_way_too(client, taken):
    """It is inflated, within its bounds, before."""
    body = json.dumps(INPUTS[0]).encode()
    packed = gzip.compress(body)
    found = client.post(f"{MODEL}/predict", content=packed, headers={**PLAIN, "Content-Encoding": "gzip"})
    assert found.json() == httpx.post(f"{client.base_url}{MODEL}/predict", json=INPUTS[0]).json()
    assert taken == ["predict"] * 2
