"""Archives that came in and wait for their job: files that a kill between order and job does not lose."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

from slots.errors import StorageError
from slots.storage.atomic import make_folders, storage, sync_folder

MOST_AT_ONCE = 2
"""Archives that come in at a time (count)."""

_TOKEN = re.compile(r"[0-9a-f]{16}")


class Uploads:
    """A folder of archives, each under a token that its job names.

    Parameters
    ----------
    folder : Path
        Made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coming = 0

    @contextlib.contextmanager
    def room(self) -> Iterator[bool]:
        """Whether one more may come in; it counts as long as the block lasts."""
        self._coming += 1
        try:
            yield self._coming <= MOST_AT_ONCE
        finally:
            self._coming -= 1

    def begin(self) -> tuple[str, Path]:
        """A token, and the file for what comes in under it."""
        with storage(self._folder):
            make_folders(self._folder)
        token = secrets.token_hex(8)
        return token, self._folder / token

    def settle(self) -> None:
        """Force the names of what came in to the disk; their contents are there already."""
        with storage(self._folder):
            sync_folder(self._folder)

    def hand_over(self, token: str, target: Path) -> None:
        """Move an archive to where its job works on it.

        Raises
        ------
        StorageError
            If it is not there any more.
        """
        try:
            self._path(token).rename(target)
        except FileNotFoundError as error:
            raise StorageError("The archive of this job is gone from the data folder. Send it again.") from error

    def drop(self, token: str) -> None:
        """Remove an archive, if it is there."""
        with contextlib.suppress(OSError):
            self._path(token).unlink(missing_ok=True)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove all others: those that a kill left half, and those whose job is over."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name not in keep:
                    path.unlink()

    def _path(self, token: str) -> Path:
        if not _TOKEN.fullmatch(token):
            raise StorageError("An archive of the data folder must have a token of 16 hexadecimal digits as its name.")
        return self._folder / token
