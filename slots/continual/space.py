"""Where a continual learner compares rows: what is taken off them, divided by and put beside them before the sphere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import scale_of, unit_rows
from slots.shapes import Ids

FIRST: int = 256
"""Rows of a stream that fix it."""

FEW: int = 64
"""From so many features on, directions alone say enough."""

_LIFT = 3.0  # length of the constant, in root mean squares of what lies between rows and the means of their classes
_UNEVEN = 10  # times the middle spread, as in a whitening (`slots.features.whitening`)
_FLOOR = 0.1  # of the middle spread: a column that hardly varied among the first rows may vary later

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """The map ``[(x / scale - mean) / divisor, constant]`` from rows to what is compared by direction.

    Parameters
    ----------
    mean : float64 array of shape (feature,), or None
        Taken off first; None takes nothing off.
    divisor : float64 array of shape (feature,), or None
        Spread of each column, all > 0; None divides by nothing.
    constant : float
        Of a further column, >= 0; 0 adds none.
    scale : float
        A power of two near the largest number of the first rows, so that squares of huge or tiny ones are numbers.

    Notes
    -----
    Slots compare directions. Near the middle of few features directions say nothing: a ring inside another has the
    same ones. Beside a constant, a row's length is a part of its direction, as with ``TrainConfig.lift``. Columns with
    units of their own would drown the others: where the widest varies more than ten times as much as the middle one,
    each is divided by its spread. Everything is fixed by the first rows of a stream, within whose classes spreads are
    measured, so it never moves what was learned.
    """

    mean: Numbers | None = None
    divisor: Numbers | None = None
    constant: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, rows: Numbers, ids: Ids) -> Space:
        """The space that these rows ask for.

        Parameters
        ----------
        rows : float64 array of shape (example, feature)
            The first of a stream, at least one.
        ids : int64 array of shape (example,)
            Their label ids, >= 0.

        Examples
        --------
        >>> rows = np.random.default_rng(0).normal(size=(256, 3)) * [1, 1, 1000] + [5, 0, 0]
        >>> space = Space.of(rows, np.arange(256) % 2)
        >>> (space.mean * space.scale).round().astype(int).tolist()[:2], bool(space.divisor[2] * space.scale > 500)
        ([5, 0], True)
        >>> Space.of(np.eye(100), np.arange(100))           # many features alike: directions, as they are
        Space(mean=None, divisor=None, constant=0.0, scale=1.0)
        """
        few = rows.shape[1] < FEW
        scale = float(scale_of(np.abs(rows).max()))
        rows = rows / scale
        inner = _within_classes(rows, ids)
        spread = np.sqrt((inner**2).mean(0))
        varying = spread[spread > 0]
        uneven = len(varying) > 0 and bool(varying.max() > _UNEVEN * np.median(varying))
        if not few and not uneven:
            return cls()
        divisor = None
        if uneven:
            middle = np.median(varying)
            divisor = np.where(spread > 0, np.maximum(spread, _FLOOR * middle), middle)
            inner = inner / divisor
        length = float(np.sqrt((inner**2).sum(1).mean())) if few else 0.0
        return cls(rows.mean(0), divisor, (_LIFT * length or 1.0) if few else 0.0, scale)

    @staticmethod
    def width(n_features: int) -> int:
        """Number of columns of what is compared, whatever the rows are."""
        return n_features + (n_features < FEW)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(it.nbytes for it in (self.mean, self.divisor) if it is not None)

    def units(self, rows: Numbers) -> Numbers:
        """Rows of length one, of shape (example, `width`)."""
        if self.scale != 1:
            rows = rows / self.scale
        if self.mean is not None:
            rows = rows - self.mean
        if self.divisor is not None:
            rows = rows / self.divisor
        if self.constant:
            rows = np.concatenate([rows, np.full((len(rows), 1), self.constant)], 1)
        return unit_rows(rows)


def _within_classes(rows: Numbers, ids: Ids) -> Numbers:
    """What lies between each row and the mean of its class, or of all where each is a class of its own."""
    classes, place, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    if len(classes) == len(rows):
        place, sizes = np.zeros_like(place), np.array([len(rows)])
    sums = np.zeros((len(sizes), rows.shape[1]))
    np.add.at(sums, place, rows)
    return np.asarray(rows - (sums / sizes[:, None])[place])
