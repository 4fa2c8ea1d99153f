"""A drift monitor in the database: its state, and its minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from protocols.service.drift.minutes import Minute
from protocols.service.drift.monitor import Monitor
from protocols.service.inbox.tables import drift_minute, kept_state
from slots.errors import DataError

KEPT_DAYS = 92
"""Days after which minutes are removed."""


@dataclass(frozen=True)
class KeptMonitor:
    """A monitor as it was stored.

    Parameters
    ----------
    monitor : Monitor
        The monitor.
    of : str
        What its scores depend on, as `protocols.service.drift.comparing.identity` gives it.
    compared : int
        Calibration scores that the era began with (count).
    """

    monitor: Monitor
    of: str
    compared: int


def find(connection: Connection, model: str) -> KeptMonitor | None:
    """The monitor of a model; None where none was stored, or what was stored is damaged."""
    value = connection.execute(select(kept_state.c.value).where(kept_state.c.name == _name(model))).scalar()
    if value is None:
        return None
    head, _, state = bytes(value).partition(b"\n")
    try:
        found = json.loads(head)
        return KeptMonitor(Monitor.from_bytes(state), str(found["of"]), int(found["compared"]))
    except (DataError, ValueError, KeyError, TypeError):  # it begins anew: nobody can do anything about it
        return None


def last_era(connection: Connection, model: str) -> int:
    """The greatest era that has minutes; -1 where there are none."""
    query = select(func.coalesce(func.max(drift_minute.c.era), -1)).where(drift_minute.c.model == model)
    return int(connection.execute(query).scalar_one())


def keep(connection: Connection, model: str, head: bytes, state: bytes, minutes: Iterable[Minute]) -> None:
    """Store a monitor's state, and the minutes that ended since the last time, in one transaction.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    model : str
        The model's name.
    head, state : bytes
        As `packed` and `Monitor.to_bytes` give them.
    minutes : iterable of Minute
        A minute that is there already is replaced.
    """
    connection.execute(delete(kept_state).where(kept_state.c.name == _name(model)))
    connection.execute(insert(kept_state).values(name=_name(model), value=head + b"\n" + state))
    for it in minutes:
        key = {"model": model, "era": it.era, "start": it.start}
        connection.execute(delete(drift_minute).filter_by(**key))
        connection.execute(insert(drift_minute).values(**key, generation=it.generation, figures=it.to_json()))


def packed(of: str, compared: int) -> bytes:
    """What is stored in front of a monitor's state, see `KeptMonitor`."""
    return json.dumps({"of": of, "compared": compared}).encode()


def minutes(connection: Connection, model: str, *, first: int, end: int) -> list[Minute]:
    """Stored minutes that begin at ``first`` or later and before ``end`` (seconds since 1970), the oldest first."""
    table = drift_minute.c
    query = select(table.figures, table.generation).where(table.model == model, table.start >= first, table.start < end)
    return [
        Minute.from_json({**figures, "generation": generation})
        for figures, generation in connection.execute(query.order_by(table.era, table.start))
    ]


def forget_old(connection: Connection) -> int:
    """Remove minutes of more than `KEPT_DAYS` ago; tells how many."""
    before = int(time.time()) - KEPT_DAYS * 86_400
    return connection.execute(delete(drift_minute).where(drift_minute.c.start < before)).rowcount


def _name(model: str) -> str:
    return f"drift/{model}"
