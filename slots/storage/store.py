"""A model on disk: a folder whose content changes all at once, or not at all.

::

    MODEL/slots.json             which state is current, and which older ones are kept
    MODEL/states/000002-1a2b3c4d/
        model.json               the header, and size and sha256 of every other file
        head.safetensors         tensors, one file a stem
    MODEL/.lock                  held while somebody writes

A state is written under a temporary name, forced to disk, renamed, and only then does ``slots.json`` flip to it; so a
reader, a crash or a full disk finds the old model or the new one, never half of one. A state's name ends in the
first eight digits of the sha256 of its ``model.json``, so damage to the header shows too. A file that is byte for byte
that of the state before is a second name of it (a hard link), so an unchanged backbone costs nothing however many
states are kept. Nothing that is read here can run code. The lock belongs to the operating system (`filelock`), so a
killed writer's is free at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slots.errors import ModelError, OutdatedError, StorageError, UsageError
from slots.storage.atomic import (
    is_temporary,
    make_folders,
    refused,
    replace_file,
    storage,
)
from slots.storage.locking import locked as _locked
from slots.storage.placing import pointer_bytes, put_state, sweep
from slots.storage.plain_files import require_folder
from slots.storage.states import (
    FORMAT,
    HEADER,
    POINTER,
    SCHEMA,
    STEM,
    Pointer,
    State,
    checked_bytes,
    files_of,
    load_document,
    load_state,
    read_pointer,
    read_settled,
    state_name,
)

if TYPE_CHECKING:
    from torch import Tensor


def write_state(
    folder: str | Path,
    *,
    header: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    keep_history: bool = False,
) -> Path:
    """Make this the current state of a model folder, all at once; the folder is made if need be.

    Parameters
    ----------
    folder : path
        A model folder, an empty folder, or a path where nothing is yet.
    header : mapping
        Anything JSON can hold (no infinity, no not-a-number).
    tensors : mapping of mapping of tensor
        For each file stem (letters, digits, ``_`` and ``-``) its tensors by name.
    keep_history : bool
        Keep the states that are there for ``read_state(folder, generation)``; otherwise they are removed. The
        ``history`` in the header, a list, must then begin with that of the current state.

    Returns
    -------
    Path
        The folder of the new state. When this returns, it survives a crash of the machine.

    Raises
    ------
    StorageError
        If the folder holds something else than a model, somebody else is writing or, with ``keep_history``, has
        written since, or the disk refuses. What was there before is still whole, and nothing half-written stays; where
        the disk refused after the new state was current, the sentence says so.
    ModelError
        If the folder's own ``slots.json`` is damaged or was written by a newer version.
    UsageError
        If the header is no JSON or a stem is no plain name.
    """
    root = Path(folder)
    files = _serialise_tensors(tensors)
    files[HEADER] = _serialise_header(header, _digests(files))  # the tensors first: it holds their digests
    _refuse_foreign(root)
    with storage(root), _made(root), _locked(root):
        old = read_pointer(root) if os.path.lexists(root / POINTER) else None
        if old and keep_history:
            _refuse_fork(root, old, files[HEADER])
        like = root / "states" / old.current if old else None
        return put_state(root, old, files, like=like, keep_history=keep_history)


def restore_state(folder: str | Path, place: int, *, header: Mapping[str, Any]) -> Path:
    """Make an older state's tensors current again under a new header; all states that are there stay.

    Parameters
    ----------
    folder : path
        A folder that `write_state` wrote.
    place : int
        Position of the older state among those that are kept, 0 the oldest.
    header : mapping
        As in `write_state`; its ``history`` must begin with that of the current state.

    Returns
    -------
    Path
        The folder of the new state; its tensor files are the older one's, under a second name.

    Raises
    ------
    StorageError
        If somebody else is writing or has written since, or the disk refuses. Nothing has changed then.
    ModelError
        If this is no model folder, it keeps no such state, or that state is damaged.
    UsageError
        If the header is no JSON.
    """
    root = Path(folder)
    source = root / "states" / state_name(root, read_pointer(root), place)
    return copy_state(root, source, header=header, like=source)


def copy_state(folder: str | Path, source: Path, *, header: Mapping[str, Any], like: Path | None = None) -> Path:
    """Make the tensors of a state, wherever it lies, current under a new header; all states that are there stay.

    Parameters
    ----------
    folder : path
        A folder that `write_state` wrote.
    source : Path
        The folder of a state, of this model folder or of another.
    header : mapping
        As in `write_state`; its ``history`` must begin with that of the current state.
    like : Path, optional
        A state of this folder whose files get a second name where they are equal. Default: the current one.

    Returns
    -------
    Path
        The folder of the new state.

    Raises
    ------
    StorageError
        If somebody else is writing or has written since, or the disk refuses. Nothing has changed then.
    ModelError
        If one of the two is none, or the source is damaged.
    UsageError
        If the header is no JSON.
    """
    root = Path(folder)
    read_pointer(root)
    with storage(root), _locked(root):
        old = read_pointer(root)
        records = files_of(load_document(source), source)
        files = {name: checked_bytes(source / name, *record) for name, record in records}
        files[HEADER] = _serialise_header(header, _digests(files))
        _refuse_fork(root, old, files[HEADER])
        return put_state(root, old, files, like=like or root / "states" / old.current, keep_history=True)


def read_state(folder: str | Path, generation: int | None = None) -> State:
    """Read a state of a model folder, with every size and digest checked.

    Parameters
    ----------
    folder : path
        A folder that `write_state` wrote.
    generation : int, optional
        Position among the states that are kept, 0 the oldest, -1 the newest. Default: the current one.

    Returns
    -------
    State

    Raises
    ------
    ModelError
        If this is no model folder, a newer version wrote it, a file is missing or damaged, or there is no such
        generation.
    """
    root = Path(folder)

    def read(pointer: Pointer) -> State:
        name = pointer.current if generation is None else state_name(root, pointer, generation)
        return load_state(root / "states" / name, len(pointer.generations))

    return read_settled(root, read)


def read_headers(folder: str | Path) -> list[dict[str, Any]]:
    """Headers of all states that a model folder keeps, oldest first, the current one last; tensors are left alone.

    Raises
    ------
    ModelError
        If this is no model folder, a newer version wrote it, or a header is missing or damaged.
    """
    root = Path(folder)

    def read(pointer: Pointer) -> list[dict[str, Any]]:
        paths = [root / "states" / name for name in pointer.generations]
        documents = [(path, load_document(path)) for path in paths]
        for path, document in documents:
            files_of(document, path)  # raises on a header that is none
        return [document["header"] for _path, document in documents]

    return read_settled(root, read)


def states_of(folder: str | Path) -> list[tuple[str, int]]:
    """Names of the kept states, oldest first, each with the number of its generation (0 without a history)."""
    root = Path(folder)
    found = []
    for name in read_pointer(root).generations:
        history = load_document(root / "states" / name)["header"].get("history", [])
        found.append((name, int(history[-1]["number"]) if history else 0))
    return found


def drop_states(folder: str | Path, names: Collection[str]) -> None:
    """Forget states of a model folder, all at once; never the current one. What is dropped is then removed.

    Raises
    ------
    StorageError
        If somebody else is writing, or the disk refuses.
    ModelError
        If this is no model folder.
    """
    root = Path(folder)
    with storage(root), _locked(root):
        old = read_pointer(root)
        kept = [name for name in old.generations if name not in names or name == old.current]
        if len(kept) < len(old.generations):
            replace_file(root / POINTER, pointer_bytes(old.current, kept))
            sweep(root, keep=kept)


def check_target(folder: str | Path) -> None:
    """Find out, before the work of making a model, whether `write_state` could write it there; nothing is changed.

    Raises
    ------
    StorageError
        If the folder holds something else than a model, or cannot be written to.
    ModelError
        If the folder's own ``slots.json`` is damaged or was written by a newer version.
    """
    root = Path(folder)
    with storage(root):
        _refuse_foreign(root)
        if os.path.lexists(root / POINTER):
            read_pointer(root)
        require_folder(root / "states")
        nearest = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=nearest).close()


def _serialise_tensors(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, bytes]:
    """One file a stem."""
    import safetensors.torch

    files = {}
    for stem, named in tensors.items():
        if not STEM.fullmatch(stem):
            raise UsageError(
                f"`tensors` must have plain names of letters, digits, _ and - as keys, got {stem!r}. "
                "Each becomes a file name; choose another."
            )
        # A copy each: safetensors refuses tensors that share memory, and tied weights do.
        own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in named.items()}
        files[f"{stem}.safetensors"] = safetensors.torch.save(own)
    return files


def _digests(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}


def _serialise_header(header: Mapping[str, Any], digests: dict[str, dict[str, Any]]) -> bytes:
    document = {"format": FORMAT, "schema": SCHEMA, "files": digests, "header": header}
    try:
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"`header` must hold only what JSON can, got: {error}. Convert it first.") from error
    return text.encode()


def _refuse_foreign(root: Path) -> None:
    """Never write among files that are not ours; what a crash during a first write left behind is ours."""
    if root.exists() and not root.is_dir():
        raise StorageError(f"`{root}` must be a folder, got a file. Choose another place for the model.")
    if not root.is_dir() or os.path.lexists(root / POINTER):
        return
    try:
        foreign = sorted(p.name for p in root.iterdir() if p.name not in {".lock", "states"} and not is_temporary(p))
    except OSError as error:
        raise refused(root, error) from error
    if foreign:
        raise StorageError(
            f"`{root}` must be a model folder or empty, got one that holds {foreign[0]!r}. Choose another folder."
        )


@contextlib.contextmanager
def _made(root: Path) -> Iterator[None]:
    """Make the folder; if the first write into it fails, leave nothing of it."""
    made = [p for p in (root, *root.parents) if not p.exists()]
    try:
        make_folders(root)
        yield
    except BaseException:
        if not os.path.lexists(root / POINTER):
            with contextlib.suppress(OSError):
                (root / "states").rmdir()
            with contextlib.suppress(OSError):
                (root / ".lock").unlink(missing_ok=True)  # Windows has removed it
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def _refuse_fork(root: Path, old: Pointer, document: bytes) -> None:
    """Whoever keeps the history must go on from the current state, or what others wrote since it was read is undone."""
    try:
        past = load_document(root / "states" / old.current)["header"]["history"]
    except (ModelError, KeyError, TypeError):  # damaged or without a history: nothing to go on from
        return
    if not isinstance(past, list):
        return
    if json.loads(document)["header"].get("history", [])[: len(past)] != past:
        raise OutdatedError(
            f"`{root}` must be as it was read, but another generation was written since. "
            "Load the model again and repeat the change."
        )
