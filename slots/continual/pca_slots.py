"""Slots as probabilistic PCAs: each keeps a mean, its principal directions and their variances, in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.shapes import Ids

Rows = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.floating[Any]]

OPEN = -1
"""Generation of a slot that still learns."""

LEAST_ENERGY = 1e-9
"""Energies are never smaller, so that they have a logarithm."""

_TINY = 1e-8
_BLOCK = 2**23  # elements of a block of coordinates


def unit_rows(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of length one; a zero row stays zero."""
    rows = np.ascontiguousarray(rows)
    rows = rows / scale_of(np.abs(rows).max(1, initial=0.0, keepdims=True))  # squares of 1e200 are no numbers
    length = np.sqrt((rows**2).sum(1, keepdims=True))
    return np.asarray(rows / np.where(length > 0, length, 1.0))


def scale_of(largest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The power of two next to each number, >= 0, by which others can be divided without rounding; 1 for 0.

    Examples
    --------
    >>> scale_of(np.array([0.0, 0.75, 3e200])).tolist() == [1.0, 1.0, 2.0**666]
    True
    """
    return np.asarray(np.ldexp(1.0, np.clip(np.frexp(largest)[1], -1000, 1000)))


def quantize(rows: Rows) -> tuple[Codes, npt.NDArray[np.float32]]:
    """Whole numbers from -127 to 127 and one scale a row, the last axis being the feature.

    Parameters
    ----------
    rows : float32 array of shape (..., feature)
        Finite; each row gets a scale of its own.

    Returns
    -------
    codes : int8 array of shape (..., feature)
    scales : float32 array of shape (...)
        ``codes * scales`` is at most half a scale away from ``rows``.

    Examples
    --------
    >>> codes, scales = quantize(np.float32([[0.5, -1.0]]))
    >>> codes.tolist(), round(float(scales[0]) * 127, 6)
    ([[64, -127]], 1.0)
    """
    scales = np.maximum(np.abs(rows).max(-1, initial=0.0), _TINY).astype(np.float32) / np.float32(127)
    return np.rint(rows / scales[..., None]).astype(np.int8), scales


@dataclass
class PcaSlots:
    """Mixture of probabilistic PCAs: the slots of a continual learner, one row of each array a slot; none is removed.

    Parameters
    ----------
    codes : int8 array of shape (slot, 1 + direction, feature)
        The mean and the unit directions, quantized.
    scales : float32 array of shape (slot, 1 + direction)
        What the codes of a mean or direction are multiplied by.
    variances : float32 array of shape (slot, direction)
        Variance along each direction; 0 where there is none.
    residual : float32 array of shape (slot,)
        Mean squared distance of its examples from the plane of its directions.
    labels : int64 array of shape (slot,)
        Label id of each slot, >= 0.
    counts : int64 array of shape (slot,)
        Examples it learned from.
    generations : int64 array of shape (slot,)
        `OPEN`, or when it was sealed; a sealed slot never changes.
    moments : float64 array of shape (slot, 2, 3)
        Count, mean and summed squared deviation of the logarithms of the energy and the Mahalanobis distance of its
        examples, each measured before it was learned.
    nearest_foreign_energy : float64 array of shape (slot,)
        Least energy of an example of another label so far.
    born_after : int64 array of shape (slot,)
        How many examples of other labels had been learned when it came.
    limits : float64 array of shape (slot, 2)
        Largest energy and largest Mahalanobis distance that match; 0 while it is open.

    Notes
    -----
    A slot is a probabilistic PCA of a few neighbouring examples of one class (Tipping and Bishop, 1999), kept up to
    date by merging small groups of examples (sequential Karhunen-Loeve with a moving mean: Ross et al., 2008).
    """

    codes: Codes
    scales: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]
    residual: npt.NDArray[np.float32]
    labels: Ids
    counts: Ids
    generations: Ids
    moments: npt.NDArray[np.float64]
    nearest_foreign_energy: npt.NDArray[np.float64]
    born_after: Ids
    limits: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, n_slots: int, n_directions: int, n_features: int) -> PcaSlots:
        """So many open slots that know nothing yet, of label 0."""
        return cls(
            codes=np.zeros((n_slots, 1 + n_directions, n_features), np.int8),
            scales=np.zeros((n_slots, 1 + n_directions), np.float32),
            variances=np.zeros((n_slots, n_directions), np.float32),
            residual=np.zeros(n_slots, np.float32),
            labels=np.zeros(n_slots, np.int64),
            counts=np.zeros(n_slots, np.int64),
            generations=np.full(n_slots, OPEN, np.int64),
            moments=np.zeros((n_slots, 2, 3)),
            nearest_foreign_energy=np.full(n_slots, np.inf),
            born_after=np.zeros(n_slots, np.int64),
            limits=np.zeros((n_slots, 2)),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_features(self) -> int:
        """Features of a row."""
        return int(self.codes.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def copy(self) -> PcaSlots:
        """The same in new arrays."""
        return PcaSlots(**{field.name: getattr(self, field.name).copy() for field in fields(self)})

    def take(self, ids: Ids | npt.NDArray[np.bool_]) -> PcaSlots:
        """Some of the slots, in new arrays."""
        return PcaSlots(**{field.name: getattr(self, field.name)[ids] for field in fields(self)})

    def append(self, more: PcaSlots) -> None:
        """Put further slots behind these."""
        for field in fields(self):
            setattr(self, field.name, np.concatenate([getattr(self, field.name), getattr(more, field.name)]))

    def means(self) -> Rows:
        """The means, float32 of shape (slot, feature)."""
        return self.codes[:, 0] * self.scales[:, :1]

    def directions(self) -> Rows:
        """The unit directions, float32 of shape (slot, direction, feature)."""
        return self.codes[:, 1:] * self.scales[:, 1:, None]

    def noise(self) -> npt.NDArray[np.float32]:
        """Variance in each of the features that no direction spans, of shape (slot,)."""
        free = max(1, self.n_features - self.variances.shape[1])
        found: npt.NDArray[np.float32] = np.maximum(self.residual / free, _TINY)
        return found


def measure(slots: PcaSlots, rows: Floats) -> tuple[Floats, Floats]:
    """How far each row lies from each slot, and how far out within the slot's plane.

    Parameters
    ----------
    slots : PcaSlots
        The slots to measure from, open or sealed.
    rows : float array of shape (example, feature)
        Unit rows; the precision of the result is theirs.

    Returns
    -------
    energies : array of shape (example, slot)
        Squared distance, in which a step along a direction of variance ``v`` counts ``n / (v + n)`` with noise ``n``:
        the noise times the squared Mahalanobis distance of the slot's probabilistic PCA. >= 0.
    mahalanobis : array of shape (example, slot)
        Squared Mahalanobis distance within the plane.
    """
    kind = rows.dtype
    energies = np.empty((len(rows), len(slots)), kind)
    mahalanobis = np.empty((len(rows), len(slots)), kind)
    means, directions = slots.means().astype(kind), slots.directions().astype(kind)
    noise = slots.noise().astype(kind)
    inverse = 1 / (slots.variances.astype(kind) + noise[:, None])
    offsets = np.einsum("sf,srf->sr", means, directions)
    flat = directions.reshape(-1, slots.n_features)
    squares = (rows**2).sum(1)[:, None] + (means**2).sum(1)
    step = max(1, _BLOCK // max(1, len(flat)))
    for i in range(0, len(rows), step):
        part = rows[i : i + step]
        along = ((part @ flat.T).reshape(len(part), *offsets.shape) - offsets) ** 2
        depth = np.einsum("esr,sr->es", along, inverse)
        energies[i : i + step] = squares[i : i + step] - 2 * part @ means.T - along.sum(2) + depth * noise
        mahalanobis[i : i + step] = depth
    return np.maximum(energies, LEAST_ENERGY).astype(kind), mahalanobis


def measure_one(slots: PcaSlots, row: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """The same for a single row in sums whose order no other slot or row can change: the exact values.

    Parameters
    ----------
    slots : PcaSlots
        The slots to measure from, open or sealed.
    row : float64 array of shape (feature,)
        Of length 1 or 0.

    Returns
    -------
    energies, mahalanobis : float64 arrays of shape (slot,)
    """
    means, directions = slots.means().astype(np.float64), slots.directions().astype(np.float64)
    noise = slots.noise().astype(np.float64)
    away = row - means
    along = (directions * away[:, None]).sum(2) ** 2
    mahalanobis = (along / (slots.variances.astype(np.float64) + noise[:, None])).sum(1)
    energies = (away**2).sum(1) - along.sum(1) + mahalanobis * noise
    return np.maximum(energies, LEAST_ENERGY), mahalanobis


def merge(slots: PcaSlots, slot: int, rows: Rows) -> None:
    """Let an open slot learn some rows, in place.

    Parameters
    ----------
    slots : PcaSlots
        One of them changes.
    slot : int
        Place of the slot that learns; it must be open.
    rows : float32 array of shape (example, feature)
        At least one.

    Notes
    -----
    The old directions, each as long as the spread of its examples, the new rows about their mean and the step between
    both means span a small matrix with the sum of squares of all examples; its leading singular vectors are the new
    directions, and what they leave goes to the residual.
    """
    old, new = int(slots.counts[slot]), len(rows)
    total, mean = old + new, rows.mean(0)
    parts = [rows - mean]
    if old:
        before = slots.codes[slot, 0] * slots.scales[slot, 0]
        parts += [
            slots.codes[slot, 1:] * (slots.scales[slot, 1:] * np.sqrt(old * slots.variances[slot]))[:, None],
            (np.sqrt(old * new / total) * (before - mean))[None],
        ]
        mean = before + (mean - before) * (new / total)
    stacked = np.concatenate(parts)
    squares, turn = np.linalg.eigh((stacked @ stacked.T).astype(np.float64))
    keep = np.arange(len(squares))[::-1][: slots.variances.shape[1]]
    keep = keep[squares[keep] > 1e-6 * max(float(squares[-1]), _TINY)]
    found = np.zeros((1 + slots.variances.shape[1], slots.n_features), np.float32)
    found[0] = mean
    found[1 : 1 + len(keep)] = (turn[:, keep].T / np.sqrt(squares[keep])[:, None]).astype(np.float32) @ stacked
    slots.codes[slot], slots.scales[slot] = quantize(found)
    slots.variances[slot] = 0
    slots.variances[slot, : len(keep)] = squares[keep] / total
    left = max(0.0, float(squares.sum() - squares[keep].sum()))
    slots.residual[slot] = (old * slots.residual[slot] + left) / total
    slots.counts[slot] = total
