"""Ids of examples in the caller's own store, of which a model keeps those of the examples that its slots remember."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from slots.errors import DataError
from slots.shapes import Ids

LONGEST_ID = 256
"""Characters of an id, at most."""

ExampleIds: TypeAlias = Sequence[str] | npt.NDArray[Any]
"""One text an example: the key of an item, a path, a digest."""

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, ends of lines, halves of characters


def is_example_id(found: object) -> bool:
    """Whether something is text that can be an id: 1 to 256 characters, not all blank, without control characters."""
    fits = isinstance(found, str) and len(found) <= LONGEST_ID and bool(found.strip())
    return fits and not _UNFIT.search(str(found))


def check_example_ids(ids: ExampleIds, n: int) -> npt.NDArray[Any]:
    """One id for each example, or one sentence about what is wrong.

    Parameters
    ----------
    ids : sequence of str
        1 to 256 characters each, not all blank, without control characters; two examples may have the same.
    n : int
        Number of examples.

    Returns
    -------
    object array of shape (n,)
        The ids as they are.

    Raises
    ------
    DataError
        If there are more or fewer, or one is no such text.

    Examples
    --------
    >>> check_example_ids(["img-1", "img-2"], 2).tolist()
    ['img-1', 'img-2']
    """
    if isinstance(ids, str) or len(ids) != n:
        got = "one text" if isinstance(ids, str) else str(len(ids))
        raise DataError(f"`ids` must have one id for each of the {n} examples, got {got}. Pass a list of {n} texts.")
    kept = np.empty(n, dtype=object)
    for row, found in enumerate(ids):
        if not is_example_id(found):
            raise DataError(
                f"`ids` must be texts of 1 to {LONGEST_ID} characters without control characters, got {found!r:.60} at "
                f"row {row}. Pass the key under which your own store has the example."
            )
        kept[row] = str(found)
    return kept


def remembered_ids(ids: npt.NDArray[Any] | None, exemplars: Ids) -> npt.NDArray[Any]:
    """Ids of the examples that slots remember.

    Parameters
    ----------
    ids : object array of shape (example,), or None
        As `check_example_ids` gives them; None where the examples have none.
    exemplars : int64 array of shape (slot, exemplar)
        Rows of the examples, -1 for none.

    Returns
    -------
    object array of shape (slot, exemplar)
        Strings, empty where there is no example or no id.
    """
    kept = np.full(exemplars.shape, "", dtype=object)
    if ids is not None:
        there = exemplars >= 0
        kept[there] = ids[exemplars[there]]
    return kept
