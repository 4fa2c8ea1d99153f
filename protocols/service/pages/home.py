"""The overview: what a model answers now, what waits for people, and whether anything is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection, select

from protocols.service.answering.recent import Tally
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import ReadModel, TheCaller, TheService
from protocols.service.api.problems import Problem
from protocols.service.inbox.tables import item
from protocols.service.pages import stored
from protocols.service.pages.rendering import Page, page, part
from protocols.service.service import Service

router = APIRouter(route_class=Page, include_in_schema=False)

_SECONDS, _PARTS = 300, 60
_PICTURES = 18


@dataclass(frozen=True)
class Column:
    """One column of the chart of answers: heights from below, in hundredths."""

    matched: float
    ambiguous: float
    unmatched: float


@dataclass(frozen=True)
class Waiting:
    """What the inbox holds.

    Parameters
    ----------
    unmatched : int
        Open items that no slot matched (count).
    labelled : int
        Items with labels that no update has learned yet (count).
    learned : int
        Items that updates used (count).
    newest : list of StoredItem
        The unmatched ones that came last.
    """

    unmatched: int
    labelled: int
    learned: int
    newest: list[stored.StoredItem]


@router.get("/")
async def start(service: TheService, caller: TheCaller) -> Response:
    """To the first model that the caller may see."""
    for name in service.models:
        if caller.model in (None, name):
            return RedirectResponse(f"/models/{name}", 303)
    raise Problem(404, "There is no model that your key may use.")


@router.get("/models/{model}")
async def overview(request: Request, service: TheService, model: ReadModel) -> Response:
    """The page."""
    return page(request, "overview.html", at="overview", model=model, **await _figures(service, model))


@router.get("/models/{model}/live")
async def live(request: Request, service: TheService, model: ReadModel) -> Response:
    """The part of the page that changes."""
    return HTMLResponse(part(request, "live.html", model=model, **await _figures(service, model)))


@router.get("/models/{model}/items/{number}/picture")
async def picture(service: TheService, model: ReadModel, number: int) -> Response:
    """A small picture of an item that is an image."""

    def read(connection: Connection) -> Any:
        query = select(item.c.content, item.c.media).where(item.c.model == model.name, item.c.number == number)
        return connection.execute(query).one_or_none()

    row = await service.database.read(read)
    if row is None or not row.media.startswith("image/") or row.content is None:
        raise Problem(404, "There is no such picture.")
    headers = {"Cache-Control": "private, max-age=86400"}
    return Response(stored.small_picture(row.content), media_type="image/png", headers=headers)


async def _figures(service: Service, model: ServedModel) -> dict[str, Any]:
    """What the overview shows."""

    def read(connection: Connection) -> Waiting:
        return Waiting(
            unmatched=stored.count(connection, model.name, state="open", answer="unmatched"),
            labelled=stored.count(connection, model.name, state="labelled"),
            learned=stored.count(connection, model.name, state="learned"),
            newest=stored.newest(connection, model.name, most=_PICTURES, state="open", answer="unmatched"),
        )

    parts = model.recent.tallies(seconds=_SECONDS, parts=_PARTS)
    return {
        "current": model.current,
        "familiar": model.current.model.familiar_shares,
        "tally": _sum(parts),
        "columns": columns(parts),
        "most": max((it.total for it in parts), default=0),
        "seconds": _SECONDS // _PARTS,
        "waiting": await service.database.read(read),
        "counted": model.counted,
    }


def columns(parts: list[Tally]) -> list[Column]:
    """Counts as columns of a chart, the fullest of them as high as the chart."""
    most = max((it.total for it in parts), default=0) or 1
    return [Column(*(100 * n / most for n in (it.matched, it.ambiguous, it.unmatched))) for it in parts]


def _sum(parts: list[Tally]) -> Tally:
    return Tally(sum(it.matched for it in parts), sum(it.ambiguous for it in parts), sum(it.unmatched for it in parts))
