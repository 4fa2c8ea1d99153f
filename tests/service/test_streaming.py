"""Items that come a line each, and their receipts while the stream goes on."""

import contextlib
import itertools
import json
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service import rows, running

from protocols.recipes.building import load_model
from protocols.service.answering.lines import Lines
from protocols.service.settings import Keeping, Limits, Policy

PATH = "/api/v1/models/small/items"
ALL = Keeping(policy=Policy(1.0, 1.0, 1.0))


@pytest.fixture
def client(small, tmp_path):
    with running(small, tmp_path / "data", keeping=ALL, limits=Limits(body=10_000)) as client:
        yield client


def line(x, item_id=None):
    return json.dumps({"input": x.tolist()} | ({} if item_id is None else {"id": item_id})).encode() + b"\n"


def stream(client, content, **params):
    found = client.post(f"{PATH}/stream", content=content, params=params)
    assert (found.status_code, found.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(it) for it in found.text.splitlines()]


@given(content=st.binary(max_size=40).map(lambda it: it.replace(b"\0", b"\n")), cuts=st.lists(st.integers(0, 40)))
def test_lines_are_the_same_however_they_come(content, cuts):
    places = sorted({0, len(content), *(min(it, len(content)) for it in cuts)})
    lines = Lines(longest=5)
    found = [it for start, stop in itertools.pairwise(places) for it in lines.feed(content[start:stop])]
    found += lines.end()
    *whole, rest = content.split(b"\n")
    told = [it.removesuffix(b"\r") for it in (*whole, *([rest] if rest else []))]
    assert [it.content for it in found] == [it if len(it) <= 5 else None for it in told]
    assert [it.number for it in found] == list(range(1, len(told) + 1))


def test_each_line_is_answered_as_offline_and_kept(client, small):
    x, _ = rows(300, 1, classes=4)
    told = load_model(small).examine(x)
    found = stream(client, (line(row, f"cam/{place}") for place, row in enumerate(x)))
    assert [it["line"] for it in found] == list(range(1, 301))
    assert [it["id"] for it in found] == [f"cam/{place}" for place in range(300)]
    assert {it["fate"] for it in found} == {"stored"}
    assert {it["generation"] for it in found} == {0}
    assert [it["answer"]["margin"] for it in found] == told.prediction.margins.tolist()
    assert [it["answer"]["novelty"]["p_value"] for it in found] == told.novelty.p_values.tolist()
    kept = client.get(PATH, params={"limit": 1000}).json()["items"]
    assert [it["id"] for it in kept] == [f"cam/{place}" for place in range(300)]
    again = stream(client, b"".join(line(row, f"cam/{place}") for place, row in enumerate(x)))
    assert {it["fate"] for it in again} == {"there"}
    assert len(client.get(PATH, params={"limit": 1000}).json()["items"]) == 300
    assert {it["fate"] for it in stream(client, line(x[0] + 1), store="none")} == {"passed"}


def test_a_bad_line_has_its_problem_and_the_stream_goes_on(client):
    good = np.ones(6)
    sent = [
        line(good, "a"),
        b"not JSON\n",
        b"\n",
        b'{"input": [1, 2]}\n',
        b'{"input": [1, 2, 3, 4, 5, NaN]}\n',
        b"[1, 2, 3, 4, 5, 6]\n",
        b'{"input": ' + b"[" * 5000 + b"]" * 4000 + b"}\n",
        b'{"input": [1, 1, 1, 1, 1, 1], "id": 7}\n',
        b'{"input": [1, 1, 1, 1, 1, 1], "id": "a/../b"}\n',
        b'{"input": [1, 1, 1, 1, 1, 1], "label": "red"}\n',
        b'{"input": "' + b"a" * 20_000 + b'"}\n',
        line(good + 1, "a"),
        b"\xff\xfe\n",
        line(good),
        b'{"input": [1' + b"0" * 400 + b", 1, 1, 1, 1, 1]}\n",
        line(good, "z").rstrip(),
    ]
    found = stream(client, b"".join(sent))
    assert [it["line"] for it in found] == [1, 2, *range(4, 17)]
    fates = {it["line"]: it.get("problem", {}).get("status", it["fate"]) for it in found}
    assert fates == {
        1: "stored", 2: 422, 4: 422, 5: 422, 6: 422, 7: 422, 8: 422, 9: 422, 10: 422, 11: 413, 12: 409, 13: 422,
        14: "stored", 15: 422, 16: "stored",
    }  # fmt: skip
    says = {it["line"]: it["problem"]["detail"] for it in found if "problem" in it}
    for number, words in {
        2: "one JSON object", 4: "shape", 5: "finite", 6: '{"input": ...}', 8: "text or null, got int",
        9: "no address could name it", 10: '{"input": ...}', 11: "10000 bytes", 12: "another content",
        15: "rows of 6 numbers",
    }.items():  # fmt: skip
        assert words in says[number]
    assert {it["fate"] for it in found if "problem" in it} == {"refused"}
    assert len(client.get(PATH).json()["items"]) == 3


def connected(client, **headers):
    """A connection on which a stream has begun."""
    host, port = client.base_url.host, client.base_url.port
    sock = socket.create_connection((host, port), timeout=30)
    lines = [f"POST {PATH}/stream HTTP/1.1", f"Host: {host}", "Transfer-Encoding: chunked"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    return sock


def chunk(content):
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def receipts(reading, n):
    """The next receipts of a chunked answer."""
    found = []
    while len(found) < n:
        said = reading.readline()
        assert said
        if said.startswith(b"{"):
            found.append(json.loads(said))
    return found


def test_receipts_come_when_their_lines_are_committed_and_the_stream_is_still_open(client):
    x, _ = rows(6, 3, classes=4)
    with connected(client) as sock, sock.makefile("rb") as reading:
        for first in (0, 3):
            sock.sendall(chunk(b"".join(map(line, x[first : first + 2])) + line(x[first + 2])[:7]))
            assert [it["fate"] for it in receipts(reading, 2)] == ["stored"] * 2
            assert len(client.get(PATH).json()["items"]) == first + 2
            sock.sendall(chunk(line(x[first + 2])[7:]))
            assert [it["fate"] for it in receipts(reading, 1)] == ["stored"]
        sock.sendall(chunk(b""))
        assert reading.readline() == b"\r\n"
        assert reading.readline() == b"0\r\n"


def test_who_sends_no_whole_line_is_told_and_closed(small, tmp_path):
    with running(small, tmp_path / "data", limits=Limits(request_seconds=2.0)) as client:
        with connected(client) as sock, sock.makefile("rb") as reading:
            sock.sendall(chunk(line(np.ones(6)) + b'{"input'))
            first, last = receipts(reading, 2)
            assert (first["line"], last["line"], last["problem"]["status"]) == (1, 2, 408)
            assert reading.read().endswith(b"0\r\n\r\n")  # and then the connection is closed
        with connected(client) as sock, sock.makefile("rb") as reading:
            for _ in range(6):  # longer than the bound in all
                sock.sendall(chunk(b"\n"))
                time.sleep(0.4)
            sock.sendall(chunk(line(np.ones(6))))
            assert receipts(reading, 1)[0]["line"] == 7


def test_who_does_not_read_is_not_read_from_and_closed(small, tmp_path):
    with running(small, tmp_path / "data", keeping=ALL, limits=Limits(request_seconds=0.5)) as client:
        with connected(client) as sock:
            many = chunk(b"".join(line(row) for row in rows(200, 1)[0]))
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 1 << 30:
                    sock.sendall(many)
                    sent += len(many)
        assert sent < 64 << 20  # what the buffers of both ends hold, not what the client has
        assert client.get("/api/v1/ready").status_code == 200


def test_a_stream_ends_with_the_service_and_says_where(small, tmp_path):
    over = threading.Event()

    def send(sock):
        with contextlib.suppress(OSError):
            while not over.wait(0.02):
                sock.sendall(chunk(line(np.ones(6))))

    with running(small, tmp_path / "data") as client:
        sock = connected(client)
        reading = sock.makefile("rb")
        sender = threading.Thread(target=send, args=(sock,))
        sender.start()
        receipts(reading, 1)
    found = [receipts(reading, 1)[0]]
    while "answer" in found[-1]:
        found += receipts(reading, 1)
    over.set()
    sender.join()
    reading.close()
    sock.close()
    assert (found[-1]["problem"]["status"], found[-1]["line"]) == (503, len(found) + 1)
    assert "again" in found[-1]["problem"]["detail"]


def test_what_a_stream_may_not(client):
    compressed = client.post(f"{PATH}/stream", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (compressed.status_code, compressed.json()["title"]) == (415, "Unsupported media type")
    assert client.post("/api/v1/models/none/items/stream", content=b"\n").status_code == 404
    assert "seen" in client.post(f"{PATH}/stream", params={"store": "seen:all"}, content=b"\n").json()["detail"]
    assert stream(client, b"") == []


def test_a_full_inbox_refuses_lines_not_the_stream(small, tmp_path):
    keeping = Keeping(policy=Policy(1.0, 1.0, 1.0), items=64)
    with running(small, tmp_path / "data", keeping=keeping) as client:
        x, _ = rows(100, 2)
        found = stream(client, b"".join(map(line, x)))
        assert len(found) == 100
        assert {it["problem"]["status"] for it in found if "problem" in it} == {507}
        assert 1 <= sum(it["fate"] == "stored" for it in found) <= 64
        assert len(client.get(PATH, params={"limit": 1000}).json()["items"]) == sum("answer" in it for it in found)


def test_a_client_that_leaves_keeps_what_it_has_receipts_of(client):
    x, _ = rows(10, 3)
    with connected(client) as sock, sock.makefile("rb") as reading:
        sock.sendall(chunk(b"".join(map(line, x)) + line(np.ones(6))[:20]))
        told = [it["id"] for it in receipts(reading, 10)]
    assert [it["id"] for it in client.get(PATH).json()["items"]] == told
    assert [it["fate"] for it in stream(client, line(np.ones(6)))] == ["stored"]
