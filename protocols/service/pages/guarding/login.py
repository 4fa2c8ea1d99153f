"""The page on which a key is entered; what is sent there goes to `protocols.service.api.guarding.sessions`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from protocols.service.api.access import TheService
from protocols.service.callers import NOBODY
from protocols.service.pages.rendering import Page, part

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/login")
async def login(
    request: Request,
    service: TheService,
    following: Annotated[str, Query(alias="next", max_length=2048)] = "/",
    refused: bool = False,
) -> Response:
    """The form; it says nothing of the models."""
    text = part(
        request,
        "guarding/login.html",
        at="",
        model=None,
        models=[],
        places=[],
        service_places=[],
        caller=NOBODY,
        told="",
        following=following,
        refused=refused,
        needed=service.keys.needed,
    )
    return HTMLResponse(text, headers={"Cache-Control": "no-store"})
