"""Graphs as lists: communities as nodes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.clustering.neighbours import nearest_neighbours
from slots.graph.louvain import Edges, cut
from slots.graph.neighbour_graph import part_of, shared_neighbours


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 10**6))
def test_communities_as_nodes_have_the_sums_of_the_edges_between_them(n, most, seed):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.4))
    weights = upper + upper.T
    communities = np.unique(rng.integers(0, most, n), return_inverse=True)[1]
    member = communities == np.arange(communities.max(initial=-1) + 1)[:, None]
    joined = Edges.of(weights).joined(communities)
    np.testing.assert_allclose(joined.dense(), member @ weights @ member.T, atol=1e-12)
    np.testing.assert_allclose(joined.degrees, (member @ weights).sum(1), atol=1e-12)
    for i in range(len(joined)):
        row = joined.nodes[joined.starts[i] : joined.starts[i + 1]]
        assert (np.diff(row) > 0).all()  # each neighbour once, in order


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_what_neighbours_share_is_a_number_an_edge_until_it_is_asked_for(n, count, seed):
    """A part of the graph, the weight between communities, and the communities as nodes are those of the matrix."""
    rng = np.random.default_rng(seed)
    near = nearest_neighbours(torch.from_numpy(rng.normal(size=(n, 3))), count + 2)
    edges = shared_neighbours(near, count)
    whole = edges.dense()
    np.testing.assert_array_equal(whole, shared_neighbours(near[:, :count]).dense())
    assert edges.weights.dtype == np.uint8
    kept = np.sort(rng.permutation(n)[: max(1, n // 2)])
    part = part_of(edges, kept)
    np.testing.assert_array_equal(part.dense(), whole[np.ix_(kept, kept)])
    np.testing.assert_allclose(part.degrees, part.dense().sum(1), atol=1e-12)
    communities = np.unique(rng.integers(0, 5, n), return_inverse=True)[1]
    apart = communities[:, None] != communities
    assert np.isclose(cut(edges, communities), whole[apart].sum())
    member = communities == np.arange(communities.max() + 1)[:, None]
    np.testing.assert_allclose(edges.joined(communities).dense(), member @ whole @ member.T, atol=1e-9)


def test_many_neighbours_are_counted_in_two_bytes():
    near = np.array([[j for j in range(301) if j != i] for i in range(301)])
    edges = shared_neighbours(near)
    assert edges.weights.dtype == np.uint16
    assert set(edges.dense()[np.triu_indices(301, 1)]) == {1.0}
