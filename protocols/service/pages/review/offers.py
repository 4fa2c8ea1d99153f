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
    """Names, each with a digit; one that is a digit has itself.

    Parameters
    ----------
    offered : sequence of str
        Ten at most, such as `few` gives.

    Returns
    -------
    list of Offer
        In the order of the names.

    Examples
    --------
    >>> [(it.key, it.name) for it in with_keys(["cat", "1", "dog"])]
    [('2', 'cat'), ('1', '1'), ('3', 'dog')]
    """
    free = iter(key for key in _KEYS if key not in offered)
    return [Offer(name if _is_key(name) else next(free), name) for name in offered]


def few(offered: Sequence[str]) -> list[str]:
    """As many names as there are keys, the first of them, but all that are digits: no key may give another digit.

    Examples
    --------
    >>> few(["cat", "dog", *"0123456789"])
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
    >>> few(["cat", "1", "dog"])
    ['cat', '1', 'dog']
    """
    others = len(_KEYS) - sum(map(_is_key, offered))
    taken = set([name for name in offered if not _is_key(name)][:others])
    return [name for name in offered if _is_key(name) or name in taken]


def _is_key(name: str) -> bool:
    return len(name) == 1 and name in _KEYS
