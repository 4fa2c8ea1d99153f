"""A load for a service from a process of its own: connections that each send, wait for the answer, and send again.

    python tests/support/load.py < order.json       # an `Order`; prints a `Load`

It imports neither torch nor the package, and parses no more of an answer than its length, so that what is measured is
the service and not this.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field


@dataclass
class Order:
    """What to send: ``bodies`` one after the other, from the first again when all were sent, for ``seconds``.

    A body is a text whose characters stand for bytes (Latin-1), so that it can be of any kind.
    """

    port: int
    path: str
    connections: int
    seconds: float
    method: str = "GET"
    bodies: list[str] = field(default_factory=lambda: [""])
    media: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    warm: float = 0.3
    """Seconds before anything counts."""
    once: bool = False
    """Stop when all bodies were sent, whatever the time."""
    keep: bool = False
    """Whether the answers are handed back, in the order of the bodies."""


@dataclass
class Load:
    """What came back: requests that were answered within ``seconds``, by status, and how long each took (seconds)."""

    answered: int
    seconds: float
    statuses: dict[str, int]
    p50: float
    p99: float
    longest: float
    asked: int = 0
    """All requests, those as well that were answered before or after ``seconds``."""
    busy: float = 0.0
    """Processor time of the clients themselves for each of them (seconds)."""
    answers: list[str] = field(default_factory=list)

    @property
    def per_second(self):
        return self.answered / self.seconds


class _Connection(asyncio.Protocol):
    """Sends a request as soon as the one before is answered."""

    def __init__(self, driver):
        self._driver = driver
        self._got = b""
        self._wanted = -1
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self._transport = transport
        self._send()

    def connection_lost(self, exc):
        if not self.over.done():
            self._driver.lost += 1
            self.over.set_result(None)

    def data_received(self, data):
        self._got += data
        if self._wanted < 0:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._got[:end].lower()
            self._wanted = end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self._got) < self._wanted:
            return
        self._driver.took(self._number, self._began, self._got)
        self._got, self._wanted = b"", -1
        self._send()

    def _send(self):
        following = self._driver.following()
        if following is None:
            self.over.set_result(None)
            self._transport.close()
            return
        self._number, request = following
        self._began = time.perf_counter()
        self._transport.write(request)


class _Driver:
    def __init__(self, order):
        self._order = order
        head = f"{order.method} {order.path} HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in order.headers.items())
        self._requests = []
        for body in order.bodies:
            more = f"Content-Type: {order.media}\r\nContent-Length: {len(body)}\r\n" if body else ""
            self._requests.append(f"{head}{more}\r\n{body}".encode("latin-1"))
        self._sent, self.lost = 0, 0
        self._times, self._statuses = [], {}
        self._all, self._busy = 0, time.process_time()
        self._answers = [""] * len(order.bodies) if order.keep else []
        self._from = self._last = time.perf_counter() + (0 if order.once else order.warm)

    def following(self):
        """The next request and its number; None when it is over."""
        n = self._sent
        if n >= len(self._requests) if self._order.once else time.perf_counter() >= self._from + self._order.seconds:
            return None
        self._sent += 1
        return n, self._requests[n % len(self._requests)]

    def took(self, number, began, answer):
        now = time.perf_counter()
        self._all += 1
        if self._answers:
            self._answers[number] = answer.partition(b"\r\n\r\n")[2].decode()
        if began >= self._from and (self._order.once or now <= self._from + self._order.seconds):
            self._times.append(now - began)
            status = answer[9:12].decode()
            self._statuses[status] = self._statuses.get(status, 0) + 1
            self._last = now

    def load(self):
        times = sorted(self._times) or [float("nan")]
        seconds = self._last - self._from if self._order.once else self._order.seconds
        statuses = self._statuses | ({"lost": self.lost} if self.lost else {})
        at = [times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.99, 1)]
        busy = (time.process_time() - self._busy) / max(1, self._all)
        return Load(len(self._times), seconds, statuses, *at, self._all, busy, self._answers)


async def _drive(order):
    driver = _Driver(order)
    loop = asyncio.get_running_loop()
    made = await asyncio.gather(
        *(
            loop.create_connection(lambda: _Connection(driver), "127.0.0.1", order.port)
            for _ in range(order.connections)
        )
    )
    await asyncio.gather(*(connection.over for _, connection in made))
    return driver.load()


def drive(order, wait=600):
    """Send an order from a process of its own and give what came back."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asdict(order)),
        capture_output=True,
        text=True,
        timeout=wait,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Load(**json.loads(done.stdout))


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    json.dump(asdict(asyncio.run(_drive(Order(**json.load(sys.stdin))))), sys.stdout)
