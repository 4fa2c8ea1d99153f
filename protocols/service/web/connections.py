"""How many connections there are, and who must go when there are too many: whoever has us wait longest."""

from __future__ import annotations

from typing import Any, Protocol


class Waiting(Protocol):
    """A connection whose client has something to do: to finish a request, or to read."""

    def drop(self) -> None:
        """Close it at once."""


class Connections:
    """The connections of a server, for its event loop alone.

    Parameters
    ----------
    most : int
        Connections at once (count). One more makes room for itself: the connection that has waited longest for its
        client is closed. Where all are being answered the new one is told to come again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: set[Any] = set()
        self._waiting: dict[Waiting, None] = {}  # in the order in which they began to wait

    def __len__(self) -> int:
        """Count them."""
        return len(self._all)

    def enter(self, connection: Waiting) -> bool:
        """A new one; says whether there is room for its requests."""
        self._all.add(connection)
        if len(self._all) > self._most and self._waiting:
            next(iter(self._waiting)).drop()
        return len(self._all) <= self._most

    def leave(self, connection: Waiting) -> None:
        """One that is closed, or is as good as closed."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)

    def waits(self, connection: Waiting) -> None:
        """From now on it waits for its client."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def waits_no_more(self, connection: Waiting) -> None:
        """Its client did what was awaited."""
        self._waiting.pop(connection, None)
