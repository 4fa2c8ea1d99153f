"""What the end of a job means for the inbox: the groups of a review, the items of an update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from protocols.service.inbox import reviews
from protocols.service.inbox.labels import said_since
from protocols.service.jobs.child.material import read_list
from protocols.service.jobs.lineage import mark
from protocols.service.jobs.records import Job
from slots.errors import ModelError
from slots.storage.generations import history_lines
from slots.storage.store import read_headers

Result = dict[str, Any]


def keep_review(connection: Connection, job: Job, result: Result) -> Result:
    """Store the groups of a review, without what was deleted meanwhile; the job keeps its number and their sizes."""
    queries = tuple(reviews.Query(it["middle"], it["gain"], tuple(it["members"])) for it in result["groups"])
    asked = reviews.QueryList(result["generation"], result["unmatched"], result["bound"], result["purity"], queries)
    number = reviews.put(connection, job.model, asked)
    stored = reviews.find(connection, number)
    return {**result, "review": number, "groups": stored.groups, "covered": stored.covered}


def keep_learned(connection: Connection, job: Job, result: Result) -> Result:
    """Mark the items that an update learned from; of which people spoke while it ran, they wait to be learned again."""
    later = said_since(connection, result["learned"], job.created if job.started is None else job.started)
    learned = [it for it in result["learned"] if it not in later]
    mark(connection, learned, "labelled", "learned")
    return {**result, "learned": learned}


def as_it_is(_connection: Connection, _job: Job, result: Result) -> Result:
    """Nothing but the job itself changes."""
    return result


KEEP: dict[str, Callable[[Connection, Job, Result], Result]] = {"review": keep_review, "update": keep_learned}
"""What is stored at the end of each kind of job, in the transaction that ends it; gives what the job keeps."""


def landed(folder: Path, job: Job, material: Path) -> Result | None:
    """The result of a job whose process ended without an answer, if its generation is there all the same.

    Parameters
    ----------
    folder : Path
        The model folder.
    job : Job
        The job.
    material : Path
        What it worked on.

    Returns
    -------
    dict or None
        None where it has made no generation.
    """
    try:
        lines = history_lines(read_headers(folder)[-1])
    except ModelError:
        return None
    made = [line for line in lines if line.get("figures", {}).get("job") == job.token]
    if not made:
        return None
    items = read_list(material)
    figures = {key: value for key, value in made[-1]["figures"].items() if key not in ("job", "by")}
    return {
        **figures,
        "generation": made[-1]["number"],
        "learned": [items.numbers[row] for row in items.labels],
        "dry_run": False,
    }
