"""A folder that fsspec can reach: on this machine, on a mounted disk, in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slots.errors import MissingExtraError, StorageError, UsageError
from slots.storage.atomic import make_folders, replace_file


class Place:
    """A folder that others can read, or that others write.

    Parameters
    ----------
    url : str
        As fsspec takes it, such as ``s3://bucket/models`` or ``/mnt/models``; secrets do not belong into it.

    Raises
    ------
    UsageError
        If nothing is known of addresses of that kind.
    MissingExtraError
        If a package for such addresses is not installed.
    StorageError
        If the store cannot be set up, for want of a password perhaps.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise MissingExtraError(f"`{url}` cannot be reached: {error}") from error
        except ValueError as error:
            raise UsageError(
                f"`{url}` must be a folder or an address that fsspec knows, such as s3://bucket/models, got: {error}"
            ) from error
        except Exception as error:
            raise StorageError(f"`{url}` cannot be reached: {_said(error)}. Check address and credentials.") from error
        self._local = "file" in _words(self._files.protocol)

    def inside(self, name: str) -> Place:
        """The folder of that name in this one."""
        return Place(f"{self.url.rstrip('/')}/{name}")

    def read(self, name: str, most: int) -> bytes:
        """The content of a file.

        Parameters
        ----------
        name : str
            Path below the folder.
        most : int
            How many bytes are of use; one more is read, so that a longer file shows.

        Returns
        -------
        bytes

        Raises
        ------
        StorageError
            If it is not there, or the place cannot be reached.
        """
        with self._reached(name):
            self._files.invalidate_cache()
            with self._files.open(self._path(name), "rb", cache_type="none", block_size=1 << 22) as file:
                content: bytes = file.read(most + 1)
                return content

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        with self._reached(name):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path(name)))

    def has(self, name: str, n_bytes: int) -> bool:
        """Whether a file of that size is there."""
        with self._reached(name):
            try:
                return bool(self._files.info(self._path(name))["size"] == n_bytes)
            except FileNotFoundError:
                return False

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole or not at all as far as the place knows how.

        Parameters
        ----------
        name : str
            Path below the folder.
        content : bytes
            Of the file.

        Raises
        ------
        StorageError
            If the place refuses.
        """
        with self._reached(name):
            if self._local:
                path = Path(self._path(name))
                make_folders(path.parent)
                replace_file(path, content)
            else:
                self._files.pipe_file(self._path(name), content)

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder; none where it is not there."""
        with self._reached(name):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(name), detail=False)
            except FileNotFoundError:
                return []
            return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def remove(self, name: str) -> None:
        """Remove a folder and what is in it."""
        with self._reached(name):
            self._files.rm(self._path(name), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        """Each kind of store raises errors of its own."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(
                f"`{self.url}/{name}` cannot be reached: {_said(error)}. Check address, network and credentials."
            ) from error


def _words(protocol: str | tuple[str, ...]) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else protocol


def _said(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
