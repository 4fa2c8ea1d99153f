"""Projection of rows onto the sphere, so that slots, which see directions alone, also see how far apart rows lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slots.errors import UsageError

Scaling = Literal["auto", "standard", "common", "none"]
Geometry = Literal["lifted", "direction"]
Rows = npt.NDArray[np.floating[Any]]
SCALINGS = ("auto", "standard", "common", "none")
GEOMETRIES = ("lifted", "direction")
_SAME_UNIT = 10.0  # a largest deviation of fewer medians than this looks like one unit for all features
_LARGEST = 1e100  # coordinates are cut here, far beyond any data, so that squares stay finite


@dataclass(frozen=True)
class SphereProjection:
    """Inverse gnomonic projection: scaled rows, with one constant coordinate appended, become unit vectors.

    Parameters
    ----------
    mean, scale : float64 arrays of shape (feature,)
        Subtracted, and divided by.
    height : float, optional
        The constant coordinate, in the scaled features' unit. None: only directions count, and the coordinate is 0, or
        1 for a row of zeros, which so has a direction of its own.

    Notes
    -----
    The lifted row is ``[z, h] / |[z, h]|``: the point where the ray to ``z``, on a plane that touches the sphere of
    radius ``h``, meets that sphere (the inverse of the gnomonic projection). A cap of the sphere is an ellipsoid
    around its middle in the plane, and for ``|z|`` small beside ``h`` angles are distances divided by ``h``. So
    slots work on tables, where the norm of a row carries as much as its direction.

    Examples
    --------
    >>> SphereProjection(np.zeros(2), np.ones(2), 1.0)(np.array([[0.0, 0.0], [0.75, 1.0]])).round(3)
    array([[0.   , 0.   , 1.   ],
           [0.469, 0.625, 0.625]], dtype=float32)
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    height: float | None

    @staticmethod
    def of(
        x: Rows, *, scaling: Scaling = "auto", geometry: Geometry = "lifted", height: float = 1.0
    ) -> SphereProjection:
        """Learn centre and scale from rows.

        Parameters
        ----------
        x : float array of shape (example, feature)
            At least one row, finite.
        scaling : {"auto", "standard", "common", "none"}, default "auto"
            ``standard`` divides each feature by its own deviation, ``common`` all by the same number, ``none`` leaves
            the rows as they are (nor are they centred). ``auto`` is ``common`` where the largest deviation is below
            ten medians, as for pixels or embeddings, and ``standard`` where units differ.
        geometry : {"lifted", "direction"}, default "lifted"
            ``direction`` throws the norm of a row away.
        height : float, default 1.0
            The appended coordinate, > 0, in root mean square norms of the scaled rows.

        Returns
        -------
        SphereProjection

        Raises
        ------
        UsageError
            If an option is not one of these.
        """
        if scaling not in SCALINGS:
            raise UsageError(f"`scaling` must be one of {', '.join(SCALINGS)}, got {scaling!r}. Try 'auto'.")
        if geometry not in GEOMETRIES:
            raise UsageError(f"`geometry` must be one of {', '.join(GEOMETRIES)}, got {geometry!r}. Try 'lifted'.")
        if height <= 0:
            raise UsageError(f"`height` must be > 0, got {height}. Try 1.0.")
        rows = np.ascontiguousarray(x, np.float64)
        centre = np.zeros(rows.shape[1]) if scaling == "none" else (rows / len(rows)).sum(0)
        spread = _spread(rows, centre)
        varying = spread[spread > 0]
        if scaling == "auto":
            scaling = "common" if 0 < _unevenness(varying) < _SAME_UNIT else "standard"
        if scaling == "none" or len(varying) == 0:
            scale = np.ones_like(spread)
        elif scaling == "common":
            scale = np.full_like(spread, np.sqrt(np.square(varying).mean()))
        else:
            scale = np.where(spread > 0, spread, 1.0)
        if geometry == "direction":
            return SphereProjection(centre, scale, None)
        norm = float(np.sqrt(np.square(spread / scale).sum()))
        return SphereProjection(centre, scale, height * (norm or 1.0))

    def __call__(self, x: Rows) -> npt.NDArray[np.float32]:
        """Project rows.

        Parameters
        ----------
        x : float array of shape (example, feature)
            In the units of the rows that the projection was learned from.

        Returns
        -------
        float32 array of shape (example, feature + 1)
            Unit rows. Each depends on its own row alone, to the last bit.
        """
        rows = np.clip((np.ascontiguousarray(x, np.float64) - self.mean) / self.scale, -_LARGEST, _LARGEST)
        blank = ~rows.any(1, keepdims=True)
        last = blank.astype(np.float64) if self.height is None else np.full((len(rows), 1), self.height)
        rows = np.concatenate([rows, last], 1)
        return np.asarray(rows / np.sqrt(np.square(rows).sum(1, keepdims=True)), np.float32)


def spread_differently(x: Rows, ratio: float) -> bool:
    """Whether the largest deviation of a feature is at least so many times the median of those that vary.

    Parameters
    ----------
    x : float array of shape (example, feature)
        At least one row, finite.
    ratio : float
        > 0.

    Examples
    --------
    >>> spread_differently(np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 9.0]]), 5)
    True
    """
    rows = np.ascontiguousarray(x, np.float64)
    spread = _spread(rows, (rows / len(rows)).sum(0))
    return _unevenness(spread[spread > 0]) >= ratio


def _spread(rows: npt.NDArray[np.float64], centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Root mean square of what lies between rows and a centre, along each feature; 0 where it is rounding."""
    spread = np.sqrt(np.square(rows - centre).mean(0))
    constant = spread <= 10 * np.finfo(np.float64).eps * np.abs(centre)  # of the mean
    return np.asarray(np.where(constant, 0.0, spread))


def _unevenness(varying: npt.NDArray[np.float64]) -> float:
    """The largest of some deviations, in medians; 0 where there is none."""
    return float(varying.max() / np.median(varying)) if len(varying) else 0.0


Lift = SphereProjection  # former name
