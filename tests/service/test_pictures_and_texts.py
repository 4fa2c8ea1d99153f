"""Pictures and texts on all their way: answered, kept, grouped, labelled, learned, and answered anew."""

import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from support.encoders import tiny_encoder
from support.pages import parse, wait
from support.service import running

import backbones
from protocols.data.loading import load_data
from protocols.recipes.building import load_model
from protocols.service.jobs.child.material import as_inputs
from protocols.service.settings import Keeping, Policy
from slots.training import TrainConfig, fit

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"
KNOWN = {
    "money": ["what", "is", "my", "balance", "money", "bank", "pay", "bill"],
    "weather": ["weather", "rain", "sun", "today", "tomorrow"],
}
NEW = ["play", "song", "music", "the"]


def sentences(words, n, seed):
    """Sentences of two to five of some words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, int(rng.integers(2, 6)))) for _ in range(n)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model of the digits 0 to 7, and pictures that it has not seen, with the digits they show."""
    data = load_data("digits")
    known = data.y_train < 8
    config = TrainConfig(epochs=2, slots_per_class=2, held_out=0.2)
    backbone = backbones.build("pixels", input_shape=(1, 8, 8))
    model, _ = fit(data.x_train[known][:600], data.y_train[known][:600], backbone=backbone, config=config)
    model.save(folder := tmp_path_factory.mktemp("digits") / "small")
    return folder, data.x_test[:120], data.y_test[:120]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A model of sentences about money and weather."""
    encoder = tiny_encoder(tmp_path_factory.mktemp("encoder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLOTS_ENCODERS", str(encoder))
        x = np.array([it for name in KNOWN for it in sentences(KNOWN[name], 100, len(name))], dtype=object)
        y = np.repeat([0, 1], 100)
        config = TrainConfig(epochs=2, slots_per_class=3, held_out=0.2)
        model, _ = fit(x, y, backbone=backbones.build(f"text:{encoder}"), config=config, class_names=tuple(KNOWN))
        model.save(folder := tmp_path_factory.mktemp("told") / "small")
        yield folder


def file_of(pixels, kind):
    """A picture of one channel as a file, without loss."""
    Image.fromarray(pixels[..., 0]).save(file := io.BytesIO(), kind)
    return file.getvalue()


def same_answers(shown, model, x):
    """Answers of the API are those of a model, to the last bit."""
    said = model.predict(x)
    assert [it["label"] for it in shown] == [model.class_name(it) for it in said.labels]
    assert [it["slot"] for it in shown] == said.slots.tolist()
    assert [it["margin"] for it in shown] == said.margins.tolist()


def stored(client):
    """All items, in the order in which they came."""
    return client.get(f"{MODEL}/items", params={"limit": 1000}).json()["items"]


def grouped(client):
    """Ids of the items in the groups of a new query list."""
    client.post(f"{MODEL}/review")
    assert wait(client, 300)["state"] == "done"
    number = client.get(f"{MODEL}/review").json()["number"]
    groups = client.get(f"{MODEL}/review/{number}/groups", params={"limit": 1000, "members": 1000}).json()["groups"]
    return [it["id"] for group in groups for it in group["members"]]


def learned(client, names):
    """Label items, and learn that; the job's result."""
    given = [{"item": it, "label": name} for it, name in names.items()]
    assert client.post(f"{MODEL}/labels", json={"labels": given}).json() == {"items": len(given)}
    client.post(f"{MODEL}/updates", json={})
    job = wait(client, 300)
    assert job["state"] == "done", job
    assert job["result"]["proven"] is True
    assert job["result"]["slots_added"] > 0
    return job["result"]


def right(model, x, names):
    """Share of inputs to which a model gives these names."""
    return np.mean([model.class_name(it) for it in model.predict(x).labels] == np.array(names))


def answered_anew(client, generation):
    """Items that wait, once they were answered by a generation."""
    end = time.monotonic() + 60
    while True:
        waiting = [it for it in stored(client) if it["state"] in ("open", "labelled")]
        if all(it["generation"] == generation for it in waiting):
            return waiting
        assert time.monotonic() < end, waiting
        time.sleep(0.05)


def test_pictures(digits, tmp_path):
    folder, x, y = digits
    kinds = [("PNG", "image/png"), ("BMP", "image/bmp"), ("TIFF", "image/tiff"), ("GIF", "image/gif")]
    files = [file_of(it, kinds[place % 4][0]) for place, it in enumerate(x)]
    ids = [f"camera/{place}" for place in range(len(x))]
    assert np.array_equal(as_inputs(load_model(folder), files), x)  # the same as when they came
    keeping = Keeping(policy=Policy(1.0, 1.0, 1.0), inline=sorted(map(len, files))[len(files) // 2])
    with running(folder, tmp_path, keeping=keeping) as client:
        sent = [base64.b64encode(it).decode() for it in files]
        for start in (0, 60):
            part = {"inputs": sent[start : start + 60], "ids": ids[start : start + 60]}
            receipts = client.post(f"{MODEL}/items", json=part).json()["items"]
            assert {it["fate"] for it in receipts} == {"stored"}
            same_answers([it["answer"] for it in receipts], load_model(folder), x[start : start + 60])
        alone = client.post(f"{MODEL}/items/image?id=camera/0", content=files[0]).json()["items"]
        assert [it["fate"] for it in alone] == ["there"]
        line = json.dumps({"id": "camera/1", "input": sent[1]}) + "\n"
        assert client.post(f"{MODEL}/items/stream", content=line).json()["fate"] == "there"
        n_blobs = sum(it.is_file() for it in (tmp_path / "blobs").rglob("*"))
        assert n_blobs == len({it for it in files if len(it) >= keeping.inline}) > 10
        for place, name in enumerate(ids[:8]):
            content = client.get(f"{MODEL}/items/{name}/content")
            assert (content.content, content.headers["content-type"]) == (files[place], kinds[place % 4][1])
        same_answers(stored(client), load_model(folder), x)

        page = parse(client.get("/models/small/explain", params={"item": 1}).text)
        assert page.all("img")
        found = grouped(client)
        rows = [int(it.removeprefix("camera/")) for it in found]
        assert np.isin([8, 9], y[rows]).all()
        assert learned(client, {it: str(y[row]) for it, row in zip(found, rows, strict=True)})["generation"] == 1
        waiting = answered_anew(client, 1)
        same_answers(waiting, load_model(folder), x[[int(it["id"].removeprefix("camera/")) for it in waiting]])
        assert right(load_model(folder), x[rows], y[rows].astype(str)) > 0.9


def test_texts(told, tmp_path):
    given = [*sentences(KNOWN["money"], 20, 7), *sentences(NEW, 40, 8), "", "ünknown 漢字 🙂\n!"]
    ids = [f"call {place}" for place in range(len(given))]
    x = np.array(given, dtype=object)
    assert as_inputs(load_model(told), [it.encode() for it in given]).tolist() == given
    with running(told, tmp_path, keeping=Keeping(policy=Policy(1.0, 1.0, 1.0), inline=16)) as client:
        receipts = client.post(f"{MODEL}/items", json={"inputs": given, "ids": ids}).json()["items"]
        assert {it["fate"] for it in receipts} == {"stored"}
        same_answers([it["answer"] for it in receipts], load_model(told), x)
        for place in (0, 30, 60, 61):
            content = client.get(f"{MODEL}/items/call {place}/content")
            assert content.content.decode() == given[place]
            assert content.headers["content-type"] == "text/plain; charset=utf-8"
        assert given[25] in parse(client.get("/models/small/explain", params={"item": 26}).text).text
        unmatched = [it["id"] for it in stored(client) if it["answer"] == "unmatched"]
        new = {it: "music" for it in unmatched if it in ids[20:60]}
        assert len(new) > 20
        assert learned(client, new)["generation"] == 1
        waiting = answered_anew(client, 1)
        same_answers(waiting, load_model(told), x[[int(it["id"].removeprefix("call ")) for it in waiting]])
        assert right(load_model(told), x[[ids.index(it) for it in new]], ["music"] * len(new)) > 0.9


def test_an_item_of_another_kind_is_named(told, digits, tmp_path):
    """The data folder of a model of pictures, under a model of texts: nothing is read as what it is not."""
    folder, x, _ = digits
    everything = Keeping(policy=Policy(1.0, 1.0, 1.0))
    with running(folder, tmp_path, keeping=everything) as client:
        black = base64.b64encode(file_of(np.zeros_like(x[0]), "PNG")).decode()
        (receipt,) = client.post(f"{MODEL}/items", json={"inputs": [black], "ids": ["odd one"]}).json()["items"]
        assert receipt["answer"]["answer"] == "unmatched"
    with running(told, tmp_path, keeping=everything) as client:
        client.post(f"{MODEL}/review")
        job = wait(client)
        assert job["state"] == "failed"
        assert "Item 'odd one': An item must be text in UTF-8" in job["error"]["detail"]
        assert client.delete(f"{MODEL}/items/odd one").status_code == 204
        client.post(f"{MODEL}/review")
        assert wait(client)["state"] == "done"
