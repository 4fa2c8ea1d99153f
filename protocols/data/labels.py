"""Labels as files hold them, numbers or names or nothing, as ids and names of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slots.errors import DataError
from slots.labels import check_name

MAX_LABEL = 1_000_000
"""Numbers of classes end below this: far more would be something else than classes."""

RawLabels = Sequence[Any] | NDArray[Any]
"""Labels as a file holds them."""


def number_labels(y: NDArray[Any] | None, n_examples: int, where: str) -> NDArray[np.int64]:
    """Whole numbers as label ids, -1 for unknown; None leaves all unknown.

    Parameters
    ----------
    y : array of shape (example,) or (example, 1) or None
        Whole numbers, as floats too.
    n_examples : int
        How many there must be.
    where : str
        File and key, for messages.

    Returns
    -------
    int64 array of shape (example,)

    Raises
    ------
    DataError
        If they are no whole numbers from -1 on, or not one an example.
    """
    if y is None:
        return np.full(n_examples, -1, dtype=np.int64)
    y = _row(y)
    if y.dtype.kind == "f" and y.ndim == 1 and bool(np.isfinite(y).all()) and bool((y == np.round(y)).all()):
        y = np.clip(y, -(2.0**62), 2.0**62).astype(np.int64)
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise DataError(
            f"`{where}` must be a row of whole numbers, got {y.dtype} of shape {y.shape}. Encode the labels."
        )
    _check_count(y, n_examples, where)
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if len(y) and (int(y.min()) < -1 or int(y.max()) >= MAX_LABEL):
        raise DataError(
            f"`{where}` must lie between -1 (unknown) and {MAX_LABEL - 1}, got {y.min()} to {y.max()}. "
            "Number the classes from 0."
        )
    return np.ascontiguousarray(y, dtype=np.int64)


def named_labels(
    parts: Sequence[RawLabels | None], counts: Sequence[int], wheres: Sequence[str]
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Labels of any kind as positions in the sorted names that occur in any part.

    Parameters
    ----------
    parts : sequence of sequences
        Strings or whole numbers; None, NaN, an empty string and the number -1 stand for unknown. A whole part may be
        None.
    counts : sequence of int
        How many examples each part has.
    wheres : sequence of str
        File and column of each part, for messages.

    Returns
    -------
    ids : list of int64 arrays
        One for each part, -1 where unknown.
    names : tuple of str
        Sorted: as numbers where all of them are whole numbers, else as text.

    Raises
    ------
    DataError
        If a part has more or fewer labels than examples, or a label is a fraction or no text.

    Examples
    --------
    >>> ids, names = named_labels([["b", "a", ""], [10, 9]], [3, 2], ["one", "two"])
    >>> [part.tolist() for part in ids], names
    ([[3, 2, -1], [1, 0]], ('9', '10', 'a', 'b'))
    """
    rows: list[list[str | None]] = []
    for part, count, where in zip(parts, counts, wheres, strict=True):
        if part is None:
            rows.append([None] * count)
            continue
        values = _row(part) if isinstance(part, np.ndarray) else part
        if isinstance(values, np.ndarray) and values.ndim != 1:
            raise DataError(f"`{where}` must be a row of labels, got shape {values.shape}. Keep one label an example.")
        _check_count(values, count, where)
        rows.append([_name(value, where) for value in values])
    names = tuple(sorted({name for part in rows for name in part if name is not None}, key=_order))
    places = {name: place for place, name in enumerate(names)}
    return [np.array([-1 if name is None else places[name] for name in part], np.int64) for part in rows], names


def _row(y: NDArray[Any]) -> NDArray[Any]:
    """A column as a row."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _check_count(labels: RawLabels, n_examples: int, where: str) -> None:
    if len(labels) != n_examples:
        raise DataError(
            f"`{where}` must have one label an example, got {len(labels)} for {n_examples}. Check the archive."
        )


def _name(value: Any, where: str) -> str | None:
    """A label as text; None where it says that none is known."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(f"`{where}` must hold classes, got the number {value}. Name the column of the labels.")
        value = int(value)
    if isinstance(value, (list, dict, tuple)):
        raise DataError(f"`{where}` must hold one label an example, got {value!r}. Name the column of the labels.")
    name = " ".join(str(value).split())
    return None if name == "" or value == -1 else check_name(name, where)


def _order(name: str) -> tuple[int, int, str]:
    """Whole numbers first, by size; then text."""
    digits = name.removeprefix("-")
    return (0, int(name), name) if digits.isascii() and digits.isdigit() and len(digits) < 19 else (1, 0, name)
