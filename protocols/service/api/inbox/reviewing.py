"""Routes by which people work through a query list, group by group."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from protocols.service.api.access import LabelModel, ReadModel, TheCaller, TheService
from protocols.service.api.inbox.ingesting import Repeat
from protocols.service.api.inbox.labelling import Labelled, act_once, person_of
from protocols.service.api.inbox.reading import ItemOut, Limit, item_out
from protocols.service.inbox import acts, items, labels, reviews
from protocols.service.inbox.refusals import MissingError, check_label
from protocols.service.inbox.reviews import Group

router = APIRouter(prefix="/api/v1/models/{model}/review", tags=["review"])

Number = Annotated[int, Path(ge=0, le=2**62)]


class ReviewOut(BaseModel):
    """A query list.

    Parameters
    ----------
    number : int
        Of the list; the newest has the largest.
    model : str
        Whose items.
    made : float
        When (seconds since 1970).
    generation : int
        Of the model that asked.
    unmatched : int
        Unmatched items that the groups were made of; matched ones whose answer is in doubt come beside them.
    bound : int
        As many groups could cover no more than this.
    purity : float or None
        Share of a group that is expected to have its middle's label.
    groups, open, labelled, skipped : int
        Number of groups, and of those in each state.
    covered : int
        Items in all groups.
    answered : int
        Items in labelled groups.
    """

    model_config = ConfigDict(from_attributes=True)

    number: int
    model: str
    made: float
    generation: int
    unmatched: int
    bound: int
    purity: float | None
    groups: int
    open: int
    labelled: int
    skipped: int
    covered: int
    answered: int


class GroupOut(BaseModel):
    """Items to label at once.

    Parameters
    ----------
    number : int
        Of the group.
    review : int
        Its query list.
    place : int
        0 settles most doubt.
    middle : int
        Number of the item to look at.
    gain : int
        Items it covers that no group before it does.
    state : {"open", "labelled", "skipped"}
        How far people are with it.
    size : int
        Number of its items.
    members : list of ItemOut
        Its items, the middle first; as many as were asked for.
    out : list of int
        Numbers of items thrown out of it.
    doubted : bool
        Whether slots match its items, and all that was told before contradicts them; else no slot matches any.
    """

    number: int
    review: int
    place: int
    middle: int
    gain: int
    state: str
    size: int
    members: list[ItemOut]
    out: list[int]
    doubted: bool


class GroupPage(BaseModel):
    """Some groups.

    Parameters
    ----------
    groups : list of GroupOut
        Those that cover most first.
    next : int or None
        What ``after`` must be for the next page; None where there is none.
    """

    groups: list[GroupOut]
    next: int | None


class GroupLabel(BaseModel):
    """The label of a group.

    Parameters
    ----------
    label : str
        1 to 256 characters.
    sure : bool
        Whether you are.
    """

    label: str = Field(max_length=1024)
    sure: bool = True


class ThrownOut(BaseModel):
    """Whether an item belongs to a group.

    Parameters
    ----------
    item : int
        Its number.
    out : bool
        False takes it in again.
    """

    item: int = Field(ge=0, le=2**62)
    out: bool = True


@router.get("", response_model=ReviewOut)
async def get_newest(service: TheService, model: ReadModel) -> Any:
    """The newest query list."""
    return await service.database.read(lambda connection: reviews.newest(connection, model.name))


@router.get("/{number}", response_model=ReviewOut)
async def get_review(service: TheService, model: ReadModel, number: Number) -> Any:
    """One query list."""
    return await service.database.read(lambda connection: _review(connection, model.name, number))


@router.get("/{number}/groups", response_model=GroupPage)
async def list_groups(
    service: TheService,
    model: ReadModel,
    *,
    number: Number,
    state: Literal["open", "labelled", "skipped"] | None = None,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="`next` of the page before.")] = -1,
    limit: Limit = 20,
    members: Annotated[int, Query(ge=0, le=1000, description="Items of each group, at most.")] = 60,
) -> GroupPage:
    """Groups of a query list, those that cover most first."""

    def work(connection: Any) -> list[GroupOut]:
        _review(connection, model.name, number)
        found = reviews.groups(connection, number, state=state, after=after, limit=limit, members=members)
        return groups_out(connection, model.name, found)

    found = await service.database.read(work)
    return GroupPage(groups=found, next=found[-1].place if len(found) == limit else None)


@router.get("/groups/{group}", response_model=GroupOut)
async def get_group(
    service: TheService,
    model: ReadModel,
    group: Number,
    members: Annotated[int, Query(ge=0, le=10_000, description="Its items, at most.")] = 1000,
) -> GroupOut:
    """One group."""

    def work(connection: Any) -> GroupOut:
        check_group(connection, model.name, group)
        return groups_out(connection, model.name, [reviews.group(connection, group, members=members)])[0]

    return await service.database.read(work)


@router.post("/groups/{group}/label", response_model=Labelled)
async def label_group(
    service: TheService,
    model: LabelModel,
    caller: TheCaller,
    group: Number,
    given: GroupLabel,
    *,
    repeat: Repeat = None,
) -> Labelled:
    """Label all items of a group that are not thrown out."""
    name, person = check_label(given.label), person_of(caller, "review")

    def work(connection: Any) -> dict[str, Any]:
        check_group(connection, model.name, group)
        return {"items": acts.label_group(connection, group, name, person, sure=given.sure)}

    return Labelled(**await act_once(service, repeat, work))


@router.post("/groups/{group}/skip", status_code=204)
async def skip_group(
    service: TheService, model: LabelModel, caller: TheCaller, group: Number, repeat: Repeat = None
) -> None:
    """Leave a group without a label."""

    def work(connection: Any) -> dict[str, Any]:
        check_group(connection, model.name, group)
        acts.skip_group(connection, group, person_of(caller, "review"))
        return {}

    await act_once(service, repeat, work)


@router.post("/groups/{group}/out", status_code=204)
async def throw_out(
    service: TheService,
    model: LabelModel,
    caller: TheCaller,
    group: Number,
    given: ThrownOut,
    *,
    repeat: Repeat = None,
) -> None:
    """Say that an item does not belong to a group, or that it does after all."""

    def work(connection: Any) -> dict[str, Any]:
        check_group(connection, model.name, group)
        acts.throw_out(connection, group, given.item, person_of(caller, "review"), out=given.out)
        return {}

    await act_once(service, repeat, work)


def check_group(connection: Any, model: str, group: int) -> None:
    """Refuse a group of another model.

    Raises
    ------
    MissingError
        If the model has no such group.
    """
    if reviews.model_of(connection, group) != model:
        raise MissingError(f"{model!r} has no group {group}. Ask for its newest query list.")


def groups_out(connection: Any, model: str, found: list[Group]) -> list[GroupOut]:
    """Groups with their items, as clients read them."""
    numbers = [it for group in found for it in group.members]
    known = items.numbered(connection, model, {*numbers, *(group.middle for group in found)})
    said = labels.current(connection, numbers)
    return [
        GroupOut(
            **vars(group)
            | {
                "members": [item_out(known[it], said.get(it, [])) for it in group.members if it in known],
                "out": list(group.out),
                "doubted": group.middle in known and known[group.middle].answer != "unmatched",
            }
        )
        for group in found
    ]


def _review(connection: Any, model: str, number: int) -> reviews.Review:
    found = reviews.find(connection, number)
    if found.model != model:
        raise MissingError(f"{model!r} has no query list {number}. Ask for the newest.")
    return found
