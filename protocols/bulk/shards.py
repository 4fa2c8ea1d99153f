"""Files as shards: pieces that one process reads, answers and writes as a whole."""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.data.arrays import map_array
from protocols.data.dataset import undivided
from protocols.data.loading import load_data
from protocols.data.parquet import group_rows, read_columns
from protocols.data.tables import ENDINGS, Columns, Table, examples, read_table
from slots.errors import DataError

ARRAYS = (".npy",)
WHOLE = (".npz",)

_Piece: TypeAlias = tuple[int, int, tuple[int, int] | None]  # first row, rows, row groups


@dataclass(frozen=True)
class Shard:
    """Some consecutive rows of a file.

    Parameters
    ----------
    name : str
        Of its answers, without an ending.
    file : str
        Absolute path.
    bytes : int
        Size of the file (count).
    first : int
        Number of its first row in the file.
    rows : int or None
        How many there are (count); None where only reading the file tells.
    groups : tuple of int, optional
        First row group of a Parquet file, and the one after the last.
    """

    name: str
    file: str
    bytes: int
    first: int = 0
    rows: int | None = None
    groups: tuple[int, int] | None = None


@dataclass(frozen=True)
class Rows:
    """What a shard holds.

    Parameters
    ----------
    x : array of shape (row, ...)
        Inputs; those of ``.npy`` files stay on the disk until they are used.
    ids : list or None
        What names the rows, as text: the same type in every shard, whatever its file holds. None where a row has none.
    """

    x: NDArray[Any]
    ids: list[str | None] | None


def find_shards(pattern: str, *, rows: int) -> list[Shard]:
    """Shards of all files that a pattern names, in the order of their names.

    Parameters
    ----------
    pattern : str
        A path with ``*``, ``?``, ``[...]`` and ``**``, or of one file. ``.npy`` files are cut every ``rows`` rows,
        Parquet files between row groups; ``.npz``, ``.csv``, ``.tsv``, ``.jsonl`` and ``.json`` files are one shard.
    rows : int
        Rows of a shard, at most (count, >= 1); a larger row group is a shard of its own.

    Returns
    -------
    list of Shard
        The same for the same files and ``rows``, whoever asks.

    Raises
    ------
    DataError
        If there is no such file, one is of another kind or damaged, or two would give answers of the same name.
    """
    files = sorted(os.path.abspath(it) for it in glob.glob(pattern, recursive=True) if os.path.isfile(it))
    if not files:
        raise DataError(f"`shards` must name at least one file, got {pattern!r}. Quote the pattern: 'data/*.parquet'.")
    top = _fixed_folder(pattern)
    names = [os.path.splitext(os.path.relpath(file, top))[0].replace(os.sep, "__") for file in files]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"`shards` must be files of different names, got several {twice[0]!r}. Rename one.")
    return [shard for file, name in zip(files, names, strict=True) for shard in _cut(Path(file), name, rows)]


def _fixed_folder(pattern: str) -> str:
    """The folder that a pattern names without ``*`` and the like: names within it stay when other files come."""
    parts = Path(os.path.abspath(pattern)).parts[:-1]
    stable = itertools.takewhile(lambda part: not glob.has_magic(part), parts)
    return os.path.join(*stable)


def read_rows(shard: Shard, columns: Columns, ids: str | None) -> Rows:
    """Read a shard.

    Parameters
    ----------
    shard : Shard
        What to read.
    columns : Columns
        Column of the texts of a table; it is found by its name where none is named.
    ids : str, optional
        Column of a table that names the rows.

    Returns
    -------
    Rows

    Raises
    ------
    DataError
        If the file is damaged, has other rows than when the shards were listed, or lacks a column.
    """
    path = Path(shard.file)
    if not path.is_file() or path.stat().st_size != shard.bytes:
        raise DataError(f"`{path}` must stay as it was when the run was begun, got another size. Name another --out.")
    ending = path.suffix.lower()
    if ending in ENDINGS:
        groups = None if shard.groups is None else range(*shard.groups)
        table = Table(path, read_columns(path, groups)) if groups is not None else read_table(path)
        named = None if ids is None else [_text(it) for it in table.columns[table.named(ids)]]
        rest = {name: column for name, column in table.columns.items() if name != ids}
        return Rows(examples(Table(path, rest, table.lines), columns)[0], named)
    if ids is not None:
        raise DataError(f"`{path}` must be a table to have the column {ids!r}, got an array. Leave --id-column out.")
    if ending in ARRAYS:
        return Rows(map_array(path)[shard.first : shard.first + (shard.rows or 0)], None)
    found = undivided(load_data(str(path)))  # in the order of the file
    return Rows(np.concatenate([found.x_train, found.x_test]), None)


def _text(value: Any) -> str | None:
    """A name as text; half of a character, which UTF-8 lacks, is spelt out."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def _cut(path: Path, name: str, rows: int) -> list[Shard]:
    ending, size = path.suffix.lower(), path.stat().st_size
    if ending in ARRAYS:
        n = len(map_array(path))
        pieces: list[_Piece] = [(start, min(rows, n - start), None) for start in range(0, n, rows)]
    elif ending == ".parquet":
        pieces = _groups(group_rows(path), rows)
    elif ending in WHOLE or ending in ENDINGS:
        return [Shard(name, str(path), size)]
    else:
        kinds = ", ".join((*ARRAYS, *WHOLE, *ENDINGS))
        raise DataError(f"`shards` must be files of the kinds {kinds}, got `{path}`. Name others.")
    width = len(str(max(0, len(pieces) - 1)))
    return [
        Shard(name if len(pieces) == 1 else f"{name}-{i:0{width}d}", str(path), size, first, count, groups)
        for i, (first, count, groups) in enumerate(pieces)
    ]


def _groups(counts: list[int], rows: int) -> list[_Piece]:
    """Consecutive row groups of at most so many rows together: first row, rows, groups; empty groups go along."""
    found: list[_Piece] = []
    first = start = held = 0
    for i, count in enumerate(counts):
        if held and held + count > rows:
            found.append((first, held, (start, i)))
            first, start, held = first + held, i, 0
        held += count
    return [*found, (first, held, (start, len(counts)))] if held else found
