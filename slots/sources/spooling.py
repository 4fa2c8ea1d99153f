"""Rows that come block by block and may be more than memory holds."""

from __future__ import annotations

import tempfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from slots.errors import DataError

Form = tuple[np.dtype[Any], tuple[int, ...]]


class RowSpool:
    """Blocks of rows one after the other: in memory, and in a nameless file once they are many.

    Parameters
    ----------
    in_memory : int
        Bytes that are held; strings always are.

    Attributes
    ----------
    form : tuple or None
        Type and shape of a row; None before the first block.

    Examples
    --------
    >>> spool = RowSpool(in_memory=20)
    >>> for start in (0, 4):
    ...     spool.add(np.arange(start, start + 4.0))
    >>> rows = spool.rows()
    >>> float(rows.sum()), type(rows).__name__
    (28.0, 'memmap')
    """

    def __init__(self, in_memory: int) -> None:
        self.form: Form | None = None
        self._in_memory, self._held, self._count = in_memory, 0, 0
        self._blocks: list[npt.NDArray[Any]] = []
        self._file: IO[bytes] | None = None

    def add(self, block: npt.NDArray[Any]) -> None:
        """Put a block behind the others.

        Parameters
        ----------
        block : array of shape (example, ...)
            Like all before it.

        Raises
        ------
        DataError
            If it has another type or shape.
        """
        form = (block.dtype, block.shape[1:])
        self.form = self.form or form
        if self.form != form:
            raise DataError(
                f"`x` must give examples of one form, got {form[0]} of shape {form[1]} after {self.form[0]} of shape "
                f"{self.form[1]}. Resize or convert them in the data set."
            )
        self._count += len(block)
        if self._file is not None:
            self._file.write(block.tobytes())
            return
        self._blocks.append(block)
        self._held += block.nbytes
        if self._held > self._in_memory and block.dtype != object:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as it is mapped
            for it in self._blocks:
                self._file.write(it.tobytes())
            self._blocks = []

    def rows(self) -> npt.NDArray[Any]:
        """All rows, once, at the end: an array, or a map of the file, which goes when the last map of it does.

        Raises
        ------
        DataError
            If there is none.
        """
        if self.form is None:
            raise DataError("`x` must hold at least one example, got an empty data set. Check how it was made.")
        if self._file is None:
            return np.concatenate(self._blocks)
        with self._file as file:
            file.flush()
            # Copied on a write, as torch wants of what it reads, and so that nobody changes the file.
            return np.memmap(file, dtype=self.form[0], mode="c", shape=(self._count, *self.form[1]))
