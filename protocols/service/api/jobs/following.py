"""Routes that follow jobs: a list, one of them, its events, and its end before its time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from protocols.service.api.access import Role, TheCaller, TheService, allow
from protocols.service.api.jobs.documents import JobDocument, as_document
from protocols.service.api.problems import Problem
from protocols.service.api.streams import EventStream
from protocols.service.jobs import records
from protocols.service.jobs.records import Job
from protocols.service.service import Service

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

_MOST = (1 << 63) - 1


@router.get("")
async def jobs(
    service: TheService,
    caller: TheCaller,
    model: Annotated[str | None, Query(max_length=128)] = None,
    before: Annotated[int | None, Query(ge=1, le=_MOST, description="Only jobs of a smaller number.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[JobDocument]:
    """Jobs that the caller may see, the newest first."""
    if model is not None:
        allow(caller, Role.READ, model)
    found = await service.jobs.listed(model=model or caller.model, before=before, limit=limit)
    return [as_document(it) for it in found]


@router.get("/{number}")
async def job(service: TheService, caller: TheCaller, number: int) -> JobDocument:
    """One job."""
    return as_document(await _found(service, caller, number, Role.READ))


@router.delete("/{number}")
async def cancel(service: TheService, caller: TheCaller, number: int) -> JobDocument:
    """End a job before its time; nothing of it is kept. One that is over stays as it is: 409."""
    found = await _found(service, caller, number, Role.LABEL)
    if found.over:
        raise Problem(409, f"The job {number} is {found.state} already. There is nothing to cancel.")
    return as_document(await service.jobs.cancel(found, caller=caller))


@router.get(
    "/{number}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The job's document at each change."}},
)
async def events(
    service: TheService,
    caller: TheCaller,
    number: int,
    seen: Annotated[str | None, Header(alias="Last-Event-ID", max_length=32)] = None,
) -> EventStream:
    """What happens to a job, as server-sent events: its document at each change, to its end."""
    found = await _found(service, caller, number, Role.READ)
    after = int(seen) if seen and seen.isascii() and seen.isdecimal() else 0
    return EventStream(_events(service, found, after), service, caller)


async def _events(service: Service, job: Job, after: int) -> AsyncIterator[str]:
    """The stream; a job that nobody remembers the events of is told once, as it is."""
    yield "retry: 2000\n\n"
    if not service.jobs.feed.knows(job.number):
        yield f"event: job\ndata: {json.dumps(records.document(job))}\n\n"
        return
    async for event in service.jobs.feed.follow(job.number, after, service.ending):
        if event is None:
            yield ": still here\n\n"
        else:
            yield f"id: {event.number}\nevent: job\ndata: {json.dumps(event.job)}\n\n"


async def _found(service: Service, caller: TheCaller, number: int, role: Role) -> Job:
    found = await service.jobs.find(number) if 1 <= number <= _MOST else None
    if found is None or caller.model not in (None, found.model):
        raise Problem(404, f"There is no job {number}. GET /api/v1/jobs lists them.")
    allow(caller, role, found.model)
    return found
