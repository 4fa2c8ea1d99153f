"""How scores are cut into tiles on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tiling:
    """Sizes of a tile and how it is worked on.

    Parameters
    ----------
    side : int
        Rows and columns of a tile (power of two, >= 32).
    depth : int
        Features a step (a power of two up to 64, >= 16).
    warps, stages : int
        Warps a tile, and loads in flight.
    """

    side: int = 128
    depth: int = 64
    warps: int = 8
    stages: int = 3


COVERAGE_TILING = Tiling(depth=32)


@dataclass(frozen=True)
class ClassTiles:
    """The tiles of the coverage of each class by itself.

    Parameters
    ----------
    n_rows, n_columns, widths : int64 arrays of shape (class,)
        Rows, columns and 64-bit words a row of each class.
    about : int64 array of shape (tile, 7)
        First and last row and column of each tile, where its half-words go, and how many a row of its class has. Last,
        where the half-words of the mirrored tile go: of a symmetric matrix only tiles on and above the diagonal are
        made, and -1 says that there is no other.
    symmetric : bool
        Whether rows and columns are the same.
    tiling : Tiling
        Shape of a tile on the GPU; it changes the time, never the result.
    """

    n_rows: npt.NDArray[np.int64]
    n_columns: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    about: npt.NDArray[np.int64]
    symmetric: bool
    tiling: Tiling

    @classmethod
    def of(
        cls,
        rows_a_class: Sequence[int],
        columns_a_class: Sequence[int],
        *,
        symmetric: bool,
        tiling: Tiling = COVERAGE_TILING,
    ) -> ClassTiles:
        """Lay the tiles out.

        Parameters
        ----------
        rows_a_class, columns_a_class : sequence of int
            How many rows and columns each class has.
        symmetric : bool
            Whether rows and columns are the same.
        tiling : Tiling
            Shape of a tile.

        Returns
        -------
        ClassTiles
        """
        n_rows, n_columns = np.asarray(rows_a_class, np.int64), np.asarray(columns_a_class, np.int64)
        side, widths = tiling.side, -(-n_columns // 64)
        sizes = n_rows * widths
        high, wide = -(-n_rows // side), -(-n_columns // side)
        counts = high * wide
        of_class = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        first_row, first_column, first_word = (np.cumsum(part) - part for part in (n_rows, n_columns, sizes))
        i, j = within // wide[of_class] * side, within % wide[of_class] * side
        width = 2 * widths[of_class]
        row, column = first_row[of_class], first_column[of_class]
        target = 2 * first_word[of_class] + i * width + j // 32
        mirrored = np.where(i < j, 2 * first_word[of_class] + j * width + i // 32, -1)
        ends = row + n_rows[of_class], column + n_columns[of_class]
        about = np.stack([row + i, ends[0], column + j, ends[1], target, width, mirrored], axis=1).astype(np.int64)
        return cls(n_rows, n_columns, widths, about[i <= j] if symmetric else about, symmetric, tiling)
