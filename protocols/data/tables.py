"""Tables of text or of embeddings: CSV, JSON lines and Parquet files, and what their columns are."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.data.arrays import feature_rows
from protocols.data.bounds import check_size
from protocols.data.dataset import Dataset, divided, make_dataset
from protocols.data.labels import named_labels
from protocols.data.parquet import read_columns
from slots.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")

TEXT_COLUMNS = (
    "text", "sentence", "utterance", "query", "question", "content", "document", "review", "message", "comment",
    "description", "body", "title", "input", "prompt",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "target", "class", "intent", "category", "y")
"""Names that such columns are found by, in any case, the first that is there."""

_SPLIT_COLUMNS = ("split", "part")
_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "", "valid": "", "validation": "", "dev": "",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Columns that a user names; None are found by their names.

    Parameters
    ----------
    text : str, optional
        Column of the sentences.
    label : str, optional
        Column of the labels.
    """

    text: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Parameters
    ----------
    path : Path
        Where it comes from.
    columns : mapping of str to sequence
        Values of each column; None where a row has none.
    lines : sequence of int, optional
        Line of the file that each row ends in. Default: rows are counted from 0.
    """

    path: Path
    columns: Mapping[str, Sequence[Any] | NDArray[Any]]
    lines: Sequence[int] | None = None

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"

    def find(self, names: Sequence[str]) -> str | None:
        """The first column that has one of the names, in any case."""
        lower = {key.strip().lower(): key for key in reversed(list(self.columns))}
        return next((lower[name] for name in names if name in lower), None)

    def named(self, name: str) -> str:
        """The column of this name."""
        if name not in self.columns:
            raise DataError(f"`{self.path}` must have the column {name!r}, got {_listed(self.columns)}. Name another.")
        return name


def load_table(path: Path, columns: Columns) -> Dataset:
    """Load one table; see `protocols.data.load_data` for what it holds.

    Parameters
    ----------
    path : Path
        A file with one of `ENDINGS`.
    columns : Columns
        What the user named.

    Returns
    -------
    Dataset
        Both parts where a column ``split`` names them; else divided.
    """
    table = read_table(path)
    x, y = examples(table, columns)
    where = f"{path}: {y}" if y else str(path)
    (ids,), names = named_labels([table.columns[y] if y else None], [len(x)], [where])
    splits = _splits(table)
    if splits is None:
        return divided(path.stem, (x, ids), names)
    train, test = ((x[splits == part], ids[splits == part]) for part in ("train", "test"))
    return make_dataset(path.stem, train, test, names)


def load_tables(folder: Path, columns: Columns) -> Dataset | None:
    """Load ``train.csv`` and ``test.csv`` of a folder, or the same with another ending.

    Parameters
    ----------
    folder : Path
        It may hold other files too.
    columns : Columns
        What the user named.

    Returns
    -------
    Dataset or None
        None where the folder has no such files.
    """
    found = {part: [folder / f"{part}{end}" for end in ENDINGS] for part in ("train", "test")}
    files = {part: next((file for file in those if file.is_file()), None) for part, those in found.items()}
    tables = {part: read_table(file) for part, file in files.items() if file is not None}
    if not tables:
        return None
    read = {part: examples(table, columns) for part, table in tables.items()}
    kinds = {(x.dtype.str, x.shape[1:]) for x, _ in read.values()}
    if len(kinds) > 1:
        raise DataError(f"`{folder}` must have a train and a test table of the same form. Give both the same columns.")
    ids, names = named_labels(
        [tables[part].columns[y] if y else None for part, (_, y) in read.items()],
        [len(x) for x, _ in read.values()],
        [f"{tables[part].path}: {y}" for part, (_, y) in read.items()],
    )
    parts = {part: (x, of) for (part, (x, _)), of in zip(read.items(), ids, strict=True)}
    some = next(iter(parts.values()))[0]
    nothing = some[:0], np.zeros(0, np.int64)
    return make_dataset(folder.resolve().name, parts.get("train", nothing), parts.get("test", nothing), names)


def examples(table: Table, columns: Columns) -> tuple[NDArray[Any], str | None]:
    """The examples of a table, and what their labels are called.

    Parameters
    ----------
    table : Table
        As it was read.
    columns : Columns
        What the user named.

    Returns
    -------
    x : array of shape (example,) or (example, feature)
        Sentences or feature rows.
    label : str or None
        Name of the label column.

    Raises
    ------
    DataError
        If there is no row, or no column can be told to hold the examples.
    """
    n = len(next(iter(table.columns.values()), ()))
    if n == 0:
        raise DataError(f"`{table.path}` must hold at least one row, got none. Check how it was written.")
    label = table.find(LABEL_COLUMNS) if columns.label is None else table.named(columns.label)
    if columns.text is not None:
        return _sentences(table, table.named(columns.text)), label
    others = [key for key in table.columns if key not in (label, table.find(_SPLIT_COLUMNS))]
    if vectors := [key for key in others if _is_vector(table.columns[key])]:
        if len(vectors) > 1:
            raise DataError(
                f"`{table.path}` must have one column of vectors, got {_listed(vectors)}. Remove the others."
            )
        return _vectors(table, vectors[0]), label
    text = table.find([name for name in TEXT_COLUMNS if name != label])
    if text is None or text == label:
        strings = [key for key in others if _is_text(table.columns[key])]
        text = strings[0] if len(strings) == 1 else None
    if text is not None:
        return _sentences(table, text), label
    numbers = [column for key in others if (column := _numbers(table.columns[key])) is not None]
    if not numbers:
        raise DataError(
            f"`{table.path}` must have a column of sentences ({', '.join(TEXT_COLUMNS[:4])}, ...), of vectors, or of "
            f"numbers, got {_listed(table.columns)}. Name the one with sentences by --text-column."
        )
    return feature_rows(np.stack(numbers, axis=1), str(table.path)), label


def _sentences(table: Table, key: str) -> NDArray[Any]:
    """A column as an array of strings; rows without one are refused together."""
    found = np.empty(len(table.columns[key]), dtype=object)
    missing = []
    for row, value in enumerate(table.columns[key]):
        if value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip():
            missing.append(row)
        elif isinstance(value, (list, dict)):
            raise DataError(
                f"`{table.path}: {key}` must hold text, got {value!r:.60} in {table.place(row)}. Correct it."
            )
        found[row] = _whole(str(value))
    if missing:
        raise DataError(
            f"`{table.path}: {key}` must hold a text in each row, got {len(missing)} without, the first in "
            f"{table.place(missing[0])}. Fill them in or remove them."
        )
    return found


def _whole(text: str) -> str:
    """A text in which halves of characters, which no file can hold, are joined or replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_vector(column: Sequence[Any] | NDArray[Any]) -> bool:
    if isinstance(column, np.ndarray):
        return column.ndim == 2
    first = next((value for value in column if value is not None), None)
    return isinstance(first, list) and bool(first) and all(isinstance(value, (int, float)) for value in first)


def _is_text(column: Sequence[Any] | NDArray[Any]) -> bool:
    return _numbers(column) is None and any(isinstance(value, str) for value in column)


def _vectors(table: Table, key: str) -> NDArray[np.float32]:
    column = table.columns[key]
    if not isinstance(column, np.ndarray):
        length = len(next(value for value in column if value is not None))
        for row, value in enumerate(column):
            if not isinstance(value, list) or len(value) != length:
                found = f"{len(value)}" if isinstance(value, list) else f"{value!r:.40}"
                raise DataError(
                    f"`{table.path}: {key}` must hold vectors of {length} numbers, got {found} in {table.place(row)}. "
                    "Correct it."
                )
        try:
            column = np.array(column, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"`{table.path}: {key}` must hold vectors of numbers, got: {error}. Correct it.") from error
    return feature_rows(column, f"{table.path}: {key}")


def _numbers(column: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64] | None:
    """A column as numbers; None if any value is none."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64) if column.ndim == 1 else None
    if any(isinstance(value, (list, dict)) for value in column[:1]):
        return None
    try:
        return np.array([float(value) for value in column], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _splits(table: Table) -> NDArray[Any] | None:
    """The part of each row, where a column tells it."""
    key = table.find(_SPLIT_COLUMNS)
    words = [str(value).strip().lower() for value in table.columns[key]] if key else []
    if not words or any(word not in _SPLITS for word in words):
        return None
    return np.array([_SPLITS[word] for word in words])


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def read_table(path: Path) -> Table:
    """A table as it stands in a file, every column.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        return Table(path, read_columns(path))
    return _read_csv(path) if ending in (".csv", ".tsv") else _read_json(path)


def _read_csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file, _long_fields():
            head = file.readline()
            tabs = path.suffix.lower() == ".tsv" or ("\t" in head and "," not in head)
            delimiter = "\t" if tabs else ";" if ";" in head and "," not in head else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            rows, lines = [], []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise DataError(
                        f"`{path}` must have {len(names)} columns in each line, got {len(row)} in line "
                        f"{reader.line_num}. Put texts with commas or newlines into quotes."
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"`{path}` must be a CSV file in UTF-8, got: {error}. Convert it.") from error
    if len(set(names)) < len(names):
        raise DataError(f"`{path}` must have columns of different names, got {_listed(names)}. Rename one.")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    return Table(path, {name: _parsed_vectors(column) for name, column in columns.items()}, lines)


def _parsed_vectors(column: list[str]) -> list[Any]:
    """Lists of numbers from a column that holds them as text, as pandas writes them; any other column as it is."""
    if not re.match(r"\[\s*-?\d", column[0]):
        return column
    try:
        found = [json.loads(value) for value in column]
    except (ValueError, RecursionError):
        return column
    return found if all(isinstance(value, list) for value in found) else column


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let a text be as long as it is; the reader's own limit is 128 KiB."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_json(path: Path) -> Table:
    """Objects, one a line, or all in one list."""
    records: list[Any] = []
    lines: list[int] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            document = json.loads(text)
            records = document if isinstance(document, list) else [None]
            lines = list(range(len(records)))
        else:
            for line, piece in enumerate(text.split("\n"), 1):
                if piece.strip():
                    lines.append(line)
                    records.append(json.loads(piece))
    except (OSError, ValueError, RecursionError) as error:
        place = f" in line {lines[-1]}" if lines and not isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"`{path}` must be JSON in UTF-8, got: {error}{place}. Correct it.") from error
    if any(not isinstance(record, dict) for record in records):
        raise DataError(f'`{path}` must hold objects such as {{"text": "...", "label": "..."}}. Write one a line.')
    names = dict.fromkeys(key for record in records for key in record)
    check_size(path, 8 * len(names) * len(records))  # a place for each name in each record, whether it is there or not
    columns = {name: [record.get(name) for record in records] for name in names}
    return Table(path, columns, None if path.suffix.lower() == ".json" else lines)
