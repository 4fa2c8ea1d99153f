"""Streams of events as answers: no more at a time than there may be."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from protocols.service.api.problems import Problem
from protocols.service.callers import Caller
from protocols.service.gate.streams import TooMany
from protocols.service.service import Service

_AGAIN_SECONDS = 5


class EventStream(StreamingResponse):
    """Server-sent events; counted as long as they are sent.

    Parameters
    ----------
    events : async iterator of str
        In their form.
    service : Service
        The running service.
    caller : Caller
        Whose stream it is.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], service: Service, caller: Caller) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store"})
        self._streams, self._caller = service.streams, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them, to their end or until the client goes; refused where there are too many."""
        try:
            with self._streams.held(self._caller):
                await super().__call__(scope, receive, send)
        except TooMany as error:
            raise Problem(error.status, error.detail, {"Retry-After": str(_AGAIN_SECONDS)}) from error
