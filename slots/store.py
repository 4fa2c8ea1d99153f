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
states are kept. Nothing that is read here can run code. Needs a POSIX system (``flock``, and folders that can be forced
to disk).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from slots.atomic import (
    is_temporary,
    link_same,
    refused,
    replace_file,
    storage,
    sync_folder,
    temporary,
    write_file,
    write_synced,
)
from slots.errors import ModelError, StorageError, UsageError

__all__ = ["State", "check_target", "read_headers", "read_state", "restore_state", "write_file", "write_state"]

_Read = TypeVar("_Read")

FORMAT = "neural-slots"
SCHEMA = 1
POINTER = "slots.json"
HEADER = "model.json"
_STATE = re.compile(r"\d{6,12}-[0-9a-f]{8}")
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class State:
    """What a model folder held at one moment.

    Attributes
    ----------
    header : dict
        The JSON header as it was written.
    tensors : dict of dict of tensor
        For each file stem its tensors by name, on the CPU.
    path : Path
        The folder of this state.
    n_generations : int
        How many states the model keeps, this one included (count, >= 1).
    """

    header: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    path: Path
    n_generations: int


@dataclass(frozen=True)
class _Pointer:
    current: str
    generations: list[str]


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
        written since, or the disk refuses. What was there before is still whole, and nothing half-written stays.
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
        old = _read_pointer(root) if (root / POINTER).exists() else None
        if old and keep_history:
            _refuse_fork(root, old, files[HEADER])
        like = root / "states" / old.current if old else None
        return _put(root, old, files, like=like, keep_history=keep_history)


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
    old = _read_pointer(root)
    source = root / "states" / _generation_name(root, old, place)
    with storage(root), _locked(root):
        old = _read_pointer(root)
        records = _files(_load_document(source), source)
        files = {name: _checked_bytes(source / name, *record) for name, record in records}
        files[HEADER] = _serialise_header(header, _digests(files))
        _refuse_fork(root, old, files[HEADER])
        return _put(root, old, files, like=source, keep_history=True)


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

    def read(pointer: _Pointer) -> State:
        name = pointer.current if generation is None else _generation_name(root, pointer, generation)
        return _load(root / "states" / name, len(pointer.generations))

    return _read_settled(root, read)


def read_headers(folder: str | Path) -> list[dict[str, Any]]:
    """Headers of all states that a model folder keeps, oldest first, the current one last; tensors are left alone.

    Raises
    ------
    ModelError
        If this is no model folder, a newer version wrote it, or a header is missing or damaged.
    """
    root = Path(folder)

    def read(pointer: _Pointer) -> list[dict[str, Any]]:
        paths = [root / "states" / name for name in pointer.generations]
        documents = [(path, _load_document(path)) for path in paths]
        for path, document in documents:
            _files(document, path)  # raises on a header that is none
        return [document["header"] for _path, document in documents]

    return _read_settled(root, read)


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
        if (root / POINTER).exists():
            _read_pointer(root)
        nearest = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=nearest).close()


def _read_settled(root: Path, read: Callable[[_Pointer], _Read]) -> _Read:
    """Read what the pointer names, once more if a writer replaced and removed it in the meantime."""
    while True:
        pointer = _read_pointer(root)
        try:
            return read(pointer)
        except ModelError:
            if _read_pointer(root) == pointer:
                raise


def _serialise_tensors(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, bytes]:
    """One file a stem."""
    files = {}
    for stem, named in tensors.items():
        if not _STEM.fullmatch(stem):
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


def _load(path: Path, n_generations: int) -> State:
    document = _load_document(path)
    tensors = {name.partition(".")[0]: _load_tensors(path / name, *record) for name, record in _files(document, path)}
    return State(document["header"], tensors, path, n_generations)


def _load_document(path: Path) -> dict[str, Any]:
    raw = _read_bytes(path / HEADER)
    if hashlib.sha256(raw).hexdigest()[:8] != path.name.split("-")[1]:
        raise _damaged(path / HEADER, "its content does not match its folder's name")
    return _parse(raw, path / HEADER)


def _files(document: Mapping[str, Any], path: Path) -> list[tuple[str, tuple[int, str]]]:
    """Name, size and digest of the files that a header lists; none can lie outside the state's folder."""
    header, listed = document.get("header"), document.get("files")
    if not isinstance(header, dict) or not isinstance(listed, dict):
        raise _damaged(path / HEADER, "it does not list its files")
    try:
        files = [(name, (int(record["bytes"]), str(record["sha256"]))) for name, record in listed.items()]
    except (TypeError, ValueError, KeyError) as error:
        raise _damaged(path / HEADER, "it does not list its files") from error
    for name, _record in files:
        stem, dot, ending = name.partition(".")
        if not _STEM.fullmatch(stem) or dot + ending != ".safetensors":
            raise _damaged(path / HEADER, f"it names a file {name!r}")
    return files


def _load_tensors(path: Path, n_bytes: int, sha256: str) -> dict[str, Tensor]:
    data = _checked_bytes(path, n_bytes, sha256)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _checked_bytes(path: Path, n_bytes: int, sha256: str) -> bytes:
    # The size first, so that a file of another size is not read whole; the digest of the very bytes that are used.
    if path.is_file() and path.stat().st_size != n_bytes:
        raise _damaged(path, f"it has {path.stat().st_size} bytes, not {n_bytes}")
    data = _read_bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(path, "its content does not match its sha256")
    return data


def _read_pointer(root: Path) -> _Pointer:
    if not (root / POINTER).is_file():
        raise ModelError(f"`{root}` must be a model folder, got one without {POINTER}. Name a folder that a fit wrote.")
    document = _parse(_read_bytes(root / POINTER), root / POINTER)
    current, generations = document.get("current"), document.get("generations")
    names = generations if isinstance(generations, list) else []
    if current not in names or not all(isinstance(name, str) and _STATE.fullmatch(name) for name in names):
        raise _damaged(root / POINTER, "it does not name its states")
    return _Pointer(str(current), names)


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"`{path}` must say format {FORMAT!r}; it belongs to something else. Name a model folder.")
    schema = document.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise _damaged(path, f"its schema is {schema!r}")
    if schema > SCHEMA:
        raise ModelError(
            f"`{path}` must have schema {SCHEMA} or older, got {schema}: a newer version wrote it. "
            "Upgrade: pip install --upgrade neural-slots."
        )
    return document


def _generation_name(root: Path, pointer: _Pointer, generation: int) -> str:
    kept = len(pointer.generations)
    if not -kept <= generation < kept:
        raise ModelError(
            f"`generation` must be below {kept}, got {generation}. `{root}` keeps {kept}; the oldest is number 0."
        )
    return pointer.generations[generation]


def _pointer_bytes(current: str, generations: list[str]) -> bytes:
    document = {"format": FORMAT, "schema": SCHEMA, "current": current, "generations": generations}
    return json.dumps(document, indent=1).encode()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"`{path}` must exist, and does not: the model is damaged. Use a copy of it.") from error
    except OSError as error:
        raise ModelError(f"`{path}` must be readable, got: {error.strerror}. Check its permissions.") from error


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"`{path}` must be as it was written, but {what}: the model is damaged. Use a copy of it.")


def _refuse_foreign(root: Path) -> None:
    """Never write among files that are not ours; what a crash during a first write left behind is ours."""
    if root.exists() and not root.is_dir():
        raise StorageError(f"`{root}` must be a folder, got a file. Choose another place for the model.")
    if not root.is_dir() or (root / POINTER).exists():
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
    root.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if not (root / POINTER).exists():
                (root / "states").rmdir()
                (root / ".lock").unlink()
            for folder in made:
                folder.rmdir()
        raise


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"`{root}` must be free, but another process is writing to it. Try again when it is done."
            ) from error
        yield
    finally:
        os.close(descriptor)


def _refuse_fork(root: Path, old: _Pointer, document: bytes) -> None:
    """Whoever keeps the history must go on from the current state, or what others wrote since it was read is undone."""
    try:
        past = _load_document(root / "states" / old.current)["header"]["history"]
    except (ModelError, KeyError, TypeError):  # damaged or without a history: nothing to go on from
        return
    if json.loads(document)["header"].get("history", [])[: len(past)] != past:
        raise StorageError(
            f"`{root}` must be as it was read, but another generation was written since. "
            "Load the model again and repeat the change."
        )


def _put(
    root: Path, old: _Pointer | None, files: Mapping[str, bytes], *, like: Path | None, keep_history: bool
) -> Path:
    """Write a state beside the others and flip to it; the caller holds the lock."""
    states = root / "states"
    states.mkdir(exist_ok=True)
    _sweep(root, keep=old.generations if old else [])
    number = int(old.current.split("-")[0]) + 1 if old else 1
    name = f"{number:06d}-{hashlib.sha256(files[HEADER]).hexdigest()[:8]}"
    kept = [*old.generations, name] if old and keep_history else [name]
    try:
        _write_folder(states, name, files, like)
        replace_file(root / POINTER, _pointer_bytes(name, kept))
    except BaseException:
        _discard(root, name)
        raise
    _sweep(root, keep=kept)
    return states / name


def _write_folder(states: Path, name: str, files: Mapping[str, bytes], like: Path | None) -> None:
    aside = temporary(states / name)
    aside.mkdir()
    try:
        for file, data in files.items():
            if like is None or not link_same(aside / file, like / file, data):
                write_synced(aside / file, data)
        sync_folder(aside)
        aside.rename(states / name)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(states)


def _discard(root: Path, name: str) -> None:
    """After a failure: the new state goes, unless the flip had happened already."""
    with contextlib.suppress(ModelError):
        if name in _read_pointer(root).generations:
            return
    shutil.rmtree(root / "states" / name, ignore_errors=True)


def _sweep(root: Path, *, keep: list[str]) -> None:
    """Remove superseded states and what killed writers left; a leftover that cannot be removed does no harm."""
    for path in (root / "states").iterdir():
        if path.name not in keep and (_STATE.fullmatch(path.name) or is_temporary(path)):
            shutil.rmtree(path, ignore_errors=True)
    for path in root.iterdir():
        if is_temporary(path) and path.name.startswith(f".{POINTER}."):
            path.unlink(missing_ok=True)
