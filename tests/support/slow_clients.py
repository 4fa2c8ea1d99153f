"""Clients that take their time, or send more than they should: raw sockets, all in one thread."""

import select
import socket
import time
from dataclasses import dataclass, field

HEAD = b"POST /api/v1/models/small/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
KINDS = ("silent", "head", "body", "chunks", "reader", "keeper")


@dataclass
class Slow:
    """One connection that a service should close, and when it did."""

    kind: str
    opened: socket.socket
    since: float
    drip: bytes = b""
    """What is sent again and again."""
    closed: float | None = None
    received: bytes = field(default=b"", repr=False)


def connect(address, kind, big="/api/v1/openapi.json"):
    """A client of a kind: sends nothing; sends headers, a body or chunks byte by byte; asks for large answers and reads
    nothing; asks once as it should, and then for ever half."""
    opened = socket.socket()
    if kind == "reader":
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.connect(address)
    slow = Slow(kind, opened, time.monotonic())
    if kind == "head":
        opened.sendall(HEAD)
        slow.drip = b"X: y\r\n"
    elif kind == "body":
        opened.sendall(HEAD + b"Content-Length: 100000\r\n\r\n{")
        slow.drip = b" "
    elif kind == "chunks":
        opened.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        slow.drip = b"1\r\n \r\n"
    elif kind == "reader":
        slow.drip = f"GET {big} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 2
    elif kind == "keeper":
        opened.sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api/v1/live HTTP/1.1\r\n")
        slow.drip = b"X: y\r\n"
    opened.setblocking(False)
    return slow


def watch(clients, seconds, between=None):
    """Drip until each connection is closed or the time is over; `between` is called now and then."""
    until = time.monotonic() + seconds
    while any(it.closed is None for it in clients) and time.monotonic() < until:
        now = time.monotonic()
        for it in clients:
            if it.closed is None:
                _look(it, now)
        if between is not None:
            between()
        time.sleep(0.2)
    return clients


def _look(slow, now):
    try:
        if slow.drip:
            slow.opened.send(slow.drip)
        if slow.kind != "reader":
            found = slow.opened.recv(65536)
            if not found:
                slow.closed = now
            slow.received += found
        elif _broken(slow.opened):
            slow.closed = now
    except BlockingIOError:
        pass
    except OSError:
        slow.closed = now


def _broken(opened):
    """Whether the other end has ended the connection, without reading what it sent before."""
    poll = select.poll()
    poll.register(opened, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def close(clients):
    for it in clients:
        it.opened.close()
