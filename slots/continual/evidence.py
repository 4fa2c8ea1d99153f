"""Evidence for a class: from its slots and from its mean, weighed by how well each foretold the stream so far."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import LEAST_ENERGY, Floats, PcaSlots, Rows, measure

SHARPNESS = 8.0
"""Evidence is minus this times the logarithm of an energy: a Student's t density with twice as many freedoms."""

_RATE = 0.5
_CAUTION = 0.01


@dataclass
class ClassEvidence:
    """Weighted class scores: class means, and what slots and means weigh.

    Parameters
    ----------
    means : float32 array of shape (label, feature)
        Mean of each label's unit rows; not a number before its first example.
    weights : float64 array of shape (2,)
        Of the slots and of the mean, >= 0.
    squares : float64 array of shape (2,)
        Sum of squared gradients so far (AdaGrad: Duchi et al., 2011).
    """

    means: Rows
    weights: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, n_features: int) -> ClassEvidence:
        """No labels yet, both weights one."""
        return cls(np.zeros((0, n_features), np.float32), np.ones(2), np.full(2, _CAUTION))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def copy(self) -> ClassEvidence:
        """The same in new arrays."""
        return ClassEvidence(self.means.copy(), self.weights.copy(), self.squares.copy())

    def add_labels(self, count: int) -> None:
        """Make room for further labels."""
        self.means = np.concatenate([self.means, np.full((count, self.means.shape[1]), np.nan, np.float32)])

    def total(self, slots: PcaSlots, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weighed evidence, float64 of shape (example, label); minus infinity for a label without examples."""
        known = self._known()
        parts = self._parts(measure(slots, rows)[0], slots, rows)[:, :, known]
        found = np.full((len(rows), len(known)), -np.inf)
        found[:, known] = np.tensordot(self.weights, parts, 1)
        return found

    def watch(self, slots: PcaSlots, label: int, rows: Rows, *, seen: bool) -> None:
        """Look at rows of a label before they are learned: who came near the others' slots, and which evidence erred.

        Parameters
        ----------
        slots : PcaSlots
            Their ``nearest_foreign_energy`` is brought up to date.
        label : int
            Label id of all of the rows.
        rows : float32 array of shape (example, feature)
            Unit rows, at least one.
        seen : bool
            Whether examples of this label were learned before; otherwise nothing could have foretold it.

        Notes
        -----
        One step of gradient descent on the cross-entropy of the softmax of the weighed evidence. Each example is
        foretold before it is learned (prequential: Dawid, 1984), so nothing is kept aside for it.
        """
        if len(slots) == 0:
            return
        energies = measure(slots, rows)[0]
        foreign = slots.labels != label
        nearest = energies.min(0).astype(np.float64)
        slots.nearest_foreign_energy[foreign] = np.minimum(slots.nearest_foreign_energy[foreign], nearest[foreign])
        known = self._known()
        if not seen or known.sum() < 2:
            return
        parts = self._parts(energies, slots, rows)[:, :, known]
        scores = np.tensordot(self.weights, parts, 1)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        error = odds / odds.sum(1, keepdims=True) - (np.flatnonzero(known) == label)
        gradient = np.einsum("kec,ec->k", parts, error) / len(rows)
        self.squares += gradient**2
        self.weights = np.maximum(self.weights - _RATE * gradient / np.sqrt(self.squares), 0.0)

    def learn(self, label: int, rows: Rows, count: int) -> None:
        """Take rows into the mean of a label that has ``count`` examples so far."""
        before = self.means[label] if count else np.zeros(self.means.shape[1], np.float32)
        self.means[label] = before + (rows.mean(0) - before) * np.float32(len(rows) / (count + len(rows)))

    def _known(self) -> npt.NDArray[np.bool_]:
        """Labels that have examples, of shape (label,)."""
        return ~np.isnan(self.means[:, 0])

    def _parts(self, energies: Floats, slots: PcaSlots, rows: Floats) -> npt.NDArray[np.float64]:
        """Evidence of slots and of means, float64 of shape (2, example, label); minus infinity where there is none."""
        parts = np.full((2, len(rows), len(self.means)), -np.inf)
        logs = -SHARPNESS * np.log(energies.astype(np.float64))
        for label in np.unique(slots.labels).tolist():
            mine = logs[:, slots.labels == label]
            top = mine.max(1)
            parts[0, :, label] = top + np.log(np.exp(mine - top[:, None]).sum(1))
        known = self._known()
        means = self.means[known].astype(rows.dtype)
        away = (rows**2).sum(1)[:, None] - 2 * rows @ means.T + (means**2).sum(1)
        parts[1][:, known] = -SHARPNESS * np.log(np.maximum(away.astype(np.float64), LEAST_ENERGY))
        return parts
