"""The log of events: who did what, each row with the digest of the row before, so that none can change unseen."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from protocols.service.callers import Caller
from protocols.service.inbox.tables import event, kept_state, meta

START = "0" * 64
"""What stands in the first row for the digest of the row before."""

_HEAD = "events"  # in `meta`: number and digest of the last row, so that rows missing at the end are seen
_LOCK = 0x51075  # of PostgreSQL: two processes must not append to the same row


@dataclass(frozen=True)
class Event:
    """One row of the log.

    Parameters
    ----------
    number : int
        Its place, from 1 on without gaps.
    at : float
        When (seconds since 1970).
    key_id : int or None
        Number of the key that did it; None for whoever sits at the machine, and for the service itself.
    by : str
        The key's name.
    action : str
        What was done, such as ``key.add``.
    model : str
        To which model; empty for none.
    before, after : int or None
        Generations of the model, where they changed.
    request : str
        The request's own id; empty if it had none.
    detail : dict
        What else belongs to it (JSON).
    previous, digest : str
        SHA-256 of the row before, and of this one (hexadecimal).
    """

    number: int
    at: float
    key_id: int | None
    by: str
    action: str
    model: str
    before: int | None
    after: int | None
    request: str
    detail: dict[str, Any]
    previous: str
    digest: str

    def computed(self) -> str:
        """The digest that belongs to the row's content: SHA-256 of its canonical JSON, without the digest."""
        content = {name: value for name, value in asdict(self).items() if name != "digest"}
        plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(plain.encode()).hexdigest()


def record(
    connection: Connection,
    caller: Caller,
    action: str,
    *,
    model: str = "",
    before: int | None = None,
    after: int | None = None,
    request: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Event:
    """Append what somebody does, in the transaction that does it: both are kept, or neither.

    Parameters
    ----------
    connection : Connection
        As `Database.write` gives it.
    caller : Caller
        Who does it.
    action : str
        What, as ``noun.verb``: 64 characters at most.
    model : str, optional
        To which model.
    before, after : int, optional
        Generations of the model, where they change.
    request : str, optional
        The request's own id.
    detail : mapping, optional
        What else belongs to it; JSON without NaN. No keys, no inputs: it cannot be taken back.

    Returns
    -------
    Event
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:of)"), {"of": _LOCK})
    number, previous = _head(connection) or _last(connection)
    plain = json.loads(json.dumps(dict(detail or {}), allow_nan=False))  # as it will be read again
    made = Event(
        number + 1,
        time.time(),
        caller.key_id,
        caller.name[:128],
        action,
        model,
        before,
        after,
        request[:64],
        plain,
        previous,
        "",
    )
    made = replace(made, digest=made.computed())
    connection.execute(insert(event).values(asdict(made)))
    head = f"{made.number} {made.digest}"
    if not connection.execute(update(meta).where(meta.c.name == _HEAD).values(value=head)).rowcount:
        connection.execute(insert(meta).values(name=_HEAD, value=head))
    return made


def record_generation(connection: Connection, caller: Caller, model: str, generation: int) -> Event | None:
    """Note which generation of a model answers now, and write it down if it is another than the last one noted.

    The model folder and the database are two places: whoever is killed between a new generation and its row in the log
    catches up on it with the next start, as it does on generations that were written while nobody served the model.

    Parameters
    ----------
    connection : Connection
        As `Database.write` gives it.
    caller : Caller
        Who noticed.
    model : str
        The model's name.
    generation : int
        Its generation that answers from now on.

    Returns
    -------
    Event or None
        None where nothing changed, or where the model is served for the first time.
    """
    name = f"generation {hashlib.sha256(model.encode()).hexdigest()}"
    noted = connection.execute(select(kept_state.c.value).where(kept_state.c.name == name)).scalar()
    if noted is None:
        connection.execute(insert(kept_state).values(name=name, value=b"%d" % generation))
        return None
    before = int(noted)
    if before == generation:
        return None
    connection.execute(update(kept_state).where(kept_state.c.name == name).values(value=b"%d" % generation))
    return record(connection, caller, "generation.swap", model=model, before=before, after=generation)


def events(
    connection: Connection, *, after: int = 0, limit: int | None = None, model: str | None = None
) -> Iterator[Event]:
    """Rows of the log, oldest first.

    Parameters
    ----------
    connection : Connection
        Of the service's database.
    after : int, default 0
        Only those with a greater number.
    limit : int, optional
        How many at most.
    model : str, optional
        Only those of this model.

    Yields
    ------
    Event
    """
    wanted = select(event).where(event.c.number > after).order_by(event.c.number).limit(limit)
    if model is not None:
        wanted = wanted.where(event.c.model == model)
    for row in connection.execution_options(yield_per=500).execute(wanted):
        yield _event(row)


@dataclass(frozen=True)
class Verdict:
    """What a check of the log found.

    Parameters
    ----------
    n_events : int
        Rows that were read (count).
    head : str
        Digest of the last row: whoever wrote it down elsewhere can ask later whether it is still in the log.
    faults : tuple of str
        One sentence each, the oldest row first; none if the log is whole.
    """

    n_events: int
    head: str
    faults: tuple[str, ...]


def verify(connection: Connection, *, expected: str | None = None) -> Verdict:
    """Look whether any row was changed, removed, inserted or moved since it was written.

    Parameters
    ----------
    connection : Connection
        Of the service's database.
    expected : str, optional
        Digest of a row that was written down elsewhere.

    Returns
    -------
    Verdict

    Notes
    -----
    Whoever can write to the database can write the whole log anew, with digests that fit. Only a digest that was kept
    elsewhere shows that.
    """
    faults: list[str] = []
    number, head, seen = 0, START, expected in (None, START)
    n_events = 0
    for it in events(connection):
        faults += _faults(it, number, head)
        number, head = it.number, it.digest
        seen = seen or head == expected
        n_events += 1
    last, digest = _head(connection) or (0, START)
    if last > number:
        faults.append(f"{_named(number + 1, last)} removed from the end.")
    elif (last, digest) != (number, head):
        faults.append(f"Event {last} is noted as the last one, and event {number} is: it was inserted or changed.")
    if not seen:
        faults.append(f"No event has the digest {expected}: the log was written anew, or the digest is of another one.")
    return Verdict(n_events, head, tuple(faults))


def _faults(it: Event, number: int, head: str) -> list[str]:
    """What is wrong with a row that follows another."""
    faults = []
    if it.number != number + 1:
        faults.append(f"{_named(number + 1, it.number - 1)} removed.")
    if it.computed() != it.digest:
        faults.append(f"Event {it.number} was changed or moved: its content does not have its digest.")
    elif it.previous != head and it.number == number + 1:
        faults.append(f"Event {it.number} does not follow event {number}: one of them was replaced or inserted.")
    return faults


def _named(first: int, last: int) -> str:
    return f"Event {first} was" if first == last else f"Events {first} to {last} were"


def _head(connection: Connection) -> tuple[int, str] | None:
    """Number and digest of the last row, as noted beside the log; None before the first."""
    noted = connection.execute(select(meta.c.value).where(meta.c.name == _HEAD)).scalar()
    if noted is None:
        return None
    number, digest = noted.split()
    return int(number), digest


def _last(connection: Connection) -> tuple[int, str]:
    """Number and digest of the last row itself."""
    last = connection.execute(select(event.c.number, event.c.digest).order_by(event.c.number.desc()).limit(1)).first()
    return (0, START) if last is None else (last.number, last.digest)


def _event(row: Sequence[Any]) -> Event:
    return Event(*row)
