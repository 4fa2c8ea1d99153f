"""What a job's process does: one kind of job, once more if another writer was faster, and errors as problem details."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from protocols.service.jobs.child.editing import edit
from protocols.service.jobs.child.importing import bring_in
from protocols.service.jobs.child.learning import learn, review
from protocols.service.jobs.child.tasks import Answered, Task
from protocols.service.statuses import problem_details, status_of
from slots.errors import OutdatedError
from slots.progress import Progress
from slots.storage.locking import reserved

KINDS: dict[str, Callable[[Task, Progress], dict[str, Any]]] = {
    "review": review, "update": learn, "edit": edit, "import": bring_in,
}  # fmt: skip
"""What does each kind of job."""

_WAIT_SECONDS = 60.0  # for another process that is writing to the model


def work(task: Task, progress: Progress) -> Answered:
    """Do a job.

    Parameters
    ----------
    task : Task
        What is asked.
    progress : callable
        ``progress(step, share)``, told the progress.

    Returns
    -------
    Answered
        Whatever happens: errors come back as problem details.
    """
    try:
        return Answered(_done(task, progress), None)
    except Exception as error:  # noqa: BLE001  # it is told to whoever asked; the process goes on
        status, detail = status_of(error)
        return Answered(None, problem_details(status, " ".join(detail.split())))


def _done(task: Task, progress: Progress) -> dict[str, Any]:
    """The result; where another generation was written meanwhile it is planned again on that, with others kept out."""
    for again in (False, True):
        try:
            with reserved(task.folder, wait=_WAIT_SECONDS) if again else nullcontext():
                return KINDS[task.kind](task, progress)
        except OutdatedError:
            if again:
                raise
            progress("again, on the generation that was written meanwhile", 0.0)
    raise AssertionError
