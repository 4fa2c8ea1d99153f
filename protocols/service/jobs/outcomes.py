"""What the end of a job means for the inbox: the groups of a review, the items of an update."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from protocols.service.inbox.labels import said_since
from protocols.service.inbox.tables import member, review, review_group
from protocols.service.jobs.child.material import read_list
from protocols.service.jobs.lineage import mark
from protocols.service.jobs.records import Job
from slots.errors import ModelError
from slots.storage.generations import history_lines
from slots.storage.store import read_headers

Result = dict[str, Any]


def keep_review(connection: Connection, job: Job, result: Result) -> Result:
    """Store the groups of a review; the job keeps its number and how many they are."""
    facts = {key: result[key] for key in ("generation", "unmatched", "bound", "purity")}
    made = insert(review).values(model=job.model, made=time.time(), **facts).returning(review.c.number)
    number = connection.execute(made).scalar_one()
    for place, group in enumerate(result["groups"]):
        values = {"review": number, "place": place, "middle": group["middle"], "gain": group["gain"], "state": "open"}
        made = insert(review_group).values(**values).returning(review_group.c.number)
        of_group = connection.execute(made).scalar_one()
        rows = [{"review_group": of_group, "item": it, "place": i} for i, it in enumerate(group["members"])]
        connection.execute(insert(member), rows)
    covered = sum(group["gain"] for group in result["groups"])
    return {**result, "review": number, "groups": len(result["groups"]), "covered": covered}


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
