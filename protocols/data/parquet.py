"""Parquet files: their columns, whole or some row groups of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from protocols.data.bounds import check_size, largest
from slots.errors import DataError, MissingExtraError

_PIECE = 8192  # rows that are read at once, at most

Column: TypeAlias = Sequence[Any] | NDArray[Any]


def read_columns(path: Path, groups: range | None = None) -> dict[str, Column]:
    """Columns of a Parquet file by their names.

    Parameters
    ----------
    path : Path
        The file.
    groups : range, optional
        Row groups to read. Default: all.

    Returns
    -------
    dict of str to sequence
        Vectors of one length, and floats, as arrays; all else as lists, None where a value is missing.

    Raises
    ------
    DataError
        If it is damaged, or would take more memory than `largest` allows.
    MissingExtraError
        If pyarrow is missing.
    """
    pa = arrow()
    with _readable(path, pa) as file:
        read = _read_pieces(path, file, range(file.metadata.num_row_groups) if groups is None else groups, pa)
        return {name: _column(read.column(name).combine_chunks(), pa) for name in dict.fromkeys(read.column_names)}


def group_rows(path: Path) -> list[int]:
    """Rows of each row group of a Parquet file.

    Raises
    ------
    DataError
        If it is damaged.
    MissingExtraError
        If pyarrow is missing.
    """
    with _readable(path, arrow()) as file:
        meta = file.metadata
        return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]


def arrow() -> Any:
    """The module pyarrow, with its parts ``compute`` and ``parquet``; a `MissingExtraError` where it is missing."""
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow, which is missing. Install it: pip install 'neural-slots[parquet]'."
        ) from error
    return pa


@contextmanager
def _readable(path: Path, pa: Any) -> Iterator[Any]:
    """A Parquet file, opened; what is wrong with it becomes one sentence."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, KeyError, pa.ArrowException) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"`{path}` must be a Parquet file, got: {first}. Write it again.") from error


def _read_pieces(path: Path, file: Any, groups: range, pa: Any) -> Any:
    """Read row groups piece by piece, so that one long text a million times is noticed in time."""
    meta, total, pieces = file.metadata, 0, []
    chosen = [meta.row_group(i) for i in groups]
    chunks = [group.column(j).total_uncompressed_size for group in chosen for j in range(meta.num_columns)]
    check_size(path, max(sum(chunks), sum(group.num_rows for group in chosen)))
    # No value is longer than its column; so a piece takes no more than what the whole may.
    rows = largest(path) // max([1, *chunks])
    for piece in file.iter_batches(batch_size=max(1, min(rows, _PIECE)), row_groups=list(groups)):
        total += piece.nbytes
        check_size(path, total)
        pieces.append(piece)
    return pa.Table.from_batches(pieces, schema=file.schema_arrow)


def _column(values: Any, pa: Any) -> Column:
    if _holds_vectors(values, pa):
        return _vector_column(values, pa)
    if pa.types.is_floating(values.type) and values.null_count == 0:
        floats: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return floats
    listed: list[Any] = values.to_pylist()
    return listed


def _holds_vectors(values: Any, pa: Any) -> bool:
    """Whether each value of an Arrow array is a list of so many numbers, none missing."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner))


def _vector_column(values: Any, pa: Any) -> Column:
    """Vectors of one length as an array without a detour over Python's numbers; else as lists, which are checked."""
    lengths = pa.compute.list_value_length(values).to_numpy(zero_copy_only=False)
    flat = values.flatten()
    if values.null_count or flat.null_count or len(lengths) == 0 or lengths.min() != lengths.max():
        found: list[Any] = values.to_pylist()
        return found
    rows: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(lengths), -1)
    return rows
