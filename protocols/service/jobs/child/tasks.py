"""What goes over the pipe between the service and a job's process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What a child is to do.

    Parameters
    ----------
    kind : str
        One of `protocols.service.jobs.child.work.KINDS`.
    folder : Path
        The model folder.
    device : str
        Where the model shall lie.
    material : Path
        A folder with what the job works on, for this job alone.
    arguments : dict
        What was asked, as JSON.
    token : str
        What the new generation's line of history names the job by.
    by : str
        Who asked.
    """

    kind: str
    folder: Path
    device: str
    material: Path
    arguments: dict[str, Any]
    token: str
    by: str


@dataclass(frozen=True)
class Told:
    """How far a job is: what is being done, and how much of it (0 to 1)."""

    step: str
    share: float


@dataclass(frozen=True)
class Answered:
    """How a job ended: with a result, or with problem details."""

    result: dict[str, Any] | None
    error: dict[str, Any] | None
