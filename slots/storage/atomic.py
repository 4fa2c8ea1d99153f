"""Writes that a reader sees whole or not at all, and that survive a crash of the machine.

New content goes to a temporary name beside its place, is forced to disk, and is then renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from slots.errors import StorageError
from slots.storage.plain_files import is_plain

_BLOCK = 1 << 20  # bytes compared at once
_LEFT_S = 600.0  # a temporary file is there for moments; one older than this (seconds) was left by a killed writer
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def write_file(path: str | Path, data: bytes) -> None:
    """Write one file so that a reader sees its old content or its new, never a part; its folder is made if need be.

    What killed writers of the same file left beside it is removed.

    Raises
    ------
    StorageError
        If the disk refuses; what was there before is untouched, or the sentence says that the new content is in place
        and only might not survive a crash of the machine.
    """
    target = Path(path)
    with storage(target):
        make_folders(target.parent)
        replace_file(target, data)
    with contextlib.suppress(OSError):
        for other in target.parent.iterdir():
            if other.name.startswith(f".{target.name}.") and is_left_over(other):
                other.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write one file of text in UTF-8, as `write_file` does; half of a character, which UTF-8 lacks, is spelt out.

    Raises
    ------
    StorageError
        If the disk refuses; what was there before is untouched.
    """
    write_file(path, text.encode("utf-8", "backslashreplace"))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then put it in place."""
    aside = temporary(path)
    try:
        write_synced(aside, data)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise in_place(path, error, "the new content") from error


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and force it to disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def link_same(path: Path, other: Path, data: bytes) -> bool:
    """Make ``path`` a second name of another file if that holds exactly these bytes; tells whether it did.

    The bytes are compared, not a digest of long ago: damage on the disk must not spread. The other file was forced to
    disk when it was written. False also where the file system has no hard links.
    """
    try:
        if not is_plain(other) or other.stat().st_size != len(data) or not _holds(other, data):
            return False
        os.link(other, path)
    except OSError:
        return False
    return True


def _holds(path: Path, data: bytes) -> bool:
    """Compare a file with bytes, block by block."""
    expected = memoryview(data)
    with path.open("rb") as file:
        return all(file.read(_BLOCK) == expected[i : i + _BLOCK] for i in range(0, len(data), _BLOCK))


def sync_folder(path: Path) -> None:
    """Force the names in a folder to disk, where folders can be opened (all but Windows, whose names are in a log)."""
    flag = getattr(os, "O_DIRECTORY", None)
    if flag is None:
        return
    descriptor = os.open(path, os.O_RDONLY | flag)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> None:
    """Make a folder, and those above it that are missing, and force their names to disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        with contextlib.suppress(PermissionError):  # one may write into a folder that one must not open
            sync_folder(folder.parent)


def temporary(path: Path) -> Path:
    """Make up a free temporary name beside a path."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def is_temporary(path: Path) -> bool:
    """Tell whether a name is one that `temporary` made up."""
    return _TEMPORARY.fullmatch(path.name) is not None


def is_left_over(path: Path) -> bool:
    """Tell whether a killed writer left this temporary file: it is older than any write takes."""
    try:
        return is_temporary(path) and path.lstat().st_mtime < time.time() - _LEFT_S
    except OSError:
        return False


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn what the disk says into one sentence."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise refused(path, error) from error


def in_place(path: Path, error: OSError, what: str) -> StorageError:
    """Make the sentence for what the disk said when all was done but the last step."""
    return StorageError(
        f"`{path}` must be writable, got: {error.strerror or error}. That was after the last step: {what} is in place, "
        "but might not survive a crash of the machine. Check the disk, and look before you do it again."
    )


def refused(path: Path, error: OSError) -> StorageError:
    """Make the sentence for what the disk said."""
    return StorageError(
        f"`{path}` must be writable, got: {error.strerror or error}. "
        "What was there before is unchanged; check permissions and free space."
    )
