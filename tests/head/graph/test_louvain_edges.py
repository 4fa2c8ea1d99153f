"""Graphs as lists: communities as nodes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.graph.louvain import Edges


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
