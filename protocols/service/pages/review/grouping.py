"""The page that leads through a query list: a group, a name for it, the next group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection, func, select

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import LabelModel, ReadModel, TheCaller, TheService
from protocols.service.api.inbox import labelling, reviewing
from protocols.service.api.inbox.reviewing import GroupLabel, Number, ThrownOut
from protocols.service.inbox import labels, reviews
from protocols.service.inbox.refusals import check_label
from protocols.service.inbox.reviews import Group, Review
from protocols.service.inbox.tables import item, review_group
from protocols.service.jobs import records
from protocols.service.pages import stored
from protocols.service.pages.rendering import Page, go, page, part
from protocols.service.pages.review import offers
from protocols.service.service import Service

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/models/{model}/review")

_MEMBERS, _ALL_MEMBERS = 60, 1000
_NAME = 60  # characters of a name that a sentence quotes


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Parameters
    ----------
    review : Review or None
        The newest query list; None where none was made.
    group : Group or None
        The group in front; None where the list has none.
    members : list of StoredItem
        Its items, or the first of them.
    open_items : int
        Open unmatched items (count).
    newer : int
        Those of them that came after the list was made (count).
    grouping : int or None
        Number of a job that makes a list.
    labelled : int
        Items with labels that no update has learned (count).
    names : list of str
        Names to complete.
    offers : list of Offer
        Those with a key.
    given : list of str
        What people call its middle now.
    before, after : int or None
        Places of the groups beside this one.
    """

    review: Review | None
    group: Group | None
    members: list[stored.StoredItem]
    open_items: int
    newer: int
    grouping: int | None
    labelled: int
    names: list[str]
    offers: list[offers.Offer]
    given: list[str]
    before: int | None
    after: int | None


@router.get("")
async def work_through(
    request: Request,
    service: TheService,
    model: ReadModel,
    at: Annotated[int | None, Query(ge=0, lt=1 << 31)] = None,
    more: bool = False,
) -> Response:
    """The newest query list, at one of its groups: the first open one where none is named."""
    shown = await _shown(service, model, at=at, more=more)
    return page(request, "review/page.html", at="review", model=model, it=shown, said="", more=more)


@router.post("/groups/{group}/label")
async def label(
    request: Request,
    service: TheService,
    model: LabelModel,
    caller: TheCaller,
    *,
    group: Number,
    known: Annotated[str, Form(max_length=1024)] = "",
    label: Annotated[str, Form(max_length=1024)] = "",
    unsure: Annotated[bool, Form()] = False,
) -> Response:
    """Label a group, with the name of a button or the one that was typed, and go on to the next."""
    given = GroupLabel(label=check_label(known or label), sure=not unsure)
    done = await reviewing.label_group(service, model, caller, group, given)
    said = f"Labelled {_items(done.items)} {_quoted(given.label)}."
    return await _next(request, service, model, group, said)


@router.post("/groups/{group}/skip")
async def skip(request: Request, service: TheService, model: LabelModel, caller: TheCaller, group: Number) -> Response:
    """Leave a group without a label, and go on to the next."""
    await reviewing.skip_group(service, model, caller, group)
    return await _next(request, service, model, group, "Skipped.")


@router.post("/groups/{group}/out")
async def throw_out(
    request: Request,
    service: TheService,
    model: LabelModel,
    caller: TheCaller,
    *,
    group: Number,
    number: Annotated[int, Form(alias="item", ge=0, le=1 << 62)],
    more: Annotated[bool, Form()] = False,
) -> Response:
    """Throw an item out of a group, or take it in again."""

    def read(connection: Connection) -> Group:
        reviewing.check_group(connection, model.name, group)
        return reviews.group(connection, group, members=0)

    found = await service.database.read(read)
    out = number not in found.out
    await reviewing.throw_out(service, model, caller, group, ThrownOut(item=number, out=out))
    said = "Thrown out." if out else "Taken in again."
    return await _answer(request, service, model, found.place, said, more=more)


@router.post("/undo")
async def undo(request: Request, service: TheService, model: LabelModel, caller: TheCaller) -> Response:
    """Take back the last thing that this person did, and show its group."""
    done = await labelling.undo_last(service, model, caller)
    place = None
    if done["group"] is not None:
        place = await service.database.read(lambda it: reviews.group(it, done["group"], members=0).place)
    what = {"labels": f"the label of {_items(done['items'])}", "state": "a skip", "out": "what was thrown out"}
    return await _answer(request, service, model, place, f"Undone: {what.get(done['what'], done['what'])}.")


async def _next(request: Request, service: Service, model: ServedModel, group: int, said: str) -> Response:
    """On to the next open group behind this one, else the first open one."""

    def read(connection: Connection) -> int:
        found = reviews.group(connection, group, members=0)
        for after in (found.place, -1):
            following = reviews.groups(connection, found.review, state="open", after=after, limit=1, members=0)
            if following:
                return following[0].place
        return found.place

    return await _answer(request, service, model, await service.database.read(read), said)


async def _answer(
    request: Request, service: Service, model: ServedModel, place: int | None, said: str, *, more: bool = False
) -> Response:
    """The changed part for a script, else the page anew."""
    address = f"/models/{model.name}/review" + ("" if place is None else f"?at={place}")
    if not request.headers.get("hx-request"):
        return go(request, address, said)
    shown = await _shown(service, model, at=place, more=more)
    if shown.group is not None:
        said += f" {_standing(shown)}"
    text = part(request, "review/group.html", model=model, it=shown, said=said, more=more)
    return HTMLResponse(text, headers={"HX-Replace-Url": address, "Cache-Control": "no-store"})


def _standing(shown: Shown) -> str:
    assert shown.review is not None
    assert shown.group is not None
    if not shown.review.open:
        return "No group is open any more."
    left = _items(shown.group.size - len(shown.group.out))
    return (
        f"Group {shown.group.place + 1} of {shown.review.groups}: {left}, {_several(shown.review.open, 'group')} open."
    )


async def _shown(service: Service, model: ServedModel, *, at: int | None, more: bool) -> Shown:
    current = model.current
    known = [name for number, name in enumerate(current.names) if number not in current.model.clusters]

    def read(connection: Connection) -> Shown:
        found = next(iter(reviews.reviews(connection, model.name, limit=1)), None)
        group = None if found is None else _group(connection, found, at, _ALL_MEMBERS if more else _MEMBERS)
        open_items = stored.count(connection, model.name, state="open", answer="unmatched")
        offered = offers.names(connection, model.name, known)
        return Shown(
            review=found,
            group=group,
            members=[] if group is None else stored.numbered(connection, model.name, group.members),
            open_items=open_items,
            newer=0 if found is None else _newer(connection, found),
            grouping=_grouping(connection, model.name),
            labelled=stored.count(connection, model.name, state="labelled"),
            names=offered,
            offers=offers.with_keys(offers.in_order(connection, model.name, offers.few(offered))),
            given=_given(connection, group),
            before=group.place - 1 if group is not None and group.place else None,
            after=_after(connection, group),
        )

    return await service.database.read(read)


def _grouping(connection: Connection, model: str) -> int | None:
    """A job that makes a query list now."""
    latest = records.listed(connection, model=model, limit=20)
    return next((it.number for it in latest if it.kind == "review" and not it.over), None)


def _group(connection: Connection, found: Review, at: int | None, members: int) -> Group | None:
    """The group at a place, else the first open one, else the first."""
    wanted: list[dict[str, Any]] = [{"state": "open"}, {}]
    if at is not None:
        wanted.insert(0, {"after": at - 1})
    for which in wanted:
        several = reviews.groups(connection, found.number, limit=1, members=members, **which)
        if several:
            return several[0]
    return None


def _after(connection: Connection, group: Group | None) -> int | None:
    if group is None:
        return None
    query = select(func.min(review_group.c.place))
    query = query.where(review_group.c.review == group.review, review_group.c.place > group.place)
    return connection.execute(query).scalar()


def _given(connection: Connection, group: Group | None) -> list[str]:
    if group is None or group.state != "labelled":
        return []
    left = [it for it in group.members if it not in group.out]
    said = [it for several in labels.current(connection, left).values() for it in several]
    return list(dict.fromkeys(it.label for it in said if it.label is not None))[:5]


def _newer(connection: Connection, found: Review) -> int:
    query = select(func.count()).select_from(item)
    query = query.where(item.c.model == found.model, item.c.state == "open", item.c.answer == "unmatched")
    return int(connection.execute(query.where(item.c.received > found.made)).scalar_one())


def _items(n: int) -> str:
    return _several(n, "item")


def _several(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _quoted(name: str) -> str:
    plain = " ".join(name.split())
    return f"“{plain if len(plain) <= _NAME else plain[:_NAME] + '…'}”"
