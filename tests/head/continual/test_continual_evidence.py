"""Evidence of a continual learner: what slots, covariances and a linear classifier say, and how they are weighed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import OAS

from slots.continual.buffer import PendingBuffer
from slots.continual.class_gaussians import ClassGaussians
from slots.continual.evidence import KINDS, ClassEvidence, Experts, fit_weights, watch
from slots.continual.linear_head import remembered_points
from slots.continual.pca_slots import PcaSlots, measure, merge


def learned(rng: np.random.Generator) -> tuple[PcaSlots, ClassEvidence, np.ndarray, np.ndarray]:
    """Three labels with two slots each that keep all they learned, the means, and further rows of the labels."""
    slots, evidence = PcaSlots.empty(6, 5, 5), ClassEvidence.empty(5)
    evidence.add_labels(4)  # the last has no examples yet
    slots.labels[:] = [0, 0, 1, 1, 2, 2]
    centres = rng.normal(size=(6, 5))
    for slot in range(6):
        rows = (centres[slot] + 0.4 * rng.normal(size=(12 + slot, 5))).astype(np.float32)
        merge(slots, slot, rows)
    for label in range(3):
        mine = slots.labels == label
        mean = np.average(slots.means()[mine], axis=0, weights=slots.counts[mine])
        evidence.learn(label, mean[None].astype(np.float32), 0)
    labels = rng.integers(3, size=30)
    rows = centres[2 * labels] + 0.8 * rng.normal(size=(30, 5))
    return slots, evidence, rows.astype(np.float32), labels


def class_scatter(slots: PcaSlots, evidence: ClassEvidence, label: int) -> np.ndarray:
    """Sum of squares of a label about its mean, slot by slot."""
    total = np.zeros((5, 5))
    for slot in np.flatnonzero(slots.labels == label):
        step = slots.means()[slot] - evidence.means[label]
        directions = slots.directions()[slot]
        total += slots.counts[slot] * (
            np.outer(step, step) + directions.T @ np.diag(slots.variances[slot]) @ directions
        )
    return total


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_energies_of_classes_are_those_of_the_shrunk_covariances(seed: int) -> None:
    slots, evidence, rows, _ = learned(np.random.default_rng(seed))
    found = ClassGaussians.from_slots(slots, evidence.means).log_energies(rows.astype(np.float64))
    scatters = [class_scatter(slots, evidence, label) for label in range(3)]
    counts = [int(slots.counts[slots.labels == label].sum()) for label in range(3)]
    freedoms = sum(counts) - 3
    within = sum(scatters) / freedoms
    sphere = np.trace(within) / 5 * np.eye(5)
    size, squares, total = 5, (within**2).sum(), np.trace(within)
    oracle = ((1 - 2 / size) * squares + total**2) / ((freedoms + 1 - 2 / size) * (squares - total**2 / size))
    for target, share in enumerate((min(oracle, 1.0), 0.9)):
        shared = (1 - share) * within + share * sphere
        for place, strength in enumerate((5.0, 40.0, np.inf)):
            for label in range(3):
                scaled = shared if np.isinf(strength) else shared + scatters[label] / strength
                away = rows.astype(np.float64) - evidence.means[label]
                energies = (away @ np.linalg.inv(scaled) * away).sum(1) * counts[label] / (counts[label] + 1)
                np.testing.assert_allclose(found[3 * target + place, :, label], np.log(energies), atol=2e-3)


def test_the_covariance_is_shrunk_as_scikit_learn_does() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 5)) * [3, 2, 1, 1, 0.5]
    rows -= rows.mean(0)
    slots = PcaSlots.empty(1, 5, 5)
    merge(slots, 0, rows.astype(np.float32))
    slots.counts[0] += 1  # so that the mean costs no freedom, as scikit-learn has it
    gaussians = ClassGaussians.from_slots(slots, slots.means())
    scaled = gaussians.basis @ np.diag(gaussians.scalings[0] ** -2) @ gaussians.basis.T
    model = OAS(assume_centered=True).fit(rows)
    np.testing.assert_allclose(scaled, 41 / 40 * model.covariance_, atol=0.1)


def test_remembered_points_have_the_mean_and_covariance_of_their_slot() -> None:
    slots, _, _, _ = learned(np.random.default_rng(4))
    points, ids, shares = remembered_points(slots)
    assert len(points) == 6 * 8
    for slot in range(6):
        mine = slice(8 * slot, 8 * slot + 8)
        assert (ids[mine] == slots.labels[slot]).all()
        assert shares[mine].sum() == pytest.approx(slots.counts[slot])
        np.testing.assert_allclose(points[mine].mean(0), slots.means()[slot], atol=1e-5)
        directions = slots.directions()[slot]
        wanted = directions.T @ np.diag(slots.variances[slot]) @ directions
        np.testing.assert_allclose(np.cov(points[mine].T, bias=True), wanted, atol=1e-4)


def test_a_slot_of_one_example_is_remembered_as_one_point() -> None:
    slots = PcaSlots.empty(1, 3, 5)
    merge(slots, 0, np.eye(5, dtype=np.float32)[:1])
    points, _, shares = remembered_points(slots)
    assert len(points) == 1
    assert shares.tolist() == [1.0]


def test_evidence_is_the_weighted_sum_and_none_is_minus_infinity() -> None:
    slots, evidence, rows, _ = learned(np.random.default_rng(0))
    experts = Experts.from_slots(slots, evidence.means)
    evidence.weights = np.linspace(0, 2, KINDS)
    total = evidence.total(experts, rows.astype(np.float64))
    energies = measure(slots, rows.astype(np.float64))[0]
    parts = experts.evidence(rows.astype(np.float64))
    for label in range(3):
        pooled = np.log((energies[:, slots.labels == label] ** -8.0).sum(1)) / 8
        np.testing.assert_allclose(parts[0, :, label], pooled, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(total[:, label], (evidence.weights[:, None] * parts[:, :, label]).sum(0))
    np.testing.assert_allclose(np.exp(parts[-1] * 2).sum(1), 1)
    assert (total[:, 3] == -np.inf).all()
    assert (evidence.total(None, rows.astype(np.float64)) == -np.inf).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_weights_are_the_least_of_the_balanced_cross_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts, places = rng.normal(size=(3, 40, 4)), rng.choice(4, p=[0.7, 0.1, 0.1, 0.1], size=40)
    parts[0, np.arange(40), places] += 1.0
    start = np.full(3, 2.0)

    def loss(weights: np.ndarray) -> float:
        scores = np.tensordot(weights, parts, 1)
        each = np.log(np.exp(scores).sum(1)) - scores[np.arange(40), places]
        mean = np.mean([each[places == label].mean() for label in np.unique(places)])
        return float(40 * mean + 0.05 * ((weights - start) ** 2).sum())

    found = fit_weights(parts, places, start)
    assert (found >= 0).all()
    assert all(loss(found) <= loss(np.maximum(found + rng.normal(scale=0.05, size=3), 0)) + 1e-6 for _ in range(50))


def test_evidence_that_foretells_gains_weight_and_noise_loses_it() -> None:
    slots, evidence, rows, labels = learned(np.random.default_rng(1))
    start = evidence.weights.copy()
    evidence.weigh(slots, rows, np.random.default_rng(0).integers(3, size=30))
    assert evidence.weights.sum() < 0.5 * start.sum()
    evidence.weights = start.copy()
    evidence.weigh(slots, rows[:0], labels[:0])
    assert (evidence.weights == start).all()


def test_slots_remember_how_near_other_labels_came() -> None:
    slots, _, rows, _ = learned(np.random.default_rng(3))
    watch(slots, 0, rows)
    energies = measure(slots, rows)[0]
    assert np.isinf(slots.nearest_foreign_energy[:2]).all()
    assert slots.nearest_foreign_energy[2:] == pytest.approx(energies[:, 2:].min(0))
    watch(slots, 0, rows[:5] + 10)
    assert slots.nearest_foreign_energy[2:] == pytest.approx(energies[:, 2:].min(0))


def test_a_mean_of_two_groups_is_that_of_all() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    evidence = ClassEvidence.empty(5)
    evidence.add_labels(1)
    evidence.learn(0, rows[:4], 0)
    evidence.learn(0, rows[4:], 4)
    np.testing.assert_allclose(evidence.means[0], rows.mean(0), atol=1e-6)


def test_a_fifth_of_each_label_is_held_out_by_the_least_ranks() -> None:
    buffer, rng = PendingBuffer.empty(3), np.random.default_rng(0)
    ids = rng.permutation(np.repeat([0, 1, 2, 3], [50, 10, 2, 1]))
    ranks = rng.random(len(ids))
    buffer.add(rng.normal(size=(len(ids), 3)).astype(np.float32), ids, ranks)
    held = buffer.held_out(np.array([100, 0, 0, 0, 0]), limit=1000)
    assert np.bincount(ids[held], minlength=4).tolist() == [30, 2, 1, 0]
    assert ranks[held & (ids == 0)].max() < ranks[~held & (ids == 0)].min()
    few = buffer.held_out(np.zeros(5, np.int64), limit=12)
    assert np.bincount(ids[few], minlength=4).tolist() == [3, 2, 1, 0]
    assert not buffer.held_out(np.zeros(5, np.int64), limit=3).any()
