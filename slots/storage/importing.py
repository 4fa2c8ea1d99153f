"""A model that somebody hands over, as the next generation of one that is here: nothing of that is taken away.

The newcomer's tensors come in byte for byte. Its own history stays outside but for a line that says where it came from:
what it went through is no generation of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slots.errors import ModelError, OutdatedError
from slots.storage.generations import continued, generation_of, history_lines, lineage
from slots.storage.states import files_of, load_document, read_pointer
from slots.storage.store import copy_state, read_headers

MOST_GENERATION = 1_000_000
"""A model that is handed over counts no more generations than this: a forged count must not use up the numbers."""

_OF_HISTORY = ("generation", "history", "class_names")


def holds_same(folder: str | Path, other: str | Path) -> bool:
    """Whether two model folders have the same current content, whatever histories led to it.

    Parameters
    ----------
    folder, other : path
        Model folders. Labels without slots that only the former has given out make no difference.

    Raises
    ------
    ModelError
        If one is none.
    """
    here, there = _current(folder), _current(other)
    mine, theirs = here["header"], there["header"]
    parts = [{key: value for key, value in it.items() if key not in _OF_HISTORY} for it in (mine, theirs)]
    names = continued(theirs, mine, {"number": 0})["class_names"]
    return bool(parts[0] == parts[1] and names == mine.get("class_names", []) and here["files"] == there["files"])


def import_state(
    folder: str | Path, other: str | Path, *, onto: int, n_slots: int, figures: Mapping[str, float | int | str]
) -> int:
    """Make the current state of another model folder the next generation of this one; undo leads back.

    Parameters
    ----------
    folder : path
        A model folder.
    other : path
        Another one, which was found to be a sound model that takes the same inputs.
    onto : int
        The generation that this one must be at.
    n_slots : int
        Slots of the other one.
    figures : mapping
        What the new line of the history says beside where it came from.

    Returns
    -------
    int
        The number of the new generation: above all numbers of both, since slots remember theirs and an update relies
        on being later than all of them.

    Raises
    ------
    OutdatedError
        If this folder is at another generation; nothing has changed then.
    StorageError
        If somebody else is writing, or the disk refuses; nothing has changed then.
    ModelError
        If one is no model folder, or the other counts more than `MOST_GENERATION` generations.
    """
    mine, theirs = read_headers(folder)[-1], read_headers(other)[-1]
    before, their_number = generation_of(mine), generation_of(theirs)
    if before != onto:
        raise OutdatedError(
            f"The model must be at generation {onto}, and generation {before} is there now. Look at it, and repeat it."
        )
    if their_number > MOST_GENERATION:
        raise ModelError(
            f"The other model must count at most {MOST_GENERATION:,} generations, got {their_number:,}: it was edited."
        )
    where = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "detail": f"generation {their_number} of another folder",
        "goes_on_from": shared(history_lines(mine), history_lines(theirs)),
    }
    number = max(before, their_number) + 1
    line = {"number": number, "what": "import", "n_slots": n_slots, "figures": {**where, **figures}}
    source = Path(other) / "states" / read_pointer(Path(other)).current
    copy_state(folder, source, header=continued(theirs, mine, line))
    return number


def shared(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> int:
    """The last generation that both histories have in common and that the other one's content goes back to.

    Parameters
    ----------
    mine, theirs : list of dict
        Lines of two histories.

    Returns
    -------
    int
        Its number; -1 where there is none.

    Examples
    --------
    >>> fit, update = {"number": 0, "what": "fit"}, {"number": 1, "what": "update"}
    >>> undo = {"number": 2, "what": "undo", "figures": {"to": 0}}
    >>> shared([fit, update], [fit, update]), shared([fit, update], [fit, update, undo]), shared([update], [fit])
    (1, 0, -1)
    """
    common = -1
    for one, other in zip(mine, theirs, strict=False):
        if one != other:
            break
        common = one["number"]
    return next((number for number in lineage(theirs) if number <= common), -1)


def _current(folder: str | Path) -> dict[str, Any]:
    """Header and files of the current state."""
    root = Path(folder)
    path = root / "states" / read_pointer(root).current
    document = load_document(path)
    return {"header": document["header"], "files": sorted(files_of(document, path))}
