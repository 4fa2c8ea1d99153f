"""Connections that take their time, or too much room, are closed; everybody else is answered meanwhile."""

import json
import logging
import socket
import time
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from support.service import running
from support.slow_clients import HEAD, KINDS, close, connect, watch

from protocols.service.running import listen
from protocols.service.settings import Limits, Settings
from protocols.service.web.connections import Connections
from protocols.service.web.descriptors import room_for

PREDICT = "/api/v1/models/small/predict"
ROW = {"inputs": [[3.0, 0, 0, 0, 0, 0]]}
SECONDS = 2.0


@pytest.fixture(scope="module")
def hasty(small, tmp_path_factory):
    """A service that waits for clients two seconds."""
    with running(small, tmp_path_factory.mktemp("hasty"), limits=replace(Limits(), request_seconds=SECONDS)) as client:
        yield client


def address(client):
    return client.base_url.host, client.base_url.port


def test_slow_clients_are_closed_and_others_served(hasty):
    clients = [connect(address(hasty), kind) for kind in KINDS for _ in range(33)]
    served, said = [], []
    handler = logging.Handler()
    handler.emit = said.append
    logging.getLogger("uvicorn.error").addHandler(handler)
    try:
        watch(clients, 30, between=lambda: served.append(httpx.post(f"{hasty.base_url}{PREDICT}", json=ROW)))
        assert all(it.closed is not None for it in clients), Counter(it.kind for it in clients if it.closed is None)
        assert all(it.closed - it.since >= SECONDS * 0.9 for it in clients)
        assert served
        assert {it.status_code for it in served} == {200}
        assert all(it.received.startswith(b"HTTP/1.1 200") for it in clients if it.kind == "keeper")
        assert not said  # whoever comes without a key must not fill a disk
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)
        close(clients)


def test_who_reads_late_and_then_sends_half_a_request_is_closed_too(hasty):
    """The time for reading and the time for sending are two: to keep one does not extend the other."""
    clients = [connect(address(hasty), "reader") for _ in range(2)]
    try:
        reading, sending = clients
        time.sleep(0.5)  # by now the service waits for each to read
        reading.opened.setblocking(True)
        reading.opened.settimeout(10)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            reading.opened.recv(1 << 20)
        reading.kind, reading.drip = "head", b"G"
        sending.drip = b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        watch(clients, 30)
        assert all(it.closed is not None for it in clients)
    finally:
        close(clients)


def raw(client, sent):
    """The whole answer to what was sent, read until the service ends it."""
    with socket.create_connection(address(client), timeout=30) as opened:
        opened.sendall(sent)
        opened.shutdown(socket.SHUT_WR)
        whole = b""
        while part := opened.recv(65536):
            whole += part
    return whole


def problem(whole):
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(" ")[1]), headers, json.loads(body)


LONG = 1 << 20


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (HEAD + b"Content-Length: x\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"x" * LONG + b" HTTP/1.1\r\n\r\n", 431),
        (HEAD + b"X: " + b"y" * LONG + b"\r\n\r\n", 431),
        (HEAD + b"X" * LONG + b": y\r\n\r\n", 431),
        (HEAD + b"X: y\r\n" * (LONG // 6) + b"\r\n", 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * (LONG // 6), 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * LONG, 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * (LONG // 6) + b"\r\n", 431),
    ],
)
def test_what_is_no_request_or_too_long_is_answered_with_a_problem(hasty, sent, status):
    found, headers, document = problem(raw(hasty, sent))
    assert (found, document["status"], headers["content-type"]) == (status, status, "application/problem+json")
    assert headers["connection"] == "close"
    assert_headed(headers)
    assert hasty.post(PREDICT, json=ROW).status_code == 200


def test_more_requests_than_are_answered_at_a_time_are_not_kept(hasty):
    """16 in a row are answered; 10,000 at once would be as many tasks, and the connection ends."""
    ask = b"GET /api/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = ask[:-2] + b"Connection: close\r\n\r\n"
    with socket.create_connection(address(hasty), timeout=30) as opened:
        opened.sendall(ask * 15 + last)
        assert b"".join(iter(lambda: opened.recv(65536), b"")).count(b"HTTP/1.1 200 OK") == 16
    with socket.create_connection(address(hasty), timeout=30) as opened:
        try:
            opened.sendall(ask * 10_000)
            while opened.recv(65536):
                pass
        except ConnectionError:
            pass
    assert hasty.post(PREDICT, json=ROW).status_code == 200


def assert_headed(headers):
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")
    assert not [it for it in headers if it.startswith("access-control-")]
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/api/v1/models", {}, 200),
        ("GET", "/", {}, 303),
        ("GET", "/api/v1/nowhere", {}, 404),
        ("PUT", "/api/v1/models", {}, 405),
        ("GET", "/api/v1/models/none", {}, 404),
        ("GET", "/v2/nowhere", {}, 404),
        ("POST", PREDICT, {"json": {"inputs": []}}, 422),
        ("POST", PREDICT, {"content": b"x" * (9 << 20)}, 413),
        ("POST", PREDICT, {"content": b"{}", "headers": {"Content-Encoding": "br"}}, 415),
        ("POST", PREDICT, {"json": ROW, "headers": {"Origin": "http://evil.org"}}, 403),
        ("GET", "/api/v1/models", {"headers": {"Host": "evil.org"}}, 403),
        ("OPTIONS", PREDICT, {"headers": {"Access-Control-Request-Method": "POST"}}, 405),
        ("GET", "/metrics", {}, 200),
    ],
)
def test_every_answer_has_its_headers_and_none_lets_other_sites_read(client, method, path, more, status):
    found = client.request(method, path, **more)
    assert found.status_code == status
    assert_headed(found.headers)


def test_one_connection_too_many_takes_the_place_of_who_has_waited_longest(small, tmp_path):
    with running(small, tmp_path, limits=replace(Limits(), connections=5)) as client:
        slow = [connect(address(client), "head") for _ in range(6)]
        try:
            watch(slow, 1)
            assert [it.closed is None for it in slow] == [False, True, True, True, True, True]
            assert client.post(PREDICT, json=ROW).status_code == 200  # a connection of its own
            watch(slow, 1)
            assert [it.closed is None for it in slow] == [False, False, True, True, True, True]
        finally:
            close(slow)


def test_where_all_are_being_answered_one_more_is_told_to_come_again(small, tmp_path):
    with running(small, tmp_path, limits=replace(Limits(), connections=2)) as client:
        stream = f"{client.base_url}/api/v1/events/stream"
        with httpx.stream("GET", stream) as one, httpx.stream("GET", stream) as two:
            assert (one.status_code, two.status_code) == (200, 200)
            found = httpx.post(f"{client.base_url}{PREDICT}", json=ROW)
            assert (found.status_code, found.headers["retry-after"]) == (503, "1")
            assert_headed(found.headers)
        until = time.monotonic() + 20
        while client.post(PREDICT, json=ROW).status_code == 503:
            assert time.monotonic() < until


def test_who_waits_longest_is_dropped():
    class Client:
        dropped = False

        def drop(self):
            self.dropped = True
            crowd.leave(self)

    crowd = Connections(2)
    one, two, three, four = (Client() for _ in range(4))
    assert crowd.enter(one)
    crowd.waits(one)
    assert crowd.enter(two)
    crowd.waits(two)
    crowd.waits(one)  # again, and so later than the other
    assert crowd.enter(three)
    assert [it.dropped for it in (one, two)] == [False, True]
    crowd.waits_no_more(one)
    assert not crowd.enter(four)
    assert not one.dropped
    assert len(crowd) == 3


def test_files_are_made_room_for():
    assert room_for(100) == 100
    assert 1 <= room_for(1 << 40) < 1 << 40


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone has it")
def test_a_machine_that_went_away_is_not_waited_for(tmp_path):
    listening = listen(Settings({"small": tmp_path}, tmp_path, port=0))
    listening.listen()
    with listening, socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
