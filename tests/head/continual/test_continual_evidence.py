"""Evidence of a continual learner: what slots and means say, and how they are weighed."""

from __future__ import annotations

import numpy as np
import pytest

from slots.continual.evidence import ClassEvidence
from slots.continual.pca_slots import PcaSlots, measure, merge


def learned(rng: np.random.Generator) -> tuple[PcaSlots, ClassEvidence, np.ndarray, np.ndarray]:
    """Three labels with two slots each, the means of all, and further rows of the labels."""
    slots, evidence = PcaSlots.empty(6, 2, 5), ClassEvidence.empty(5)
    evidence.add_labels(4)  # the last has no examples yet
    slots.labels[:] = [0, 0, 1, 1, 2, 2]
    centres = rng.normal(size=(6, 5))
    for slot in range(6):
        rows = (centres[slot] + 0.4 * rng.normal(size=(12, 5))).astype(np.float32)
        merge(slots, slot, rows)
    for label in range(3):
        evidence.learn(label, centres[2 * label : 2 * label + 2].astype(np.float32), 0)
    labels = rng.integers(3, size=30)
    rows = centres[2 * labels] + 0.8 * rng.normal(size=(30, 5))
    return slots, evidence, rows.astype(np.float32), labels


def literal(slots: PcaSlots, evidence: ClassEvidence, row: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Evidence for each of the three labels, term by term."""
    energies, found = measure(slots, row[None])[0][0], []
    for label in range(3):
        pooled = np.log(sum(energies[slot] ** -8.0 for slot in range(6) if slots.labels[slot] == label))
        found.append(weights[0] * pooled - weights[1] * 8 * np.log(((row - evidence.means[label]) ** 2).sum()))
    return np.array(found)


def test_evidence_is_the_literal_sum_and_none_is_minus_infinity() -> None:
    slots, evidence, rows, _ = learned(np.random.default_rng(0))
    for weights in ([1.0, 1.0], [0.7, 0.0]):
        evidence.weights = np.array(weights)
        total = evidence.total(slots, rows.astype(np.float64))
        wanted = [literal(slots, evidence, row, evidence.weights) for row in rows.astype(np.float64)]
        np.testing.assert_allclose(total[:, :3], wanted, rtol=1e-5)
        assert (total[:, 3] == -np.inf).all()


def test_weights_take_a_step_down_the_cross_entropy() -> None:
    slots, evidence, rows, labels = learned(np.random.default_rng(1))
    mine = rows[labels == 1]

    def loss(weights: np.ndarray) -> float:
        scores = np.array([literal(slots, evidence, row, weights) for row in mine.astype(np.float64)])
        return float((np.log(np.exp(scores).sum(1)) - scores[:, 1]).mean())

    start, step = evidence.weights.copy(), 1e-5
    gradient = np.array([(loss(start + step * it) - loss(start - step * it)) / (2 * step) for it in np.eye(2)])
    evidence.watch(slots, 1, mine, seen=True)
    np.testing.assert_allclose(evidence.squares, 0.01 + gradient**2, rtol=1e-3)
    np.testing.assert_allclose(
        evidence.weights, np.maximum(start - 0.5 * gradient / np.sqrt(evidence.squares), 0), 1e-3
    )


def test_a_label_that_nobody_knew_teaches_no_weights() -> None:
    slots, evidence, rows, _ = learned(np.random.default_rng(2))
    evidence.watch(slots, 3, rows, seen=False)
    assert evidence.weights.tolist() == [1.0, 1.0]


def test_slots_remember_how_near_other_labels_came() -> None:
    slots, evidence, rows, _ = learned(np.random.default_rng(3))
    evidence.watch(slots, 0, rows, seen=True)
    energies = measure(slots, rows)[0]
    assert np.isinf(slots.nearest_foreign_energy[:2]).all()
    assert slots.nearest_foreign_energy[2:] == pytest.approx(energies[:, 2:].min(0))
    evidence.watch(slots, 0, rows[:5] + 10, seen=True)
    assert slots.nearest_foreign_energy[2:] == pytest.approx(energies[:, 2:].min(0))


def test_a_mean_of_two_groups_is_that_of_all() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    evidence = ClassEvidence.empty(5)
    evidence.add_labels(1)
    evidence.learn(0, rows[:4], 0)
    evidence.learn(0, rows[4:], 4)
    np.testing.assert_allclose(evidence.means[0], rows.mean(0), atol=1e-6)
