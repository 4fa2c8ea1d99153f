"""Who may write to a model folder: one process at a time, by a lock of the operating system."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from slots.errors import StorageError
from slots.storage.atomic import storage
from slots.storage.plain_files import require_plain
from slots.storage.states import read_pointer


@contextlib.contextmanager
def reserved(folder: str | Path, *, wait: float = 0.0) -> Iterator[None]:
    """Keep other writers out of a model folder: what is read, changed and saved inside goes on from its last state.

    Readers are not held up. Writes inside the block need not wait for it; it belongs to one thread, and goes with its
    process.

    Parameters
    ----------
    folder : path
        A folder that `write_state` wrote.
    wait : float, default 0
        How long to wait while another process is writing (seconds, >= 0).

    Raises
    ------
    StorageError
        If it is still taken then, or cannot be written to.
    ModelError
        If this is no model folder.
    """
    root = Path(folder)
    read_pointer(root)
    with contextlib.ExitStack() as held:
        with storage(root):
            held.enter_context(locked(root, wait))
        yield


@contextlib.contextmanager
def locked(root: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, for which another process may be waited (seconds)."""
    if not (root / ".lock").is_dir() or (root / ".lock").is_symlink():  # a folder is the disk's to refuse
        require_plain(root / ".lock")
    # Never the fallback that only makes a file: on a file system without locks that would outlive a killed writer.
    # One object a path, so that a write inside `reserved` finds the lock its own.
    lock = FileLock(root.absolute() / ".lock", blocking=False, fallback_to_soft=False, is_singleton=True)
    try:
        lock.acquire(timeout=wait, blocking=wait > 0)
    except Timeout as error:
        waited = f" for {wait:g} seconds" if wait > 0 else ""
        raise StorageError(
            f"`{root}` must be free, but another process is writing to it{waited}. Try again when it is done."
        ) from error
    try:
        yield
    finally:
        lock.release()
