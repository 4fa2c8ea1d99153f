"""Folders that ``save_to_disk`` of Hugging Face's datasets wrote: one data set, or a dict of its splits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.data.arrays import feature_rows
from protocols.data.dataset import Dataset, divided, make_dataset
from protocols.data.decoding import ImageBytes
from protocols.data.images import load_images
from protocols.data.labels import named_labels
from protocols.data.tables import Columns
from slots.errors import DataError, MissingExtraError, SlotsError
from slots.sources.reading import IN_MEMORY, key_names, read_source
from slots.sources.spooling import RowSpool

_DICT = "dataset_dict.json"
_ONE = ("state.json", "dataset_info.json")
_PARTS = ("train", "test")
_BLOCK = 64  # pictures that are held decoded at once


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``.

    Parameters
    ----------
    folder : Path
        Any folder.

    Returns
    -------
    bool
    """
    return (folder / _DICT).is_file() or all((folder / name).is_file() for name in _ONE)


def load_saved(
    folder: Path, columns: Columns, *, image_size: tuple[int, int] | None = None, crop: float | None = None
) -> Dataset:
    """Load such a folder; nothing in it is run, and no network is used.

    Parameters
    ----------
    folder : Path
        As `is_saved` knows it.
    columns : Columns
        What the user named; else found by their names (`slots.sources.reading.INPUT_KEYS`).
    image_size, crop : optional
        As `protocols.data.images.load_images` takes them.

    Returns
    -------
    Dataset
        Splits ``train`` and ``test``; others are left out. One data set, or one split, is divided.

    Raises
    ------
    DataError
        If it is damaged, or holds no column that can be read.
    MissingExtraError
        If datasets is not installed (extra ``datasets``).
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"`{folder}` is a data set of Hugging Face and needs the package datasets. "
            "Install it: pip install 'neural-slots[datasets]'"
        ) from error
    with _damage_named(folder):
        found = datasets.load_from_disk(str(folder))
        splits = dict(found) if isinstance(found, dict) else {"": found}
        chosen = {part: splits[part] for part in _PARTS if part in splits}
        if len(chosen) < 2 and len(splits) == 1:
            chosen = splits
        if not chosen:
            raise DataError(f"`{folder}` must have a split train or test, got {', '.join(splits)}. Rename one.")
        read = {part: _read(data, columns, (image_size, crop)) for part, data in chosen.items()}
    x = {part: rows for part, (rows, _) in read.items()}
    if len({(rows.dtype.str, rows.shape[1:]) for rows in x.values()}) > 1:
        raise DataError(f"`{folder}` must have splits of the same form. Give both the same columns and sizes.")
    ids, names = _numbered(folder, chosen, read, columns)
    of_part = {part: (x[part], y) for part, y in zip(x, ids, strict=True)}
    name = folder.resolve().name
    if len(of_part) == 1 and next(iter(of_part)) != "test":
        return divided(name, next(iter(of_part.values())), names)
    nothing = next(iter(x.values()))[:0], np.zeros(0, np.int64)
    return make_dataset(name, of_part.get("train", nothing), of_part.get("test", nothing), names)


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except SlotsError:
        raise
    except Exception as error:  # the libraries below raise a dozen kinds
        said = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
        raise DataError(f"`{folder}` must be a whole data set of save_to_disk, got: {said}. Write it again.") from error


def _read(
    data: Any, columns: Columns, cut: tuple[tuple[int, int] | None, float | None]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Inputs and raw labels of one split."""
    from datasets import Image

    x, y = key_names(data.column_names, inputs=columns.text, labels=columns.label)
    if not isinstance(data.features[x], Image):
        found = read_source(data.with_format(None), inputs=x, labels=y)
        return (feature_rows(found.x, x) if found.x.ndim == 2 else found.x), found.y
    # Bytes are decoded by our own rules for pictures of strangers.
    bare = data.with_format(None).cast_column(x, Image(decode=False))
    return _pictures(bare, x, *cut), None if y is None else np.asarray(bare.with_format("numpy")[y][:])


def _pictures(data: Any, key: str, size: tuple[int, int] | None, crop: float | None) -> NDArray[Any]:
    spool = RowSpool(IN_MEMORY)
    shape = None
    for batch in data.select_columns([key]).iter(batch_size=_BLOCK):
        files = [
            ImageBytes(f"{key} {i}", it["bytes"]) if it["bytes"] is not None else Path(it["path"])
            for i, it in enumerate(batch[key])
        ]
        block = load_images(files, shape=shape, image_size=size, crop=crop)
        shape = (int(block.shape[1]), int(block.shape[2]), int(block.shape[3]))
        spool.add(block)
    return spool.rows()


def _numbered(
    folder: Path,
    data: dict[str, Any],
    read: dict[str, tuple[NDArray[Any], NDArray[Any] | None]],
    columns: Columns,
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Ids of the labels: as the data set numbers its names, or of the names that occur."""
    some = next(iter(data.values()))
    _, key = key_names(some.column_names, inputs=columns.text, labels=columns.label)
    names = tuple(getattr(some.features[key], "names", None) or ()) if key else ()
    labels = [y for _, y in read.values()]
    if names and all(y is not None and y.dtype.kind in "iu" for y in labels):
        return [np.asarray(y, np.int64) for y in labels], names
    where = [f"{folder}: {part or key}" for part in read]
    return named_labels([None if y is None else y.tolist() for y in labels], [len(x) for x, _ in read.values()], where)
