"""The page that explains: an image dropped, a row or text pasted, or a stored item, and why it is answered as it is."""

from __future__ import annotations

import re
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection, select
from starlette.datastructures import UploadFile

from protocols.pages.cards import picture
from protocols.service.answering import inputs
from protocols.service.answering.explaining import Claim, explanation
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import ReadModel, TheService
from protocols.service.api.predicting import answered, as_rows
from protocols.service.api.problems import Problem
from protocols.service.inbox.tables import item
from protocols.service.pages import stored
from protocols.service.pages.rendering import Page, page, part
from protocols.service.service import Service
from slots.errors import DataError

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/models/{model}/explain")

_SIDE = 150  # of the input's picture (CSS pixels)
Given = npt.NDArray[Any]


@router.get("")
async def form(
    request: Request,
    service: TheService,
    model: ReadModel,
    number: Annotated[int | None, Query(alias="item", ge=0, le=1 << 62)] = None,
) -> Response:
    """The form; with ``item`` a stored item explained by the generation that answers now."""
    if number is None:
        return page(request, "explain.html", at="explain", model=model, why=None, stored=None)
    row = await service.database.read(lambda connection: _row(connection, model.name, number))
    if row is None:
        raise Problem(404, f"There is no item {number}.")
    why = await _explained(service, model, await _of_item(service, model, row))
    return page(request, "explain.html", at="explain", model=model, why=why, stored=stored.shown(row))


@router.post("")
async def explain(request: Request, service: TheService, model: ReadModel) -> Response:
    """Explain what a form brings."""
    async with request.form(max_files=1, max_fields=4) as sent:
        x = await _given(service, model, sent.get("file"), sent.get("text"))
    why = await _explained(service, model, x)
    if request.headers.get("hx-request"):
        return HTMLResponse(part(request, "why.html", model=model, why=why))
    return page(request, "explain.html", at="explain", model=model, why=why, stored=None)


async def _given(service: Service, model: ServedModel, file: Any, text: Any) -> Given:
    """What a form brings as an input of the model."""
    current, limits = model.current.model, service.settings.limits
    kind = current.preprocessing.kind
    if isinstance(file, UploadFile) and file.size:
        if kind != "images":
            raise DataError(f"The model takes {kind}, no files. Paste one below.")
        content = await file.read()
        return await service.decoders.run(current, lambda: inputs.images(current, [content], limits))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"Nothing was given. {'Choose an image.' if kind == 'images' else 'Paste something first.'}")
    if kind == "features":
        return inputs.feature_rows(current, [numbers(text)])
    if kind == "images":
        raise DataError("The model takes images. Choose a file.")
    return inputs.from_json(current, [text], limits)


def numbers(text: str) -> list[float]:
    """The numbers in a text, whatever stands between them.

    Examples
    --------
    >>> numbers("[1, 2.5]; -3e2")
    [1.0, 2.5, -300.0]
    """
    words = [word for word in re.split(r"[\s,;\[\]()]+", text) if word]
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DataError("A row must be numbers with commas or spaces between. Paste one row.") from error


def _row(connection: Connection, model: str, number: int) -> Any:
    query = select(*stored.COLUMNS).where(item.c.model == model, item.c.number == number)
    return connection.execute(query).one_or_none()


async def _of_item(service: Service, model: ServedModel, row: Any) -> Given:
    """A stored item as an input of the model."""
    current = model.current.model
    if row.media.startswith("image/"):
        return await service.decoders.run(
            current, lambda: inputs.images(current, [row.content], service.settings.limits)
        )
    if row.media == "text/plain":
        return inputs.from_json(current, [row.content.decode()], service.settings.limits)
    return inputs.feature_rows(current, np.frombuffer(row.content, "<f4")[None])


async def _explained(service: Service, model: ServedModel, x: Given) -> dict[str, Any]:
    """What the page says of one input."""
    found = await answered(service, model, x, again=True)
    (answer,), why = as_rows(found), explanation(found, 0)
    kind = found.loaded.model.preprocessing.kind
    return {
        "answer": answer,
        "generation": found.loaded.generation,
        "rate": service.settings.false_alarm_rate,
        "picture": picture(x[0], "The input as the model sees it", shown_side=_SIDE) if kind == "images" else None,
        "text": str(x[0])[:1000] if kind == "text" else "",
        "bars": stored.bars(x[0]) if kind == "features" else None,
        "behind": why.behind,
        "foreign": why.foreign,
        "ruler": ruler([it for it in (why.behind, why.foreign) if it is not None]),
    }


def ruler(claims: list[Claim]) -> list[tuple[Claim, float, float]]:
    """Margins as bars that begin at the edge of the caps: their left end and length, in hundredths of the width."""
    most = max((abs(it.margin) for it in claims if it.margin is not None), default=0.0) or 1.0
    lengths = [0.0 if it.margin is None else 48 * it.margin / most for it in claims]
    return [(it, 50 + min(length, 0.0), abs(length)) for it, length in zip(claims, lengths, strict=True)]
