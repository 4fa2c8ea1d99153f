"""The page of the log of events, for administrators: who did what, and whether the log is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, func, select

from protocols.service.api.access import TheCaller, TheService, allow_everywhere
from protocols.service.inbox.events import Event, Verdict, events, verify
from protocols.service.inbox.tables import event
from protocols.service.pages.rendering import Page, page

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/audit")

A_PAGE = 100
"""Events in one list."""

_AT_ONCE = 2000  # as long a log is verified without being asked


@dataclass(frozen=True)
class Log:
    """A part of the log.

    Parameters
    ----------
    events : list of (Event, str)
        The newest first, each with its detail as text.
    n_events : int
        In all (count).
    verdict : Verdict or None
        Whether the log is whole; None where that was not looked at.
    """

    events: list[tuple[Event, str]]
    n_events: int
    verdict: Verdict | None


@router.get("")
async def audit(
    request: Request,
    service: TheService,
    caller: TheCaller,
    before: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    whole: bool = False,
) -> Response:
    """The newest events, or those before a number; with ``whole`` the log is verified however long it is."""
    allow_everywhere(caller)

    def read(connection: Connection) -> Log:
        n_events, last = connection.execute(select(func.count(), func.max(event.c.number))).one()
        end = (last or 0) + 1 if before is None else before
        found = list(events(connection, after=max(0, end - 1 - A_PAGE), limit=A_PAGE))
        shown = [(it, json.dumps(it.detail, ensure_ascii=False)) for it in found if it.number < end]
        looked = whole or n_events <= _AT_ONCE
        return Log(shown[::-1], n_events, verify(connection) if looked else None)

    return page(request, "guarding/audit.html", at="audit", log=await service.database.read(read))
