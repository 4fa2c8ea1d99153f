"""What a service holds after a crash, against what its people wrote down."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, text
from support.service_people import Admin, Labeller, Person, Reviewer

from protocols.service.inbox import events
from protocols.service.inbox.blobs import Blobs
from protocols.service.inbox.tables import event, item, job, label, member, review_group
from protocols.service.jobs.lineage import lineage
from slots.model.slot_model import SlotModel
from slots.storage.generations import log


@dataclass
class Rows:
    """Everything in the tables, read in one transaction."""

    items: list[Any]
    labels: list[Any]
    groups: list[Any]
    out: list[Any]
    jobs: list[Any]
    swaps: list[Any]
    faults: tuple[str, ...]
    n_events: int

    @classmethod
    def read(cls, engine: Engine) -> Rows:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                assert connection.execute(text("PRAGMA integrity_check")).scalars().all() == ["ok"]
            columns = (item.c.number, item.c.model, item.c.id, item.c.digest, item.c.content, item.c.state)
            swaps = select(event.c.before, event.c.after).where(event.c.action == "generation.swap")
            verdict = events.verify(connection)
            return cls(
                connection.execute(select(*columns).order_by(item.c.number)).all(),
                connection.execute(select(label).order_by(label.c.number)).all(),
                connection.execute(select(review_group)).all(),
                connection.execute(select(member.c.review_group, member.c.item).where(member.c.out != 0)).all(),
                connection.execute(select(job).order_by(job.c.number)).all(),
                connection.execute(swaps.order_by(event.c.number)).all(),
                verdict.faults,
                verdict.n_events,
            )


def check(
    rows: Rows, people: Sequence[Person], folder: Path, data: Path, *, served: int, restarted: float | None
) -> Counter[str]:
    """Hold what is there against what was acknowledged; counts of what was found.

    Parameters
    ----------
    rows : Rows
        The database.
    people : sequence of Person
        What they know; nobody is doing anything now.
    folder, data : Path
        The model's folder and the service's.
    served : int
        The generation that answers now.
    restarted : float or None
        When the service was started again (seconds since 1970); None where it never stopped.
    """
    counts: Counter[str] = Counter()
    assert not rows.faults, rows.faults
    counts += _check_items(rows, people, Blobs(data / "blobs"))
    numbers = {(it.model, it.number): it.id for it in rows.items}
    for person in people:
        if isinstance(person, Labeller):
            counts += _check_labels(rows, person, {number: name for (_, number), name in numbers.items()})
        if isinstance(person, Reviewer):
            _check_groups(rows, person)
        if isinstance(person, Admin):
            counts += _check_generations(rows, person, folder, max(it.generation for it in people), served, restarted)
    return counts


def _check_items(rows: Rows, people: Sequence[Person], blobs: Blobs) -> Counter[str]:
    """Each acknowledged item once, with its content; nothing that nobody sent."""
    there = {it.id: it for it in rows.items}
    assert len(there) == len(rows.items), "an item is there twice"
    may: dict[str, bytes] = {}
    for person in people:
        for name, content in person.items.items():
            found = there.pop(name, None)
            if found is None:
                assert person.pending is not None, f"{name} is lost"
                assert name in person.pending.gone, f"{name} is lost"
                continue
            _check_content(found, content, blobs)
        assert not person.gone & there.keys(), "a deleted item is back"
        if person.pending is not None:
            may |= person.pending.items
    for name, found in there.items():
        assert name in may, f"nobody sent {name}"
        _check_content(found, may[name], blobs)
    return Counter({"items kept but not acknowledged": len(there), "items looked at": len(rows.items)})


def _check_content(found: Any, content: bytes, blobs: Blobs) -> None:
    assert found.digest == hashlib.sha256(content).hexdigest(), f"{found.id} has another digest"
    kept = blobs.get(found.digest) if found.content is None else bytes(found.content)
    assert kept == content, f"{found.id} has another content"


def _check_labels(rows: Rows, person: Labeller, names: dict[int, str]) -> Counter[str]:
    """The person's rows, act by act: each acknowledged act once and whole, then at most the one without an answer."""
    found = [(names[it.item], it.label) for it in rows.labels if it.by == person.name]
    for said in person.labels:
        mine, found = found[: len(said)], found[len(said) :]
        assert len(mine) == len(said), f"a label of {person.name} is lost"
        assert dict(mine) == said, f"labels of {person.name}: {mine} instead of {said}"
    if not found:
        return Counter()
    pending = person.pending
    assert pending is not None, f"labels of {person.name} are doubled: {found}"
    assert pending.labels is not None, f"labels of {person.name} are doubled: {found}"
    assert len(found) == len(pending.labels), f"half of an act, or an act twice: {found}"
    assert dict(found) == pending.labels, f"{found} instead of {pending.labels}"
    return Counter({"label acts kept but not acknowledged": 1})


def _check_groups(rows: Rows, person: Reviewer) -> None:
    """States and thrown-out items of the groups, but of the one that an open act may have changed."""
    states = {it.number: it.state for it in rows.groups}
    out: dict[int, set[int]] = {}
    for group, number in rows.out:
        out.setdefault(group, set()).add(number)
    wrong = [
        number
        for number, (state, thrown) in person.groups.items()
        if (states[number], out.get(number, set())) != (state, set(thrown))
    ]
    wrong += [number for number in out if number not in person.groups]
    wrong += [number for number, state in states.items() if state != "open" and number not in person.groups]
    assert len(set(wrong)) <= (person.pending is not None), f"groups {wrong} are not as {person.name} left them"


def _check_generations(
    rows: Rows, admin: Admin, folder: Path, acknowledged: int, served: int, restarted: float | None
) -> Counter[str]:
    """The folder is at the last acknowledged generation or, with an order open, the next one; jobs tell the same."""
    entries = log(folder)
    current = entries[-1].number
    said = f"generation {acknowledged} was acknowledged, and {current} is there"
    assert acknowledged <= current <= acknowledged + admin.open, said
    assert [it.number for it in entries if it.kept] == list(range(current + 1)), "a generation is missing"
    assert served in (current, current - admin.open), (served, current)
    jobs = {it.number: it for it in rows.jobs}
    for number, document in admin.jobs.items():
        assert number in jobs, f"job {number} is lost"
        assert (jobs[number].state, jobs[number].result) == (document["state"], document["result"])
    assert [it.before for it in rows.swaps[1:]] == [it.after for it in rows.swaps[:-1]], rows.swaps
    if restarted is not None and rows.swaps:
        assert rows.swaps[-1].after in (served, current), "a generation is not in the log of events"
    left = [it for it in rows.jobs if it.state == "running" and restarted is not None and it.started < restarted]
    assert not left, f"jobs {left} of a service that is gone still run"
    fresh = [it for it in rows.jobs if it.number not in admin.jobs]
    assert len(fresh) <= 1, f"an order was done twice: {fresh}"
    return Counter({"generations made but not acknowledged": current - acknowledged})


def check_learned(rows: Rows, folder: Path) -> int:
    """Once all is quiet: what an update learned, and nothing else, counts as learned; tells how many."""
    inside = lineage(SlotModel.load(folder).history)
    states = {it.number: it.state for it in rows.items}
    learned: set[int] = set()
    for it in rows.jobs:
        if it.kind == "update" and it.state == "done" and it.result["learned"] and it.result["generation"] in inside:
            learned |= set(it.result["learned"])
    found = {number for number, state in states.items() if state == "learned"}
    assert found <= learned, f"items {found - learned} count as learned, and no update learned them"
    return len(found)
