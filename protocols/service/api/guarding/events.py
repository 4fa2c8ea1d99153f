"""Routes on the log of events, for administrators of the whole service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from protocols.service.api.access import TheCaller, TheService, allow_everywhere
from protocols.service.api.streams import EventStream
from protocols.service.callers import Caller
from protocols.service.inbox.events import Event
from protocols.service.inbox.events import events as read_events
from protocols.service.service import Service

router = APIRouter(prefix="/api/v1/events", tags=["events"])

_POLL_SECONDS = 0.5
_QUIET_SECONDS = 15.0  # then a comment is sent, so that whoever stands between does not close the connection

Number = Annotated[int, Query(ge=0, lt=1 << 62, description="Only events with a greater number.")]


class EventFacts(BaseModel):
    """One event of the log.

    Parameters
    ----------
    number : int
        Its place, from 1 on without gaps.
    at : float
        When (seconds since 1970).
    key_id : int or None
        Number of the key that did it.
    by : str
        The key's name; ``local`` for whoever sits at the machine, ``service`` for the service itself.
    action : str
        What was done.
    model : str
        To which model; empty for none.
    before, after : int or None
        Generations of the model.
    request : str
        The request's own id; empty if it had none.
    detail : dict
        What else belongs to it.
    previous, digest : str
        SHA-256 of the row before, and of this one.
    """

    number: int
    at: float
    key_id: int | None
    by: str
    action: str
    model: str
    before: int | None
    after: int | None
    request: str
    detail: dict[str, Any]
    previous: str
    digest: str


@router.get("")
async def events(
    service: TheService,
    caller: TheCaller,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
) -> list[EventFacts]:
    """Events, oldest first."""
    allow_everywhere(caller)
    return [EventFacts(**asdict(it)) for it in await _read(service, after, limit)]


@router.get("/stream", response_class=StreamingResponse)
async def stream(
    service: TheService,
    caller: TheCaller,
    after: Number = 0,
    last: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=1 << 62)] = None,
) -> EventStream:
    """Events as they come (server-sent events), until the service stops or the key is revoked."""
    allow_everywhere(caller)
    return EventStream(_told(service, caller, after if last is None else last), service, caller)


async def _told(service: Service, caller: Caller, after: int) -> AsyncIterator[str]:
    """Events in the form of server-sent events."""
    quiet = 0.0
    yield ": events\n\n"
    while not service.ending.is_set() and _still(service, caller):
        found = await _read(service, after, 1000)
        for it in found:
            yield f"id: {it.number}\nevent: {it.action}\ndata: {json.dumps(asdict(it))}\n\n"
            after = it.number
        quiet = 0.0 if found else quiet + _POLL_SECONDS
        if quiet >= _QUIET_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        try:
            await asyncio.wait_for(service.ending.wait(), _POLL_SECONDS)
        except TimeoutError:
            continue


def _still(service: Service, caller: Caller) -> bool:
    """Whether the caller may still see them."""
    if caller.key_id is None:
        return not service.keys.needed
    return service.keys.holder(caller.key_id) is not None


async def _read(service: Service, after: int, limit: int) -> list[Event]:
    return await service.database.read(lambda it: list(read_events(it, after=after, limit=limit)))
