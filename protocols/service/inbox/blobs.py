"""Large contents as files named by their digest, and how those that nobody needs any more go."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from slots.errors import ModelError
from slots.storage.atomic import storage, write_file

_NAME = re.compile("[0-9a-f]{64}")
_ASKED_AT_ONCE = 500


class MissingContentError(ModelError):
    """The file of a content is not there.

    Parameters
    ----------
    digest : str
        Of the content.
    reason : str or None
        What the system says.
    """

    def __init__(self, digest: str, reason: str | None) -> None:
        what = f"The content {digest[:12]} is missing in the data folder ({reason})."
        super().__init__(f"{what} Restore it from a backup.")
        self.digest = digest


class Blobs:
    """A folder of files, each under the SHA-256 of its content: ``ab/cd/abcd...``.

    A file is on the disk before any row that names it is committed; so a row never leads nowhere, and a crash leaves
    at most a file that no row names. `sweep` removes those.

    Parameters
    ----------
    folder : Path
        Made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: Counter[str] = Counter()  # digests whose rows may be on their way
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path:
        """Where the content of a digest lies."""
        return self.folder / digest[:2] / digest[2:4] / digest

    @contextlib.contextmanager
    def holding(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep files from being swept, from before they are written until their rows are committed.

        Parameters
        ----------
        digests : iterable of str
            SHA-256 of the contents.
        """
        held = Counter(iter(digests))  # iter: a mapping's values would be taken for counts
        with self._lock:
            self._held.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._held = self._held - held

    def put(self, digest: str, content: bytes) -> None:
        """Write a content, forced to the disk; one that is there already is left as it is.

        Parameters
        ----------
        digest : str
            SHA-256 of the content, held by the caller (`holding`).
        content : bytes
            What to write.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        path = self.path(digest)
        with storage(path):
            if path.is_file() and path.stat().st_size == len(content):
                return
        write_file(path, content)

    def get(self, digest: str) -> bytes:
        """The content of a digest.

        Raises
        ------
        MissingContentError
            If the file is gone: its item was deleted since its row was read, or somebody else removed the file.
        """
        try:
            return self.path(digest).read_bytes()
        except OSError as error:
            raise MissingContentError(digest, error.strerror) from error

    def sweep(self, wanted: Callable[[list[str]], set[str]]) -> int:
        """Remove the files that no row names.

        Parameters
        ----------
        wanted : callable
            Which of some digests the database's rows name.

        Returns
        -------
        int
            Files removed.
        """
        digests = [path.name for path in self.folder.glob("??/??/*") if _NAME.fullmatch(path.name)]
        removed = 0
        for start in range(0, len(digests), _ASKED_AT_ONCE):
            removed += self._sweep(digests[start : start + _ASKED_AT_ONCE], wanted)
        return removed

    def release(self, digest: str, wanted: Callable[[list[str]], set[str]]) -> None:
        """Remove the file of one digest if no row names it, after a row of it was deleted."""
        if self.path(digest).is_file():
            self._sweep([digest], wanted)

    def _sweep(self, digests: list[str], wanted: Callable[[list[str]], set[str]]) -> int:
        """Remove some of them: what is not held has its row committed, which is seen, or is still to be written."""
        with self._lock:
            free = [it for it in digests if not self._held[it]]
            gone = set(free) - wanted(free)
            for digest in gone:
                self.path(digest).unlink(missing_ok=True)
            return len(gone)
