"""Clusters: what the model grouped by itself, to be named; and open items as the newest query list groups them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from protocols.service.answering.loaded import Loaded
from protocols.service.api.access import AdminModel, ReadModel, TheCaller, TheService
from protocols.service.api.jobs import starting
from protocols.service.api.jobs.starting import EditOrder
from protocols.service.inbox import reviews
from protocols.service.inbox.reviews import Group, Review
from protocols.service.pages import stored
from protocols.service.pages.gallery import Tile, tile
from protocols.service.pages.rendering import Page, go, page

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/models/{model}/clusters")

_TILES = 8  # of a cluster
_GROUPS, _MEMBERS = 48, 6


@dataclass(frozen=True)
class Cluster:
    """Slots that an update made without a name.

    Parameters
    ----------
    name : str
        What they are called for now.
    n_slots, hits, lately : int
        Slots; examples that they matched when they were made; inputs that they answered lately (counts).
    tiles : list of Tile
        The largest of its slots.
    """

    name: str
    n_slots: int
    hits: int
    lately: int
    tiles: list[Tile]


class EditForm(BaseModel):
    """An edit as a form asks for it; the fields are those of `EditOrder`."""

    what: Literal["relabel", "merge", "delete"]
    label: str = ""
    labels: list[str] = []  # pydantic copies it
    slots: list[int] = []
    dry_run: bool = False


@router.get("")
async def clusters(request: Request, service: TheService, model: ReadModel) -> Response:
    """Clusters without a name, and open groups."""
    current = model.current
    lately = model.recent.by_slot(current.model.head.n_slots, current.generation)

    def read(connection: Connection) -> tuple[Review | None, list[tuple[Group, list[stored.StoredItem]]], int]:
        newest = next(iter(reviews.reviews(connection, model.name, limit=1)), None)
        groups = []
        if newest is not None:
            groups = reviews.groups(connection, newest.number, state="open", limit=_GROUPS, members=_MEMBERS)
        shown = [(it, stored.numbered(connection, model.name, it.members)) for it in groups]
        return newest, shown, stored.count(connection, model.name, state="open", answer="unmatched")

    newest, groups, open_items = await service.database.read(read)
    return page(
        request,
        "jobs/clusters.html",
        at="clusters",
        model=model,
        clusters=unnamed(current, lately.tolist()),
        names=[name for number, name in enumerate(current.names) if number not in current.model.clusters],
        newest=newest,
        groups=groups,
        open_items=open_items,
    )


@router.post("/edit")
async def edit(
    request: Request, service: TheService, model: AdminModel, caller: TheCaller, given: Annotated[EditForm, Form()]
) -> Response:
    """Name, merge, relabel or delete, or find out what that would change."""
    begun = await starting.edit(service, model, caller, Response(), EditOrder(**given.model_dump()))
    return go(request, f"/jobs/{begun.id}")


def unnamed(current: Loaded, lately: list[int]) -> list[Cluster]:
    """Clusters that nobody has named, the largest first.

    Parameters
    ----------
    current : Loaded
        The generation.
    lately : list of int
        Latest answers of each slot (counts).

    Returns
    -------
    list of Cluster
    """
    head = current.model.head
    labels, hits = head.labels.cpu().numpy(), head.hits.cpu().numpy()
    found = []
    for label in sorted(current.model.clusters):
        rows = np.flatnonzero(labels == label)
        if not len(rows):
            continue
        rows = rows[np.argsort(-hits[rows], kind="stable")]
        tiles = [tile(current, int(row), lately[row]) for row in rows[:_TILES]]
        n_lately = sum(lately[row] for row in rows)
        found.append(Cluster(current.names[label], len(rows), int(hits[rows].sum()), n_lately, tiles))
    return sorted(found, key=lambda it: -it.hits)
