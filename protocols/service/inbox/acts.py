"""What people do in a review, each act undone by whoever did it: label a group, skip it, throw an item out.

Each is written down in the log of events, in the transaction that does it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from protocols.service.callers import Caller, Role
from protocols.service.inbox import labels, reviews
from protocols.service.inbox.events import record
from protocols.service.inbox.labels import Person, Rows
from protocols.service.inbox.refusals import ConflictError, MissingError
from protocols.service.inbox.tables import kept_state, member, review_group

_UNDOABLE = 50  # acts of each person that can be undone


@dataclass(frozen=True)
class Undone:
    """What was undone.

    Parameters
    ----------
    what : {"labels", "state", "out"}
        Labels that were given, a group that was skipped, or an item thrown out or taken in.
    group : int or None
        The group, if there was one.
    items : int
        Items that have again what they had (count).
    """

    what: str
    group: int | None
    items: int


def label_group(connection: Connection, number: int, name: str, person: Person, *, sure: bool = True) -> int:
    """Label all members of a group that are not thrown out, and the item in its middle if it is a member.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    number : int
        Of the group.
    name : str
        The label, as `check_label` returns it.
    person : Person
        Who says so.
    sure : bool, default True
        Whether they are.

    Returns
    -------
    int
        Items labelled.

    Raises
    ------
    MissingError
        If there is no such group.
    ConflictError
        If all of its members are thrown out.
    """
    found = reviews.group(connection, number)
    left = [it for it in found.members if it not in found.out]
    if not left:
        raise ConflictError(f"All items of group {number} are thrown out. Take one back in, or skip the group.")
    rows = labels.give(connection, dict.fromkeys(left, name), person, sure=sure, group=number)
    _set_state(connection, number, "labelled")
    model = reviews.model_of(connection, number)
    act = {"what": "labels", "first": rows.first, "last": rows.last, "group": number, "state": found.state}
    _log(connection, model, person, act)
    _record(connection, "label.add", model, person, {"items": len(left), "group": number})
    return len(left)


def label_items(
    connection: Connection, model: str, names: dict[int, str | None], person: Person, sure: dict[int, bool]
) -> int:
    """Label items one by one, so that it can be undone.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    model : str
        Whose items.
    names : dict of int to str or None
        Label of each item number; None takes this person's label back.
    person : Person
        Who says so.
    sure : dict of int to bool
        Whether they are.

    Returns
    -------
    int
        Items labelled.
    """
    rows = labels.give(connection, names, person, sure=sure)
    _log(connection, model, person, {"what": "labels", "first": rows.first, "last": rows.last})
    taken_back = sum(name is None for name in names.values())
    if taken_back < len(names):
        _record(connection, "label.add", model, person, {"items": len(names) - taken_back})
    if taken_back:
        _record(connection, "label.withdraw", model, person, {"items": taken_back})
    return len(names)


def skip_group(connection: Connection, number: int, person: Person) -> None:
    """Leave a group without a label.

    Raises
    ------
    MissingError
        If there is no such group.
    """
    before = reviews.group(connection, number, members=0).state
    _set_state(connection, number, "skipped")
    model = reviews.model_of(connection, number)
    _log(connection, model, person, {"what": "state", "group": number, "state": before})
    _record(connection, "group.skip", model, person, {"group": number})


def throw_out(connection: Connection, number: int, item_number: int, person: Person, *, out: bool = True) -> None:
    """Say that an item does not belong to a group, or that it does after all.

    Raises
    ------
    MissingError
        If there is no such group, or the item is not in it.
    """
    row = (member.c.review_group == number) & (member.c.item == item_number)
    before = connection.execute(select(member.c.out).where(row)).scalar()
    if before is None:
        raise MissingError(f"Item {item_number} is not in group {number}. Look at its members.")
    connection.execute(update(member).where(row).values(out=int(out)))
    model = reviews.model_of(connection, number)
    _log(connection, model, person, {"what": "out", "group": number, "item": item_number, "out": int(before)})
    action = "group.throw_out" if out else "group.take_in"
    _record(connection, action, model, person, {"group": number, "item": item_number})


def undo(connection: Connection, model: str, person: Person) -> Undone:
    """Undo the last thing a person did: labels, a skipped group, an item thrown out.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    model : str
        Whose items.
    person : Person
        Whose last act; other people's acts stay.

    Returns
    -------
    Undone

    Raises
    ------
    ConflictError
        If there is nothing to undo.
    """
    done = _acts(connection, model, person)
    if not done:
        raise ConflictError(f"There is nothing that {person.name!r} could undo.")
    last = done.pop()
    _keep_acts(connection, model, person, done)
    n = 0
    if last["what"] == "labels":
        n = labels.take_back(connection, Rows(last["first"], last["last"], person.name), person)
    if last["what"] == "out":
        row = (member.c.review_group == last["group"]) & (member.c.item == last["item"])
        n = connection.execute(update(member).where(row).values(out=last["out"])).rowcount
    elif "state" in last:
        _set_state(connection, last["group"], last["state"])
    undone = Undone(last["what"], last.get("group"), n)
    _record(connection, "label.undo", model, person, vars(undone))
    return undone


def _set_state(connection: Connection, number: int, state: str) -> None:
    connection.execute(update(review_group).where(review_group.c.number == number).values(state=state))


def _acts_name(model: str, person: Person) -> str:
    return "acts " + hashlib.sha256(json.dumps([model, person.name]).encode()).hexdigest()


def _acts(connection: Connection, model: str, person: Person) -> list[dict[str, Any]]:
    query = select(kept_state.c.value).where(kept_state.c.name == _acts_name(model, person))
    found = connection.execute(query).scalar()
    return [] if found is None else list(json.loads(found))


def _keep_acts(connection: Connection, model: str, person: Person, acts: list[dict[str, Any]]) -> None:
    name = _acts_name(model, person)
    connection.execute(delete(kept_state).where(kept_state.c.name == name))
    connection.execute(insert(kept_state).values(name=name, value=json.dumps(acts[-_UNDOABLE:]).encode()))


def _log(connection: Connection, model: str, person: Person, act: dict[str, Any]) -> None:
    """Remember an act, so that its person can undo it."""
    _keep_acts(connection, model, person, [*_acts(connection, model, person), act])


def _record(connection: Connection, action: str, model: str, person: Person, detail: dict[str, Any]) -> None:
    """Write an act down; which label was given is in the labels, which can be deleted, not in the log, which cannot."""
    caller = Caller(person.key_id, person.name, Role.LABEL)
    record(connection, caller, action, model=model, detail=detail | {"source": person.source})
