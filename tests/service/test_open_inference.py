"""Open Inference Protocol v2: clients that nobody here wrote get the answers that the model gives offline."""

import base64
import gzip
import importlib
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from support.service import rows, running

import backbones
from protocols.recipes.building import load_model
from protocols.service.api.predicting import KINDS
from slots.training import TrainConfig, fit

SUPPORT = Path(__file__).parent.parent / "support"
INFER = "/v2/models/small/infer"


@pytest.fixture(scope="module")
def x():
    return rows(60, 5, classes=4)[0]


@pytest.fixture(scope="module")
def offline(small, x):
    """Each output as the model itself gives it."""
    model = load_model(small)
    told = model.examine(x)
    return {
        "label": [model.class_name(it) for it in told.prediction.labels],
        "label_id": told.prediction.labels.tolist(),
        "answer": [KINDS[int(it)] for it in told.prediction.answers],
        "slot": told.prediction.slots.tolist(),
        "margin": told.prediction.margins.tolist(),
        "p_value": told.novelty.p_values.tolist(),
        "novel": told.novelty.novel.tolist(),
    }


@pytest.fixture(scope="module")
def triton(client, x, tmp_path_factory):
    pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed (extra `test`)")
    file = tmp_path_factory.mktemp("rows") / "x.npy"
    np.save(file, x)
    command = [sys.executable, SUPPORT / "inference_clients.py", str(client.base_url).rstrip("/"), file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_all_forms_of_tritonclient_give_the_offline_answers(triton, offline):
    assert len(triton["forms"]) == 18
    for found in triton["forms"]:
        assert {name: found[name] for name in offline} == offline, found["form"]
        assert found["id"] == "it's me"
        assert found["version"] == "0"


def test_the_aio_client_too(triton, offline):
    assert triton["aio"] == [offline] * 18


def test_tritonclient_reads_what_server_and_model_are(triton):
    assert [triton[it] for it in ("live", "ready", "model ready", "version ready", "other ready")] == [True] * 4 + [
        False
    ]
    assert triton["server"]["extensions"] == ["binary_tensor_data"]
    assert triton["model"] == triton["version"]
    assert triton["model"]["platform"] == "slots_safetensors"
    assert triton["model"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 6]}]
    assert [it["name"] for it in triton["model"]["outputs"]] == [
        "label", "label_id", "answer", "slot", "margin", "p_value", "novel",
    ]  # fmt: skip
    assert triton["at version"]["model_version"] == "0"


def test_the_false_alarm_rate_is_the_requests_own(triton, small, x):
    assert triton["novel at 0.4"] == load_model(small).examine(x, false_alarm_rate=0.4).novelty.novel.tolist()


@pytest.mark.parametrize(
    ("what", "status", "says"),
    [
        ("no model", "404", "no model 'none'"),
        ("no version", "404", "Generation '77'"),
        ("shape", "422", "shape"),
        ("not finite", "422", "finite"),
        ("too many", "422", "4096"),
        ("too large", "413", "8388608 bytes"),
        ("no output", "400", "'logits'"),
        ("classification", "400", "`classification`"),
        ("rate", "400", "false_alarm_rate"),
        ("timeout", "503", "deadline"),
        ("config", "404", "Not Found"),
        ("repository", "404", "Not Found"),
        ("statistics", "404", "Not Found"),
    ],
)
def test_tritonclient_reads_every_error(triton, what, status, says):
    found_status, message = triton["errors"][what]
    assert found_status == status
    assert says in message


def request(x, **more):
    flat = np.asarray(x, float).ravel().tolist()
    return {"inputs": [{"name": "input", "datatype": "FP32", "shape": list(x.shape), "data": flat}], **more}


def values(document):
    return {it["name"]: it["data"] for it in document["outputs"]}


def test_plain_json_flat_and_nested(client, x, offline):
    found = client.post(INFER, json=request(x)).json()
    assert values(found) == offline
    assert "id" not in found
    nested = {**request(x)["inputs"][0], "data": x.tolist()}
    assert values(client.post(INFER, json={"inputs": [nested]}).json()) == offline
    double = {**request(x)["inputs"][0], "datatype": "FP64"}
    assert values(client.post(INFER, json={"inputs": [double]}).json()) == offline


def test_only_the_outputs_asked_for_in_their_order(client, x, offline):
    found = client.post(INFER, json=request(x, id="a", outputs=[{"name": "slot"}, {"name": "label"}])).json()
    assert [it["name"] for it in found["outputs"]] == ["slot", "label"]
    assert values(found) == {name: offline[name] for name in ("slot", "label")}
    assert found["id"] == "a"


def test_a_raw_request_is_the_input_alone(client, x, offline):
    found = client.post(INFER, content=x.tobytes(), headers={"Inference-Header-Content-Length": "0"})
    assert values(found.json()) == offline


def test_compression_is_by_request_only(client, x):
    plain = client.post(INFER, json=request(x), headers={"Accept-Encoding": "identity, gzip;q=0"})
    assert "content-encoding" not in plain.headers
    for coding in ("gzip", "deflate"):
        packed = client.post(INFER, json=request(x), headers={"Accept-Encoding": coding})
        assert packed.headers["content-encoding"] == coding
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        assert packed.json() == plain.json()
    one = client.post(INFER, json=request(x[:1]), headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in one.headers


ROW = {"name": "input", "datatype": "FP32", "shape": [1, 6], "data": [1, 2, 3, 4, 5, 6]}
WRONG = {
    "no json": (b"{", "Invalid JSON"),
    "a list": (b"[]", "object"),
    "deep": (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "32 levels deep"),
    "no input": ({"inputs": []}, "at least 1"),
    "two inputs": ({"inputs": [ROW, ROW]}, "at most 1"),
    "another name": ({"inputs": [{**ROW, "name": "x"}]}, "'input'"),
    "no data": ({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 6]}]}, "`data`"),
    "too few": ({"inputs": [{**ROW, "shape": [2, 6]}]}, "12 elements, got 6"),
    "negative shape": ({"inputs": [{**ROW, "shape": [-1, -6]}]}, "greater than"),
    "huge shape": ({"inputs": [{**ROW, "shape": [2**31] * 8}]}, "got 6"),
    "huge number": ({"inputs": [{**ROW, "data": [10**400, 1, 1, 1, 1, 1]}]}, "hold"),
    "no datatype": ({"inputs": [{**ROW, "datatype": "FP8"}]}, "'FP8'"),
    "text": ({"inputs": [{**ROW, "datatype": "BYTES", "data": ["a"] * 6}]}, "must be FP32"),
    "strings as numbers": ({"inputs": [{**ROW, "data": ["1"] * 6}]}, "must be numbers"),
    "fractions as integers": ({"inputs": [{**ROW, "datatype": "INT64", "data": [1.5] * 6}]}, "whole numbers"),
    "mixture": ({"inputs": [{**ROW, "data": [[1, 2], 3, 4, 5, 6]}]}, "mixture"),
    "shared memory": ({"inputs": [{**ROW, "parameters": {"shared_memory_region": "a"}}]}, "Shared memory"),
    "size without bytes": ({"inputs": [{**ROW, "parameters": {"binary_data_size": 24}}]}, "binary_data_size"),
    "rate": ({"inputs": [ROW], "parameters": {"false_alarm_rate": "often"}}, "must be a number"),
    "too many outputs": ({"inputs": [ROW], "outputs": [{"name": "slot"}] * 65}, "64"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_requests_are_refused_in_the_protocols_form(client, what):
    body, says = WRONG[what]
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = client.post(INFER, content=body)
    assert found.status_code in (400, 422), found.text
    assert list(found.json()) == ["error"]
    assert says in found.json()["error"]


def binary(head, tail):
    head = json.dumps(head).encode()
    return head + tail, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize(
    ("tail", "size", "datatype", "says"),
    [
        (b"\0" * 23, 23, "FP32", "24 bytes, got 23"),
        (b"\0" * 24, 20, "FP32", "`binary_data_size`"),
        (b"\0" * 24, None, "FP32", "no `binary_data_size`"),
        (struct.pack("<I", 99) + b"a", 5, "BYTES", "inside an element"),
        (b"\1\0", 2, "BYTES", "inside the length"),
    ],
)
def test_wrong_bytes_are_refused(client, tail, size, datatype, says):
    given = {"name": "input", "datatype": datatype, "shape": [1, 6]}
    if size is not None:
        given["parameters"] = {"binary_data_size": size}
    body, headers = binary({"inputs": [given]}, tail)
    found = client.post(INFER, content=body, headers=headers)
    assert found.status_code == 400
    assert says in found.json()["error"]


@pytest.mark.parametrize("length", ["-1", "99999", "x", "²"])
def test_a_wrong_length_of_the_document_is_refused(client, length):
    headers = {b"Inference-Header-Content-Length": length.encode("latin-1")}
    found = client.post(INFER, content=json.dumps({"inputs": [ROW]}), headers=headers)
    assert found.status_code == 400
    assert "Inference-Header-Content-Length" in found.json()["error"]


def test_every_error_under_v2_has_the_protocols_form(client):
    found = [
        client.get("/v2/nowhere"),
        client.get("/v2/"),
        client.put("/v2"),
        client.post(INFER, content=gzip.compress(b" " * (64 << 20)), headers={"Content-Encoding": "gzip"}),
        client.post(INFER, content=b"x", headers={"Content-Encoding": "br"}),
        client.post(INFER, content=b" " * ((8 << 20) + 1)),
        client.get("/v2/models/small/versions/1"),
    ]
    assert [it.status_code for it in found] == [404, 404, 405, 413, 415, 413, 404]
    for it in found:
        assert it.headers["content-type"] == "application/json"
        assert list(it.json()) == ["error"]
    assert client.get("/v2x").json()["status"] == 404


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A model of 8 x 8 pictures behind a service, and 20 pictures."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = (
        rng.integers(0, 60, (120, 8, 8, 1)) + 150 * (np.arange(8)[:, None] // 4 == y[:, None, None])[..., None]
    ).astype(np.uint8)
    config = TrainConfig(epochs=1, slots_per_class=2)
    model, _ = fit(x, y, backbone=backbones.build("pixels", input_shape=(1, 8, 8)), config=config)
    folder = tmp_path_factory.mktemp("pictures")
    model.save(folder / "model")
    with running(folder / "model", folder / "data") as client:
        yield client, x[:20], load_model(folder / "model").predict(x[:20])


def test_pixels_and_image_files(pictures):
    client, x, told = pictures
    assert client.get("/v2/models/small").json()["inputs"] == [
        {"name": "input", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}
    ]
    files = []
    for pixels in x:
        Image.fromarray(pixels[..., 0]).save(kept := io.BytesIO(), "png")
        files.append(kept.getvalue())
    bytes_of_files = b"".join(struct.pack("<I", len(file)) + file for file in files)
    named = {"name": "input", "datatype": "BYTES", "shape": [20]}
    flat = {"name": "input", "datatype": "UINT8", "shape": list(x.shape)}
    sized = [{**flat, "parameters": {"binary_data_size": x.nbytes}}]
    with_files = [{**named, "parameters": {"binary_data_size": len(bytes_of_files)}}]
    found = [
        client.post(INFER, json={"inputs": [{**flat, "data": x.ravel().tolist()}]}),
        client.post(INFER, json={"inputs": [{**named, "data": [base64.b64encode(it).decode() for it in files]}]}),
        *(
            client.post(INFER, content=body, headers=headers)
            for body, headers in (
                binary({"inputs": sized}, x.tobytes()),
                binary({"inputs": with_files}, bytes_of_files),
            )
        ),
    ]
    for it in found:
        assert values(it.json())["slot"] == told.slots.tolist()
        assert values(it.json())["margin"] == told.margins.tolist()
    one = client.post(INFER, content=files[3], headers={"Inference-Header-Content-Length": "0"})
    assert values(one.json())["slot"] == [told.slots[3]]
    assert client.post(INFER, json={"inputs": [{**named, "data": ["no image"] * 20}]}).status_code == 422
    assert client.post(INFER, json={"inputs": [{**flat, "datatype": "FP32", "data": [0.5] * 1280}]}).status_code == 400


def test_the_generated_client_of_the_protocol(client, x, offline):
    openapi = pytest.importorskip(
        "open_inference.openapi.client", reason="open-inference-openapi is not installed (extra `test`)"
    )
    types = importlib.import_module("open_inference.openapi.types")
    with httpx.Client() as connection:
        theirs = openapi.OpenInferenceClient(base_url=str(client.base_url), httpx_client=connection)
        theirs.check_server_readiness()
        theirs.check_model_version_readiness("small", "0")
        assert theirs.read_server_metadata().name == "slots"
        assert theirs.read_model_metadata("small").platform == "slots_safetensors"
        data = types.TensorData(__root__=x.ravel().tolist())
        given = types.RequestInput(name="input", shape=list(x.shape), datatype="FP32", data=data)
        found = theirs.model_infer("small", request=types.InferenceRequest(inputs=[given]))
        with pytest.raises(openapi.ApiError, match="404") as refused:
            theirs.read_model_metadata("none")
    told = {it.name: json.loads(it.data.json()) for it in found.outputs}
    assert told == offline
    assert "no model 'none'" in refused.value.body["error"]
