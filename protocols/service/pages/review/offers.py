"""Names to offer whoever labels: those in use first, each with the key that gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from protocols.service.inbox import labels
from protocols.service.inbox.tables import item, label

_KEYS = "1234567890"
_MOST_NAMES = 2000  # that a field completes


@dataclass(frozen=True)
class Offer:
    """A name that one key gives.

    Parameters
    ----------
    key : str
        A digit.
    name : str
        The label.
    """

    key: str
    name: str


def names(connection: Connection, model: str, known: Sequence[str]) -> list[str]:
    """All names to complete: those that people gave, the most frequent first, then those that the model knows.

    Parameters
    ----------
    connection : Connection
        Only read.
    model : str
        Whose items.
    known : sequence of str
        Names of the model's classes.

    Returns
    -------
    list of str
    """
    return list(dict.fromkeys([*labels.used(connection, model), *known]))[:_MOST_NAMES]


def in_order(connection: Connection, model: str, offered: Sequence[str]) -> list[str]:
    """Names in the order in which people first used them, so that a name keeps its key; the others behind."""
    query = select(label.c.label, func.min(label.c.number)).join(item, item.c.number == label.c.item)
    query = query.where(item.c.model == model, label.c.label.in_(list(offered))).group_by(label.c.label)
    first = {row[0]: row[1] for row in connection.execute(query)}
    return sorted(offered, key=lambda name: first.get(name, float("inf")))


def with_keys(offered: Sequence[str]) -> list[Offer]:
    """The first ten names, each with a digit; one that is a digit has itself.

    Examples
    --------
    >>> [(it.key, it.name) for it in with_keys(["cat", "1", "dog"])]
    [('2', 'cat'), ('1', '1'), ('3', 'dog')]
    """
    few = list(offered)[: len(_KEYS)]
    own = {name: name for name in few if name in _KEYS and len(name) == 1}
    free = iter(key for key in _KEYS if key not in own)
    return [Offer(own.get(name) or next(free), name) for name in few]
