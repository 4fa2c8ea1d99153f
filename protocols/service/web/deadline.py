"""Connections that do not finish a request in time are closed; the server underneath would keep them for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocols.service.web.bodies import STREAMED


class DeadlineProtocol(HttpToolsProtocol):
    """HTTP with a deadline from the connection, or its last answer, until the next request is complete.

    It catches clients that send nothing, that send their headers or body byte by byte, and that do not read what they
    asked for. `seconds` is set by whoever starts the server. The body of a stream may take longer: its route has a
    deadline for each line.
    """

    seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._clock: asyncio.TimerHandle | None = None
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock with the connection."""
        self._stop()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """The request begins: a stream's own route says how long it may wait for what."""
        super().on_headers_complete()
        if self.scope["method"] == "POST" and self.scope["path"].endswith(STREAMED):
            self._stop()

    def on_message_complete(self) -> None:
        """A whole request has come: it is the application's turn now, or it was answered before its end."""
        super().on_message_complete()
        if self.cycle is None or not self.cycle.response_complete:
            self._stop()

    def on_response_complete(self) -> None:
        """The answer was sent: the next request has as long as the first."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._start()

    def pause_writing(self) -> None:
        """The client does not read: it has as long for that as for a request."""
        super().pause_writing()
        self._start()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stop()

    def _start(self) -> None:
        self._stop()
        self._clock = self.loop.call_later(self.seconds, self._close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _close(self) -> None:
        transport: Any = self.transport
        transport.abort()
