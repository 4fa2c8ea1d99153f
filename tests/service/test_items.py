"""What comes in: answered, kept once, read and deleted."""

import hashlib

import numpy as np
import pytest
from support.service import rows, running

from protocols.recipes.building import load_model
from protocols.service.settings import Keeping, Policy

PATH = "/api/v1/models/small/items"
ALL = Keeping(policy=Policy(1.0, 1.0, 1.0))


@pytest.fixture
def client(small, tmp_path, new_database):
    with running(small, tmp_path / "data", keeping=ALL, database=new_database()) as client:
        yield client


def test_items_are_answered_kept_and_read_again(client, small):
    x, _ = rows(30, 1, classes=4)
    told = load_model(small).examine(x)
    found = client.post(PATH, json={"inputs": x.tolist()}).json()
    assert [it["fate"] for it in found["items"]] == ["stored"] * 30
    digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in x]
    assert [it["id"] for it in found["items"]] == digests
    assert [it["answer"]["margin"] for it in found["items"]] == told.prediction.margins.tolist()
    page = client.get(PATH).json()
    assert page["next"] is None
    assert [it["id"] for it in page["items"]] == digests
    for row, it in enumerate(page["items"]):
        assert (it["slot"], it["margin"]) == (told.prediction.slots[row], told.prediction.margins[row])
        assert (it["p_value"], it["state"], it["generation"]) == (told.novelty.p_values[row], "open", 0)
        assert it["media"] == "application/x-float32"
    content = client.get(f"{PATH}/{digests[3]}/content")
    assert np.frombuffer(content.content, "<f4").tolist() == x[3].tolist()
    assert content.headers["x-content-type-options"] == "nosniff"
    assert content.headers["content-disposition"] == f'attachment; filename="{digests[3][:16]}.bin"'


def test_pages_leave_nothing_out_and_have_nothing_twice(client):
    x, _ = rows(53, 2, classes=4)
    client.post(PATH, json={"inputs": x.tolist()})
    everything = client.get(PATH, params={"limit": 1000}).json()["items"]
    for newest in (False, True):
        seen, after = [], None
        while True:
            params = {"limit": 10, "newest": newest} | ({} if after is None else {"after": after})
            page = client.get(PATH, params=params).json()
            seen += page["items"]
            after = page["next"]
            if after is None:
                break
        assert seen == (everything[::-1] if newest else everything)
    kinds = {it["answer"] for it in everything}
    assert {"matched", "unmatched"} <= kinds
    for kind in kinds:
        some = client.get(PATH, params={"limit": 1000, "answer": kind}).json()["items"]
        assert some == [it for it in everything if it["answer"] == kind]


def test_the_same_id_is_one_row(client):
    given = {"inputs": [[1.0] * 6], "ids": ["camera-3/17.png"]}
    assert client.post(PATH, json=given).json()["items"][0]["fate"] == "stored"
    assert client.post(PATH, json=given).json()["items"][0]["fate"] == "there"
    other = client.post(PATH, json={"inputs": [[9.0] * 6, [2.0] * 6], "ids": ["new", "camera-3/17.png"]})
    assert other.status_code == 409
    assert "'camera-3/17.png' has another content" in other.json()["detail"]
    assert [it["id"] for it in client.get(PATH).json()["items"]] == ["camera-3/17.png"]
    assert client.get(f"{PATH}/camera-3/17.png").json()["id"] == "camera-3/17.png"
    assert client.get(f"{PATH}/camera-3/17.png/content").content == np.ones(6, "<f4").tobytes()
    assert client.delete(f"{PATH}/camera-3/17.png").status_code == 204
    assert client.delete(f"{PATH}/camera-3/17.png").status_code == 404
    assert client.get(f"{PATH}/camera-3/17.png").status_code == 404
    assert client.post(PATH, json=given).json()["items"][0]["fate"] == "stored"


def test_ids_are_one_in_every_normal_form(client):
    given = {"inputs": [[1.0] * 6], "ids": ["Zoe\u0308"]}
    assert client.post(PATH, json=given).json()["items"][0]["id"] == "Zoë"
    assert client.get(f"{PATH}/Zoë").json()["id"] == "Zoë"


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ({"inputs": [[1.0] * 6], "ids": ["a\nb"]}, 422, "control characters"),
        ({"inputs": [[1.0] * 6], "ids": ["a" * 257]}, 422, "1 to 256 characters"),
        ({"inputs": [[1.0] * 6], "ids": [" "]}, 422, "1 to 256 characters"),
        ({"inputs": [[1.0] * 6], "ids": ["a/content"]}, 422, "end in '/content'"),
        ({"inputs": [[1.0] * 6], "ids": ["../a"]}, 422, "no address could name it"),
        ({"inputs": [[1.0] * 6], "ids": ["a", "b"]}, 422, "one id for each of the 1 inputs, got 2"),
        ({"inputs": [[1.0] * 6], "store": "seen:all"}, 400, "unmatched, ambiguous and matched"),
        ({"inputs": [[1.0] * 6], "store": "matched:many"}, 400, "a percentage or a number"),
        ({"inputs": [[1.0] * 6], "store": "matched:200%"}, 400, "must lie in [0, 1], got 2.0"),
        ({"inputs": [[1.0] * 5]}, 422, "shape"),
    ],
)
def test_wrong_items_are_refused_in_a_sentence(client, given, status, says):
    found = client.post(PATH, json=given)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json")
    assert says in found.json()["detail"]
    assert client.get(PATH).json()["items"] == []


def test_matched_items_are_sampled_by_their_content(small, tmp_path):
    x, _ = rows(400, 3)
    with running(small, tmp_path / "data") as client:
        every = client.post(PATH, json={"inputs": x.tolist(), "store": "none"}).json()["items"]
        assert {it["fate"] for it in every} == {"passed"}
        matched = {it["id"] for it in every if it["answer"]["answer"] == "matched"}
        others = {it["id"] for it in every} - matched
        half = client.post(PATH, json={"inputs": x.tolist(), "store": "matched:50%"}).json()["items"]
        kept = {it["id"] for it in half if it["fate"] == "stored"}
        assert others <= kept
        assert kept & matched == {it for it in matched if int(it[:13], 16) / 16**13 < 0.5}
        assert 0.3 * len(matched) < len(kept & matched) < 0.7 * len(matched)
        again = client.post(PATH, json={"inputs": x.tolist(), "store": "matched:50%"}).json()["items"]
        assert {it["id"] for it in again if it["fate"] == "there"} == kept
        assert len(client.get(PATH, params={"limit": 1000}).json()["items"]) == len(kept)


def test_bounds_on_items_bytes_and_the_disk(small, tmp_path):
    x, _ = rows(8, 4, classes=4)
    for changes, says in (
        ({"items": 5}, "5 of at most 5 items"),
        ({"size": 5 * 24}, "120 of at most 120 bytes"),
        ({"free": 1 << 60}, "must stay so"),
    ):
        keeping = Keeping(policy=Policy(1.0, 1.0, 1.0), **changes)
        with running(small, tmp_path / next(iter(changes)), keeping=keeping) as client:
            first = client.post(PATH, json={"inputs": x[:5].tolist()})
            if "free" not in changes:
                assert first.status_code == 200
            full = client.post(PATH, json={"inputs": x.tolist()})
            assert (full.status_code, full.json()["title"]) == (507, "No space")
            assert says in full.json()["detail"]
            assert client.post(PATH, json={"inputs": x.tolist(), "store": "none"}).status_code == 200
            if "free" not in changes:  # what is there already needs no room
                again = client.post(PATH, json={"inputs": x[:5].tolist()}).json()
                assert {it["fate"] for it in again["items"]} == {"there"}
                assert client.delete(f"{PATH}/{again['items'][0]['id']}").status_code == 204
                assert client.post(PATH, json={"inputs": x[7:].tolist()}).status_code == 200


def test_large_contents_lie_in_files_that_go_with_the_last_item(small, tmp_path, new_database):
    keeping = Keeping(policy=Policy(1.0, 1.0, 1.0), inline=10)
    with running(small, tmp_path / "data", keeping=keeping, database=new_database()) as client:
        x, _ = rows(3, 5)
        given = {"inputs": [*x.tolist(), x[0].tolist()], "ids": ["a", "b", "c", "again"]}
        assert [it["fate"] for it in client.post(PATH, json=given).json()["items"]] == ["stored"] * 4
        files = {it.name for it in (tmp_path / "data" / "blobs").rglob("*") if it.is_file()}
        assert files == {hashlib.sha256(row.tobytes()).hexdigest() for row in x}
        assert client.get(f"{PATH}/b/content").content == x[1].tobytes()
        for name in ("a", "again"):
            assert client.get(f"{PATH}/{name}/content").content == x[0].tobytes()
            assert client.delete(f"{PATH}/{name}").status_code == 204
        files -= {hashlib.sha256(x[0].tobytes()).hexdigest()}
        assert {it.name for it in (tmp_path / "data" / "blobs").rglob("*") if it.is_file()} == files
