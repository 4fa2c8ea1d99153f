"""Connections that do not finish a request in time, or do not read, are closed; the server underneath keeps them."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocols.service.web.answers import come_again, refusal
from protocols.service.web.bodies import is_streamed
from protocols.service.web.connections import Connections

_HEAD_BYTES = 64 << 10  # of a request line and headers
_PIPELINED = 16  # requests that wait for the answer to the one before


class _Refused(Exception):  # noqa: N818  # ends the reading of what a client sent
    """What a client sends is beyond a bound."""


class DeadlineProtocol(HttpToolsProtocol):
    """HTTP with bounds on what a client may have the service wait for and keep.

    - From the connection, or its last answer, until the next request is complete: `seconds`. That ends clients that
      send nothing, and those that send headers or a body byte by byte. The body of a stream may take longer: its route
      has a deadline for each line.
    - What was written and not read: at most the buffers of the connection, for `seconds`, however the answer was made;
      server-sent events too. The same where the connection is to be closed, and the rest is not read.
    - Request line and headers: 64 KiB; chunk sizes and trailers as well, and as many bytes as the body has. Beyond it
      the answer is 431. The parser underneath would keep a header of any length.
    - Requests sent before the answer to the first: 16. It would keep any number.

    `seconds` and `others` are set by whoever starts the server.
    """

    seconds = 10.0
    others = Connections(1200)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock with the connection; one that is too many is told to come again."""
        super().connection_made(transport)
        self._reading: asyncio.TimerHandle | None = None  # while we wait for a request
        self._writing: asyncio.TimerHandle | None = None  # while we wait for the client to read
        self._answering: Any = None  # the request that is being answered
        self._owed = 0  # complete requests without an answer
        self._head = 0  # bytes of the request line, the headers and the trailers
        self._overhead = 0  # bytes of the request that are not its body, less those that are
        self._status = 400
        self._refused = False
        if not self.others.enter(self):
            self.app = come_again
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks with the connection."""
        self._tell_answering()
        self.others.leave(self)
        self._reading = _stop(self._reading)
        self._writing = _stop(self._writing)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds."""
        if self._refused:  # a client that still sends does not see its answer before
            return
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > _HEAD_BYTES and not self._refused:
            self._status = 431
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Another request; not too many at once."""
        if len(self.pipeline) >= _PIPELINED:
            raise _Refused
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request begins: a stream's own route says how long it may wait for what."""
        super().on_headers_complete()
        if is_streamed(self.scope):
            self._reading = _stop(self._reading)
            self._tell()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._overhead -= 2 * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A whole request has come: it is the application's turn now."""
        self._overhead = 0
        if not self.cycle.response_complete:
            self._owed += 1
            self._reading = _stop(self._reading)
            self._tell()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was sent: the next request has as long as the first."""
        super().on_response_complete()
        self._owed = max(0, self._owed - 1)
        if self.transport.is_closing():
            self._await_reader()
        elif not self._owed:
            self._await_request()

    def pause_writing(self) -> None:
        """The client does not read: it has as long for that as for a request."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._writing = _stop(self._writing)
            self._tell()

    def shutdown(self) -> None:
        """Close as soon as nothing is being answered; who does not read is not waited for longer than else."""
        super().shutdown()
        if self.transport.is_closing():
            self._await_reader()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # ours says what to do as well
        """Answer what is no request, or one beyond a bound; what else comes is dropped until the deadline."""
        self._refused = True
        if self._owed or (self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete):
            self.drop()  # it would be taken for the answer to another request
            return
        self.transport.write(refusal(self._status, self.server_state.default_headers))
        self.transport.write_eof()

    def drop(self) -> None:
        """Close at once; where the client does not read, the system is not to keep what was written either."""
        self._tell_answering()
        self.others.leave(self)
        transport: Any = self.transport
        if self._writing is not None:
            opened = transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_answering(self) -> None:
        """Let whoever answers know that nobody listens; the server tells the last request alone."""
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _await_request(self) -> None:
        _stop(self._reading)
        self._reading = self.loop.call_later(self.seconds, self.drop)
        self._tell()

    def _await_reader(self) -> None:
        if self._writing is None:  # reading a little does not begin the time anew
            self._writing = self.loop.call_later(self.seconds, self.drop)
        self._tell()

    def _tell(self) -> None:
        """Let the others know whether this one waits for its client."""
        if self._reading is None and self._writing is None:
            self.others.waits_no_more(self)
        else:
            self.others.waits(self)

    def _count(self, n_bytes: int) -> None:
        self._head += n_bytes
        if self._head > _HEAD_BYTES:
            self._status = 431
            raise _Refused


def _stop(clock: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a clock if there is one; gives what stands for none."""
    if clock is not None:
        clock.cancel()
    return None
