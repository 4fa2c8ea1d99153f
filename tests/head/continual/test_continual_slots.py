"""Slots with directions: 8-bit numbers, energies, merging, and the rule of matching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_continual import energy_and_depth, matching_slot

from slots.continual.growth import Growth, learn, seal, unexplained
from slots.continual.pca_slots import OPEN, PcaSlots, measure, measure_one, merge, quantize
from slots.continual.sealed_match import match


def some_slots(rng: np.random.Generator, n_slots: int = 6, n_directions: int = 3, n_features: int = 8) -> PcaSlots:
    """Slots that learned random unit rows; the first two thirds are sealed."""
    slots = PcaSlots.empty(n_slots, n_directions, n_features)
    slots.labels[:] = rng.integers(3, size=n_slots)
    for slot in range(n_slots):
        rows = rng.normal(size=n_features) + 0.3 * rng.normal(size=(10, n_features))
        merge(slots, slot, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    slots.generations[: 2 * n_slots // 3] = rng.integers(3, size=2 * n_slots // 3)
    slots.limits[:] = rng.uniform([0.05, 1.0], [1.5, 20.0], size=(n_slots, 2))
    return slots


def unit_rows(rng: np.random.Generator, n: int, n_features: int = 8) -> np.ndarray:
    rows = rng.normal(size=(n, n_features))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_quantized_rows_are_half_a_scale_away_at_most(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(5, 7)).astype(np.float32)
    codes, scales = quantize(rows)
    assert codes.dtype == np.int8
    assert (np.abs(codes * scales[:, None] - rows) <= 0.501 * scales[:, None]).all()
    assert (np.abs(codes).max(1) == 127).all()


def test_a_row_of_zeros_stays_zero() -> None:
    codes, scales = quantize(np.zeros((1, 4), np.float32))
    assert not codes.any()
    assert scales[0] > 0


def test_energies_by_hand() -> None:
    slots = PcaSlots.empty(1, 1, 3)
    slots.codes[0] = [[0, 0, 127], [127, 0, 0]]
    slots.scales[0] = 1 / 127
    slots.variances[0], slots.residual[0] = 0.3, 0.2  # two free features: noise 0.1
    energies, depths = measure(slots, np.array([[1.0, 0.0, 0.0]]))
    # one step along the direction and one of length 1 off the plane: 1 * 0.1 / 0.4 + 1
    np.testing.assert_allclose(energies, [[1.25]], rtol=1e-6)
    np.testing.assert_allclose(depths, [[2.5]], rtol=1e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_energies_are_those_of_the_literal_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slots, rows = some_slots(rng), unit_rows(rng, 4)
    energies, depths = measure(slots, rows)
    for i, row in enumerate(rows):
        exact = measure_one(slots, row)
        for slot in range(len(slots)):
            wanted = energy_and_depth(slots, slot, row)
            assert energies[i, slot] == pytest.approx(wanted[0], rel=1e-9, abs=1e-11)
            assert depths[i, slot] == pytest.approx(wanted[1], rel=1e-6)
            assert (exact[0][slot], exact[1][slot]) == pytest.approx(wanted, rel=1e-9)


def test_an_energy_is_the_mahalanobis_distance_times_the_noise() -> None:
    rng = np.random.default_rng(0)
    slots = PcaSlots.empty(1, 2, 5)
    slots.codes[0, 0] = rng.integers(-127, 128, 5)
    slots.codes[0, 1, 1] = slots.codes[0, 2, 3] = 127
    slots.scales[0] = 1 / 127
    slots.variances[0], slots.residual[0] = [0.5, 0.2], 0.3
    covariance = np.diag([0.1, 0.6, 0.1, 0.3, 0.1])  # the noise, 0.3 / 3, on every feature
    away = rng.normal(size=5) - slots.means()[0]
    energy = measure(slots, (away + slots.means()[0])[None])[0][0, 0]
    assert energy == pytest.approx(0.1 * away @ np.linalg.inv(covariance) @ away, rel=1e-5)


@given(seed=st.integers(0, 1000), cut=st.integers(1, 11))
@settings(max_examples=15, deadline=None)
def test_merging_in_two_groups_gives_mean_and_scatter_of_all(seed: int, cut: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(12, 6)).astype(np.float32)
    slots = PcaSlots.empty(1, 6, 6)
    merge(slots, 0, rows[:cut])
    merge(slots, 0, rows[cut:])
    directions = slots.directions()[0]
    np.testing.assert_allclose(slots.means()[0], rows.mean(0), atol=0.02)
    found = (directions.T * slots.variances[0]) @ directions
    np.testing.assert_allclose(found, np.cov(rows.T, bias=True), atol=0.08)
    assert slots.counts[0] == 12


def test_what_the_directions_leave_goes_to_the_rest() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    slots = PcaSlots.empty(1, 2, 6)
    for part in np.split(rows, 4):
        merge(slots, 0, part)
    total = rows.var(0).sum()
    assert slots.variances[0].sum() + slots.residual[0] == pytest.approx(total, rel=0.02)
    kept = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[-2:].sum()
    assert slots.variances[0].sum() > 0.8 * kept


@given(seed=st.integers(0, 10_000), lead=st.sampled_from([0.5, 0.9]))
@settings(max_examples=40, deadline=None)
def test_the_rule_of_matching_is_the_literal_one(seed: int, lead: float) -> None:
    rng = np.random.default_rng(seed)
    slots = some_slots(rng)
    rows = np.concatenate([unit_rows(rng, 10), slots.means().astype(np.float64)])
    found = match(slots, rows, lead=lead)
    assert found.tolist() == [matching_slot(slots, row, lead) for row in rows]


def test_open_slots_match_nothing() -> None:
    slots = some_slots(np.random.default_rng(0))
    slots.generations[:] = OPEN
    assert (match(slots, slots.means().astype(np.float64), lead=0.9) == -1).all()


def test_an_older_slot_answers_before_a_nearer_younger_one() -> None:
    slots = PcaSlots.empty(2, 1, 2)
    slots.codes[:, 0] = [[127, 0], [90, 90]]
    slots.scales[:] = 1 / 127
    slots.labels[:], slots.residual[:] = [0, 1], 0.1
    slots.generations[:], slots.limits[:] = [0, 1], [2.0, 50.0]
    row = np.array([[0.7, 0.7]])
    assert match(slots, row, lead=0.5).tolist() == [0]
    slots.generations[:] = [1, 0]
    assert match(slots, row, lead=0.5).tolist() == [1]


def test_how_many_slots_a_class_should_have() -> None:
    growth = Growth(first_slots=4, first_share=10, slot_share=100)
    assert [growth.wanted(n) for n in (1, 19, 20, 40, 399, 500, 1000)] == [1, 1, 2, 4, 4, 5, 10]


def test_a_slot_is_sealed_after_its_probation_and_not_as_far_as_its_nearest_rival() -> None:
    rng = np.random.default_rng(0)
    slots = PcaSlots.empty(0, 2, 6)
    centre = np.eye(6, dtype=np.float32)[0]
    for _ in range(6):
        rows = (centre + 0.1 * rng.normal(size=(40, 6))).astype(np.float32)
        learn(slots, 3, rows, wanted=1, others=5, rng=rng)
    assert len(slots) == 1
    assert slots.born_after[0] == 5
    free = Growth(probation=10, reach=0.0)
    assert seal(slots, free, np.array([14]), 7) == 0
    assert slots.generations[0] == OPEN
    near = slots.copy()
    assert seal(slots, free, np.array([15]), 7) == 1
    assert slots.generations[0] == 7
    typical = np.exp(slots.moments[0, 0, 1])
    assert slots.limits[0, 0] == pytest.approx(typical)
    near.nearest_foreign_energy[0] = typical / 2
    seal(near, free, np.array([15]), 7)
    assert near.limits[0, 0] == pytest.approx(0.45 * typical)
    inside = unexplained(slots, 3, np.stack([slots.means()[0], -slots.means()[0]]))
    assert inside.tolist() == [False, True]


def test_a_sealed_slot_learns_no_more() -> None:
    rng = np.random.default_rng(0)
    slots = PcaSlots.empty(0, 2, 6)
    learn(slots, 0, unit_rows(rng, 30, 6).astype(np.float32), wanted=2, others=0, rng=rng)
    slots.generations[:] = 0
    before = slots.copy()
    learn(slots, 0, unit_rows(rng, 30, 6).astype(np.float32), wanted=2, others=0, rng=rng)
    assert len(slots) == 3
    assert (slots.codes[:2] == before.codes).all()
    assert (slots.counts[:2] == before.counts).all()
