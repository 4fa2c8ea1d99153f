"""What the log of events says of jobs: who asked for what, who ended it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from protocols.service.callers import Caller, Role
from protocols.service.inbox.events import record
from protocols.service.jobs.records import Job

_LISTED = 20  # elements of a list that are written down; of a longer one their number


def record_order(connection: Connection, caller: Caller, job: Job) -> None:
    """Write down who asked for a job: ``job.add``."""
    asked = {name: _short(value) for name, value in job.arguments.items()}
    record(connection, caller, "job.add", model=job.model, detail={**_named(job), "arguments": asked})


def record_cancel(connection: Connection, caller: Caller, job: Job) -> None:
    """Write down who wants a job to end before its time: ``job.cancel``."""
    record(connection, caller, "job.cancel", model=job.model, detail=_named(job))


def ended_event(connection: Connection, job: Job) -> None:
    """Write down how a job ended, under the name of who asked for it: ``job.done``, ``job.failed``, ...

    Where it made a generation, ``after`` names it.
    """
    result: Mapping[str, Any] = job.result or {}
    before, after = result.get("before"), result.get("generation")
    made = job.kind != "review" and not result.get("dry_run") and after != before
    record(
        connection,
        Caller(job.key_id, job.by, Role.NOBODY, job.model),
        f"job.{job.state}",
        model=job.model,
        before=before if made else None,
        after=after if made else None,
        detail=_named(job),
    )


def _named(job: Job) -> dict[str, Any]:
    return {"job": job.number, "kind": job.kind}


def _short(value: Any) -> Any:
    return f"{len(value)} of them" if isinstance(value, list) and len(value) > _LISTED else value
