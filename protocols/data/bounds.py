"""How much memory a small file may ask for: an archive, or a table, that says of itself that it is far larger."""

from __future__ import annotations

import os
from pathlib import Path

from slots.errors import DataError, UsageError

TIMES_THE_FILE = 100
"""How much larger than its file honest data may be, where that is more than the limit."""

_VARIABLE = "SLOTS_MAX_ARRAY_BYTES"


def largest(path: Path) -> int:
    """Most bytes that the content of a file may take in memory.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    int
        1 GiB, or what ``SLOTS_MAX_ARRAY_BYTES`` says, or a hundred times the file, the largest of them.

    Raises
    ------
    UsageError
        If the variable holds no whole number >= 1.
    """
    word = os.environ.get(_VARIABLE, str(1 << 30))
    if not (word.isdecimal() and int(word) >= 1):
        raise UsageError(f"`{_VARIABLE}` must be a whole number >= 1, got {word!r:.40}. Unset it for the default.")
    return max(int(word), TIMES_THE_FILE * path.stat().st_size)


def check_size(path: Path, n_bytes: int) -> None:
    """Refuse content that would take too much memory, before the memory is taken.

    Parameters
    ----------
    path : Path
        The file.
    n_bytes : int
        What its content would take.

    Raises
    ------
    DataError
        If that is more than `largest` allows.
    """
    if n_bytes > (most := largest(path)):
        raise DataError(
            f"`{path}` must take at most {most} bytes of memory, got {n_bytes} or more from a file of "
            f"{path.stat().st_size}. Set {_VARIABLE} if you trust it."
        )
