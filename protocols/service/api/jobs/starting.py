"""Routes that start jobs: review and update."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from protocols.service.api.access import LabelModel, TheCaller, TheService
from protocols.service.api.jobs.documents import JobDocument, begin

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
