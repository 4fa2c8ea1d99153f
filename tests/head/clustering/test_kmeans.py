"""One k-means for all parts, and every part's answers as they were."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference_kmeans

from slots.clustering.kmeans import by_size, centres, directions, owners
from slots.head.similarities import normalize
from slots.novelty.detector import _prototypes
from slots.novelty.k_flats import _first_owners
from slots.update.drafting.pseudo_labelled_slots import _middles

SEEDS = st.integers(0, 2**16)


def unit_rows(seed, n, feature=6, *, groups=5, zeros=0, copies=0):
    """Rows of length 1 about some directions, with zero rows and copies among them."""
    draws = np.random.default_rng(seed)
    middles = draws.normal(size=(groups, feature))
    rows = middles[draws.integers(groups, size=n)] + 0.3 * draws.normal(size=(n, feature))
    rows[:zeros] = 0
    rows[n - copies :] = rows[n - 1] if n else 0
    return normalize(torch.from_numpy(draws.permutation(rows).astype(np.float32)))


@given(seed=SEEDS, n=st.integers(0, 60), k=st.integers(1, 20), zeros=st.integers(0, 5), copies=st.integers(0, 30))
def test_the_directions_of_a_class_are_those_of_the_fit_before(seed, n, k, zeros, copies):
    unit = unit_rows(seed, n, zeros=min(zeros, n), copies=min(copies, n)).numpy()
    assert np.array_equal(directions(unit, k, seed=seed), reference_kmeans.of_training(unit, k, seed))


@given(seed=SEEDS, n=st.integers(0, 60), k=st.integers(1, 20), zeros=st.integers(0, 5))
def test_the_prototypes_of_the_novelty_detector_are_those_before(seed, n, k, zeros):
    unit = unit_rows(seed, n, zeros=min(zeros, n))
    assert torch.equal(_prototypes(unit, k, seed, unit.device), reference_kmeans.of_novelty(unit, k, seed))


@given(seed=SEEDS, n=st.integers(1, 120), k=st.integers(1, 6), zeros=st.integers(0, 5), copies=st.integers(0, 110))
def test_the_middles_of_spread_labels_are_those_before(seed, n, k, zeros, copies):
    unit = unit_rows(seed, n, zeros=min(zeros, n), copies=min(copies, n))
    assert torch.equal(_middles(unit, k, seed), reference_kmeans.of_standing(unit, k, seed))


@given(seed=SEEDS, n=st.integers(1, 60), k=st.integers(1, 20))
def test_the_first_owners_of_flats_are_those_before(seed, n, k):
    unit = unit_rows(seed, n)
    assert torch.equal(_first_owners(unit, k, seed), reference_kmeans.of_flats(unit, k, seed))


@pytest.mark.parametrize("starts", [2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_clusters_of_the_clusterer_are_those_before(seed, starts):
    lifted = unit_rows(seed, 80).numpy()
    found = owners(lifted, 4, seed=seed, starts=starts)
    assert np.array_equal(found, reference_kmeans.of_clusterer(lifted, 4, seed, starts))
    assert found.dtype == np.int64


@pytest.mark.parametrize("seed", range(3))
def test_more_rows_than_a_sample_or_a_batch(seed):
    unit = unit_rows(seed, 9000, groups=40)
    assert torch.equal(_prototypes(unit, 30, seed, unit.device), reference_kmeans.of_novelty(unit, 30, seed))
    assert torch.equal(_first_owners(unit, 30, seed), reference_kmeans.of_flats(unit, 30, seed))
    assert torch.equal(_middles(unit, 30, seed), reference_kmeans.of_standing(unit, 30, seed))
    few = unit[:3000].numpy()
    assert np.array_equal(directions(few, 30, seed=seed), reference_kmeans.of_training(few, 30, seed))


def test_a_centre_between_opposite_rows_is_no_direction():
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    assert len(centres(rows, 1, seed=0)) == 0
    assert len(centres(rows, 2, seed=0)) == 2


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30))
def test_clusters_are_numbered_from_the_largest(ids):
    ids = np.array(ids)
    found = by_size(ids)
    assert np.array_equal(found, reference_kmeans.rows_by_size(ids))
    counts = np.bincount(found)
    assert all(left >= right > 0 for left, right in pairwise(counts))
    assert len({(a, b) for a, b in zip(ids.tolist(), found.tolist(), strict=True)}) == len(counts)


@given(SEEDS, st.integers(1, 12), st.integers(0, 20))
def test_communities_are_numbered_from_the_largest(seed, k, more):
    draws = np.random.default_rng(seed)
    communities = draws.permutation(np.concatenate([np.arange(k), draws.integers(k, size=more)]))
    sizes = draws.integers(0, 4, size=len(communities)).astype(np.float64)
    assert np.array_equal(by_size(communities, sizes), reference_kmeans.slots_by_size(communities, sizes))
