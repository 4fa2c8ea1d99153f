"""The history of a model folder: what its generations are, and the way back to any of them.

Every update, edit and undo writes a new state with the next number; nothing is ever taken away. Going back therefore
means writing the older content once more, under a new number, and going back can be taken back in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slots.errors import ModelError, UsageError
from slots.storage.locking import reserved
from slots.storage.store import read_headers, read_state, restore_state

_MOST_NUMBER = 1 << 53
_BACK = {"undo": "to", "import": "goes_on_from"}  # which figure says where the content goes on from


@dataclass(frozen=True)
class Generation:
    """One line of a model's history.

    Parameters
    ----------
    number : int
        0 for the fit.
    what : str
        What made it, for example ``"fit"``.
    n_slots : int
        Slots after it.
    figures : dict of str to float, int, str
        What was measured then.
    """

    number: int
    what: str
    n_slots: int
    figures: dict[str, Any]


def generation_of(header: dict[str, Any]) -> int:
    """Number of the generation that a stored header describes.

    Raises
    ------
    ModelError
        If its history is none.
    """
    history = history_lines(header)
    return int(history[-1]["number"]) if history else 0


def history_lines(header: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the history in a stored header, checked: numbers that ascend, words and figures.

    Raises
    ------
    ModelError
        If the header has something else there, or names and clusters that are none.
    """
    lines: Any = header.get("history", [])
    before = -1
    names, clusters = header.get("class_names", []), header.get("clusters", [])
    sound = isinstance(lines, list) and isinstance(names, list) and isinstance(clusters, list)
    for line in lines if sound else ():
        sound = sound and _is_line(line, before)
        before = line["number"] if sound else before
    if not sound or not all(isinstance(name, str) for name in names):
        raise ModelError(
            "The model's history is damaged or was edited: its lines do not follow each other. Use a copy."
        )
    return list(lines)


def lineage(lines: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Numbers of the generations whose work is in the newest one, that one first.

    Parameters
    ----------
    lines : sequence of mappings
        Lines of a history, as `history_lines` gives them. An undo goes on from the generation that it went back to, and
        so does an import, if from any.

    Yields
    ------
    int

    Examples
    --------
    >>> lines = [{"number": 0, "what": "fit"}, {"number": 1, "what": "update"}]
    >>> list(lineage(lines)), list(lineage([*lines, {"number": 2, "what": "undo", "figures": {"to": 0}}]))
    ([1, 0], [2, 0])
    """
    behind: dict[int, Any] = {}
    last = None
    for line in lines:
        back = _BACK.get(line["what"])
        behind[line["number"]] = last if back is None else line.get("figures", {}).get(back)
        last = line["number"]
    while last in behind:
        yield last
        before = behind[last]
        last = before if isinstance(before, int) and before < last else None


def _is_line(line: Any, before: int) -> bool:
    """Whether this is a line of a history, and comes after a number."""
    if not isinstance(line, dict) or not isinstance(line.get("what"), str):
        return False
    number, n_slots, figures = line.get("number"), line.get("n_slots"), line.get("figures", {})
    if type(number) is not int or type(n_slots) is not int or not isinstance(figures, dict):
        return False
    words = all(isinstance(figures.get(key), str | None) for key in ("when", "detail"))
    back = line["what"] != "undo" or (type(figures.get("to")) is int and 0 <= figures["to"] < number)
    return words and back and before < number < _MOST_NUMBER and 0 <= n_slots < _MOST_NUMBER


@dataclass(frozen=True)
class LogEntry:
    """One generation of a model folder.

    Parameters
    ----------
    number : int
        0 for the fit, then counted up.
    what : str
        What made it: ``"fit"``, ``"update"``, ``"undo"``, ``"relabel"``, ...; ``"start"`` for a model that was first
        saved without a history.
    when : str or None
        UTC, as in ``2026-11-21T09:30:00+00:00``; None where it was not written down.
    detail : str or None
        More on what was done, where there is more to say.
    n_slots : int
        Slots after it.
    slots_gained : int
        Slots more than in the generation before it (negative: fewer).
    n_labels, n_clusters : int or None
        Label ids given out so far, and those among them that stand for a cluster nobody has named; None where the
        folder does not keep the generation.
    content : int
        The generation whose content this is: for an undo the one it went back to, else its own number.
    kept : bool
        Whether the folder still holds it, so that it can be loaded, compared and gone back to.
    current : bool
        Whether it is what the folder holds now.
    """

    number: int
    what: str
    when: str | None
    detail: str | None
    n_slots: int
    slots_gained: int
    n_labels: int | None
    n_clusters: int | None
    content: int
    kept: bool
    current: bool


def log(folder: str | Path) -> list[LogEntry]:
    """List the generations of a model folder, oldest first; as a rule only headers are read, no tensor.

    Parameters
    ----------
    folder : path
        A model folder.

    Returns
    -------
    list of LogEntry
        At least one; the last is the current one.

    Raises
    ------
    ModelError
        If this is no model folder, or a header is missing or damaged.
    """
    return _entries(folder, read_headers(folder))


def undo(folder: str | Path, to: int | None = None, *, if_needed: bool = False, wait: float = 0.0) -> LogEntry:
    """Go back to an older generation: its content becomes current again, under the next number.

    Parameters
    ----------
    folder : path
        A model folder; whoever loaded it before has to load it again.
    to : int, optional
        Number of a generation that the folder keeps, as `log` lists it. Default: the one before the current content,
        so that a second undo goes one step further back. An undo is undone by going back to what it left.
    if_needed : bool, default False
        Where the content of ``to`` is current already, change nothing: so it can be repeated, after a crash or a
        message that leaves it open whether it was done.

    wait : float, default 0
        How long to wait while another process is writing (seconds); the undo goes on from what that one wrote.

    Returns
    -------
    LogEntry
        The new generation; with ``if_needed`` the current one where nothing was to be done.

    Raises
    ------
    UsageError
        If ``to`` is not kept, or is current already and ``if_needed`` is false, or nothing lies before; if
        ``if_needed`` comes without ``to``.
    StorageError
        If the disk refuses or somebody else is writing; nothing has changed then.
    ModelError
        If this is no model folder, or the generation's files are damaged; the current one stays.

    Notes
    -----
    Slots, thresholds, names and remembered examples are those of the older generation, bit for bit. Two things go on
    counting, so that no number ever means two things: the generations, and the labels. A label id that was given out
    after the older generation stays taken, without slots, under the name ``undone label N``.

    Examples
    --------
    >>> import tempfile, torch
    >>> from slots.storage import write_state
    >>> lines = [{"number": n, "what": what, "n_slots": n, "figures": {}} for n, what in enumerate(["fit", "update"])]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for n in (1, 2):
    ...         header = {"history": lines[:n], "class_names": ["cat", "dog"], "clusters": []}
    ...         _ = write_state(folder, header=header, tensors={"head": {"w": torch.ones(n)}}, keep_history=True)
    ...     entry = undo(folder)
    ...     [line.what for line in log(folder)], entry.number, entry.content
    (['fit', 'update', 'undo'], 2, 0)
    """
    if if_needed and to is None:
        raise UsageError("`if_needed` must come with `to`, got none. Without it each undo goes one step further back.")
    with reserved(folder, wait=wait):
        headers = read_headers(folder)
        entries = _entries(folder, headers)
        current = entries[-1]
        if if_needed and any(it.kept and it.number == to and it.content == current.content for it in entries):
            return current
        target = _target(entries, to)
        place = max(place for place, header in enumerate(headers) if generation_of(header) == target.number)
        restore_state(folder, place, header=_restored_header(headers[place], headers[-1], n_slots=target.n_slots))
        return next(entry for entry in log(folder) if entry.number == current.number + 1)


def _entries(folder: str | Path, headers: list[dict[str, Any]]) -> list[LogEntry]:
    """One entry a line of the current header's history, with what the kept headers know of it."""
    kept = {generation_of(header): header for header in headers}
    lines = history_lines(headers[-1])
    first, begun = headers[0], bool(lines) and lines[0]["number"] == 0
    if not first.get("history") and not begun:  # saved before there was a history: a generation all the same
        slots = read_state(folder, 0).tensors.get("head", {}).get("labels", ())
        lines.insert(0, {"number": 0, "what": "start", "n_slots": len(slots)})
    content: dict[int, int] = {}
    entries: list[LogEntry] = []
    for line in lines:
        number, figures = int(line["number"]), line.get("figures", {})
        header = kept.get(number)
        back_to = int(figures["to"]) if line["what"] == "undo" else number
        content[number] = content.get(back_to, back_to)
        entries.append(
            LogEntry(
                number=number,
                what=str(line["what"]),
                when=figures.get("when"),
                detail=figures.get("detail"),
                n_slots=int(line["n_slots"]),
                slots_gained=int(line["n_slots"]) - (entries[-1].n_slots if entries else 0),
                n_labels=None if header is None else len(header.get("class_names", [])),
                n_clusters=None if header is None else len(header.get("clusters", [])),
                content=content[number],
                kept=header is not None,
                current=line is lines[-1],
            )
        )
    return entries


def _target(entries: list[LogEntry], to: int | None) -> LogEntry:
    """The generation to go back to."""
    current, kept = entries[-1], [entry for entry in entries if entry.kept]
    if to is None:
        before = [entry for entry in kept if entry.number < current.content]
        if not before:
            raise UsageError(
                f"`folder` must keep a generation before {current.content}, and keeps none. "
                "There is nothing to go back to."
            )
        return before[-1]
    chosen = [entry for entry in kept if entry.number == to]
    if not chosen:
        listed = ", ".join(str(entry.number) for entry in kept)
        raise UsageError(f"`to` must be a generation that the folder keeps, got {to}. It keeps {listed}.")
    if chosen[0].content == current.content:
        raise UsageError(f"`to` must be another generation than the current one, got {to}. Nothing would change.")
    return chosen[0]


def _restored_header(older: dict[str, Any], current: dict[str, Any], *, n_slots: int) -> dict[str, Any]:
    """The older header, in which generations and label ids go on from the current one."""
    number, to = generation_of(current), generation_of(older)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    figures = {"when": when, "detail": f"to generation {to}", "to": to, "from": number}
    return continued(older, current, {"number": number + 1, "what": "undo", "n_slots": n_slots, "figures": figures})


def continued(content: dict[str, Any], current: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """A header of another state as the next one of a model: its history and its label ids go on from the current one.

    Parameters
    ----------
    content : dict
        The header whose content becomes current.
    current : dict
        The model's current header.
    line : dict
        The new line of the history; its number is above all before it.

    Returns
    -------
    dict
        Labels that were given out beyond those of ``content`` stay taken, as ``undone label N``.
    """
    names = list(content.get("class_names", []))
    names += [f"undone label {label}" for label in range(len(names), len(current.get("class_names", [])))]
    history = [*current.get("history", []), line]
    return {**content, "generation": line["number"], "history": history, "class_names": names}
