"""Which generations the content of a model goes back to, and what that means for the items it learned from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from protocols.service.inbox.tables import item, job
from slots.storage import generations
from slots.storage.generations import Generation

_AT_ONCE = 500


def lineage(history: Sequence[Generation]) -> frozenset[int]:
    """Numbers of the generations whose work is in the newest one.

    An undo takes out those that it went back behind, and an import those that it does not go on from.

    Parameters
    ----------
    history : sequence of Generation
        As a model has it.

    Returns
    -------
    frozenset of int

    Examples
    --------
    >>> lines = [Generation(0, "fit", 3, {}), Generation(1, "update", 4, {}), Generation(2, "undo", 3, {"to": 0})]
    >>> sorted(lineage(lines[:2])), sorted(lineage(lines))
    ([0, 1], [0, 2])
    """
    lines = [{"number": line.number, "what": line.what, "figures": line.figures} for line in history]
    return frozenset(generations.lineage(lines))


def give_back_unlearned(connection: Connection, model: str, inside: Collection[int]) -> int:
    """Let the items of updates that were undone wait as labelled again; tells how many.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    model : str
        The model's name.
    inside : collection of int
        Its `lineage`.

    Returns
    -------
    int
    """
    n = 0
    for number in _learned_by(connection, model, inside):
        n += mark(connection, number, "learned", "labelled")
    return n


def mark(connection: Connection, numbers: Sequence[int], before: str, after: str) -> int:
    """Move items from one state to another; tells how many were in it."""
    n = 0
    for start in range(0, len(numbers), _AT_ONCE):
        among = item.c.number.in_(numbers[start : start + _AT_ONCE])
        n += connection.execute(update(item).where(among, item.c.state == before).values(state=after)).rowcount
    return n


def _learned_by(connection: Connection, model: str, inside: Collection[int]) -> list[list[int]]:
    """Items of each update that is not in the lineage, and of none that is."""
    chosen = select(job.c.result).where(job.c.model == model, job.c.kind == "update", job.c.state == "done")
    results: list[dict[str, Any]] = [it for it in connection.execute(chosen).scalars() if it and it.get("learned")]
    kept = {number for it in results if it["generation"] in inside for number in it["learned"]}
    return [
        [number for number in it["learned"] if number not in kept] for it in results if it["generation"] not in inside
    ]
