"""Clients that ask on and on, and write down what became of every request."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

PREDICT = "/api/v1/models/small/predict"


def post(path, document, host="localhost"):
    """A whole POST of JSON, as bytes."""
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Ledger:
    """What became of the requests of a load."""

    statuses: Counter = field(default_factory=Counter)
    seconds: list = field(default_factory=list)
    """Of each answer with status 200."""
    without_hint: int = 0
    """Answers 503 and 429 that do not say when to come again."""
    unanswered: list = field(default_factory=list)
    """Why, of each request that was sent whole on an open connection and got no answer."""
    refused: int = 0
    """Connections that were refused."""

    def quantile(self, share):
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")


async def _answer(reader):
    """Status, headers and body of one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split(" ")[1]), headers


async def client(port, request, ledger, until):
    """One connection that sends a request as soon as the one before was answered; a new one where it was closed."""
    while not until.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            ledger.refused += 1
            await asyncio.sleep(0.05)
            continue
        closing = False
        while not until.is_set() and not closing:
            began = time.monotonic()
            try:
                writer.write(request)
                await writer.drain()
                status, headers = await _answer(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                ledger.unanswered.append(repr(error))
                break
            ledger.statuses[status] += 1
            if status == 200:
                ledger.seconds.append(time.monotonic() - began)
            elif status in (429, 503) and "retry-after" not in headers:
                ledger.without_hint += 1
            closing = headers.get("connection") == "close"
        writer.close()


async def load(port, request, clients, seconds, ledger=None, until=None):
    """So many clients for so many seconds, or until an event is set."""
    ledger, until = ledger or Ledger(), until or asyncio.Event()
    tasks = [asyncio.create_task(client(port, request, ledger, until)) for _ in range(clients)]
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        until.set()
    await asyncio.wait(tasks, timeout=30)
    assert all(it.done() for it in tasks)
    return ledger
