"""Jobs: what was asked for, how far it is, what came of it; and the forms that start reviews and updates."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import LabelModel, TheCaller, TheService
from protocols.service.api.jobs import following as api
from protocols.service.api.jobs import starting
from protocols.service.api.jobs.documents import JobDocument
from protocols.service.api.jobs.starting import ReviewOrder, UpdateOrder
from protocols.service.pages.rendering import Page, go, page, part

router = APIRouter(route_class=Page, include_in_schema=False)

A_PAGE = 50
"""Jobs in one list."""

_WORDS = {"review": "Grouping", "update": "Update", "edit": "Edit", "import": "Import"}


class UpdateForm(BaseModel):
    """An update as a form asks for it.

    Parameters
    ----------
    dry_run, spread : bool
        As in `UpdateOrder`.
    budget : str
        Clusters at most; empty for none.
    """

    dry_run: bool = False
    spread: bool = False
    budget: Annotated[str, Form(pattern="^[0-9]{0,5}$")] = ""


@router.get("/jobs")
async def jobs(
    request: Request, service: TheService, caller: TheCaller, before: Annotated[int | None, Query(ge=1)] = None
) -> Response:
    """The list, the newest first."""
    found = await api.jobs(service, caller, None, before, A_PAGE)
    return page(request, "jobs/jobs.html", at="jobs", jobs=found, a_page=A_PAGE, title_of=title_of)


@router.get("/jobs/{number}")
async def job(request: Request, service: TheService, caller: TheCaller, number: int) -> Response:
    """One job."""
    found = await api.job(service, caller, number)
    model = service.models.get(found.model)
    return page(request, "jobs/job.html", at="jobs", model=model, **_values(found, model))


@router.get("/jobs/{number}/now")
async def now(request: Request, service: TheService, caller: TheCaller, number: int) -> Response:
    """The part of the page that changes while it runs; a review that is done leads to its groups."""
    found = await api.job(service, caller, number)
    if found.kind == "review" and found.state == "done":
        return go(request, f"/models/{found.model}/review", grouped(found))
    model = service.models.get(found.model)
    return HTMLResponse(part(request, "jobs/now.html", model=model, **_values(found, model)))


@router.post("/jobs/{number}/cancel")
async def cancel(request: Request, service: TheService, caller: TheCaller, number: int) -> Response:
    """End a job before its time."""
    found = await api.cancel(service, caller, number)
    return go(request, f"/jobs/{number}", f"The job is {found.state}.")


@router.post("/models/{model}/review")
async def review(request: Request, service: TheService, model: LabelModel, caller: TheCaller) -> Response:
    """Group what is unmatched."""
    begun = await starting.review(service, model, caller, Response(), ReviewOrder(budget=None))
    return go(request, f"/jobs/{begun.id}")


@router.post("/models/{model}/updates")
async def update(
    request: Request, service: TheService, model: LabelModel, caller: TheCaller, given: Annotated[UpdateForm, Form()]
) -> Response:
    """Learn what was labelled, or find out what that would change."""
    budget = int(given.budget) if given.budget else None
    order = UpdateOrder(dry_run=given.dry_run, spread=given.spread, budget=budget)
    begun = await starting.update(service, model, caller, Response(), order)
    return go(request, f"/jobs/{begun.id}")


def title_of(job: JobDocument) -> str:
    """What a job is called.

    Parameters
    ----------
    job : JobDocument
        Any job.

    Returns
    -------
    str
    """
    word = _WORDS.get(job.kind, job.kind)
    return f"{word} on trial" if job.arguments.get("dry_run") else word


def _values(job: JobDocument, model: ServedModel | None) -> dict[str, Any]:
    current = None if model is None else model.current.generation
    made = (job.result or {}).get("generation")
    return {
        "job": job,
        "title": title_of(job),
        "over": job.state not in ("queued", "running"),
        "can_undo": job.kind in ("update", "edit", "import") and not job.arguments.get("dry_run") and made == current,
        "asked": json.dumps(job.arguments, ensure_ascii=False),
    }


def grouped(job: JobDocument) -> str:
    """What a job that made groups came to: of the unmatched, of matched items in doubt, or of both."""
    result = job.result or {}
    if not result.get("groups"):
        return "Nothing is open that groups could be made of."
    n, unmatched = result["groups"], result["unmatched"]
    return (
        f"{n} {'group holds' if n == 1 else 'groups hold'} {result['covered']:,} items, what settles most doubt first; "
        f"{unmatched:,} {'is' if unmatched == 1 else 'are'} unmatched."
    )
