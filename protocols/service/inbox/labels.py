"""What people say of items: append-only rows, of which the last of each person counts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from protocols.service.inbox.items import in_parts
from protocols.service.inbox.refusals import MissingError
from protocols.service.inbox.tables import item, label


@dataclass(frozen=True)
class Person:
    """Who gives a label.

    Parameters
    ----------
    key_id : int or None
        Number of the key.
    name : str
        The key's name: people are told apart by it.
    source : str
        ``api``, ``review`` or ``labelstudio``.
    """

    key_id: int | None
    name: str
    source: str = "api"


@dataclass(frozen=True)
class Given:
    """What one person says of one item now.

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

    number: int
    item: int
    label: str | None
    sure: bool
    given: float
    by: str
    source: str
    group: int | None


@dataclass(frozen=True)
class Rows:
    """The rows of one act of labelling: what is needed to undo it.

    Parameters
    ----------
    first, last : int
        Their numbers, both included; rows of other people may lie between.
    by : str
        Who gave them.
    """

    first: int
    last: int
    by: str


def give(
    connection: Connection,
    labels: Mapping[int, str | None],
    person: Person,
    *,
    sure: bool | Mapping[int, bool] = True,
    group: int | None = None,
) -> Rows:
    """Label items, or take labels back; their states follow.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    labels : mapping of int to str or None
        Label of each item number, as `check_label` returns it; None takes this person's label back.
    person : Person
        Who says so.
    sure : bool or mapping, default True
        Whether they are; for each item number, or for all.
    group : int, optional
        Number of the group that is labelled.

    Returns
    -------
    Rows

    Raises
    ------
    MissingError
        If there is no item of a number.
    """
    _check_there(connection, list(labels))
    before = stands(connection, labels)
    last = connection.execute(select(func.coalesce(func.max(label.c.number), 0))).scalar_one()
    now = time.time()
    rows = [
        {
            "item": number,
            "label": name,
            "sure": int(sure if isinstance(sure, bool) else sure[number]),
            "given": now,
            "key_id": person.key_id,
            "by": person.name,
            "source": person.source,
            "group_id": group,
        }
        for number, name in labels.items()
    ]
    if rows:
        connection.execute(insert(label), rows)
    newest = connection.execute(select(func.coalesce(func.max(label.c.number), 0))).scalar_one()
    _follow(connection, before, stands(connection, labels))
    return Rows(last + 1, newest, person.name)


def take_back(connection: Connection, rows: Rows, person: Person) -> int:
    """Undo an act of labelling: each item has again what this person said of it before.

    Returns
    -------
    int
        Items whose label was taken back or replaced.
    """
    mine = label.c.by == rows.by
    done = connection.execute(select(label.c.item).where(label.c.number.between(rows.first, rows.last), mine))
    names: dict[int, str | None] = {}
    sure: dict[int, bool] = {}
    for number in done.scalars():
        query = select(label.c.label, label.c.sure).where(label.c.item == number, mine, label.c.number < rows.first)
        earlier = connection.execute(query.order_by(label.c.number.desc()).limit(1)).one_or_none()
        names[number] = None if earlier is None else earlier.label
        sure[number] = earlier is None or bool(earlier.sure)
    give(connection, names, person, sure=sure)
    return len(names)


def current(connection: Connection, numbers: Iterable[int]) -> dict[int, list[Given]]:
    """What each person says of some items now, by item number; nothing where nobody says anything."""
    found: dict[int, list[Given]] = {}
    for several in in_parts(list(numbers)):
        last = select(func.max(label.c.number)).where(label.c.item.in_(several)).group_by(label.c.item, label.c.by)
        query = select(label).where(label.c.number.in_(last), label.c.label.is_not(None)).order_by(label.c.number)
        for row in connection.execute(query):
            found.setdefault(row.item, []).append(_given(row))
    return found


def stands(connection: Connection, numbers: Iterable[int]) -> dict[int, tuple[str, bool] | None]:
    """The label that stands for each item, and whether anybody is sure of it.

    Where people who are sure disagree, or nobody is sure and they disagree, no label stands. Whoever is not sure gives
    way to whoever is.

    Parameters
    ----------
    connection : Connection
        Of the database.
    numbers : iterable of int
        Numbers of the items.

    Returns
    -------
    dict of int to (str, bool) or None
        None where people disagree; items without labels are left out.
    """
    found: dict[int, tuple[str, bool] | None] = {}
    for number, given in current(connection, numbers).items():
        sure = [it for it in given if it.sure]
        names = {it.label for it in sure or given}
        name = next(iter(names))
        found[number] = (name, bool(sure)) if len(names) == 1 and name is not None else None
    return found


def page(connection: Connection, model: str, *, after: int = 0, limit: int = 100) -> list[Given]:
    """The rows as they were given, taken back or not, in the order of time.

    Parameters
    ----------
    connection : Connection
        Of the database.
    model : str
        Whose items.
    after : int, default 0
        Number of the last row of the page before.
    limit : int, default 100
        Rows at most.

    Returns
    -------
    list of Given
    """
    query = select(label).join(item, item.c.number == label.c.item)
    query = query.where(item.c.model == model, label.c.number > after).order_by(label.c.number).limit(limit)
    return [_given(row) for row in connection.execute(query)]


def said_since(connection: Connection, numbers: Iterable[int], when: float) -> set[int]:
    """Of which of some items somebody said anything from a time on (seconds since 1970)."""
    found: set[int] = set()
    for several in in_parts(list(numbers)):
        query = select(label.c.item).where(label.c.item.in_(several), label.c.given >= when)
        found.update(connection.execute(query).scalars())
    return found


def conflicts(connection: Connection, model: str, *, after: int = 0, limit: int = 100) -> dict[int, list[Given]]:
    """Items of which people who count say different things, by item number.

    Parameters
    ----------
    connection : Connection
        Of the database.
    model : str
        Whose items.
    after : int, default 0
        Number of the last item of the page before.
    limit : int, default 100
        Items at most.

    Returns
    -------
    dict of int to list of Given
        Ascending.
    """
    found: dict[int, list[Given]] = {}
    last = select(func.max(label.c.number)).group_by(label.c.item, label.c.by)
    several = (
        select(label.c.item)
        .join(item, item.c.number == label.c.item)
        .where(item.c.model == model, label.c.number.in_(last), label.c.label.is_not(None), label.c.item > after)
        .group_by(label.c.item)
        .having(func.count(label.c.label.distinct()) > 1)
        .order_by(label.c.item)
    )
    for part in in_parts(list(connection.execute(several).scalars())):
        said, standing = current(connection, part), stands(connection, part)
        for number in part:
            if standing[number] is None:
                found[number] = said[number]
            if len(found) == limit:
                return found
    return found


def used(connection: Connection, model: str) -> dict[str, int]:
    """How many items of a model each label stands for, the most frequent first: what to offer whoever labels.

    People who disagree are counted for each of their labels.
    """
    last = select(func.max(label.c.number)).group_by(label.c.item, label.c.by)
    n = func.count(label.c.item.distinct())
    query = select(label.c.label, n).join(item, item.c.number == label.c.item)
    query = query.where(item.c.model == model, label.c.number.in_(last), label.c.label.is_not(None))
    rows = connection.execute(query.group_by(label.c.label).order_by(n.desc(), label.c.label))
    return {name: count for name, count in rows if name is not None}


def _given(row: Any) -> Given:
    return Given(
        row.number,
        row.item,
        row.label,
        bool(row.sure),
        row.given,
        row.by,
        row.source,
        row.group_id,
    )


def _check_there(connection: Connection, numbers: Sequence[int]) -> None:
    there: set[int] = set()
    for several in in_parts(list(numbers)):
        there.update(connection.execute(select(item.c.number).where(item.c.number.in_(several))).scalars())
    for number in numbers:
        if number not in there:
            raise MissingError(f"There is no item {number}. It was deleted.")


def _follow(
    connection: Connection,
    before: Mapping[int, tuple[str, bool] | None],
    after: Mapping[int, tuple[str, bool] | None],
) -> None:
    """Items whose label changed are labelled, or open again; what was learned and is said again stays learned."""
    labelled = [number for number in after if number not in before or before[number] != after[number]]
    reopened = [number for number in before if number not in after]
    for state, numbers in (("labelled", labelled), ("open", reopened)):
        for several in in_parts(numbers):
            connection.execute(update(item).where(item.c.number.in_(several)).values(state=state))
