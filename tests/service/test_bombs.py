"""Requests that are small on the wire and large, endless or ambiguous inside: refused, in bounded memory."""

import json

import httpx
import pytest
from support.bombs import SMALL, all_of_them, picture_model
from support.served_process import served

pytestmark = pytest.mark.slow

GROWTH = 100 << 20


@pytest.fixture(scope="module")
def service(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    picture_model(folder / "pictures")
    with served(f"small={small}", folder / "pictures", "--data", folder / "data") as it:
        with httpx.Client(base_url=it.address, timeout=60) as client:
            for _ in range(3):
                client.post(f"{SMALL}/predict", json={"inputs": [[0.0] * 6] * 100})
            yield it, client
        assert it.stop()[0] == 0


@pytest.mark.parametrize("bomb", all_of_them(), ids=lambda it: it.name)
def test_it_is_refused_in_bounded_memory(service, bomb):
    process, client = service
    process.forget_peak()
    before = process.memory()
    found = client.request(bomb.method, bomb.path, content=bomb.body, headers=bomb.headers)
    assert found.status_code in bomb.statuses, found.text[:200]
    assert process.memory("VmHWM") - before < GROWTH
    if bomb.path.startswith("/v2"):
        assert found.json().keys() == {"error"}
    elif bomb.path.startswith("/models/"):  # a page says it to people
        assert found.headers["content-type"].startswith("text/html")
    else:
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["status"] == found.status_code
    assert len(found.content) < (10_000 if bomb.path.startswith("/models/") else 1000)
    row = json.dumps({"inputs": [[3.0, 0, 0, 0, 0, 0]]})
    assert client.post(f"{SMALL}/predict", content=row, headers=bomb.headers | _PLAIN).status_code == 200


def test_what_was_refused_is_forgotten(service):
    """Each is small enough; together they must be, too: as much as 20 of these would be 160 MiB."""
    process, client = service
    bomb = next(it for it in all_of_them() if it.name == "no JSON")
    before = process.memory()
    for _ in range(20):
        assert client.request(bomb.method, bomb.path, content=bomb.body, headers=bomb.headers).status_code == 422
    assert process.memory() - before < GROWTH // 2


_PLAIN = {"Content-Type": "application/json", "Content-Encoding": "identity", "X-Long": ""}
