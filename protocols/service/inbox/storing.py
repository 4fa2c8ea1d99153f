"""What came in is kept, or not: one row an item, whatever is sent again, in inserts shared by all who wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from protocols.service.inbox.idempotency import Done, RequestKey, answer_again, done_before, remember
from protocols.service.inbox.items import in_parts
from protocols.service.inbox.refusals import ConflictError, ReusedKeyError
from protocols.service.inbox.tables import item

Fate = Literal["stored", "there", "passed", "conflict"]
"""Kept now; kept already; not kept, as the policy says; its id has another content already."""


@dataclass(frozen=True)
class Arrival:
    """An input that came in, with the answer it got.

    Parameters
    ----------
    id : str
        The client's, as `check_item_id` returns it, or the content's digest.
    media : str
        Media type of the content.
    content : bytes
        float32 numbers, UTF-8 text, or an image file as it came.
    digest : str
        SHA-256 of the content.
    answer : str
        ``matched``, ``ambiguous`` or ``unmatched``.
    label_id, label : int, str
        What was predicted.
    slot : int
        The slot behind it.
    margin : float
        How deep the input lies in its cap (radians).
    p_value, score : float or None
        How foreign it is.
    keep : bool
        Whether the policy keeps it.
    inline : bool
        Whether the content lies in its row; else it is a blob, which is on the disk already.
    """

    id: str
    media: str
    content: bytes
    digest: str
    answer: str
    label_id: int
    label: str
    slot: int
    margin: float
    p_value: float | None
    score: float | None
    keep: bool
    inline: bool


@dataclass(frozen=True)
class Delivery:
    """What one request brought.

    Parameters
    ----------
    model : str
        Whose items they are.
    generation : int
        Which generation answered.
    received : float
        When (seconds since 1970).
    key_id : int or None
        Who sent it.
    arrivals : sequence of Arrival
        The inputs, in their order.
    each : bool
        Whether each is taken or refused alone; else one conflict refuses all of them.
    request : RequestKey, optional
        Under which its response is kept.
    response : callable, optional
        The response's JSON document for the fates of the arrivals; must be there where ``request`` is.
    """

    model: str
    generation: int
    received: float
    key_id: int | None
    arrivals: Sequence[Arrival]
    each: bool = False
    request: RequestKey | None = None
    response: Callable[[Sequence[Fate]], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of a delivery.

    Parameters
    ----------
    fates : tuple of Fate
        One an arrival.
    again : Done or None
        The response kept from when the same request came before; then nothing was stored now.
    """

    fates: tuple[Fate, ...]
    again: Done | None = None


def store(connection: Connection, deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
    """Keep what several requests brought, in as few statements as one would take (`Database.write_together`).

    Parameters
    ----------
    connection : Connection
        In a transaction.
    deliveries : sequence of Delivery
        Of any models and callers.

    Returns
    -------
    list of Receipt or Exception
        `ConflictError` where an id has another content already, `ReusedKeyError` where a request's key was used.
    """
    done = done_before(connection, [it.request for it in deliveries if it.request is not None])
    there = _digests(connection, deliveries)
    rows: list[dict[str, Any]] = []
    outcomes: list[Receipt | Exception] = []
    for delivery in deliveries:
        try:
            outcomes.append(_once(connection, delivery, done, partial(_take, delivery, there, rows)))
        except (ConflictError, ReusedKeyError) as error:
            outcomes.append(error)
    if rows:
        connection.execute(insert(item), rows)
    return outcomes


def _once(
    connection: Connection, delivery: Delivery, done: dict[str, tuple[str, Done]], take: Callable[[], Receipt]
) -> Receipt:
    """Take a delivery, unless its request was done before, be it in this very call."""
    request = delivery.request
    if request is None:
        return take()
    if request.key in done:
        return Receipt((), answer_again(request, done[request.key]))
    receipt = take()
    assert delivery.response is not None
    answer = Done(200, delivery.response(receipt.fates))
    remember(connection, request, answer)
    done[request.key] = (request.body, answer)
    return receipt


def _take(delivery: Delivery, there: dict[tuple[str, str], str], rows: list[dict[str, Any]]) -> Receipt:
    """Decide about the arrivals of one delivery; new rows and their digests are added to what was given."""
    fresh: dict[tuple[str, str], str] = {}
    added: list[dict[str, Any]] = []
    fates: list[Fate] = []
    for arrival in delivery.arrivals:
        place = (delivery.model, arrival.id)
        known = fresh.get(place) or there.get(place)
        if known is not None and known != arrival.digest:
            if not delivery.each:
                raise ConflictError(
                    f"The id {arrival.id!r} has another content already. Nothing of the request was stored; take "
                    "another id, or delete the item."
                )
            fates.append("conflict")
        elif known is not None:
            fates.append("there")
        elif not arrival.keep:
            fates.append("passed")
        else:
            fresh[place] = arrival.digest
            added.append(_row(delivery, arrival))
            fates.append("stored")
    there.update(fresh)
    rows.extend(added)
    return Receipt(tuple(fates))


def _row(delivery: Delivery, arrival: Arrival) -> dict[str, Any]:
    return {
        "model": delivery.model,
        "id": arrival.id,
        "received": delivery.received,
        "key_id": delivery.key_id,
        "media": arrival.media,
        "content": arrival.content if arrival.inline else None,
        "digest": arrival.digest,
        "size": len(arrival.content),
        "generation": delivery.generation,
        "answer": arrival.answer,
        "label_id": arrival.label_id,
        "label": arrival.label,
        "slot": arrival.slot,
        "margin": arrival.margin,
        "p_value": arrival.p_value,
        "score": arrival.score,
        "state": "open",
    }


def _digests(connection: Connection, deliveries: Iterable[Delivery]) -> dict[tuple[str, str], str]:
    """Digests of the contents that the ids of these deliveries have already, by model and id."""
    asked: dict[str, dict[str, None]] = {}
    for delivery in deliveries:
        asked.setdefault(delivery.model, {}).update(dict.fromkeys(it.id for it in delivery.arrivals))
    return {
        (model, found): digest
        for model, ids in asked.items()
        for found, digest in digests(connection, model, list(ids)).items()
    }


def digests(connection: Connection, model: str, ids: list[str]) -> dict[str, str]:
    """Digests of the contents of a model's items, by their ids; nothing for ids that are not there."""
    found: dict[str, str] = {}
    for several in in_parts(ids):
        query = select(item.c.id, item.c.digest).where(item.c.model == model, item.c.id.in_(several))
        found.update({row.id: row.digest for row in connection.execute(query)})
    return found
