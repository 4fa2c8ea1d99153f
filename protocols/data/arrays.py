"""Arrays on disk: ``.npz`` archives, and ``.npy`` files with their labels in a file beside them."""

from __future__ import annotations

import csv
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.data.bounds import check_size
from protocols.data.dataset import Dataset, divided, make_dataset
from protocols.data.labels import named_labels, number_labels
from slots.errors import DataError, SlotsError
from slots.labels import check_ids, check_name

_INPUTS = ("x", "features", "feature", "embeddings", "embedding", "vectors", "images", "data")
_LABELS = ("y", "labels", "label", "targets", "target", "classes")
_PARTS = ("train", "test")
_LABEL_ENDINGS = (".npy", ".txt", ".csv")

# What zipfile and numpy raise on damaged or hostile archives; found by flipping every byte of one.
_DAMAGE = (
    OSError, ValueError, EOFError, LookupError, RuntimeError, SyntaxError, TypeError, ArithmeticError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error, lzma.LZMAError,
)  # fmt: skip


def load_archive(path: Path, *, name: str | None = None) -> Dataset:
    """Load an ``.npz`` archive; see `protocols.data.load_data` for what it holds.

    Parameters
    ----------
    path : Path
        The archive.
    name : str, optional
        What the data set is called. Default: the file's name without its ending.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If it is damaged or of another form; the sentence names file and key.
    """
    arrays = _read_archive(path)
    keys = _roles(arrays, path)
    inputs = {part: _examples(arrays[key], f"{path}: {key}") for (role, part), key in keys.items() if role == "x"}
    labels = {part: (arrays[key], f"{path}: {key}") for (role, part), key in keys.items() if role == "y"}
    return _assemble(path, inputs, labels, arrays.get("class_names"), name or path.stem)


def load_array(path: Path) -> Dataset:
    """Load a ``.npy`` file, its labels, and the test part beside a training part.

    Parameters
    ----------
    path : Path
        ``NAME.npy``. Its labels lie in ``NAME_labels`` or in the same name with ``y`` or ``labels`` for ``x``,
        ``features`` or ``embeddings``, and end in ``.npy``, ``.txt`` (one a line) or ``.csv``. Where the name says
        ``train`` and the same with ``test`` lies beside it, both are read.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If a file is damaged or of another form.
    """
    words = _words(path.stem)
    part = next((part for part in _PARTS if part in words), "")
    files = {part: path}
    if part == "train" and (other := path.with_stem(_swapped(path.stem, "train", "test"))).is_file():
        files["test"] = other
    inputs = {part: _examples(_read_array(file), str(file)) for part, file in files.items()}
    labels = {}
    for part, file in files.items():
        if (beside := _labels_beside(file)) is not None:
            labels[part] = (_read_labels(beside, len(inputs[part])), str(beside))
    return _assemble(path, inputs, labels, None, path.stem)


def _assemble(
    path: Path,
    inputs: dict[str, NDArray[Any]],
    labels: dict[str, tuple[NDArray[Any], str]],
    class_names: NDArray[Any] | None,
    name: str,
) -> Dataset:
    """Both parts from what was read; ``""`` is a part that is no part yet."""
    shapes = {part.shape[1:] for part in inputs.values()}
    if len(shapes) == 2:
        raise DataError(
            f"`{path}` must have examples of one shape, got {' and '.join(map(str, sorted(shapes)))}. "
            "Make x_train and x_test alike."
        )
    if not sum(len(part) for part in inputs.values()):
        raise DataError(f"`{path}` must hold at least one example, got none. Check how it was written.")
    parts, counts = list(inputs), [len(x) for x in inputs.values()]
    if any(y.dtype.kind in "USO" for y, _ in labels.values()):
        raw = [labels[part][0] if part in labels else None for part in parts]
        ids, names = named_labels(raw, counts, [labels[part][1] if part in labels else str(path) for part in parts])
    else:
        ids = []
        for part, count in zip(parts, counts, strict=True):
            y, where = labels.get(part, (None, str(path)))
            ids.append(number_labels(y, count, where))
        n_classes = 1 + max(int(y.max(initial=-1)) for y in ids)
        if class_names is None:
            n_distinct = len(np.unique(np.concatenate(ids)))
            check_ids(n_classes - 1, n_distinct=n_distinct, what=f"{path}: labels")
        names = _class_names(class_names, n_classes, path)
    of_part = {part: (x, y) for part, x, y in zip(parts, inputs.values(), ids, strict=True)}
    if "" in of_part:
        return divided(name, of_part[""], names)
    some = next(iter(inputs.values()))
    nothing = some[:0], np.zeros(0, np.int64)
    return make_dataset(name, of_part.get("train", nothing), of_part.get("test", nothing), names)


def _read_archive(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"`{path}` must be an .npz archive, got a single array. Name it NAME.npy.")
            known = [key for key in archive.files if _role(key) is not None or key == "class_names"]
            if not any((_role(key) or ("",))[0] == "x" for key in known):
                listed = ", ".join(archive.files) or "nothing"
                raise DataError(f"`{path}` must hold x_train or x_test, or x, got {listed}. Rename its arrays.")
            check_size(path, sum(_unpacked(archive, key) for key in known))
            arrays = {key: archive[key] for key in known}
    except _DAMAGE as error:
        if isinstance(error, SlotsError):
            raise
        raise DataError(
            f"`{path}` must be an .npz archive of plain arrays, got: {_first_line(error)}.{_advice(error)} "
            "Write it with numpy.savez."
        ) from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"`{path}: {key}` must be an array, got other content. Write it with numpy.savez.")
    return arrays


def _unpacked(archive: np.lib.npyio.NpzFile, key: str) -> int:
    """Bytes of an array once unpacked, by the archive's own list; the reader of archives goes no further than that."""
    names = archive.zip.namelist() if archive.zip else []
    return archive.zip.getinfo(key if key in names else f"{key}.npy").file_size if archive.zip else 0


def _read_array(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.lib.npyio.NpzFile):
                raise DataError(f"`{path}` must be one array, got an archive. Name it NAME.npz.")
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"`{path}` must be a plain array, got: {_first_line(error)}.{_advice(error)} Write it with numpy.save."
        ) from error
    return np.asarray(found)


def _advice(error: BaseException) -> str:
    """What mends the most frequent damage: strings in an array of Python objects."""
    return " Strings must be an array of dtype str." if "Object arrays" in str(error) else ""


def map_array(path: Path) -> NDArray[Any]:
    """An array on the disk that is read where it is used; a write to it stays in memory.

    Parameters
    ----------
    path : Path
        A ``.npy`` file of feature rows, or of uint8 images.

    Returns
    -------
    array of shape (example, feature) or (example, height, width[, channel])

    Raises
    ------
    DataError
        If it is damaged, or holds something else.
    """
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except _DAMAGE as error:
        raise DataError(
            f"`{path}` must be a plain array, got: {_first_line(error)}.{_advice(error)} Write it with numpy.save."
        ) from error
    rows = isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind == "f"
    if not rows and not (isinstance(found, np.ndarray) and found.ndim in (3, 4) and found.dtype == np.uint8):
        form = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        raise DataError(
            f"`{path}` must hold float rows (example, feature) or uint8 images (example, height, width[, channel]), "
            f"got {form}. Convert it."
        )
    return found


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _role(key: str) -> tuple[str, str] | None:
    """What an array is, ``x`` or ``y``, and of which part; None for any other name."""
    words = _words(key)
    parts = [word for word in words if word in _PARTS]
    rest = [word for word in words if word not in _PARTS]
    if len(parts) > 1 or len(rest) > 1 or not words:
        return None
    part = parts[0] if parts else ""
    if not rest or rest[0] in _INPUTS:
        return "x", part
    return ("y", part) if rest[0] in _LABELS else None


def _roles(arrays: Iterable[str], path: Path) -> dict[tuple[str, str], str]:
    """The key of each role; parts win over arrays that are of no part."""
    keys: dict[tuple[str, str], str] = {}
    for key in arrays:
        role = _role(key)
        if role is None:
            continue
        if role in keys:
            raise DataError(f"`{path}` must hold one array of a kind, got {keys[role]} and {key}. Remove one.")
        keys[role] = key
    if any(role == "x" and part for role, part in keys):
        keys = {(role, part): key for (role, part), key in keys.items() if part}
    return keys


def _swapped(stem: str, word: str, other: str) -> str:
    """A file's name with one of its words replaced, in lower case or as it stands."""
    return re.sub(rf"(?i)(?<![a-z]){word}(?![a-z])", other, stem, count=1)


def _labels_beside(path: Path) -> Path | None:
    """The file with the labels of an array's rows; None if there is none."""
    stems = [f"{path.stem}_labels", f"{path.stem}-labels"]
    for word in _words(path.stem):
        if word in _INPUTS:
            stems += [_swapped(path.stem, word, other) for other in _LABELS]
    files = (path.with_name(stem + ending) for stem in stems for ending in _LABEL_ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _read_labels(path: Path, n_examples: int) -> NDArray[Any]:
    """Labels from a file of their own: an array, or text with one a line; a CSV file may have a header."""
    if path.suffix == ".npy":
        return _read_array(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{path}` must be a text file in UTF-8, got: {_first_line(error)}. Convert it.") from error
    lines = text.splitlines()
    if path.suffix == ".csv":
        rows = [row for row in csv.reader(lines) if row]
        if any(len(row) != 1 for row in rows):
            raise DataError(f"`{path}` must have one column, the labels, got {len(rows[0])}. Remove the others.")
        lines = [row[0] for row in rows]
        lines = lines[1:] if len(lines) == n_examples + 1 else lines
    return np.array(lines, dtype=str)


def _examples(x: NDArray[Any], where: str) -> NDArray[Any]:
    if x.ndim == 2 and x.dtype.kind in "fiub":
        return feature_rows(x, where)
    if x.ndim not in (3, 4):
        raise DataError(
            f"`{where}` must be images (example, height, width[, channel]) or features (example, feature), "
            f"got shape {x.shape}. Reshape it."
        )
    if x.dtype != np.uint8:
        raise DataError(f"`{where}` must be uint8 images, 0 to 255, got {x.dtype}. Scale and convert them.")
    images = x[..., np.newaxis] if x.ndim == 3 else x
    if images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise DataError(f"`{where}` must have 1 or 3 channels, last, got shape {x.shape}. Move the channel axis.")
    return np.ascontiguousarray(images)


def feature_rows(x: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Numbers as float32 rows, all of them finite.

    Parameters
    ----------
    x : array of shape (example, feature)
        Floats, whole numbers or booleans.
    where : str
        File and key, for messages.

    Returns
    -------
    float32 array of shape (example, feature)

    Raises
    ------
    DataError
        If there is no feature, or a number is not finite in float32.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        features = np.ascontiguousarray(x, dtype=np.float32)
    if x.shape[1] == 0:
        raise DataError(f"`{where}` must have at least one feature, got shape {x.shape}. Check how it was written.")
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise DataError(f"`{where}` must be finite numbers, got {features[row].min()} in row {row}. Clean the data.")
    return features


def _class_names(names: NDArray[Any] | None, n_classes: int, path: Path) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(n_classes)))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"`{path}: class_names` must be a row of strings, got {names.dtype}. Convert them with str.")
    if len(names) < n_classes:
        raise DataError(
            f"`{path}: class_names` must name all {n_classes} classes, got {len(names)}. Add the missing names."
        )
    texts = (name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist())
    return tuple(check_name(text, f"{path}: class_names") for text in texts)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
