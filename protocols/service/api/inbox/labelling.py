"""Routes by which people say what items are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import Connection

from protocols.service.api.access import Caller, LabelModel, ReadModel, TheCaller, TheService
from protocols.service.api.at_first import AtFirst
from protocols.service.api.inbox.ingesting import Repeat
from protocols.service.api.inbox.reading import LabelOut, Limit
from protocols.service.inbox import acts, items, labels, reviews
from protocols.service.inbox.idempotency import Done, RequestKey, once
from protocols.service.inbox.labels import Person
from protocols.service.inbox.refusals import MissingError, check_label
from protocols.service.service import Service

router = APIRouter(prefix="/api/v1/models/{model}", tags=["labels"])

_MOST_LABELS = 4096


class LabelIn(BaseModel):
    """What is said of one item, or of a group.

    Parameters
    ----------
    item : str, optional
        Id of the item.
    group : int, optional
        Number of a group, all of whose items that are not thrown out are labelled.
    label : str or None
        1 to 256 characters; null takes your own label of an item back.
    sure : bool
        Whether you are; labels that nobody is sure of teach the model nothing.
    """

    item: str | None = Field(default=None, max_length=1024)
    group: int | None = Field(default=None, ge=0, le=2**62)
    label: str | None = Field(max_length=1024)
    sure: bool = True

    @model_validator(mode="after")
    def _one_of_them(self) -> LabelIn:
        if (self.item is None) == (self.group is None):
            raise ValueError("give either an item or a group")
        if self.group is not None and self.label is None:
            raise ValueError("a group has no label of its own to take back; undo it, or take back its items' labels")
        return self


class LabelsIn(BaseModel):
    """Labels, all given or none.

    Parameters
    ----------
    labels : list of LabelIn
        In their order.
    """

    labels: Annotated[list[LabelIn], AtFirst()] = Field(min_length=1, max_length=_MOST_LABELS)


class Labelled(BaseModel):
    """What was labelled.

    Parameters
    ----------
    items : int
        Items that got a label, or whose label was taken back (count).
    """

    items: int


class LabelPage(BaseModel):
    """Labels as they were given.

    Parameters
    ----------
    labels : list of LabelOut
        In the order of time.
    next : int or None
        What ``after`` must be for the next page; None where there is none.
    """

    labels: list[LabelOut]
    next: int | None


class OneConflict(BaseModel):
    """An item of which people say different things.

    Parameters
    ----------
    item : int
        Its number.
    id : str
        Its id.
    labels : list of LabelOut
        What each of them says.
    """

    item: int
    id: str
    labels: list[LabelOut]


class ConflictPage(BaseModel):
    """Items of which people say different things.

    Parameters
    ----------
    conflicts : list of OneConflict
        In the order the items came in.
    next : int or None
        What ``after`` must be for the next page; None where there is none.
    """

    conflicts: list[OneConflict]
    next: int | None


class UndoneOut(BaseModel):
    """What was undone.

    Parameters
    ----------
    what : {"labels", "state", "out"}
        Labels that were given, a group that was skipped, or an item thrown out or taken in.
    group : int or None
        The group, if there was one.
    items : int
        Items that have again what they had (count).
    """

    what: str
    group: int | None
    items: int


@router.post("/labels", response_model=Labelled)
async def give_labels(
    service: TheService, model: LabelModel, caller: TheCaller, given: LabelsIn, repeat: Repeat = None
) -> Any:
    """Label items and groups; all of it, or nothing where one is wrong."""
    checked = [(it, None if it.label is None else check_label(it.label)) for it in given.labels]
    person = person_of(caller)

    def work(connection: Any) -> dict[str, Any]:
        return {"items": _give(connection, model.name, checked, person)}

    return await act_once(service, repeat, work)


@router.get("/labels", response_model=LabelPage)
async def list_labels(
    service: TheService,
    model: ReadModel,
    after: Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before.")] = 0,
    limit: Limit = 100,
) -> LabelPage:
    """Labels as they were given, taken back or not: the last of each person counts."""
    found = await service.database.read(
        lambda connection: labels.page(connection, model.name, after=after, limit=limit)
    )
    shown = [LabelOut.model_validate(it) for it in found]
    return LabelPage(labels=shown, next=found[-1].number if len(found) == limit else None)


@router.get("/labels/conflicts", response_model=ConflictPage)
async def list_conflicts(
    service: TheService,
    model: ReadModel,
    after: Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before.")] = 0,
    limit: Limit = 100,
) -> ConflictPage:
    """Items of which people who are sure say different things; an update leaves them out."""

    def work(connection: Any) -> list[OneConflict]:
        found = labels.conflicts(connection, model.name, after=after, limit=limit)
        ids = items.numbered(connection, model.name, found)
        return [
            OneConflict(item=number, id=ids[number].id, labels=[LabelOut.model_validate(it) for it in said])
            for number, said in found.items()
        ]

    found = await service.database.read(work)
    return ConflictPage(conflicts=found, next=found[-1].item if len(found) == limit else None)


@router.post("/labels/undo", response_model=UndoneOut)
async def undo_last(service: TheService, model: LabelModel, caller: TheCaller, repeat: Repeat = None) -> Any:
    """Undo the last thing that you did: labels, a skipped group, an item thrown out. Fifty acts can be undone."""
    person = person_of(caller)

    def work(connection: Any) -> dict[str, Any]:
        return vars(acts.undo(connection, model.name, person))

    return await act_once(service, repeat, work)


async def act_once(
    service: Service, repeat: RequestKey | None, work: Callable[[Connection], dict[str, Any]]
) -> dict[str, Any]:
    """Do what a person asks for, in one transaction, and once where the request with its key comes again.

    Parameters
    ----------
    service : Service
        The running service.
    repeat : RequestKey or None
        Under which the response is kept for when the request comes again.
    work : callable
        What to do, given the connection; returns the response's document.
    """
    with service.inbox.in_flight.only(repeat):
        done = await service.database.write(lambda it: once(it, repeat, lambda: Done(200, work(it))))
    return done.response


def person_of(caller: Caller, source: str = "api") -> Person:
    """The person who sent a request."""
    return Person(caller.key_id, caller.name, source)


def _give(connection: Any, model: str, given: list[tuple[LabelIn, str | None]], person: Person) -> int:
    """Label groups one by one, and items of which nothing else is said together."""
    named = {it.item: label for it, label in given if it.item is not None}
    numbers = items.numbers_of(connection, model, list(named))
    n = 0
    for it, label in given:
        if it.group is not None and label is not None:
            if reviews.model_of(connection, it.group) != model:
                raise MissingError(f"{model!r} has no group {it.group}. Ask for its newest query list.")
            n += acts.label_group(connection, it.group, label, person, sure=it.sure)
    if named:
        sure = {numbers[it.item]: it.sure for it, _ in given if it.item is not None}
        n += acts.label_items(connection, model, {numbers[key]: label for key, label in named.items()}, person, sure)
    return n
