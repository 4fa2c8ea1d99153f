"""A job as clients see it, and how a route starts one."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import Caller
from protocols.service.api.problems import Problem
from protocols.service.jobs import records
from protocols.service.jobs.records import Job
from protocols.service.jobs.runner import Refused
from protocols.service.service import Service


class JobDocument(BaseModel):
    """Work that takes longer than a request.

    Parameters
    ----------
    id : int
        Counts up in the order in which jobs were asked for.
    model : str
        The model's name.
    kind : {"review", "update", "edit", "import"}
        What is done.
    arguments : dict
        What was asked.
    state : {"queued", "running", "done", "failed", "cancelled", "interrupted"}
        The last four are final.
    step : str
        What is being done.
    share : float
        How much of it is done, in [0, 1].
    result : dict or None
        Of a job that is done.
    error : dict or None
        Problem details of a job that failed.
    created : float
        When it was asked for (seconds since 1970).
    started, ended : float or None
        When it began and ended (seconds since 1970).
    by : str
        Who asked.
    """

    id: int
    model: str
    kind: Literal["review", "update", "edit", "import"]
    arguments: dict[str, Any]
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    step: str
    share: float
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created: float
    started: float | None
    ended: float | None
    by: str


def as_document(job: Job) -> JobDocument:
    """A job as clients see it."""
    return JobDocument(**records.document(job))


async def begin(
    service: Service,
    served: ServedModel,
    caller: Caller,
    response: Response,
    *,
    kind: records.Kind,
    arguments: dict[str, Any],
    size: int = 0,
) -> JobDocument:
    """Queue a job, and say where it is to be found; ``size``: of what it holds beside the model (bytes).

    Raises
    ------
    Problem
        503, where too many wait or memory is short.
    """
    try:
        job = await service.jobs.submit(served, kind, arguments, caller=caller, size=size)
    except Refused as refused:
        raise Problem(503, str(refused), {"Retry-After": "10"}) from refused
    response.headers["Location"] = f"/api/v1/jobs/{job.number}"
    return as_document(job)
