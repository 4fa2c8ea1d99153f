"""Routes that read and delete items."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from protocols.service.api.access import IngestModel, ReadModel, TheCaller, TheService
from protocols.service.inbox import items, labels
from protocols.service.inbox.events import record
from protocols.service.inbox.items import Filter, Item
from protocols.service.inbox.labels import Given

router = APIRouter(prefix="/api/v1/models/{model}", tags=["items"])

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
_ENDINGS = {
    "image/jpeg": ".jpg", "image/png": ".png", "image/gif": ".gif", "image/bmp": ".bmp", "image/tiff": ".tif",
    "image/webp": ".webp", "text/plain": ".txt",
}  # fmt: skip


class LabelOut(BaseModel):
    """What one person says of one item.

    Parameters
    ----------
    number : int
        Of the row; ascends with time.
    item : int
        Number of the item.
    label : str or None
        None where an earlier label was taken back.
    sure : bool
        Whether the person was sure.
    given : float
        When (seconds since 1970).
    by : str
        Who.
    source : str
        ``api``, ``review`` or ``labelstudio``.
    group : int or None
        The group with which the item was labelled.
    """

    model_config = ConfigDict(from_attributes=True)

    number: int
    item: int
    label: str | None
    sure: bool
    given: float
    by: str
    source: str
    group: int | None


class ItemOut(BaseModel):
    """What came in, the answer it got, and what people say of it.

    Parameters
    ----------
    number : int
        Ascends in the order in which items came in.
    id : str
        The client's id, or the content's SHA-256.
    received : float
        When it came in (seconds since 1970).
    media : str
        Media type of the content.
    digest : str
        SHA-256 of the content.
    size : int
        Of the content (bytes).
    generation : int
        Which generation answered.
    answer : {"matched", "ambiguous", "unmatched"}
        The answer.
    label_id, label : int, str
        What was predicted.
    slot : int
        The slot behind it.
    margin : float or None
        How deep the input lies in its cap (radians); None where that slot matches no input at all.
    p_value, score : float or None
        How foreign it is.
    state : {"open", "labelled", "learned", "set_aside"}
        How far people and the model are with it.
    labels : list of LabelOut
        What each person says of it now.
    """

    model_config = ConfigDict(from_attributes=True)

    number: int
    id: str
    received: float
    media: str
    digest: str
    size: int
    generation: int
    answer: str
    label_id: int
    label: str
    slot: int
    margin: float | None
    p_value: float | None
    score: float | None
    state: str
    labels: list[LabelOut]


class ItemPage(BaseModel):
    """Some items.

    Parameters
    ----------
    items : list of ItemOut
        In the order they came in, or the newest first.
    next : int or None
        What ``after`` must be for the next page; None where there is none.
    """

    items: list[ItemOut]
    next: int | None


@router.get("/items", response_model=ItemPage)
async def list_items(
    service: TheService,
    model: ReadModel,
    *,
    state: Literal["open", "labelled", "learned", "set_aside"] | None = None,
    answer: Literal["matched", "ambiguous", "unmatched"] | None = None,
    label: Annotated[str | None, Query(max_length=256, description="That a person gives them now.")] = None,
    predicted: Annotated[str | None, Query(max_length=256, description="The predicted label.")] = None,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="`next` of the page before.")] = None,
    limit: Limit = 100,
    newest: bool = False,
) -> ItemPage:
    """Items in the order they came in."""
    which = Filter(state, answer, predicted, label)

    def work(connection: Any) -> tuple[list[Item], dict[int, list[Given]]]:
        found = items.page(connection, model.name, which, after=after, limit=limit, newest=newest)
        return found, labels.current(connection, [it.number for it in found])

    found, said = await service.database.read(work)
    shown = [item_out(it, said.get(it.number, [])) for it in found]
    return ItemPage(items=shown, next=found[-1].number if len(found) == limit else None)


@router.get("/items/{item_id:path}/content")
async def get_content(service: TheService, model: ReadModel, item_id: str) -> Response:
    """What came in, as it was kept."""

    def work(connection: Any) -> tuple[Item, bytes]:
        found = items.find(connection, model.name, item_id)
        return found, items.content(connection, service.inbox.blobs, found.number)

    found, content = await service.database.read(work)
    charset = "; charset=utf-8" if found.media == "text/plain" else ""
    name = found.digest[:16] + _ENDINGS.get(found.media, ".bin")  # ids are the clients' words, and stay out of headers
    return Response(
        content,
        headers={
            "Content-Type": found.media + charset,
            "Content-Disposition": f'attachment; filename="{name}"',
            "ETag": f'"{found.digest}"',
        },
    )


@router.get("/items/{item_id:path}", response_model=ItemOut)
async def get_item(service: TheService, model: ReadModel, item_id: str) -> ItemOut:
    """One item."""

    def work(connection: Any) -> ItemOut:
        found = items.find(connection, model.name, item_id)
        return item_out(found, labels.current(connection, [found.number]).get(found.number, []))

    return await service.database.read(work)


@router.delete("/items/{item_id:path}", status_code=204)
async def delete_item(service: TheService, model: IngestModel, caller: TheCaller, item_id: str) -> None:
    """Delete an item and its labels. What a model learned from it stays learned."""

    def work(connection: Any) -> Item:
        found = items.remove(connection, model.name, item_id)
        record(connection, caller, "item.delete", model=model.name, detail={"item": found.number})
        return found

    await service.inbox.remove(work)


def item_out(found: Item, said: list[Given]) -> ItemOut:
    """An item and what people say of it, as clients read it."""
    return ItemOut(**vars(found) | {"labels": [LabelOut.model_validate(it) for it in said]})
