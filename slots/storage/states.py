"""What a state of a model folder says, read with nothing taken on trust: every size, digest and name is checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from slots.errors import ModelError
from slots.storage.plain_files import read_plain, require_folder

if TYPE_CHECKING:
    from torch import Tensor  # what reads headers alone does without torch

_Read = TypeVar("_Read")
FORMAT = "neural-slots"
SCHEMA = 1
POINTER = "slots.json"
HEADER = "model.json"
MOST_JSON = 1 << 26
"""Bytes of JSON that are read at most: 64 MiB, which hold the names of more than a million labels."""

STATE = re.compile(r"\d{6,12}-[0-9a-f]{8}")
STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


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
class Pointer:
    """Content of ``slots.json``: the name of the current state, and of all that are kept, oldest first."""

    current: str
    generations: list[str]


def read_settled(root: Path, read: Callable[[Pointer], _Read]) -> _Read:
    """Read what the pointer names, once more if a writer replaced and removed it in the meantime."""
    while True:
        pointer = read_pointer(root)
        try:
            return read(pointer)
        except ModelError:
            if read_pointer(root) == pointer:
                raise


def read_pointer(root: Path) -> Pointer:
    """Which states a model folder has."""
    if not os.path.lexists(root / POINTER):
        raise ModelError(f"`{root}` must be a model folder, got one without {POINTER}. Name a folder that a fit wrote.")
    return parse_pointer(_read_bytes(root / POINTER), root / POINTER)


def parse_pointer(raw: bytes, path: Path) -> Pointer:
    """The pointer that the content of a ``slots.json`` is; ``path`` names it in the errors."""
    document = _parse(raw, path)
    current, generations = document.get("current"), document.get("generations")
    names = generations if isinstance(generations, list) else []
    if current not in names or not all(isinstance(name, str) and STATE.fullmatch(name) for name in names):
        raise _damaged(path, "it does not name its states")
    return Pointer(str(current), names)


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(raw, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"`{path}` must say format {FORMAT!r}; it belongs to something else. Name a model folder.")
    schema = document.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise _damaged(path, f"its schema is {schema!r:.40}")
    if schema > SCHEMA:
        raise ModelError(
            f"`{path}` must have schema {SCHEMA} or older, got {schema}: a newer version wrote it. "
            "Upgrade: pip install --upgrade neural-slots."
        )
    return document


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"{digits:.20} is beyond what a float holds")
    return value


def state_name(root: Path, pointer: Pointer, generation: int) -> str:
    """Name of the state at a position, 0 the oldest, -1 the newest."""
    kept = len(pointer.generations)
    if not -kept <= generation < kept:
        raise ModelError(
            f"`generation` must be below {kept}, got {generation}. `{root}` keeps {kept}; the oldest is number 0."
        )
    return pointer.generations[generation]


def load_state(path: Path, n_generations: int) -> State:
    """Header and tensors of the state in a folder."""
    document = load_document(path)
    tensors = {name.partition(".")[0]: _load_tensors(path / name, *record) for name, record in files_of(document, path)}
    return State(document["header"], tensors, path, n_generations)


def load_document(path: Path) -> dict[str, Any]:
    """The ``model.json`` of the state in a folder: its header and its list of files."""
    for folder in (path.parent, path):
        require_folder(folder)
    return parse_document(_read_bytes(path / HEADER), path)


def parse_document(raw: bytes, path: Path) -> dict[str, Any]:
    """The document that the content of a ``model.json`` is, of the state in the folder ``path``."""
    if hashlib.sha256(raw).hexdigest()[:8] != path.name.split("-")[1]:
        raise _damaged(path / HEADER, "its content does not match its folder's name")
    return _parse(raw, path / HEADER)


def files_of(document: Mapping[str, Any], path: Path) -> list[tuple[str, tuple[int, str]]]:
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
        if not STEM.fullmatch(stem) or dot + ending != ".safetensors":
            raise _damaged(path / HEADER, f"it names a file {name!r}")
    return files


def _load_tensors(path: Path, n_bytes: int, sha256: str) -> dict[str, Tensor]:
    import safetensors.torch

    data = checked_bytes(path, n_bytes, sha256)
    try:
        # A copy each: as they lie in the file they start at any byte, and on some processors the last bits of a product
        # depend on that, so a model would not answer as before it was saved.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(data).items()}
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def checked_bytes(path: Path, n_bytes: int, sha256: str) -> bytes:
    """A file's content, if it has this size and digest."""
    # No more than that many, so that a larger file is not read whole; the digest of the very bytes that are used.
    return checked(_read_bytes(path, most=max(0, n_bytes)), path, n_bytes, sha256)


def checked(data: bytes, path: Path, n_bytes: int, sha256: str) -> bytes:
    """The same bytes, if they have this size and digest; ``path`` names them in the errors."""
    if len(data) != n_bytes:
        raise _damaged(path, f"it has {len(data)} bytes, not {n_bytes}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(path, "its content does not match its sha256")
    return data


def _read_bytes(path: Path, *, most: int = MOST_JSON) -> bytes:
    try:
        return read_plain(path, most=most)
    except FileNotFoundError as error:
        raise ModelError(f"`{path}` must exist, and does not: the model is damaged. Use a copy of it.") from error
    except OSError as error:
        raise ModelError(f"`{path}` must be readable, got: {error.strerror}. Check its permissions.") from error


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"`{path}` must be as it was written, but {what}: the model is damaged. Use a copy of it.")
