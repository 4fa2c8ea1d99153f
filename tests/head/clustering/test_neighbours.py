"""Nearest rows: the literal ones while there are few, nearly all of them beyond, whichever way they are kept."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_spreading as literal

from slots.clustering import neighbours
from slots.clustering.neighbours import nearest_neighbours
from slots.head.similarities import normalize


def rows(n, feature, *, clusters, seed=0):
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(clusters, feature))
    return normalize(torch.from_numpy(centres[rng.integers(0, clusters, n)] + rng.normal(size=(n, feature))).float())


def exact(unit, count):
    scores = unit.double() @ unit.double().T
    return scores.fill_diagonal_(-2).topk(count, dim=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 14))
def test_nearest_rows_are_the_literal_ones(seed, n, count):
    unit = normalize(torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3))))
    assert nearest_neighbours(unit, count).tolist() == literal.neighbours(unit.numpy(), count)


def test_up_to_so_many_rows_nothing_is_approximate(monkeypatch):
    monkeypatch.setattr(neighbours, "_among_cells", None)
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 3000)
    unit = rows(neighbours.EXACT_ROWS, 4, clusters=5)
    assert nearest_neighbours(unit, 2).shape == (neighbours.EXACT_ROWS, 2)
    with pytest.raises(TypeError, match="not callable"):
        nearest_neighbours(rows(neighbours.EXACT_ROWS + 1, 4, clusters=5), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_find_nearly_all(dtype, monkeypatch):
    """By the compiled loop (float32) and by the way for other devices (float64)."""
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 8192)
    monkeypatch.setattr(neighbours, "_CELL", 128)
    unit = rows(9000, 16, clusters=30).to(dtype)
    found, wanted = nearest_neighbours(unit, 10), exact(unit, 10)
    picked = unit[:, None].double() @ unit[found].double().transpose(1, 2)
    assert (picked[:, 0].diff(dim=1) <= 1e-6).all(), "the nearest come first"
    assert not (found == np.arange(9000)[:, None]).any(), "no row is its own neighbour"
    assert all(len(set(row)) == 10 for row in found.tolist())
    hits = (torch.from_numpy(found)[:, :, None] == wanted.indices[:, None]).any(2).double().mean()
    assert float(hits) > 0.97
    np.testing.assert_array_equal(nearest_neighbours(unit, 10), found)


def test_both_ways_of_keeping_the_best_are_one():
    rng = np.random.default_rng(1)
    scores = torch.full((50, 4), -torch.inf)
    other, found = scores.clone(), torch.full((50, 4), -1)
    kept = found.clone()
    for _ in range(6):
        part, others = torch.from_numpy(rng.permutation(50)[:30]), torch.from_numpy(rng.permutation(50)[:3])
        near = torch.from_numpy(rng.normal(size=(30, 3))).float()
        neighbours._keep_best(near.clone(), part, others, scores, found)
        neighbours._keep_best_anywhere(near.clone(), part, others, other, kept)
    assert torch.equal(scores, other)
    assert torch.equal(found[scores > -torch.inf], kept[scores > -torch.inf])


def test_rows_that_are_all_alike_have_neighbours(monkeypatch):
    """One cell gets everything, and the others nothing."""
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 8192)
    unit = torch.zeros(8300, 3)
    unit[:, 0] = 1
    found = nearest_neighbours(unit, 3)
    assert ((found >= 0) & (found < 8300)).all()
    assert not (found == np.arange(8300)[:, None]).any()


def test_cells_too_small_for_so_many_neighbours(monkeypatch):
    """What a row's cells cannot give is looked for among all."""
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 100)
    monkeypatch.setattr(neighbours, "_CELL", 4)
    monkeypatch.setattr(neighbours, "_LOOKED_AT", 2)
    unit = rows(200, 5, clusters=6)
    found = nearest_neighbours(unit, 150)
    assert all(len(set(row)) == 150 for row in found.tolist())
    assert not (found == np.arange(200)[:, None]).any()
