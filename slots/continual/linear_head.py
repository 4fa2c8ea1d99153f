"""A linear classifier trained on what the slots remember: no example is needed a second time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import hadamard
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from slots.continual.pca_slots import PcaSlots, Rows
from slots.shapes import Ids

Array = npt.NDArray[np.float64]

_MOST_SIGNED = 15  # directions of a slot that its points spread along, the strongest first
_INVERSE_PENALTY = 10.0
_STEPS = 40


@dataclass(frozen=True)
class LinearHead:
    """Multinomial logistic regression on points that the slots remember.

    Parameters
    ----------
    weights : float64 array of shape (feature, label)
        One column a label, in ascending order of the label ids that have slots.
    offsets : float64 array of shape (label,)
        Added to each product.
    """

    weights: Array
    offsets: Array

    @classmethod
    def from_slots(cls, slots: PcaSlots) -> Self:
        """Train it.

        Parameters
        ----------
        slots : PcaSlots
            Open or sealed, of two labels or more.

        Returns
        -------
        LinearHead

        Notes
        -----
        Rehearsal of made-up examples (Robins, 1995): those of `remembered_points` stand for the examples that the
        slots learned, in one pass, and are forgotten again.
        """
        points, ids, shares = remembered_points(slots)
        model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last steps change no answer that is clear
            model.fit(points, ids, sample_weight=shares)
        weights, offsets = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
        if len(offsets) == 1:
            weights, offsets = np.hstack([-weights, weights]) / 2, np.append(-offsets, offsets) / 2
        return cls(weights, offsets)

    def log_probabilities(self, rows: Array) -> Array:
        """Logarithm of the probability of each label, float64 of shape (example, label), from unit rows."""
        scores = rows @ self.weights + self.offsets
        scores -= scores.max(1, keepdims=True)
        return np.asarray(scores - np.log(np.exp(scores).sum(1, keepdims=True)))


def remembered_points(slots: PcaSlots) -> tuple[Rows, Ids, npt.NDArray[np.float64]]:
    """Points with the mean and the spread of each slot.

    Parameters
    ----------
    slots : PcaSlots
        Open or sealed.

    Returns
    -------
    points : float32 array of shape (point, feature)
        For each slot its mean, one standard deviation to either side along each of its 15 strongest directions at
        once: the sides are orthogonal columns of a Hadamard matrix, so that mean and covariance of the points are
        those of the slot.
    ids : int64 array of shape (point,)
        Label ids.
    shares : float64 array of shape (point,)
        For how many examples a point stands; those of a slot add up to its count.
    """
    spread = np.sqrt(slots.variances[:, :_MOST_SIGNED])
    count = 1 << int(spread.shape[1]).bit_length()
    sides = hadamard(count)[:, 1 : 1 + spread.shape[1]].astype(np.float32)
    away = np.einsum("pr,srf->spf", sides, spread[:, :, None] * slots.directions()[:, :_MOST_SIGNED])
    points = slots.means()[:, None] + away
    needed = np.ones(points.shape[:2], np.bool_)
    needed[~spread.any(1), 1:] = False
    per_slot = np.broadcast_to(needed.sum(1, keepdims=True), needed.shape)
    own = np.repeat(np.arange(len(slots)), count).reshape(needed.shape)[needed]
    return points[needed], slots.labels[own], slots.counts[own] / per_slot[needed]
