"""Any two cards of the game share one symbol."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.explor_layers.projective_plane import dobble_sets


def test_whole_planes():
    for order in (2, 3, 5, 7):
        n = order**2 + order + 1
        sets = dobble_sets(n, n).long()
        assert (sets.sum(0) == order + 1).all()
        assert (sets.sum(1) == order + 1).all()
        assert torch.equal(sets.T @ sets, torch.ones(n, n).long() + order * torch.eye(n).long())


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60))
def test_parts_of_planes_share_at_most_one(n_inputs, n_sets):
    sets = dobble_sets(n_inputs, n_sets).long()
    assert sets.shape == (n_inputs, n_sets)
    shared = sets.T @ sets
    assert (shared - shared.diag().diag() <= 1).all()


def test_order_skips_numbers_that_are_not_prime():
    # 21 inputs would fit a plane of order 4, which arithmetic modulo 4 does not make: order 5 it is.
    assert dobble_sets(21, 31).sum(1).tolist() == [6] * 21
