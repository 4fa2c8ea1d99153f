"""Items of the inbox as pages show them: a picture, the beginning of a text, or a row of numbers as bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sqlalchemy import Connection, func, select

from protocols.pages.pictures import png, shrink
from protocols.service.inbox.items import in_parts
from protocols.service.inbox.tables import item

PICTURE_SIDE = 128
"""Longest side of a picture on a page (pixels)."""

_MOST_BARS = 64
_MOST_TEXT = 400


@dataclass(frozen=True)
class Bars:
    """A row of numbers as a small chart.

    Parameters
    ----------
    values : tuple of (float, float)
        Top and height of each bar, in hundredths of the chart's height.
    words : str
        The first numbers, for those who do not see it.
    """

    values: tuple[tuple[float, float], ...]
    words: str


@dataclass(frozen=True)
class StoredItem:
    """An item on a page.

    Parameters
    ----------
    number : int
        Its place in the order of arrival.
    id : str
        The client's name for it.
    answer, label : str
        Kind of answer and the label, as it was answered when it came.
    state : str
        open, labelled, learned or set_aside.
    slot : int
        That answered, in ``generation``.
    generation : int
        That answered.
    received : float
        Seconds since 1970.
    p_value : float or None
        Of its novelty.
    picture : str
        Address of its picture; empty where it has none.
    text : str
        Its beginning; empty where it is no text.
    bars : Bars or None
        Where it is a row of numbers.
    """

    number: int
    id: str
    answer: str
    label: str
    state: str
    slot: int
    generation: int
    received: float
    p_value: float | None
    picture: str
    text: str
    bars: Bars | None


COLUMNS = (
    item.c.number, item.c.model, item.c.id, item.c.answer, item.c.label, item.c.state, item.c.slot, item.c.generation,
    item.c.received, item.c.p_value, item.c.media, item.c.content,
)  # fmt: skip
"""What `shown` reads of a row."""


def newest(connection: Connection, model: str, *, most: int, **where: Any) -> list[StoredItem]:
    """The items that came last.

    Parameters
    ----------
    connection : Connection
        Only read.
    model : str
        Whose items.
    most : int
        How many at most (count, >= 1).
    **where
        Values that columns of ``item`` must have.

    Returns
    -------
    list of StoredItem
        The newest first.
    """
    query = select(*COLUMNS).where(item.c.model == model, *(item.c[name] == value for name, value in where.items()))
    return [shown(row) for row in connection.execute(query.order_by(item.c.number.desc()).limit(most))]


def numbered(connection: Connection, model: str, numbers: Sequence[int]) -> list[StoredItem]:
    """Items by their numbers, in their order; those that are gone are left out."""
    found: dict[int, StoredItem] = {}
    for several in in_parts(list(numbers)):
        query = select(*COLUMNS).where(item.c.model == model, item.c.number.in_(several))
        found.update({row.number: shown(row) for row in connection.execute(query)})
    return [found[it] for it in numbers if it in found]


def count(connection: Connection, model: str, **where: Any) -> int:
    """How many items there are with these values in columns."""
    query = select(func.count()).select_from(item).where(item.c.model == model)
    return int(connection.execute(query.where(*(item.c[name] == value for name, value in where.items()))).scalar_one())


def shown(row: Any) -> StoredItem:
    """A row of `COLUMNS` as pages show it."""
    content = row.content or b""
    return StoredItem(
        row.number, row.id, row.answer, row.label, row.state, row.slot, row.generation, row.received, row.p_value,
        picture=f"/models/{row.model}/items/{row.number}/picture" if row.media.startswith("image/") else "",
        text=content[: 4 * _MOST_TEXT].decode("utf-8", "ignore")[:_MOST_TEXT] if row.media == "text/plain" else "",
        bars=bars(np.frombuffer(content, "<f4")) if row.media == "application/x-float32" else None,
    )  # fmt: skip


def bars(values: npt.NDArray[Any]) -> Bars:
    """A row of numbers as bars above and below a line; a long row is averaged to 64 of them."""
    words = ", ".join(f"{it:.3g}" for it in values[:6].tolist()) + (" …" if len(values) > 6 else "")
    if len(values) > _MOST_BARS:
        values = np.array([part.mean() for part in np.array_split(values, _MOST_BARS)])
    finite = np.nan_to_num(values.astype(np.float64))
    heights = 50 * finite / (np.abs(finite).max(initial=0.0) or 1.0)
    return Bars(tuple((round(50 - max(h, 0.0), 1), round(abs(h), 1)) for h in heights.tolist()), words)


def small_picture(file: bytes) -> bytes:
    """A stored image file as a small PNG; the file was decoded and bounded when it came in."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image.convert("L" if image.mode in ("L", "1", "I", "I;16") else "RGB"))
    return png(shrink(pixels if pixels.ndim == 3 else pixels[..., None], PICTURE_SIDE))
