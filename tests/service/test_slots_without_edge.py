"""A slot that matches no input has no edge to measure a margin from: every way out says so in valid JSON."""

import json

import numpy as np
import pytest
from support.service import running
from support.small_models import three_animals

import slots

MODEL = "/api/v1/models/small"


@pytest.fixture(scope="module")
def x():
    return np.eye(8, dtype=np.float32)[:3]


@pytest.fixture(scope="module")
def client(x, tmp_path_factory):
    """A service on three animals, of whose slots the first owns nothing, as vouching may leave one."""
    folder = tmp_path_factory.mktemp("edge")
    model = three_animals()
    model.head.support_thresholds[0] = 2.0
    model.save(folder / "small")
    told = model.predict(x)
    assert told.margins[0] == -np.inf
    assert told.slots.tolist() == [0, 1, 2]
    assert not told.matched[0]
    assert (told.margins[1:] > 0).all()
    with running(folder / "small", folder / "data") as client:
        yield client


def strict(text):
    """JSON as its standard has it; Python alone reads Infinity."""

    def refused(word):
        raise AssertionError(f"no JSON: {word}")

    return json.loads(text, parse_constant=refused)


def test_answers(client, x):
    found = client.post(f"{MODEL}/predict", json={"inputs": x.tolist()})
    assert found.status_code == 200, found.text
    answers = strict(found.text)["answers"]
    assert [(it["slot"], it["answer"], it["margin"] is None) for it in answers] == [
        (0, "unmatched", True),
        (1, "matched", False),
        (2, "matched", False),
    ]


def test_the_schema_allows_for_it(client):
    schemas = client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    for name in ("OneAnswer", "ItemOut"):
        assert {"type": "null"} in schemas[name]["properties"]["margin"]["anyOf"]


def test_items_are_kept(client, x):
    found = client.post(f"{MODEL}/items", json={"inputs": [x[0].tolist()], "ids": ["edge"]})
    assert found.status_code == 200, found.text
    (receipt,) = strict(found.text)["items"]
    assert receipt["fate"] == "stored"
    assert receipt["answer"]["margin"] is None
    kept = strict(client.get(f"{MODEL}/items").text)["items"][0]
    assert (kept["id"], kept["slot"], kept["margin"]) == ("edge", 0, None)


def test_streamed_receipts(client, x):
    content = json.dumps({"id": "edge of a stream", "input": x[0].tolist()}) + "\n"
    found = client.post(f"{MODEL}/items/stream", content=content.encode())
    receipt = strict(found.text.splitlines()[0])
    assert (receipt["id"], receipt["answer"]["margin"]) == ("edge of a stream", None)


def test_the_open_inference_protocol(client, x):
    sent = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    found = client.post("/v2/models/small/infer", json={"inputs": [sent]})
    assert found.status_code == 200, found.text
    margins = {it["name"]: it["data"] for it in strict(found.text)["outputs"]}["margin"]
    assert margins[0] == -np.pi
    assert min(margins[1:]) > 0


def test_our_client(client, x):
    with slots.Client(str(client.base_url), model="small") as ours:
        found = ours.predict(x).answers
        assert [it.margin is None for it in found] == [True, False, False]
