"""A model's current generation as one file: a tar that is the same bytes for the same generation."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slots.storage.mirroring import current_files


@dataclass(frozen=True)
class Archive:
    """A packed generation.

    Parameters
    ----------
    file : binary file
        At its beginning; whoever closes it removes it.
    size : int
        Bytes.
    digest : str
        SHA-256 of them (hexadecimal).
    """

    file: IO[bytes]
    size: int
    digest: str


def pack(folder: Path) -> Archive:
    """Pack the current generation of a model folder; unpacked it is a model folder with that generation alone.

    Parameters
    ----------
    folder : Path
        A model folder; whoever writes to it in the meantime does not disturb.

    Returns
    -------
    Archive

    Raises
    ------
    ModelError
        If it is no readable model: each file's size and digest is checked.
    """
    found = current_files(folder)
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is handed on
    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in found.files.items():
                _add(tar, name, content)
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Archive(file, size, digest)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without owner or time, so that the bytes depend on the content alone."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
