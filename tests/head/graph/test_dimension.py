"""The dimension of a cloud, what the silhouette of its pieces is worth, and that few clear groups stay whole."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from slots.clustering.neighbours import nearest_neighbours
from slots.estimators.projection import SphereProjection
from slots.graph.dimension import intrinsic_dimension, silhouette_without_groups
from slots.graph.learning import learn_graph
from slots.graph.levels import silhouette


def lifted(x: np.ndarray, height: float = 20.0) -> torch.Tensor:
    """Rows far below the pole of a large sphere, where cosines are distances."""
    return torch.from_numpy(SphereProjection.of(x, scaling="common", height=height)(x))


@pytest.mark.parametrize(("dimension", "found"), [(1, 1.0), (2, 2.0), (3, 3.0), (5, 5.0), (20, 16.0)])
def test_the_dimension_of_a_cloud_is_estimated(dimension, found):
    unit = lifted(np.random.default_rng(0).normal(size=(1500, dimension)))
    assert intrinsic_dimension(unit, nearest_neighbours(unit, 20)) == pytest.approx(found, rel=0.12)


@pytest.mark.parametrize("copies", [2, 5])
def test_twins_do_not_change_the_dimension(copies):
    rows = np.random.default_rng(0).normal(size=(800, 4)).repeat(copies, 0)
    unit = lifted(rows)
    assert intrinsic_dimension(unit, nearest_neighbours(unit, 20 * copies)) == pytest.approx(4, rel=0.12)


def test_a_plane_among_many_features_has_two_dimensions():
    rng = np.random.default_rng(0)
    unit = lifted(rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 50)) + 0.001 * rng.normal(size=(1000, 50)))
    assert intrinsic_dimension(unit, nearest_neighbours(unit, 20)) == pytest.approx(2, rel=0.12)


@given(seed=st.integers(0, 1000), n=st.integers(3, 30), count=st.integers(2, 6), twins=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_estimate_is_the_literal_one(seed, n, count, twins):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x = np.concatenate([x, x[:1]]) if twins else x
    unit = torch.nn.functional.normalize(torch.from_numpy(x))
    near = nearest_neighbours(unit, count)
    inverses = []
    for row, others in zip(unit.numpy(), near, strict=True):
        far = [float(np.linalg.norm(unit[int(it)].numpy() - row)) for it in others]
        far = [it for it in far if it > 1e-6]
        if len(far) > 1:
            inverses.append(sum(math.log(far[-1] / it) for it in far[:-1]) / (len(far) - 1))
    expected = max(1.0, 1 / np.mean(inverses)) if any(inverses) else math.inf
    assert intrinsic_dimension(unit, near) == pytest.approx(expected, rel=1e-6)


def test_of_less_than_two_neighbours_nothing_is_said():
    unit = lifted(np.random.default_rng(0).normal(size=(2, 3)))
    assert intrinsic_dimension(unit, nearest_neighbours(unit, 1)) == math.inf
    assert silhouette_without_groups(math.inf) == 0


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 10, 20])
@pytest.mark.parametrize("pieces", [2, 20])
def test_pieces_of_a_cloud_without_groups_have_the_silhouette_that_is_said(dimension, pieces):
    x = np.random.default_rng(1).normal(size=(1500, dimension))
    groups = KMeans(pieces, n_init=1, random_state=0).fit_predict(x).astype(np.int64)
    found = silhouette(lifted(x).double(), groups)
    assert found == pytest.approx(3.1 / (dimension + 3), abs=0.06)
    assert silhouette_without_groups(dimension) <= found + 0.02


@pytest.mark.parametrize("dimension", [1, 2, 3, 6])
@pytest.mark.parametrize("n_groups", [2, 5])
def test_few_clear_groups_are_not_cut_into_pieces(dimension, n_groups):
    centres = 20.0 * np.arange(n_groups)[:, None] * np.ones(dimension)
    x, y = make_blobs(400, centers=centres, random_state=0)
    graph = learn_graph(lifted(x, height=2.0))
    assert graph.n_communities == n_groups
    assert adjusted_rand_score(y, graph.placement.communities) > 0.99
