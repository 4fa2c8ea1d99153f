"""Evidence for a class from all that slots remember, weighed by how well each kind foretells examples unseen."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from slots.continual.class_gaussians import STRENGTHS, TARGETS, ClassGaussians
from slots.continual.linear_head import LinearHead
from slots.continual.pca_slots import PcaSlots, Rows, measure
from slots.shapes import Ids

SHARPNESS = 8.0
"""How the slots of a class are pooled: their energies to the power of minus this are added."""

KINDS: Final = 2 + TARGETS * len(STRENGTHS)
"""Kinds of evidence: the slots, the normal distributions, and the linear classifier."""

_START = 16.0 / KINDS  # weight of each kind before anything is known
_TRUST = 0.05  # in the start: nats that a weight one away from it costs


@dataclass(frozen=True)
class Experts:
    """What gives evidence, made from slots and class means; nothing of it needs to be kept.

    Parameters
    ----------
    slots : PcaSlots
        At least one.
    gaussians : ClassGaussians
        A normal distribution for each label.
    head : LinearHead or None
        None where there is one label only.
    """

    slots: PcaSlots
    gaussians: ClassGaussians
    head: LinearHead | None

    @classmethod
    def from_slots(cls, slots: PcaSlots, means: Rows) -> Self:
        """Make them; ``means`` are float32 of shape (label, feature)."""
        gaussians = ClassGaussians.from_slots(slots, means)
        return cls(slots, gaussians, LinearHead.from_slots(slots) if len(gaussians.labels) > 1 else None)

    @property
    def labels(self) -> Ids:
        """Label ids that have slots, ascending."""
        return self.gaussians.labels

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays but those of the slots."""
        kept: list[object] = [getattr(self.gaussians, field.name) for field in fields(self.gaussians)]
        kept += [self.head.weights, self.head.offsets] if self.head else []
        return sum(it.nbytes for it in kept if isinstance(it, np.ndarray))

    def evidence(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Evidence of each kind for unit rows.

        Parameters
        ----------
        rows : float64 array of shape (example, feature)
            Unit rows.

        Returns
        -------
        float64 array of shape (kind, example, label)
            Minus the logarithm of an energy; of the linear classifier, the logarithm of a probability over the weight
            that all start from, so that it counts once. Columns follow ``labels``.
        """
        parts = np.zeros((KINDS, len(rows), len(self.labels)))
        parts[1:-1] = -self.gaussians.log_energies(rows)
        if self.head:
            parts[-1] = self.head.log_probabilities(rows) / _START
        logs = -SHARPNESS * np.log(measure(self.slots, rows)[0])
        for place, label in enumerate(self.labels.tolist()):
            mine = logs[:, self.slots.labels == label]
            top = mine.max(1)
            parts[0, :, place] = (top + np.log(np.exp(mine - top[:, None]).sum(1))) / SHARPNESS
        return parts


@dataclass
class ClassEvidence:
    """Weighted class scores: class means, and what each kind of evidence weighs.

    Parameters
    ----------
    means : float32 array of shape (label, feature)
        Mean of each label's unit rows; not a number before its first example.
    weights : float64 array of shape (kind,)
        Of the slots, of the normal distributions for each of `slots.continual.class_gaussians.TARGETS` those of
        ``STRENGTHS``, and of the linear classifier; >= 0.

    Notes
    -----
    Minus the logarithm of an energy times a weight is the logarithm of a Student's t density. The sum over kinds is a
    product of experts.
    """

    means: Rows
    weights: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, n_features: int) -> ClassEvidence:
        """No labels yet, all weights alike."""
        return cls(np.zeros((0, n_features), np.float32), np.full(KINDS, _START))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def copy(self) -> ClassEvidence:
        """The same in new arrays."""
        return ClassEvidence(self.means.copy(), self.weights.copy())

    def add_labels(self, count: int) -> None:
        """Make room for further labels."""
        self.means = np.concatenate([self.means, np.full((count, self.means.shape[1]), np.nan, np.float32)])

    def total(self, experts: Experts | None, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weighed evidence, float64 of shape (example, label); minus infinity for a label without examples."""
        found = np.full((len(rows), len(self.means)), -np.inf)
        if experts:
            found[:, experts.labels] = np.tensordot(self.weights, experts.evidence(rows), 1)
        return found

    def learn(self, label: int, rows: Rows, count: int) -> None:
        """Take rows into the mean of a label that has ``count`` examples so far."""
        before = self.means[label] if count else np.zeros(self.means.shape[1], np.float32)
        self.means[label] = before + (rows.mean(0) - before) * np.float32(len(rows) / (count + len(rows)))

    def weigh(self, slots: PcaSlots, rows: Rows, ids: Ids) -> None:
        """Set the weights by examples that neither slots nor means have learned.

        Parameters
        ----------
        slots : PcaSlots
            What was learned of at least the labels of the examples.
        rows : float32 array of shape (example, feature)
            Unit rows.
        ids : int64 array of shape (example,)
            Their label ids.

        Notes
        -----
        The weights minimise the cross-entropy of the softmax of the evidence, every label counting alike however many
        of its examples there are, plus a normal prior about the weights as they were: stacking (Wolpert, 1992) with
        weights that are not negative (Breiman, 1996). It is convex, so the minimum is the only one.
        """
        if len(np.unique(slots.labels)) < 2 or len(ids) == 0:
            return
        experts = Experts.from_slots(slots, self.means)
        places = np.searchsorted(experts.labels, ids)
        self.weights = fit_weights(experts.evidence(rows.astype(np.float64)), places, self.weights)


def watch(slots: PcaSlots, label: int, rows: Rows) -> None:
    """Remember how near rows of a label came to the slots of the others, before they are learned; in place.

    Parameters
    ----------
    slots : PcaSlots
        Their ``nearest_foreign_energy`` is brought up to date.
    label : int
        Label id of all of the rows.
    rows : float32 array of shape (example, feature)
        Unit rows, at least one.
    """
    foreign = slots.labels != label
    nearest = measure(slots, rows)[0].min(0).astype(np.float64)
    slots.nearest_foreign_energy[foreign] = np.minimum(slots.nearest_foreign_energy[foreign], nearest[foreign])


def fit_weights(parts: npt.NDArray[np.float64], places: Ids, start: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights >= 0 of the kinds of evidence that foretell the labels best.

    Parameters
    ----------
    parts : float64 array of shape (kind, example, label)
        Evidence, finite.
    places : int64 array of shape (example,)
        Column of the right label of each example.
    start : float64 array of shape (kind,)
        Weights that the prior prefers.

    Returns
    -------
    float64 array of shape (kind,)
    """
    counts = np.bincount(places)
    share = 1.0 / counts[places]
    share *= len(places) / share.sum()
    own = np.arange(len(places))

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scores = np.tensordot(weights, parts, 1)
        scores -= scores.max(1, keepdims=True)
        odds = np.exp(scores)
        total = odds.sum(1)
        step = weights - start
        value = float((share * (np.log(total) - scores[own, places])).sum()) + _TRUST * float((step**2).sum())
        error = odds / total[:, None]
        error[own, places] -= 1
        return value, np.einsum("kec,ec->k", parts, error * share[:, None]) + 2 * _TRUST * step

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return np.asarray(found.x, np.float64)
