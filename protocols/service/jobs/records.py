"""Jobs as rows of the database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Connection, func, insert, select, update

from protocols.service.inbox.tables import job

JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
Kind = Literal["review", "update", "edit", "import"]
OVER = frozenset(get_args(JobState)) - {"queued", "running"}
"""States that a job does not leave."""


@dataclass(frozen=True)
class Job:
    """One job, as the database has it.

    Parameters
    ----------
    number : int
        Counts up in the order in which jobs were asked for.
    model : str
        The model's name.
    kind : {"review", "update", "edit", "import"}
        What is done.
    arguments : dict
        What was asked, as JSON.
    state : str
        queued, running, done, failed, cancelled or interrupted.
    step : str
        What is being done.
    share : float
        How much of it is done, in [0, 1].
    result : dict or None
        Of a job that is done.
    error : dict or None
        Problem details of one that failed.
    created, started, ended : float or None
        Seconds since 1970.
    key_id : int or None
        Key of whoever asked.
    by : str
        Their name.
    """

    number: int
    model: str
    kind: str
    arguments: dict[str, Any]
    state: str
    step: str
    share: float
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created: float
    started: float | None
    ended: float | None
    key_id: int | None
    by: str

    @property
    def over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in OVER

    @property
    def token(self) -> str:
        """What a generation's line of history names it by; another database's job of the same number has another."""
        return f"{self.number}@{self.created:.6f}"


def add(
    connection: Connection, *, model: str, kind: str, arguments: Mapping[str, Any], key_id: int | None, by: str
) -> Job:
    """Queue a job."""
    values = {"model": model, "kind": kind, "arguments": dict(arguments), "key_id": key_id, "by": by}
    made = insert(job).values(**values, state="queued", created=time.time()).returning(job.c.number)
    number = connection.execute(made).scalar_one()
    found = find(connection, number)
    assert found is not None
    return found


def find(connection: Connection, number: int) -> Job | None:
    """The job of a number."""
    row = connection.execute(select(job).where(job.c.number == number)).mappings().first()
    return None if row is None else Job(**row)


def listed(
    connection: Connection, *, model: str | None = None, before: int | None = None, limit: int = 50
) -> list[Job]:
    """Jobs, the newest first; ``before`` a number, to go on from."""
    chosen = select(job).order_by(job.c.number.desc()).limit(limit)
    if model is not None:
        chosen = chosen.where(job.c.model == model)
    if before is not None:
        chosen = chosen.where(job.c.number < before)
    return [Job(**row) for row in connection.execute(chosen).mappings()]


def in_state(connection: Connection, state: JobState) -> list[Job]:
    """All jobs of a state, the oldest first."""
    rows = connection.execute(select(job).where(job.c.state == state).order_by(job.c.number)).mappings()
    return [Job(**row) for row in rows]


def n_queued(connection: Connection, model: str) -> int:
    """Jobs of a model that wait (count)."""
    waiting = select(func.count()).select_from(job).where(job.c.model == model, job.c.state == "queued")
    return int(connection.execute(waiting).scalar_one())


def take(connection: Connection, model: str) -> Job | None:
    """Mark the oldest waiting job of a model as running, and give it; None if none waits.

    Whoever asks has none that runs: one that is marked so, they took when the database went away, and it comes first.
    """
    mine = (job.c.model == model, job.c.state.in_(("queued", "running")))
    number = connection.execute(
        select(job.c.number).where(*mine).order_by(job.c.state.desc(), job.c.number).limit(1)
    ).scalar()
    if number is None:
        return None
    connection.execute(
        update(job).where(job.c.number == number).values(state="running", started=time.time(), step="starting")
    )
    return find(connection, number)


def tell(connection: Connection, number: int, step: str, share: float) -> None:
    """Note how far a running job is."""
    connection.execute(
        update(job).where(job.c.number == number, job.c.state == "running").values(step=step[:128], share=share)
    )


def finish(
    connection: Connection,
    number: int,
    state: JobState,
    *,
    result: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> Job | None:
    """End a job that is not over; None if it is over already, and stays as it is."""
    values: dict[str, Any] = {"state": state, "ended": time.time()}
    if state == "done":
        values |= {"result": dict(result or {}), "share": 1.0, "step": "done"}
    if error is not None:
        values["error"] = dict(error)
    changed = connection.execute(update(job).where(job.c.number == number, job.c.state.not_in(OVER)).values(**values))
    return find(connection, number) if changed.rowcount else None


def cancel_queued(connection: Connection, number: int) -> Job | None:
    """Cancel a job that waits; None if it does not."""
    waits = (job.c.number == number, job.c.state == "queued")
    changed = connection.execute(update(job).where(*waits).values(state="cancelled", ended=time.time()))
    return find(connection, number) if changed.rowcount else None


def document(found: Job) -> dict[str, Any]:
    """A job as clients see it."""
    return {
        "id": found.number,
        "model": found.model,
        "kind": found.kind,
        "arguments": found.arguments,
        "state": found.state,
        "step": found.step,
        "share": found.share,
        "result": found.result,
        "error": found.error,
        "created": found.created,
        "started": found.started,
        "ended": found.ended,
        "by": found.by,
    }
