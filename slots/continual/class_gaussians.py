"""Classes as normal distributions: each one's covariance, shrunk to that within all classes, read from the slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import LEAST_ENERGY, PcaSlots, Rows
from slots.shapes import Ids

Array = npt.NDArray[np.float64]

STRENGTHS: Final = (1.0, 8.0, np.inf)
"""How many examples a feature the shared covariance counts for beside those of a class; infinity: it stands alone."""

TARGETS: Final = 2
"""Shapes of the shared covariance: as it is but for its estimation error, and nearly a sphere."""

_ROUNDEST = 0.9
_MOST_DIRECTIONS = 96  # of a class
_BLOCK = 2**22  # elements of a block of coordinates


@dataclass(frozen=True)
class ClassGaussians:
    """A normal distribution for each label.

    Parameters
    ----------
    labels : int64 array of shape (label,)
        Label ids that have slots, ascending.
    counts : int64 array of shape (label,)
        Examples of each.
    basis : float64 array of shape (feature, feature)
        Eigenvectors of the covariance within classes, in columns.
    scalings : float64 array of shape (target, feature)
        What coordinates in the basis are multiplied by to be white under the shrunk covariance, for each of the
        `TARGETS`.
    means : float64 array of shape (target, label, feature)
        In white coordinates.
    directions : float64 array of shape (target, direction, feature)
        Unit principal directions of the classes, one class after the other, in white coordinates.
    scatters : float64 array of shape (target, direction)
        Sum of squares of a class's examples along each.
    starts : int64 array of shape (label,)
        First direction of each label.

    Notes
    -----
    The sum of squares of a class about its mean is read from its slots: between their means, along their directions,
    and what those leave. With the prior of an inverse Wishart distribution that counts as ``nu`` examples of the
    covariance within all classes (Friedman, "Regularized discriminant analysis", 1989, equation 18; Hoffbeck and
    Landgrebe, 1996), the squared distance of a row from a class is ``nu (x - m)' (nu C + S)^-1 (x - m) n / (n + 1)``:
    linear discriminant analysis where ``nu`` is infinite, a quadratic one where it is small. The covariance ``C`` is
    itself shrunk to a sphere, by the oracle-approximating estimate (Chen et al., 2010, equation 23) and to nine
    tenths; both are kept, because what estimates a covariance best is seldom what tells classes apart best.
    """

    labels: Ids
    counts: Ids
    basis: Array
    scalings: Array
    means: Array
    directions: Array
    scatters: Array
    starts: Ids

    @classmethod
    def from_slots(cls, slots: PcaSlots, means: Rows) -> Self:
        """Read the distributions from at least one slot.

        Parameters
        ----------
        slots : PcaSlots
            Open or sealed.
        means : float32 array of shape (label, feature)
            Mean of each label that has slots.

        Returns
        -------
        ClassGaussians
        """
        labels = np.unique(slots.labels)
        counts = np.bincount(slots.labels, slots.counts)[labels].astype(np.int64)
        factors = [_scatter_factor(slots.take(slots.labels == label), means[label]) for label in labels]
        size = slots.n_features
        scatter = sum((it.T @ it for it in factors), np.zeros((size, size)))
        scatter[np.diag_indices(size)] += float((slots.counts * slots.residual.astype(np.float64)).sum()) / size
        freedoms = max(1, int(counts.sum()) - len(labels))
        values, basis = np.linalg.eigh(scatter / freedoms)
        values = np.maximum(values, 0)
        scalings = np.stack([_scaling(values, share) for share in (_oracle_shrinkage(values, freedoms), _ROUNDEST)])
        turned = [_strongest(it) @ basis for it in factors]
        found = [[_principal(it * scaling) for it in turned] for scaling in scalings]
        sizes = np.array([len(it) for it in turned])
        return cls(
            labels=labels,
            counts=counts,
            basis=basis,
            scalings=scalings,
            means=(means[labels].astype(np.float64) @ basis) * scalings[:, None],
            directions=np.stack([np.concatenate([it[0] for it in row]) for row in found]),
            scatters=np.stack([np.concatenate([it[1] for it in row]) for row in found]),
            starts=np.cumsum(sizes) - sizes,
        )

    def log_energies(self, rows: Array) -> Array:
        """Logarithm of the squared distance of each row from each class.

        Parameters
        ----------
        rows : float64 array of shape (example, feature)
            Unit rows.

        Returns
        -------
        float64 array of shape (target * strength, example, label)
            For each of the `TARGETS` those of `STRENGTHS`; columns follow ``labels``.
        """
        found = np.empty((TARGETS, len(STRENGTHS), len(rows), len(self.labels)))
        step = max(1, _BLOCK // self.directions.shape[1])
        fresh = self.counts / (self.counts + 1)
        for i in range(0, len(rows), step):
            turned = rows[i : i + step] @ self.basis
            for target, scaling in enumerate(self.scalings):
                for place, energies in enumerate(self._energies(turned * scaling, target)):
                    found[target, place, i : i + step] = np.log(np.maximum(energies * fresh, LEAST_ENERGY))
        return found.reshape(-1, *found.shape[2:])

    def _energies(self, white: Array, target: int) -> list[Array]:
        """Squared distances for each strength, each of shape (example, label), from white coordinates."""
        means, directions, scatters = self.means[target], self.directions[target], self.scatters[target]
        away = (white**2).sum(1)[:, None] - 2 * white @ means.T + (means**2).sum(1)
        owner = np.repeat(np.arange(len(self.labels)), np.diff(np.append(self.starts, len(directions))))
        along = (white @ directions.T - (means[owner] * directions).sum(1)) ** 2
        found = []
        for strength in STRENGTHS:
            if np.isinf(strength):
                found.append(away)
                continue
            explained = along * (scatters / (scatters + strength * white.shape[1]))
            found.append(away - np.add.reduceat(explained, self.starts, axis=1))
        return found


def _scatter_factor(mine: PcaSlots, mean: Rows) -> Array:
    """Rows whose squares add up to what the slots of a label say of its scatter, of shape (row, feature)."""
    counts = mine.counts.astype(np.float64)
    between = np.sqrt(counts)[:, None] * (mine.means() - mean)
    lengths = np.sqrt(counts[:, None] * mine.variances)
    held = lengths > 0
    return np.concatenate([between, mine.directions()[held] * lengths[held][:, None]]).astype(np.float64)


def _strongest(factor: Array) -> Array:
    """A factor of few rows with nearly the same squares."""
    if len(factor) <= _MOST_DIRECTIONS:
        return factor
    turn = np.linalg.eigh(factor @ factor.T)[1][:, -_MOST_DIRECTIONS:]
    return np.asarray(turn.T @ factor)


def _principal(factor: Array) -> tuple[Array, Array]:
    """Unit principal directions of a factor and the sum of squares along each; those of no length have none."""
    squares, turn = np.linalg.eigh(factor @ factor.T)
    squares = np.maximum(squares, 0)
    length = np.sqrt(np.maximum(squares, 1e-12 * max(float(squares[-1]), LEAST_ENERGY)))
    return (turn.T @ factor) / length[:, None], squares


def _oracle_shrinkage(values: Array, freedoms: int) -> float:
    """Share of a sphere in the covariance with these eigenvalues that estimates the true one best, in [0, 1]."""
    size, total, squares = len(values), float(values.sum()), float((values**2).sum())
    error = (1 - 2 / size) * squares + total**2
    spread = (freedoms + 1 - 2 / size) * (squares - total**2 / size)
    return float(np.clip(error / spread, 0, 1)) if spread > 0 else 1.0


def _scaling(values: Array, share: float) -> Array:
    """One over the standard deviations of a covariance of which a share is a sphere."""
    sphere = float(values.mean()) or 1.0
    return np.asarray(1 / np.sqrt((1 - share) * values + max(share, 1e-6) * sphere))
