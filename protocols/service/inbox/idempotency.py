"""Requests that come again because their answer was lost: done once, answered as often as they come."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from protocols.service.inbox.refusals import ConflictError, ReusedKeyError
from protocols.service.inbox.tables import done_request
from slots.errors import DataError

LONGEST_KEY = 255
"""Characters of an ``Idempotency-Key``."""
_ASKED_AT_ONCE = 500


@dataclass(frozen=True)
class RequestKey:
    """A request that may come again.

    Parameters
    ----------
    key : str
        Digest of who sent it, where to, and with which ``Idempotency-Key``.
    body : str
        SHA-256 of what it asked.
    """

    key: str
    body: str

    @classmethod
    def of(cls, key_id: int | None, route: str, key: str, body: bytes) -> RequestKey:
        """The key of one caller's request.

        Parameters
        ----------
        key_id : int or None
            Who sent it.
        route : str
            Method and path, with whatever else decides what the request does.
        key : str
            Its ``Idempotency-Key``: 1 to 255 characters.
        body : bytes
            Its body.

        Raises
        ------
        DataError
            If the key is empty, too long, or has control characters.
        """
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise DataError(
                f"`Idempotency-Key` must have 1 to {LONGEST_KEY} printable characters, got {key!r:.60}. "
                "A random UUID will do."
            )
        named = json.dumps([key_id, route, key]).encode()
        return cls(hashlib.sha256(named).hexdigest(), hashlib.sha256(body).hexdigest())


@dataclass(frozen=True)
class Done:
    """The answer to a request.

    Parameters
    ----------
    status : int
        Of HTTP.
    response : dict
        The JSON document.
    """

    status: int
    response: dict[str, Any]


class InFlight:
    """The requests with a key that are being answered; one process serves, so memory is enough."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    @contextlib.contextmanager
    def only(self, request: RequestKey | None) -> Iterator[None]:
        """Be the only one that answers this request; called in the event loop.

        Raises
        ------
        ConflictError
            If it is being answered already.
        """
        if request is None:
            yield
            return
        if request.key in self._keys:
            raise ConflictError("A request with this Idempotency-Key is being answered. Come again in a second.")
        self._keys.add(request.key)
        try:
            yield
        finally:
            self._keys.discard(request.key)


def done_before(connection: Connection, requests: Iterable[RequestKey]) -> dict[str, tuple[str, Done]]:
    """What became of requests that came before.

    Parameters
    ----------
    connection : Connection
        In the transaction that would do them.
    requests : iterable of RequestKey
        Any number.

    Returns
    -------
    dict
        By key, the body that came with it and the answer given then; nothing for those that are new.
    """
    keys = list(dict.fromkeys(it.key for it in requests))
    found = {}
    for start in range(0, len(keys), _ASKED_AT_ONCE):
        query = select(done_request).where(done_request.c.key.in_(keys[start : start + _ASKED_AT_ONCE]))
        for row in connection.execute(query):
            found[row.key] = (row.body, Done(row.status, row.response))
    return found


def answer_again(request: RequestKey, before: tuple[str, Done]) -> Done:
    """The answer of a request that was done before.

    Raises
    ------
    ReusedKeyError
        If it was another request.
    """
    body, done = before
    if body != request.body:
        raise ReusedKeyError("This Idempotency-Key came before with another request. Take a new key for a new one.")
    return done


def remember(connection: Connection, request: RequestKey, done: Done) -> None:
    """Keep the answer of a request, in the transaction of its effect."""
    connection.execute(
        insert(done_request).values(
            key=request.key, body=request.body, at=time.time(), status=done.status, response=done.response
        )
    )


def once(connection: Connection, request: RequestKey | None, work: Callable[[], Done]) -> Done:
    """Do something if it was not done before; else give the answer of then.

    Parameters
    ----------
    connection : Connection
        In whose transaction the work is done, and its answer kept.
    request : RequestKey or None
        None for a request without a key, which is always done.
    work : callable
        What to do.

    Returns
    -------
    Done

    Raises
    ------
    ReusedKeyError
        If the key came before with another body.
    """
    if request is None:
        return work()
    before = done_before(connection, [request]).get(request.key)
    if before is not None:
        return answer_again(request, before)
    done = work()
    remember(connection, request, done)
    return done


def forget(connection: Connection, before: float) -> int:
    """Drop the answers of requests that were done before a time (seconds since 1970); tells how many."""
    return connection.execute(delete(done_request).where(done_request.c.at < before)).rowcount
