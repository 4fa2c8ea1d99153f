"""Rows that stay on the disk: read, and brought to unit length, each time that some of them are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.errors import DataError
from slots.head.similarities import normalize
from slots.shapes import FeatureRows, Features, Ids

Singles = npt.NDArray[np.float32]


class StoredRows:
    """Rows of one or several arrays, one after the other, in float32 when they are asked for.

    Parameters
    ----------
    pieces : sequence of float arrays of shape (row, feature)
        Usually mapped files. Of one width; nothing of them is read here.

    Raises
    ------
    DataError
        If they are none, no float matrices, or of several widths.

    Examples
    --------
    >>> rows = StoredRows([np.zeros((2, 3)), np.ones((1, 3))])
    >>> len(rows), rows[1:].tolist(), rows[np.array([2, 0])].shape
    (3, [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], (2, 3))
    """

    def __init__(self, pieces: Sequence[Any]) -> None:
        self._pieces = [np.asarray(piece) for piece in pieces]
        found = {f"{it.dtype} of {'x'.join(map(str, it.shape[1:]))}" for it in self._pieces}
        if not found or any(it.ndim != 2 or it.dtype.kind != "f" for it in self._pieces) or len(self._widths) > 1:
            raise DataError(
                "`features` in several pieces must be float matrices (example, feature) of one width, got "
                f"{', '.join(sorted(found)[:5]) or 'none'} a row. Map files with np.load(file, mmap_mode='r')."
            )
        self._starts = np.cumsum([0, *(len(it) for it in self._pieces)])

    @property
    def _widths(self) -> set[int]:
        return {it.shape[-1] for it in self._pieces}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return int(self._starts[-1]), self._pieces[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Ids) -> Singles:
        """Some rows, in memory: consecutive ones, or those of the numbers in their order."""
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            found = np.empty((max(0, last - first), self.shape[1]), np.float32)
            for start, piece in zip(self._starts, self._pieces, strict=False):
                low, high = max(first, start), min(last, start + len(piece))
                if low < high:
                    found[low - first : high - first] = piece[low - start : high - start]
            return found
        if len(self._pieces) == 1:
            return np.asarray(self._pieces[0][rows], np.float32)
        found = np.empty((len(rows), self.shape[1]), np.float32)
        of_row = np.searchsorted(self._starts, rows, "right") - 1
        for place in np.unique(of_row):
            here = of_row == place
            found[here] = self._pieces[place][rows[here] - self._starts[place]]
        return found


class UnitRows:
    """Directions of stored rows: what a tensor of unit rows is, where all of them shall not be held at once.

    Parameters
    ----------
    stored : StoredRows
        Any finite rows.
    places : int64 array of shape (row,), optional
        Which of them count, in their order. Default: all.
    device : torch device, default "cpu"
        Where rows go that are asked for.
    """

    dtype = torch.float32

    def __init__(self, stored: StoredRows, places: Ids | None = None, device: torch.device | str = "cpu") -> None:
        self._stored, self._places, self.device = stored, places, torch.device(device)
        self.shape = (len(stored) if places is None else len(places), stored.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Int[Tensor, " row"]) -> Float[Tensor, "row feature"]:
        """Rows of length 1, or 0, in memory."""
        wanted = rows if isinstance(rows, slice) else rows.cpu().numpy()
        places = wanted if self._places is None else self._places[wanted]
        return normalize(torch.from_numpy(self._stored[places]).to(self.device))

    def take(self, rows: Int[Tensor, " row"]) -> UnitRows:
        """The same of some of the rows, which are not read."""
        places = rows.cpu().numpy()
        return UnitRows(self._stored, places if self._places is None else self._places[places], self.device)


Unit: TypeAlias = Features | UnitRows
"""Rows of length 1: in memory, or made as they are asked for."""

ManyRows: TypeAlias = FeatureRows | Sequence[FeatureRows]
"""Features as a user may hold them: an array or tensor, which may be a mapped file, or several one after the other."""


def taken(unit: Unit, rows: Int[Tensor, " row"]) -> Unit:
    """Some of the rows, in the form that all are in."""
    return unit[rows] if isinstance(unit, Tensor) else unit.take(rows)


def stored_or_here(features: ManyRows) -> Features | StoredRows:
    """What a user holds: a tensor, or rows that stay where they are (a mapped file, or several pieces)."""
    pieces = features if isinstance(features, list | tuple) else []
    if pieces and all(isinstance(it, np.ndarray | Tensor) and it.ndim == 2 for it in pieces):
        return StoredRows([it.numpy(force=True) if isinstance(it, Tensor) else it for it in pieces])
    return StoredRows([features]) if isinstance(features, np.memmap) else torch.as_tensor(features)
