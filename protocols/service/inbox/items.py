"""Items as they are read: one, a page of them, their contents; and how they are deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from protocols.service.inbox.blobs import Blobs
from protocols.service.inbox.refusals import MissingError
from protocols.service.inbox.tables import item, label

ASKED_AT_ONCE = 500
"""Values in one list of a statement, at most; databases have a bound."""

_SHOWN = [it for it in item.c if it.name not in ("content", "key_id")]


@dataclass(frozen=True)
class Item:
    """What came in, and the answer it got.

    Parameters
    ----------
    number : int
        Ascends in the order in which items came in; never given twice.
    model : str
        Whose item it is.
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
    answer : str
        ``matched``, ``ambiguous`` or ``unmatched``.
    label_id, label : int, str
        What was predicted.
    slot : int
        The slot behind it.
    margin : float
        How deep the input lies in its cap (radians).
    p_value, score : float or None
        How foreign it is; None where the model has no calibration.
    state : str
        ``open``, ``labelled``, ``learned`` or ``set_aside``.
    """

    number: int
    model: str
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
    margin: float
    p_value: float | None
    score: float | None
    state: str


@dataclass(frozen=True)
class Filter:
    """Which items are asked for; what is None is not asked about.

    Parameters
    ----------
    state : str, optional
        Their state.
    answer : str, optional
        The answer they got.
    predicted : str, optional
        The label that was predicted.
    label : str, optional
        A label that a person gives them now.
    """

    state: str | None = None
    answer: str | None = None
    predicted: str | None = None
    label: str | None = None

    def conditions(self, model: str) -> list[ColumnElement[bool]]:
        """The same as conditions of a statement on `tables.item`."""
        found = [item.c.model == model]
        for column, wanted in (
            (item.c.state, self.state),
            (item.c.answer, self.answer),
            (item.c.label, self.predicted),
        ):
            if wanted is not None:
                found.append(column == wanted)
        if self.label is not None:
            last = select(func.max(label.c.number)).group_by(label.c.item, label.c.by).scalar_subquery()
            given = select(label.c.item).where(label.c.number.in_(last), label.c.label == self.label)
            found.append(item.c.number.in_(given))
        return found


def page(
    connection: Connection,
    model: str,
    which: Filter,
    *,
    after: int | None = None,
    limit: int = 100,
    newest: bool = False,
) -> list[Item]:
    """Some items in the order they came in.

    Parameters
    ----------
    connection : Connection
        Of the database.
    model : str
        Whose items.
    which : Filter
        Which of them.
    after : int, optional
        Number of the last item of the page before. Default: from the start.
    limit : int, default 100
        Items at most.
    newest : bool, default False
        The newest first.

    Returns
    -------
    list of Item
    """
    conditions = which.conditions(model)
    if after is not None:
        conditions.append(item.c.number < after if newest else item.c.number > after)
    order = item.c.number.desc() if newest else item.c.number.asc()
    rows = connection.execute(select(*_SHOWN).where(*conditions).order_by(order).limit(limit))
    return [Item(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's public name for it


def find(connection: Connection, model: str, item_id: str) -> Item:
    """One item by its id.

    Raises
    ------
    MissingError
        If there is none.
    """
    row = connection.execute(select(*_SHOWN).where(item.c.model == model, item.c.id == item_id)).one_or_none()
    if row is None:
        raise MissingError(f"{model!r} has no item {item_id!r:.80}. It was not kept, or was deleted.")
    return Item(**row._mapping)  # noqa: SLF001


def numbered(connection: Connection, model: str, numbers: Iterable[int]) -> dict[int, Item]:
    """Items of a model by their numbers; those that are gone are left out."""
    found = {}
    for several in in_parts(list(numbers)):
        rows = connection.execute(select(*_SHOWN).where(item.c.model == model, item.c.number.in_(several)))
        found.update({row.number: Item(**row._mapping) for row in rows})  # noqa: SLF001
    return found


def numbers_of(connection: Connection, model: str, ids: Sequence[str]) -> dict[str, int]:
    """Numbers of items by their ids.

    Raises
    ------
    MissingError
        If there is no item of one of the ids.
    """
    found: dict[str, int] = {}
    for several in in_parts(list(dict.fromkeys(ids))):
        query = select(item.c.id, item.c.number).where(item.c.model == model, item.c.id.in_(several))
        found.update({row.id: row.number for row in connection.execute(query)})
    for it in ids:
        if it not in found:
            raise MissingError(f"{model!r} has no item {it!r:.80}. It was not kept, or was deleted.")
    return found


def content(connection: Connection, blobs: Blobs, number: int) -> bytes:
    """The content of an item.

    Raises
    ------
    MissingError
        If there is no such item.
    """
    row = connection.execute(select(item.c.content, item.c.digest).where(item.c.number == number)).one_or_none()
    if row is None:
        raise MissingError(f"There is no item {number}. It was deleted.")
    return blobs.get(row.digest) if row.content is None else bytes(row.content)


def remove(connection: Connection, model: str, item_id: str) -> Item:
    """Delete an item with its labels; its blob goes with the next sweep.

    Raises
    ------
    MissingError
        If there is no such item.
    """
    gone = find(connection, model, item_id)
    connection.execute(delete(item).where(item.c.number == gone.number))
    return gone


def set_state(connection: Connection, numbers: Iterable[int], state: str) -> None:
    """Set the state of items, such as ``learned`` after an update."""
    for several in in_parts(list(numbers)):
        connection.execute(update(item).where(item.c.number.in_(several)).values(state=state))


def counts(connection: Connection, model: str) -> dict[tuple[str, str], int]:
    """How many items there are of each state and answer."""
    query = select(item.c.state, item.c.answer, func.count()).where(item.c.model == model)
    rows = connection.execute(query.group_by(item.c.state, item.c.answer))
    return {(state, answer): n for state, answer, n in rows}


def in_parts(values: list[Any]) -> list[list[Any]]:
    """Values in lists short enough for one statement."""
    return [values[start : start + ASKED_AT_ONCE] for start in range(0, len(values), ASKED_AT_ONCE)]
