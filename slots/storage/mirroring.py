"""A model folder that follows another one, wherever that lies: the current state, byte for byte.

States never change and are named by the digest of their header, which holds the digests of their files. So a copy is
made by adding the files that are missing, then the pointer; and whoever reads a copy, made half or damaged, notices.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slots.errors import ModelError
from slots.storage.atomic import make_folders, storage
from slots.storage.locking import locked
from slots.storage.placing import pointer_bytes, put_state
from slots.storage.plain_files import read_plain
from slots.storage.states import (
    HEADER,
    MOST_JSON,
    POINTER,
    Pointer,
    checked,
    checked_bytes,
    files_of,
    load_document,
    parse_document,
    parse_pointer,
    read_pointer,
    read_settled,
)

Read = Callable[[str, int], bytes]
"""``read(name, most)``: content of a file of the other folder, of which at most so many bytes are of use."""


@dataclass(frozen=True)
class CurrentFiles:
    """What a copy of a model folder's current state consists of.

    Parameters
    ----------
    state : str
        The state's name.
    files : dict of str to bytes
        Content by the path below the model folder; the pointer comes last, and names this state alone.
    """

    state: str
    files: dict[str, bytes]


def current_files(folder: str | Path) -> CurrentFiles:
    """The files of a model folder's current state, with every size and digest checked.

    Parameters
    ----------
    folder : path
        A model folder.

    Returns
    -------
    CurrentFiles

    Raises
    ------
    ModelError
        If it is none, or a file is missing or damaged.
    """
    root = Path(folder)

    def read(pointer: Pointer) -> CurrentFiles:
        path = root / "states" / pointer.current
        header = read_plain(path / HEADER, most=MOST_JSON)
        records = sorted(files_of(parse_document(header, path), path))
        files = {HEADER: header} | {name: checked_bytes(path / name, *record) for name, record in records}
        named = {f"states/{pointer.current}/{name}": data for name, data in files.items()}
        return CurrentFiles(pointer.current, named | {POINTER: pointer_bytes(pointer.current, [pointer.current])})

    return read_settled(root, read)


def adopt_state(folder: str | Path, read: Read) -> bool:
    """Make the current state of another model folder the only one here, all at once.

    Parameters
    ----------
    folder : path
        A folder that nothing else writes to; it is made if need be.
    read : callable
        ``read(name, most)`` gives the content of the file ``name``, a path below the other folder, of which the first
        ``most`` bytes are of use. What is here already, to the byte, is not asked for.

    Returns
    -------
    bool
        Whether it is another state than before.

    Raises
    ------
    ModelError
        If what is read is no model folder's, or is damaged. The state that was here stays.
    StorageError
        If the disk refuses. The state that was here stays.
    """
    root = Path(folder)
    pointer = parse_pointer(read(POINTER, MOST_JSON), Path(POINTER))
    old = _here(root)
    if old is not None and old.current == pointer.current:
        return False
    path = Path("states") / pointer.current
    header = read((path / HEADER).as_posix(), MOST_JSON)
    records = files_of(parse_document(header, path), path)
    here = _contents(root, old)
    files = {}
    for name, (n_bytes, sha256) in records:
        if (n_bytes, sha256) in here:
            files[name] = here[n_bytes, sha256]
        else:
            files[name] = checked(read((path / name).as_posix(), n_bytes), path / name, n_bytes, sha256)
    files[HEADER] = header
    with storage(root):
        make_folders(root)
    with storage(root), locked(root):
        like = root / "states" / old.current if old else None
        prefix = pointer.current.split("-")[0]
        put_state(root, old, files, like=like, keep_history=False, prefix=prefix)
    return True


def _here(root: Path) -> Pointer | None:
    """What this folder points to; where that is damaged, a copy may stand in its place."""
    try:
        return read_pointer(root)
    except ModelError:
        return None


def _contents(root: Path, old: Pointer | None) -> dict[tuple[int, str], bytes]:
    """What is here, by size and digest, but for files that are damaged."""
    if old is None:
        return {}
    path, found = root / "states" / old.current, {}
    with suppress(ModelError):
        for name, record in files_of(load_document(path), path):
            with suppress(ModelError):
                found[record] = checked_bytes(path / name, *record)
    return found
