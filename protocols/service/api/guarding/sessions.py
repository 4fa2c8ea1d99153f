"""Sessions of browsers: a key is entered once, and a cookie stands for it from then on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from protocols.service.api.access import TheService
from protocols.service.api.problems import Problem
from protocols.service.gate.sessions import SECONDS

router = APIRouter(tags=["sessions"], include_in_schema=False)


@router.post("/login")
async def login(
    service: TheService,
    request: Request,
    key: Annotated[str, Form(max_length=512)] = "",
    next: Annotated[str, Form(max_length=2048)] = "/",  # noqa: A002
) -> Response:
    """Begin a session, and go on to a page of this service."""
    found = service.keys.find(key.strip().encode())
    if found is None and service.keys.needed:
        if "text/html" in request.headers.get("accept", ""):
            return _see_other("/login?refused=1")
        raise Problem(401, "This is no key that is in use. `slots keys add` makes one.")
    answer = _see_other(_within(next))
    if found is not None:
        holder = service.keys.holder(found[0].number)
        assert holder is not None
        answer.set_cookie(
            service.sessions.cookie,
            service.sessions.sign(found[0].number, holder[1]),
            max_age=SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return answer


@router.post("/logout")
async def logout(service: TheService) -> Response:
    """End a session in this browser."""
    answer = _see_other("/login")
    answer.delete_cookie(service.sessions.cookie, httponly=True, samesite="strict")
    return answer


def _see_other(place: str) -> Response:
    return Response(status_code=303, headers={"Location": place})


def _within(place: str) -> str:
    """A path of this service; its start page for whatever leads elsewhere."""
    plain = place.isascii() and place.isprintable() and " " not in place
    return place if plain and place.startswith("/") and not place.startswith(("//", "/\\")) else "/"
