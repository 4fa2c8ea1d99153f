"""Query lists: groups of items to label at once, in the order of what their labels would cover."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from protocols.service.inbox.items import in_parts
from protocols.service.inbox.refusals import MissingError
from protocols.service.inbox.tables import item, member, review, review_group
from slots.update.queries import Proposal


@dataclass(frozen=True)
class Query:
    """One item to look at, and what its label would stand for.

    Parameters
    ----------
    middle : int
        Number of the item.
    gain : int
        Items its cap covers that no cap before it does.
    members : tuple of int
        Their numbers, the middle first if it is among them.
    """

    middle: int
    gain: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class QueryList:
    """What a model asks about its unmatched items.

    Parameters
    ----------
    generation : int
        Of the model.
    unmatched : int
        Unmatched items that the groups were made of; matched ones whose answer is in doubt come beside them.
    bound : int
        As many groups could cover no more than this.
    purity : float or None
        Share of a group that is expected to have its middle's label.
    queries : tuple of Query
        The most useful first.
    """

    generation: int
    unmatched: int
    bound: int
    purity: float | None
    queries: tuple[Query, ...]

    @classmethod
    def of(cls, proposal: Proposal, numbers: Sequence[int], generation: int) -> QueryList:
        """A proposal whose examples are items.

        Parameters
        ----------
        proposal : Proposal
            As `SlotModel.propose` gives it, with its groups.
        numbers : sequence of int
            Item number of each example of the proposal's inputs.
        generation : int
            Of the model that made it.
        """
        queries = tuple(
            Query(int(numbers[middle]), int(gain), tuple(int(numbers[it]) for it in group))
            for middle, gain, group in zip(proposal.queries, proposal.gains, proposal.groups, strict=True)
        )
        return cls(generation, len(proposal.unmatched), proposal.bound, proposal.purity, queries)


@dataclass(frozen=True)
class Review:
    """A query list that people work through.

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


@dataclass(frozen=True)
class Group:
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
    state : str
        ``open``, ``labelled`` or ``skipped``.
    members : tuple of int
        Numbers of its items, the middle first; some of them where a bound was given.
    size : int
        Number of its items.
    out : tuple of int
        Items thrown out of it.
    """

    number: int
    review: int
    place: int
    middle: int
    gain: int
    state: str
    members: tuple[int, ...]
    size: int
    out: tuple[int, ...]


def put(connection: Connection, model: str, asked: QueryList) -> int:
    """Store a query list; items that were deleted meanwhile are left out.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    model : str
        Whose items.
    asked : QueryList
        What to ask.

    Returns
    -------
    int
        Number of the review.
    """
    values = {"generation": asked.generation, "unmatched": asked.unmatched, "bound": asked.bound}
    number = connection.execute(
        insert(review).values(model=model, made=time.time(), purity=asked.purity, **values).returning(review.c.number)
    ).scalar_one()
    there = _there(connection, model, [it for query in asked.queries for it in (query.middle, *query.members)])
    rows: list[dict[str, int]] = []
    place = 0
    for query in asked.queries:
        members = [it for it in query.members if it in there]
        if not members:
            continue
        middle = query.middle if query.middle in there else members[0]
        group = connection.execute(
            insert(review_group)
            .values(review=number, place=place, middle=middle, gain=len(members), state="open")
            .returning(review_group.c.number)
        ).scalar_one()
        rows += [{"review_group": group, "item": it, "place": at, "out": 0} for at, it in enumerate(members)]
        place += 1
    if rows:
        connection.execute(insert(member), rows)
    return int(number)


def reviews(connection: Connection, model: str, *, limit: int = 20) -> list[Review]:
    """Query lists of a model, the newest first."""
    rows = connection.execute(
        select(review).where(review.c.model == model).order_by(review.c.number.desc()).limit(limit)
    )
    return [_counted(connection, row) for row in rows]


def newest(connection: Connection, model: str) -> Review:
    """The newest query list of a model.

    Raises
    ------
    MissingError
        If none was made.
    """
    found = reviews(connection, model, limit=1)
    if not found:
        raise MissingError(f"{model!r} has no query list yet. POST to its review to make one.")
    return found[0]


def find(connection: Connection, number: int) -> Review:
    """A query list by its number.

    Raises
    ------
    MissingError
        If there is none.
    """
    row = connection.execute(select(review).where(review.c.number == number)).one_or_none()
    if row is None:
        raise MissingError(f"There is no query list {number}. Ask for the newest.")
    return _counted(connection, row)


def groups(
    connection: Connection,
    number: int,
    *,
    state: str | None = None,
    after: int = -1,
    limit: int = 50,
    members: int | None = None,
) -> list[Group]:
    """Groups of a query list, those that cover most first.

    Parameters
    ----------
    connection : Connection
        Of the database.
    number : int
        Of the review.
    state : {"open", "labelled", "skipped"}, optional
        Only those.
    after : int, default -1
        Place of the last group of the page before.
    limit : int, default 50
        Groups at most.
    members : int, optional
        Members of each, at most. Default: all.

    Returns
    -------
    list of Group
    """
    query = select(review_group).where(review_group.c.review == number, review_group.c.place > after)
    if state is not None:
        query = query.where(review_group.c.state == state)
    rows = connection.execute(query.order_by(review_group.c.place).limit(limit)).all()
    return [_group(connection, row, members) for row in rows]


def group(connection: Connection, number: int, *, members: int | None = None) -> Group:
    """One group with its members, or some of them.

    Raises
    ------
    MissingError
        If there is none.
    """
    row = connection.execute(select(review_group).where(review_group.c.number == number)).one_or_none()
    if row is None:
        raise MissingError(f"There is no group {number}. Ask for the newest query list.")
    return _group(connection, row, members)


def model_of(connection: Connection, number: int) -> str:
    """Whose items a group holds.

    Raises
    ------
    MissingError
        If there is no such group.
    """
    query = select(review.c.model).join(review_group, review_group.c.review == review.c.number)
    found = connection.execute(query.where(review_group.c.number == number)).scalar()
    if found is None:
        raise MissingError(f"There is no group {number}. Ask for the newest query list.")
    return str(found)


def _there(connection: Connection, model: str, numbers: list[int]) -> set[int]:
    found: set[int] = set()
    for several in in_parts(numbers):
        query = select(item.c.number).where(item.c.model == model, item.c.number.in_(several))
        found.update(connection.execute(query).scalars())
    return found


def _counted(connection: Connection, row: Any) -> Review:
    joined = review_group.outerjoin(member, member.c.review_group == review_group.c.number)
    query = (
        select(review_group.c.state, func.count(review_group.c.number.distinct()), func.count(member.c.item))
        .select_from(joined)
        .where(review_group.c.review == row.number)
        .group_by(review_group.c.state)
    )
    found = {state: (n, items) for state, n, items in connection.execute(query)}
    n = {state: found.get(state, (0, 0)) for state in ("open", "labelled", "skipped")}
    return Review(
        row.number,
        row.model,
        row.made,
        row.generation,
        row.unmatched,
        row.bound,
        row.purity,
        sum(it[0] for it in n.values()),
        n["open"][0],
        n["labelled"][0],
        n["skipped"][0],
        sum(it[1] for it in n.values()),
        n["labelled"][1],
    )


def _group(connection: Connection, row: Any, most: int | None) -> Group:
    mine = member.c.review_group == row.number
    query = select(member.c.item).where(mine).order_by(member.c.item != row.middle, member.c.place)
    members = connection.execute(query if most is None else query.limit(most)).scalars().all()
    size = connection.execute(select(func.count()).select_from(member).where(mine)).scalar_one()
    out = connection.execute(select(member.c.item).where(mine, member.c.out != 0).order_by(member.c.place)).scalars()
    return Group(
        row.number, row.review, row.place, row.middle, row.gain, row.state, tuple(members), int(size), tuple(out)
    )
