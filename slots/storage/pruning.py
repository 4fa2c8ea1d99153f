"""Which generations a model folder goes on keeping, and the disk that the others free."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slots.errors import ModelError, UsageError
from slots.storage.atomic import storage, write_file
from slots.storage.generations import LogEntry, log
from slots.storage.locking import reserved
from slots.storage.placing import PINS
from slots.storage.plain_files import require_plain
from slots.storage.store import drop_states, states_of


@dataclass(frozen=True)
class Pruned:
    """What `prune` did, or would do.

    Parameters
    ----------
    removed, kept, pinned : tuple of int
        Numbers of generations: those whose content is gone, those that the folder keeps, and those pinned.
    freed_bytes : int
        Disk that is free again: files that no kept generation shares.
    """

    removed: tuple[int, ...]
    kept: tuple[int, ...]
    pinned: tuple[int, ...]
    freed_bytes: int


def prune(
    folder: str | Path,
    *,
    keep: int | None = None,
    keep_days: float | None = None,
    pin: Sequence[int] = (),
    unpin: Sequence[int] = (),
    dry_run: bool = False,
    wait: float = 0.0,
) -> Pruned:
    """Remove the content of old generations; their lines of the log stay.

    The current generation, the fit (number 0) and pinned ones are never removed, nor is one that either rule keeps.

    Parameters
    ----------
    folder : path
        A model folder.
    keep : int, optional
        Keep the newest so many (count, >= 1), the current one among them.
    keep_days : float, optional
        Keep those made in the last so many days (>= 0), and those without a date. Without both rules only pins change.
    pin, unpin : sequence of int
        Generations to keep whatever the rules say from now on, and to let go again.
    dry_run : bool, default False
        Only find out.
    wait : float, default 0
        How long to wait while another process is writing (seconds).

    Returns
    -------
    Pruned

    Raises
    ------
    UsageError
        If there is nothing to do, a number is out of its range, or one to be pinned is not kept.
    StorageError
        If the disk refuses or another process is writing.
    ModelError
        If this is no model folder, or a header or the list of pins is damaged; nothing is removed then.
    """
    if keep is None and keep_days is None and not (pin or unpin):
        raise UsageError("`keep` or `keep_days` must say what stays, got neither. Give --keep 10, for example.")
    if (keep is not None and keep < 1) or (keep_days is not None and not 0 <= keep_days <= 1e6):
        raise UsageError(f"`keep` must be >= 1 and `keep_days` from 0 to 1000000, got {keep} and {keep_days}.")
    root = Path(folder)
    with nullcontext() if dry_run else reserved(root, wait=wait):
        there = [entry for entry in log(root) if entry.kept]
        numbers = [entry.number for entry in there]
        if missing := sorted(set(pin) - set(numbers)):
            raise UsageError(
                f"`pin` must be generations that the folder keeps, got {missing[0]}. It keeps {_listed(numbers)}."
            )
        pinned = (_read_pins(root) | set(pin)) - set(unpin)
        ruled = keep is not None or keep_days is not None
        gone = _out_of_date(there, keep, keep_days) - pinned if ruled else set()
        named = states_of(root)
        names = [name for name, number in named if number in gone]
        freed = _only_of(root, names)
        if not dry_run:
            if pin or unpin:
                document = json.dumps({"pinned": sorted(pinned & set(numbers))})
                with storage(root):
                    require_plain(root / PINS)
                write_file(root / PINS, document.encode())
            drop_states(root, names)
    kept = tuple(number for number in numbers if number not in gone)
    return Pruned(tuple(sorted(gone)), kept, tuple(sorted(pinned & set(kept))), freed)


def _out_of_date(there: Sequence[LogEntry], keep: int | None, keep_days: float | None) -> set[int]:
    """Generations that no rule keeps, and that are neither the fit nor the current one."""
    recent = {entry.number for entry in there[-keep:]} if keep is not None else set()
    if keep_days is not None:
        limit = datetime.now(UTC) - timedelta(days=keep_days)
        recent |= {entry.number for entry in there if (made := _date(entry)) is None or made >= limit}
    return {entry.number for entry in there if entry.number and not entry.current and entry.number not in recent}


def _date(entry: LogEntry) -> datetime | None:
    try:
        found = datetime.fromisoformat(entry.when or "")
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _only_of(root: Path, names: Collection[str]) -> int:
    """Bytes of the files that have no name outside these states."""
    links: Counter[tuple[int, int]] = Counter()
    found = {}
    for name in names:
        for path in (root / "states" / name).iterdir():
            info = path.lstat()
            links[info.st_dev, info.st_ino] += 1
            found[info.st_dev, info.st_ino] = info
    return sum(info.st_size for key, info in found.items() if info.st_nlink <= links[key])


def _read_pins(root: Path) -> set[int]:
    path = root / PINS
    require_plain(path)
    if not path.exists():
        return set()
    try:
        pins = json.loads(path.read_bytes())["pinned"]
        if not isinstance(pins, list) or not all(type(it) is int for it in pins):
            raise TypeError  # noqa: TRY301
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"`{path}` must list the pinned generations, and does not. Remove it, and pin them anew."
        ) from error
    return set(pins)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
