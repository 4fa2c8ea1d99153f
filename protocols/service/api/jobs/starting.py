"""Routes that start jobs: review, update and edit."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from protocols.service.api.access import AdminModel, LabelModel, TheCaller, TheService
from protocols.service.api.at_first import AtFirst
from protocols.service.api.jobs.documents import JobDocument, begin
from protocols.service.api.problems import Problem
from protocols.service.inbox.refusals import other_generation

router = APIRouter(prefix="/api/v1/models/{model}", tags=["jobs"])

MOST_BUDGET = 10_000


class ReviewOrder(BaseModel):
    """What a review shall find.

    Parameters
    ----------
    budget : int, optional
        Groups at most. Default: as many as earn their place.
    """

    model_config = ConfigDict(extra="forbid")

    budget: int | None = Field(None, ge=1, le=MOST_BUDGET)


class UpdateOrder(BaseModel):
    """How an update shall learn.

    Parameters
    ----------
    dry_run : bool, default False
        Only find out.
    spread : bool, default False
        Spread the labels over all unmatched items: far more accurate from few labels.
    budget : int, optional
        Make clusters too, so many at most, of what nobody has labelled. Default: none.
    """

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False
    spread: bool = False
    budget: int | None = Field(None, ge=1, le=MOST_BUDGET)


class EditOrder(BaseModel):
    """What to edit; explicit edits alone may change matched answers, and their results list which.

    Parameters
    ----------
    what : {"relabel", "merge", "delete"}
        Give ``slots`` another ``label``; give all slots of ``labels`` one ``label``, which names a cluster where it is
        one; or forget ``slots``.
    slots : list of int, default []
        Slots, by their numbers in ``generation``; where another one answers by then, nothing is edited: 409.
    labels : list of str, default []
        Labels or clusters.
    label : str, default ""
        A label of the model, or a new one.
    dry_run : bool, default False
        Only find out.
    generation : int, optional
        The one that the caller looked at. Default: the one that answers when the order comes.
    """

    model_config = ConfigDict(extra="forbid")

    what: Literal["relabel", "merge", "delete"]
    slots: Annotated[list[int], AtFirst()] = Field(default_factory=list, max_length=MOST_BUDGET)
    labels: Annotated[list[str], AtFirst()] = Field(default_factory=list, max_length=MOST_BUDGET)
    label: str = Field("", max_length=256)
    dry_run: bool = False
    generation: int | None = Field(None, ge=0, lt=1 << 53)


@router.post("/edits", status_code=202)
async def edit(
    service: TheService, model: AdminModel, caller: TheCaller, response: Response, order: EditOrder
) -> JobDocument:
    """Relabel, merge or delete slots; a dry run first says what would be answered otherwise."""
    current = model.current.generation
    if order.generation not in (None, current):
        raise Problem(409, str(other_generation(order.generation, current)))
    if order.generation is None and order.slots:
        order = order.model_copy(update={"generation": current})
    return await begin(service, model, caller, response, kind="edit", arguments=order.model_dump())


@router.post("/review", status_code=202)
async def review(
    service: TheService, model: LabelModel, caller: TheCaller, response: Response, order: ReviewOrder | None = None
) -> JobDocument:
    """Group the unmatched items so that a few labels settle most of them."""
    return await begin(
        service, model, caller, response, kind="review", arguments=(order or ReviewOrder(budget=None)).model_dump()
    )


@router.post("/updates", status_code=202)
async def update(
    service: TheService, model: LabelModel, caller: TheCaller, response: Response, order: UpdateOrder | None = None
) -> JobDocument:
    """Learn what people labelled: a new generation, in which no matched answer is changed."""
    return await begin(
        service, model, caller, response, kind="update", arguments=(order or UpdateOrder(budget=None)).model_dump()
    )
