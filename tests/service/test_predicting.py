"""Answers over HTTP: the same as offline, bit for bit, alone and in batches."""

import asyncio
import gzip
import json
import zlib

import httpx
import pytest
from support.service import rows

from protocols.recipes.building import load_model

PATH = "/api/v1/models/small/predict"


def test_an_answer_is_the_models_own(client, small):
    x, _ = rows(40, 1, classes=4)
    found = client.post(PATH, json={"inputs": x.tolist()}).json()
    model = load_model(small)
    told = model.examine(x)
    assert found["generation"] == model.generation == 0
    assert [it["label"] for it in found["answers"]] == [model.class_name(it) for it in told.prediction.labels]
    assert [it["slot"] for it in found["answers"]] == told.prediction.slots.tolist()
    assert [it["margin"] for it in found["answers"]] == told.prediction.margins.tolist()
    assert [it["novelty"]["p_value"] for it in found["answers"]] == told.novelty.p_values.tolist()
    assert [it["novelty"]["novel"] for it in found["answers"]] == told.novelty.novel.tolist()
    kinds = {it["answer"] for it in found["answers"]}
    assert {"matched", "unmatched"} <= kinds


def test_many_at_once_get_the_answers_they_would_get_alone(client, small):
    x, _ = rows(240, 2, classes=4)
    told = load_model(small).examine(x)

    async def all_of_them():
        free, limits = asyncio.Semaphore(24), httpx.Limits(max_connections=24)

        async def one(row):
            async with free:  # here, since the client looks through all that wait at each answer
                return await many.post(PATH, json={"inputs": [row]})

        async with httpx.AsyncClient(base_url=client.base_url, limits=limits, timeout=60) as many:
            return await asyncio.gather(*map(one, x.tolist()))

    for row, found in enumerate(asyncio.run(all_of_them())):
        (answer,) = found.json()["answers"]
        assert answer["label_id"] == told.prediction.labels[row]
        assert answer["margin"] == told.prediction.margins[row]
        assert answer["novelty"]["p_value"] == told.novelty.p_values[row]
        assert answer["novelty"]["score"] == round(told.novelty.scores[row], 6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"inputs": []}, "at least 1"),
        ({}, "Field required"),
        ({"inputs": [[1.0, 2.0]]}, "shape"),
        ({"inputs": ["text"]}, "rows of 6 numbers"),
        ({"inputs": [[1, 2, 3, 4, 5, 6], [1, 2, 3]]}, "rows of 6 numbers"),
        ({"inputs": [[1e300] * 6]}, "finite"),
        ({"inputs": [[1.0] * 6] * 4097}, "4096"),
    ],
)
def test_wrong_inputs_are_refused_in_a_sentence(client, given, says):
    found = client.post(PATH, json=given)
    assert found.status_code == 422, found.text
    assert found.headers["content-type"] == "application/problem+json"
    assert says in found.json()["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(client, number):
    body = f'{{"inputs": [[{number}, 1, 1, 1, 1, 1]]}}'
    assert client.post(PATH, content=body, headers={"content-type": "application/json"}).status_code == 422


def test_bodies_are_bounded_after_decompression(client):
    row = json.dumps({"inputs": [[1.0] * 6]}).encode()
    for encoding, packed in (("gzip", gzip.compress(row)), ("deflate", zlib.compress(row))):
        headers = {"content-type": "application/json", "content-encoding": encoding}
        assert client.post(PATH, content=packed, headers=headers).status_code == 200
        bomb = (gzip.compress if encoding == "gzip" else zlib.compress)(b" " * (64 << 20))
        assert client.post(PATH, content=bomb, headers=headers).status_code == 413
        assert client.post(PATH, content=packed[:-3], headers=headers).status_code == 400
    assert client.post(PATH, content=row, headers={"content-encoding": "br"}).status_code == 415
    assert client.post(PATH, content=b" " * ((8 << 20) + 1)).status_code == 413


def test_deep_json_is_refused(client):
    body = b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    found = client.post(PATH, content=body, headers={"content-type": "application/json"})
    assert found.status_code in (400, 422)


@pytest.mark.parametrize("header", ["Content-Type", "Content-Encoding", "Inference-Header-Content-Length"])
def test_a_header_that_says_how_to_read_the_body_is_said_once(client, header):
    """Else the bounds would look at one of them and the reader go by another."""
    twice = [(header, "application/json"), (header, "text/plain")]
    found = client.post("/api/v1/models/small/predict", content=b"[" * 5000, headers=twice)
    assert (found.status_code, found.headers["content-type"]) == (400, "application/problem+json")
    assert f"The header {header.lower()} may be sent once" in found.json()["detail"]


def test_a_deadline_that_passed_is_not_answered(client):
    found = client.post(PATH, json={"inputs": [[1.0] * 6]}, headers={"X-Request-Timeout": "1e-9"})
    assert found.status_code == 503
    assert found.headers["retry-after"] == "1"


def test_models_and_health(client):
    (facts,) = client.get("/api/v1/models").json()
    assert facts["name"] == "small"
    assert facts["labels"] == ["red", "green", "blue"]
    assert client.get("/api/v1/models/small").json() == facts
    assert client.get("/api/v1/models/none").status_code == 404
    assert client.get("/nowhere").headers["content-type"] == "application/problem+json"
    assert client.get("/api/v1/ready").json() == {"ready": True}
