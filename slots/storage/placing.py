"""The last step of every write: a state's folder beside the others, then the pointer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from slots.errors import ModelError
from slots.storage.atomic import (
    in_place,
    is_left_over,
    is_temporary,
    link_same,
    make_folders,
    replace_file,
    sync_folder,
    temporary,
    write_synced,
)
from slots.storage.plain_files import require_folder
from slots.storage.states import FORMAT, HEADER, POINTER, SCHEMA, STATE, Pointer, read_pointer

PINS = "pins.json"
"""File of a model folder with the numbers of its pinned generations; it goes with the history."""


def pointer_bytes(current: str, generations: list[str]) -> bytes:
    """Content of ``slots.json``."""
    document = {"format": FORMAT, "schema": SCHEMA, "current": current, "generations": generations}
    return json.dumps(document, indent=1).encode()


def put_state(
    root: Path,
    old: Pointer | None,
    files: Mapping[str, bytes],
    *,
    like: Path | None,
    keep_history: bool,
    prefix: str | None = None,
) -> Path:
    """Write a state beside the others and flip to it; the caller holds the lock.

    Parameters
    ----------
    root : Path
        The model folder.
    old : Pointer or None
        What its pointer says; None where there is none yet.
    files : mapping of str to bytes
        The state's files, the header among them.
    like : Path, optional
        A state whose files stand for those that are equal.
    keep_history : bool
        Keep the states that are there.
    prefix : str, optional
        The first part of its name. Default: the next number.

    Returns
    -------
    Path
        The folder of the new state.
    """
    states = root / "states"
    require_folder(states)
    make_folders(states)
    sweep(root, keep=old.generations if old else [])
    if prefix is None:
        prefix = f"{int(old.current.split('-')[0]) + 1 if old else 1:06d}"
    name = f"{prefix}-{hashlib.sha256(files[HEADER]).hexdigest()[:8]}"
    kept = [*old.generations, name] if old and keep_history else [name]
    try:
        _write_folder(states, name, files, like)
        replace_file(root / POINTER, pointer_bytes(name, kept))
        if not keep_history:
            with contextlib.suppress(OSError):
                (root / PINS).unlink(missing_ok=True)
        sweep(root, keep=kept)
    except BaseException as error:
        if _discard(root, name) and isinstance(error, OSError):
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise in_place(root, cause, f"the new state {name}") from error
        raise
    return states / name


def _write_folder(states: Path, name: str, files: Mapping[str, bytes], like: Path | None) -> None:
    aside = temporary(states / name)
    aside.mkdir()
    try:
        for file, data in files.items():
            if like is None or not link_same(aside / file, like / file, data):
                write_synced(aside / file, data)
        sync_folder(aside)
        aside.rename(states / name)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(states)


def _discard(root: Path, name: str) -> bool:
    """After a failure: the new state goes, unless the flip had happened already; tells whether it had."""
    if os.path.lexists(root / POINTER):
        try:
            if name in read_pointer(root).generations:
                return True
        except ModelError:  # nobody can tell now: the next writer removes it if it is none of the kept ones
            return False
    shutil.rmtree(root / "states" / name, ignore_errors=True)
    return False


def sweep(root: Path, *, keep: list[str]) -> None:
    """Remove superseded states and what killed writers left; a leftover that cannot be removed does no harm."""
    for path in (root / "states").iterdir():
        if path.name not in keep and (STATE.fullmatch(path.name) or is_temporary(path)):
            shutil.rmtree(path, ignore_errors=True)
    for path in root.iterdir():
        # Others write beside the state without the lock: what they left is known by its age.
        if is_temporary(path) and (path.name.startswith(f".{POINTER}.") or is_left_over(path)):
            with contextlib.suppress(OSError):
                path.unlink()
