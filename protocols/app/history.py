"""What ``slots diff``, ``relabel``, ``merge`` and ``delete`` do: load, compare or edit, save, and say it in lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import backbones
from slots.errors import UsageError
from slots.model.comparison import Difference
from slots.model.editing import EditReport
from slots.model.slot_model import SlotModel
from slots.storage.generations import log
from slots.storage.locking import reserved

SHOWN = 20
"""Changed answers that are printed; JSON has them all."""


def load_pair(first: Path, older: str | None, newer: str | None) -> tuple[SlotModel, SlotModel]:
    """The two models that ``slots diff FIRST [OLDER [NEWER]]`` compares, the older one first.

    Parameters
    ----------
    first : Path
        A model folder.
    older, newer : str, optional
        Numbers of generations in it, the newer one by default the current; or ``older`` is a second model folder.
        Without both: the current generation and the one before.

    Returns
    -------
    old, new : SlotModel
        On the CPU.

    Raises
    ------
    UsageError
        If there is nothing to compare, or something is neither a number nor a folder.
    ModelError
        If a folder is no model, or a generation is not kept.
    """
    if older is not None and newer is None and Path(older).is_dir():
        return _load(first, None), _load(Path(older), None)
    if older is None:
        kept = [entry.number for entry in log(first) if entry.kept]
        if len(kept) < 2:
            raise UsageError(f"`{first}` must keep two generations to compare, and keeps one. Name a second folder.")
        return _load(first, kept[-2]), _load(first, kept[-1])
    return _load(first, _number(older)), _load(first, None if newer is None else _number(newer))


def edit_and_save(
    folder: Path, edit: Callable[[SlotModel], EditReport], *, dry_run: bool = False, wait: float = 0.0
) -> EditReport:
    """Load a model, edit it, and save it as its next generation, with other writers kept out from the first on.

    Parameters
    ----------
    folder : Path
        Model folder; its earlier generations are kept.
    edit : callable
        One of `slots.model.editing`, with all but the model filled in.
    dry_run : bool, default False
        Only find out what it would change.
    wait : float, default 0
        How long to wait while another process is writing (seconds).

    Returns
    -------
    EditReport
    """
    if dry_run:
        return edit(_load(folder, None))
    with reserved(folder, wait=wait):
        model = _load(folder, None)
        done = edit(model)
        model.save(folder, keep_history=True)
    return done


def read_slots(text: str) -> list[int]:
    """Slot numbers from a list such as ``3,7``.

    Raises
    ------
    UsageError
        If it is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise UsageError(f"--slots must be numbers with commas between, such as 3,7, got {text!r}.")
    return [int(part) for part in parts]


def difference_lines(found: Difference) -> list[str]:
    """A difference as a person reads it."""
    lines = [
        f"Generation {found.old} to {found.new}: {_count(found.added, 'slot')} added, {len(found.removed)} gone, "
        f"{len(found.relabelled)} relabelled."
    ]
    if found.added:
        lines.append(f"{found.n_disjoint} of the added slots meet no old slot of another label.")
    lines += [f"Slot {slot}: {before} is now {after}." for slot, before, after in found.relabelled[:SHOWN]]
    lines += [f"Label {label}: {before} is now called {after}." for label, before, after in found.renamed[:SHOWN]]
    if found.proven:
        lines.append(f"Proven: whatever input generation {found.old} matches, generation {found.new} answers the same.")
    else:
        lines.append(f"Answers may have changed: {'; '.join(found.reasons)}.")
    lines.append(f"Asked again: {_count(found.n_compared, 'matched input')}, {len(found.changed)} answered otherwise.")
    lines += [
        f"{it.source} {it.example}: {it.before} (slot {it.slot_before}) is now {it.after} (slot {it.slot_after})"
        for it in found.changed[:SHOWN]
    ]
    return [*lines, *_more(len(found.changed))]


def edit_lines(done: EditReport, *, dry_run: bool) -> list[str]:
    """An edit as a person reads it; what it changes in passing comes first."""
    what = {"relabel": "relabelled", "merge": "relabelled", "delete": "deleted"}[done.what]
    names = ", ".join(dict.fromkeys(done.labels_before))
    target = "" if done.label_after is None else f" to {done.label_after}"
    would = "Would be" if dry_run else "Is"
    lines = [f"{_count(done.slots, 'slot')} of {names} {what}{target}. {would} generation {done.generation}."]
    if done.what == "delete" and not dry_run:
        lines.append("The slots behind the deleted ones moved up: numbers noted before name other slots now.")
    if done.n_in_passing:
        lines.append(f"Beware: {_count(done.n_in_passing, 'remembered example')} of other slots changed in passing.")
    lines.append(f"{_count(done.n_remembered, 'remembered example')}, {len(done.changed)} answered otherwise.")
    ordered = sorted(done.changed, key=lambda it: it.edited)
    lines += [f"slot {it.slot}, example {it.place}: {it.before} is now {it.after}" for it in ordered[:SHOWN]]
    return [*lines, *_more(len(ordered))]


def _more(n: int) -> list[str]:
    return [f"... and {n - SHOWN} more; --json lists them."] if n > SHOWN else []


def _count(things: int | tuple[object, ...], name: str) -> str:
    n = things if isinstance(things, int) else len(things)
    return f"{n} {name}" + ("" if n == 1 else "s")


def _number(text: str) -> int:
    if not (text.isdecimal() and text.isascii()):
        raise UsageError(f"A generation must be a number, got {text!r}. `slots log` lists them.")
    return int(text)


def _load(folder: Path, generation: int | None) -> SlotModel:
    return SlotModel.load(folder, generation=generation, build=backbones.build, device="cpu")
