"""The generations of a model: what made each, what changed between two, and the way back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from protocols.service.api.access import AdminModel, ReadModel, TheCaller, TheService
from protocols.service.api.jobs import generations
from protocols.service.api.jobs.generations import PruneOrder, UndoOrder
from protocols.service.pages.rendering import Page, go, page

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/models/{model}/history")


@router.get("")
async def history(request: Request, model: ReadModel) -> Response:
    """All generations, the newest first."""
    entries = await generations.generations(model)
    kept = [it["number"] for it in entries if it["kept"]]
    before = dict(zip(kept[1:], kept, strict=False))
    return page(
        request, "jobs/history.html", at="history", model=model, entries=entries[::-1], kept=kept[::-1], before=before
    )


@router.get("/diff")
async def difference(
    request: Request,
    model: ReadModel,
    older: Annotated[str, Query(alias="from", pattern="^[0-9]{0,15}$")] = "",
    newer: Annotated[str, Query(alias="to", pattern="^[0-9]{0,15}$")] = "",
) -> Response:
    """What changed between two generations, and whether any matched answer can have changed."""
    found = await generations.difference(model, int(older) if older else None, int(newer) if newer else None)
    return page(request, "jobs/diff.html", at="history", model=model, it=found)


@router.post("/undo")
async def undo(
    request: Request, service: TheService, model: AdminModel, caller: TheCaller, to: Annotated[int, Form(ge=0)]
) -> Response:
    """Go back to an older generation, under a new number."""
    entry = await generations.go_back(service, model, caller, UndoOrder(to=to, if_needed=True))
    said = f"Undone: generation {entry['number']} answers now, with the content of generation {entry['content']}."
    return go(request, f"/models/{model.name}/history", said)


@router.post("/prune")
async def prune(
    request: Request,
    service: TheService,
    model: AdminModel,
    caller: TheCaller,
    *,
    keep: Annotated[int, Form(ge=1, lt=1 << 31)],
    dry_run: Annotated[bool, Form()] = False,
) -> Response:
    """Free the disk of old generations, or find out what that would free."""
    done = await generations.free(service, model, caller, PruneOrder(keep=keep, keep_days=None, dry_run=dry_run))
    return go(request, f"/models/{model.name}/history", _freed(done, dry_run=dry_run))


def _freed(done: dict[str, Any], *, dry_run: bool) -> str:
    removed = ", ".join(map(str, done["removed"][:20]))
    if not removed:
        return "Nothing to free: all kept generations are new enough, or must stay."
    size = f"{done['freed_bytes'] / 1e6:.1f} MB"
    return f"Generations {removed} {'would go and free' if dry_run else 'are gone; freed'} {size}."
