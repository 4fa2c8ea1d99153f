"""From the inbox to a job's material: which items a review or an update works on, and which labels count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from protocols.service.inbox.blobs import MissingContentError
from protocols.service.inbox.database import Database
from protocols.service.inbox.keeping import named
from protocols.service.inbox.tables import item, label
from protocols.service.jobs.child.material import Material, MaterialWriter
from slots.errors import DataError
from slots.model.slot_model import SlotModel

MOST_ITEMS = 50_000
"""Items of one job; the newest of the unmatched, and all that are labelled as far as that goes."""

MOST_MATCHED = 2000
"""Matched items that a review looks at beside: the newest, since a slot may be wrong about what is new."""

_AT_ONCE = 200  # contents read from the database together


def gather(
    connection: Connection,
    name: str,
    model: SlotModel,
    folder: Path,
    content: Callable[[str], bytes],
    *,
    labelled: bool,
    most: int = MOST_ITEMS,
) -> Material:
    """Write the items that a job works on into its folder.

    Parameters
    ----------
    connection : Connection
        Of the inbox; only read.
    name : str
        The model's name.
    model : SlotModel
        Says what an input is.
    folder : Path
        An empty folder.
    content : callable
        The content of a digest, of an item whose row does not hold it.
    labelled : bool
        False: the unmatched that nobody has labelled, for a review, and the newest of the matched, which may be in
        doubt. True: the unmatched, and what was labelled and not learned.
    most : int, default `MOST_ITEMS`
        Items at most (count).

    Returns
    -------
    Material
        In the order in which the items came in.

    Raises
    ------
    DataError
        If an item is of another kind or size than the model takes; it is named.
    """
    given, disagreed = _agreed(connection, name) if labelled else ({}, 0)
    unmatched = select(item.c.number).where(_is_open(name))
    n_unmatched = connection.execute(select(func.count()).select_from(unmatched.subquery())).scalar_one()
    kept = sorted(given)[-most:]
    room = most - len(kept)
    newest = connection.execute(unmatched.order_by(item.c.number.desc()).limit(room)).scalars().all()
    matched = [] if labelled else _newest_matched(connection, name, min(MOST_MATCHED, room - len(newest)))
    numbers = sorted({*kept, *newest, *matched})
    ids = []
    preprocessing = model.preprocessing
    writer = MaterialWriter(folder, preprocessing.kind, preprocessing.shape, len(numbers))
    for row, (item_id, stored, digest) in enumerate(_contents(connection, numbers)):
        try:
            writer.put(row, content(digest) if stored is None else stored)
        except DataError as error:
            raise DataError(f"Item {item_id!r:.80}: {error}") from error
        ids.append(item_id)
    labels = {row: given[number] for row, number in enumerate(numbers) if number in given}
    left_out = n_unmatched + len(given) - len(kept) - len(newest)
    material = Material(numbers, ids, labels, left_out, disagreed)
    writer.close(material)
    return material


async def gather_there(
    database: Database,
    name: str,
    model: SlotModel,
    folder: Path,
    content: Callable[[str], bytes],
    *,
    labelled: bool,
) -> Material:
    """`gather`, begun anew where an item was deleted between its row and its content.

    Raises
    ------
    DataError
        As there.
    MissingContentError
        If the content of an item that is still there is lost.
    """
    while True:
        try:
            return await database.read(lambda it: gather(it, name, model, folder, content, labelled=labelled))
        except MissingContentError as error:
            if await database.read(partial(named, digests=[error.digest])):
                await asyncio.to_thread(content, error.digest)


def _is_open(name: str) -> Any:
    return and_(item.c.model == name, item.c.state == "open", item.c.answer == "unmatched")


def _newest_matched(connection: Connection, name: str, most: int) -> list[int]:
    there = and_(item.c.model == name, item.c.state == "open", item.c.answer != "unmatched")
    chosen = select(item.c.number).where(there).order_by(item.c.number.desc()).limit(most)
    return list(connection.execute(chosen).scalars())


def _contents(connection: Connection, numbers: list[int]) -> Iterable[tuple[str, bytes | None, str]]:
    """Id, content where the row has it, and digest of items, in the order of their numbers."""
    chosen: Select[Any] = select(item.c.id, item.c.content, item.c.digest).order_by(item.c.number)
    for start in range(0, len(numbers), _AT_ONCE):
        among = numbers[start : start + _AT_ONCE]
        yield from (tuple(row) for row in connection.execute(chosen.where(item.c.number.in_(among))))


def _agreed(connection: Connection, name: str) -> tuple[dict[int, str], int]:
    """Labels of the items that are labelled and not learned, by number; and how many nobody can rely on.

    The last label of each person counts, and only one that they were sure of. Where two people differ there is none.
    """
    chosen = (
        select(label.c.item, label.c.by, label.c.label, label.c.sure)
        .join(item, item.c.number == label.c.item)
        .where(item.c.model == name, item.c.state == "labelled")
        .order_by(label.c.number)
    )
    last: dict[int, dict[str, str | None]] = {}
    for number, by, word, sure in connection.execute(chosen):
        last.setdefault(number, {})[by] = word if sure else None
    found, unclear = {}, 0
    for number, words in last.items():
        given = {word for word in words.values() if word is not None}
        if len(given) == 1:
            found[number] = given.pop()
        else:
            unclear += 1
    return found, unclear
