"""A stranger's tar, read as no more than it may be: plain files of one state of a model, each where it belongs."""

from __future__ import annotations

import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from slots.errors import DataError
from slots.progress import Progress, silent
from slots.storage.atomic import storage
from slots.storage.states import HEADER, MOST_JSON, POINTER, STATE, STEM

ARCHIVE = "archive.tar"
"""Name of the archive in a job's material."""

MOST_MEMBERS = 64
"""Files of an archive (count); a model has less than ten."""

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_TENSORS = re.compile(rf"{STEM.pattern}\.safetensors")
_KINDS = {
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device", tarfile.DIRTYPE: "a folder", tarfile.FIFOTYPE: "a pipe",
}  # fmt: skip


def unpack(archive: Path, folder: Path, *, progress: Progress = silent) -> int:
    """Unpack an archive as `protocols.service.jobs.archives.packing.pack` makes them.

    Each header is read by itself, and nothing that stands for another one (long names, extended headers, sparse maps)
    is followed: so no name is longer than its field, and no size is believed beyond the file's end.

    Parameters
    ----------
    archive : Path
        A tar, not compressed.
    folder : Path
        Where its files go; it must not be there. What was unpacked of an archive that is refused stays for the caller
        to remove.
    progress : callable, optional
        ``progress(step, share)``, told how much was read.

    Returns
    -------
    int
        Files (count).

    Raises
    ------
    DataError
        If it is anything else.
    StorageError
        If the disk refuses.
    """
    with storage(folder):
        return _unpacked(archive, folder, progress)


def _unpacked(archive: Path, folder: Path, progress: Progress) -> int:
    folder.mkdir(parents=True)
    size = archive.stat().st_size
    found = _Found()
    with archive.open("rb") as file:
        while (entry := _next(file, len(found.names))) is not None:
            found.admit(entry)
            if file.tell() + entry.size > size:
                raise _refused(f"it ends within {entry.name!r:.80}", "Send it again")
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, target, entry.size)
            file.seek(-entry.size % _BLOCK, os.SEEK_CUR)
            progress("unpacking", min(1.0, file.tell() / size))
    if POINTER not in found.names:
        raise _refused(f"it lacks {POINTER}", "Send what GET .../archive gave")
    return len(found.names)


@dataclass
class _Found:
    """What an archive held so far."""

    names: set[str] = field(default_factory=set)
    state: str = ""

    def admit(self, entry: tarfile.TarInfo) -> None:
        """Refuse a member that is none of ours, or one too many."""
        if entry.type not in _PLAIN or entry.linkname:
            kind = _KINDS.get(entry.type, "a link" if entry.type in _PLAIN else "an extension of the format")
            raise _refused(f"{entry.name!r:.80} is {kind}", "Plain files alone may be in it")
        if entry.name in self.names:
            raise _refused(f"it has {entry.name!r:.80} twice", "Send what GET .../archive gave")
        if len(self.names) >= MOST_MEMBERS:
            raise _refused(f"it has more than {MOST_MEMBERS} files", "Send what GET .../archive gave")
        if not self._is_ours(entry.name):
            raise _refused(f"it has a file {entry.name!r:.80}", "Only the files of one model's state may be in it")
        if entry.size < 0 or (not entry.name.endswith(".safetensors") and entry.size > MOST_JSON):
            raise _refused(f"{entry.name!r:.80} has {entry.size} bytes", "Send what GET .../archive gave")
        self.names.add(entry.name)

    def _is_ours(self, name: str) -> bool:
        if name == POINTER:
            return True
        parts = name.split("/")
        if len(parts) != 3 or parts[0] != "states" or not STATE.fullmatch(parts[1]):
            return False
        self.state = self.state or parts[1]
        return parts[1] == self.state and (parts[2] == HEADER or _TENSORS.fullmatch(parts[2]) is not None)


def _next(file: IO[bytes], n_read: int) -> tarfile.TarInfo | None:
    """The next header; None at the end, after which there must be nothing but zeros."""
    block = file.read(_BLOCK)
    if len(block) == _BLOCK and block.count(0) < _BLOCK:
        try:
            return tarfile.TarInfo.frombuf(block, "ascii", "backslashreplace")
        except tarfile.HeaderError as error:
            said = "it is no tar" if n_read == 0 else "what follows a file is no header: a size is wrong"
            raise _refused(said, "Send it plain, or with Content-Encoding: gzip") from error
    if len(block) < _BLOCK:
        raise _refused("it is empty" if not block and not n_read else "it ends too early", "Send it again")
    while rest := file.read(_PIECE):
        if rest.count(0) < len(rest):
            raise _refused("it goes on after its end", "Send what GET .../archive gave")
    return None


def _copy(file: IO[bytes], target: Path, n_bytes: int) -> None:
    with target.open("xb") as copy:
        while n_bytes and (piece := file.read(min(_PIECE, n_bytes))):
            copy.write(piece)
            n_bytes -= len(piece)


def _refused(what: str, do: str) -> DataError:
    return DataError(f"The archive must be a model's, as GET .../archive gives it, but {what}. {do}.")
