"""More than the service can do: it says so, stays within its memory, and is itself again at once; and how it stops."""

import asyncio
import contextlib
import socket

import httpx
import pytest
import uvicorn
from support.pressure import PREDICT, load, post
from support.served_process import served
from support.stopping import ROW, stopped_under_load

from protocols.service.running import _Server

pytestmark = pytest.mark.slow

MANY = {"inputs": [[3.0, 0, 0, 0, 0, 0]] * 400}
GROWTH = 200 << 20


def test_ten_times_what_it_can_do_is_refused_with_a_time_to_come_again(small, tmp_path):
    """120 clients with 400 rows each are ten times the 4,096 rows that may wait."""
    with served(f"small={small}", "--data", tmp_path) as it:
        asyncio.run(load(it.port, post(PREDICT, MANY), 4, 1))
        it.forget_peak()
        before = it.memory()
        found = asyncio.run(load(it.port, post(PREDICT, MANY), 120, 5))
        assert set(found.statuses) == {200, 503}
        assert found.statuses[200] > 0
        assert (found.without_hint, found.unanswered, found.refused) == (0, [], 0)
        assert it.memory("VmHWM") - before < GROWTH
        assert httpx.post(f"{it.address}{PREDICT}", json=ROW).status_code == 200  # the queue is as short as before
        assert it.stop()[0] == 0


def test_a_stop_under_load_answers_what_was_accepted(own, tmp_path):
    """With streams open, a job running and clients that ask on and on: every request is answered, the status is 0."""

    async def ready(ledger):
        while not ledger.statuses[200] > 30:
            await asyncio.sleep(0.05)

    found = stopped_under_load(own, tmp_path, ready)
    assert (found.code, found.ledger.unanswered) == (0, [])
    assert found.seconds < 30
    assert set(found.ledger.statuses) == {200}
    assert sorted(found.ended) == sorted(found.streams)
    assert not [line for line in found.lines if "Traceback" in line or "rror" in line], found.lines


class Once(asyncio.Protocol):
    """Answers one request and closes the connection."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        self.transport.close()


def test_clients_that_come_again_at_once_do_not_keep_a_service_from_its_stop():
    """What waits to be accepted is answered, and those who come again on their answer are not waited for."""
    asked, answered = [], []

    class Server(_Server):
        def _protocol(self):
            return Once()

    async def client(port):
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                asked.append(writer)
                writer.write(b"?")
                answered.append(await reader.read())
                writer.close()

    async def stopped():
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        clients = [asyncio.create_task(client(listening.getsockname()[1])) for _ in range(32)]
        while len(asked) < 32:  # the system has completed their connections, and nobody has accepted one
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            await Server(uvicorn.Config(None))._take_in(listening)
            await asyncio.gather(*clients)

    asyncio.run(stopped())
    assert answered == [b"?"] * len(asked)
    assert len(asked) < 100
