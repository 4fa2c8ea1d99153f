"""Reading and writing in a folder that a stranger may have made: plain files in plain folders, and nothing else.

A symbolic link would read, or lock, or remove what lies elsewhere; a pipe or a device would never end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from slots.errors import ModelError

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_SURPRISE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a link is an error, a pipe does not wait


def read_plain(path: Path, *, most: int) -> bytes:
    """Content of a file that is no link and no device.

    Parameters
    ----------
    path : Path
        Its last part must be the file itself; the folders before it are `require_folder`'s to check.
    most : int
        Largest size that is read (bytes).

    Raises
    ------
    ModelError
        If it is a symbolic link, a folder or a special file, or larger.
    OSError
        If it does not exist or cannot be read.
    """
    _require(path, path.lstat().st_mode, stat.S_ISREG, "file")
    descriptor = os.open(path, _FLAGS | _NO_SURPRISE)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)  # of what was opened: the name may have changed hands since
        _require(path, found.st_mode, stat.S_ISREG, "file")
        if found.st_size > most:
            raise ModelError(
                f"`{path}` must have at most {most} bytes, got {found.st_size}: the model is damaged. Use a copy of it."
            )
        return file.read(most)


def require_folder(path: Path) -> None:
    """Raise a `ModelError` if there is something at this place that is no folder of its own, a link to one included."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # what is missing is named where it is read
    _require(path, mode, stat.S_ISDIR, "folder")


def require_plain(path: Path) -> None:
    """Raise a `ModelError` if there is something at this place that is no plain file."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    _require(path, mode, stat.S_ISREG, "file")


def is_plain(path: Path) -> bool:
    """Whether a plain file is there, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _require(path: Path, mode: int, wanted: Callable[[int], bool], word: str) -> None:
    if not wanted(mode):
        raise ModelError(
            f"`{path}` must be a plain {word} of the model, got {_kind(mode)}. "
            "Such a folder was not written by slots: open it only if you made it so, as a copy without links."
        )


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a plain file" if stat.S_ISREG(mode) else "a special file"
