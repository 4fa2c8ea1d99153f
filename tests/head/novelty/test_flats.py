"""Flat pieces: what they are fitted to, how far a row lies from them, and what they add to a novelty detector."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import reference_ood as literal

from slots.head.similarities import normalize
from slots.novelty.detector import NARROW, WIDE, NoveltyDetector
from slots.novelty.distances import NoveltyMetric, distances
from slots.novelty.k_flats import fit_flats, nearest_flat, squared_distances


def planes(n, *, seed, off=0.0):
    """Rows on one of two planes in six dimensions, far apart, and moved off them by some length."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, 6))
    side = rng.integers(0, 2, n)
    rows[side == 0, :2] = rng.normal(size=(int((side == 0).sum()), 2))
    rows[side == 1, 2:4] = rng.normal(size=(int((side == 1).sum()), 2))
    rows[side == 1, 5] = 9
    rows[:, 4] = off
    return torch.from_numpy(rows).float(), side


def test_planes_are_found():
    rows, side = planes(400, seed=0)
    flats = fit_flats(rows + 0.01 * torch.randn(rows.shape), 2, directions=2, seed=0)
    moved, _ = planes(50, seed=1, off=0.7)
    assert len(flats) == 2
    nearest = squared_distances(rows, flats).argmin(1).numpy()
    assert max((nearest == side).mean(), (nearest != side).mean()) == 1.0
    assert torch.allclose(squared_distances(moved, flats).amin(1), torch.tensor(0.49), atol=0.05)


@pytest.mark.parametrize("views", [1, 3])
def test_the_nearest_flat_is_the_literal_one(views):
    rows = normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)))
    flats = fit_flats(rows, 4, directions=2, seed=0)
    x = normalize(torch.randn(20, views, 8, generator=torch.Generator().manual_seed(1)))
    found, slot = nearest_flat(x, flats)
    pieces = [it.double().numpy() for it in (flats.middles, flats.directions, flats.spreads)]
    expected = [min(literal.flat_distance(view, *pieces) for view in row.double().numpy()) for row in x]
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-6)
    assert set(slot.tolist()) <= set(range(len(flats)))


def test_directions_are_orthonormal_and_the_same_each_time():
    rows = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    first, second = (fit_flats(rows, 5, directions=3, seed=2) for _ in range(2))
    assert torch.equal(first.middles, second.middles)
    for basis in first.directions:
        assert torch.allclose(basis.T @ basis, torch.eye(3), atol=1e-5)
    kept = first.only(torch.tensor([True, False, True, False, False]))
    assert len(kept) == 2
    assert torch.equal(kept.middles, first.middles[[0, 2]])


def test_too_few_examples_leave_no_flat():
    rows = torch.randn(6, 10)
    assert len(fit_flats(rows, 3, directions=6, seed=0)) == 0


def test_a_detector_keeps_no_more_vectors_than_it_was_given():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3000, 5)) @ rng.normal(size=(5, 40)) + 0.05 * rng.normal(size=(3000, 40))).astype(np.float32)
    detector = NoveltyDetector(200).fit(x[:2500])
    flats = detector.metric.flats
    assert flats is not None
    assert detector.n_vectors == len(detector.prototypes) + len(flats) * (1 + flats.directions.shape[2]) <= 200
    found = distances(torch.from_numpy(x[2500:])[:, None], detector.prototypes, detector.metric)
    assert found.values.shape == (500, 4)
    without = NoveltyDetector(200, shares=(0.6, 0.3, 0.1)).fit(x[:2500])
    assert without.metric.flats is None
    assert len(without.prototypes) == 200


def test_what_lies_off_the_surface_is_named():
    """Inputs between the familiar ones, off the surface by a little: no angle shows it, the surface does."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 40))
    x = (rng.normal(size=(4000, 4)) @ mixing + 0.02 * rng.normal(size=(4000, 40))).astype(np.float32)
    detector = NoveltyDetector(400, shares=(0.6, 0.0, 0.05, 0.35)).fit(x[:3500])
    off = x[3500:] + (0.3 * rng.normal(size=(500, 40))).astype(np.float32)
    usual, found = detector.assess(x[3500:]), detector.assess(off)
    assert usual.novel.mean() < 0.1
    assert found.novel.mean() > 0.9
    assert (found.reasons == "surface").mean() > 0.9


def test_the_angle_is_a_mean_over_the_nearest():
    """Each prototype by its best view, then the mean of the three smallest angles."""
    rng = np.random.default_rng(0)
    known, x = normalize(torch.from_numpy(rng.normal(size=(9, 5)))), torch.from_numpy(rng.normal(size=(20, 2, 5)))
    metric = NoveltyMetric.of(torch.randn(40, 5), torch.ones(40), shrinkage=0.05)
    found = distances(x.float(), known.float(), replace(metric, neighbours=3))
    angles = np.arccos(np.einsum("nvf,kf->nvk", normalize(x).numpy(), known.numpy())).min(1)
    assert found.values[:, 0].numpy() == pytest.approx(np.sort(angles, axis=1)[:, :3].mean(1), abs=1e-5)
    assert np.array_equal(found.nearest.numpy(), angles.argmin(1))


@pytest.mark.parametrize(("width", "shares", "neighbours"), [(40, NARROW, 10), (300, WIDE, 3)])
def test_defaults_go_by_the_number_of_features(width, shares, neighbours):
    x = np.random.default_rng(0).normal(size=(900, width)).astype(np.float32)
    detector = NoveltyDetector(300).fit(x)
    assert detector.metric.shares == pytest.approx(shares)
    assert detector.metric.neighbours == neighbours
    few = NoveltyDetector(15).fit(x)
    assert few.metric.neighbours == 1
    assert few.metric.flats is None
    assert sum(few.metric.shares) == pytest.approx(1)
