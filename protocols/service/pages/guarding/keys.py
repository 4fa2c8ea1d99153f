"""The page of keys, for administrators of the whole service: make one, which is shown once, and revoke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from protocols.service.api.access import TheCaller, TheService
from protocols.service.api.guarding import keys as api
from protocols.service.api.guarding.keys import MadeKey, NewKey, Word
from protocols.service.pages.rendering import Page, go, page
from protocols.service.service import Service

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/keys")


@router.get("")
async def keys(request: Request, service: TheService, caller: TheCaller) -> Response:
    """All keys ever made, and a form for another."""
    return await _shown(request, service, await api.keys(service, caller), None)


@router.post("")
async def make(
    request: Request,
    service: TheService,
    caller: TheCaller,
    *,
    name: Annotated[str, Form(min_length=1, max_length=128)],
    role: Annotated[Word, Form()],
    model: Annotated[str, Form(max_length=128)] = "",
) -> Response:
    """Make a key and show it: in this answer alone, which nobody keeps."""
    made = await api.make_key(service, caller, NewKey(name=name, role=role, model=model or None))
    return await _shown(request, service, await api.keys(service, caller), made)


@router.post("/{number}/revoke")
async def revoke(request: Request, service: TheService, caller: TheCaller, number: int) -> Response:
    """Revoke a key for good."""
    gone = await api.revoke(service, caller, number)
    return go(request, "/keys", f"Key {gone.number}, {gone.name}, is revoked.")


async def _shown(request: Request, service: Service, known: list[api.KeyFacts], made: MadeKey | None) -> Response:
    return page(
        request,
        "guarding/keys.html",
        at="keys",
        in_use=[it for it in reversed(known) if it.revoked is None],
        revoked=[it for it in reversed(known) if it.revoked is not None],
        made=made,
        first=not known,
        names=list(service.models),
    )
