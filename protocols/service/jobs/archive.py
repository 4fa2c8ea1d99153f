"""A model's current generation as one file: a tar that is the same bytes for the same generation."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slots.storage.plain_files import read_plain
from slots.storage.states import (
    FORMAT,
    HEADER,
    MOST_JSON,
    POINTER,
    SCHEMA,
    Pointer,
    checked_bytes,
    files_of,
    parse_document,
    read_settled,
)


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
    return read_settled(folder, lambda pointer: _packed(folder, pointer))


def _packed(folder: Path, pointer: Pointer) -> Archive:
    state = folder / "states" / pointer.current
    document = read_plain(state / HEADER, most=MOST_JSON)
    files = files_of(parse_document(document, state), state)
    alone = {"format": FORMAT, "schema": SCHEMA, "current": pointer.current, "generations": [pointer.current]}
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is handed on
    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            _add(tar, POINTER, json.dumps(alone, indent=1).encode())
            _add(tar, f"states/{pointer.current}/{HEADER}", document)
            for name, record in sorted(files):
                _add(tar, f"states/{pointer.current}/{name}", checked_bytes(state / name, *record))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
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
