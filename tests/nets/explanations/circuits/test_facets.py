"""Planted mixtures of two features are told from pure ones, and a long group is one group."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from backbones.explanations.circuits.examples import auroc
from backbones.explanations.circuits.facets import facets


def test_planted_mixtures_are_told_from_pure_units():
    """A unit that is the nearness to one digit's mean, and sums of two such that are as strong as each other."""
    digits = load_digits()
    x = torch.from_numpy(digits.data).float()
    x = x - x.mean(0)
    means = torch.stack([x[digits.target == label].mean(0) for label in range(10)])
    said = (functional.normalize(x) @ functional.normalize(means).T).relu()
    said = said / said.quantile(0.98, 0)
    pairs = list(itertools.combinations(range(10), 2))[::2]
    pure = [facets(said[:, it], x) for it in range(10)]
    mixed = [facets(said[:, i] + said[:, j], x) for i, j in pairs]
    effects = [np.array([it.found.effect for it in both]) for both in (mixed, pure)]
    assert auroc(*effects) >= 0.9
    assert np.mean([it.is_several for it in mixed]) > 0.9
    first = mixed[pairs.index((0, 1))]
    nearer = (said[first.top.tolist(), 0] > said[first.top.tolist(), 1]).numpy()
    assert max(np.mean(nearer == first.groups), np.mean(nearer != first.groups)) > 0.9


def test_one_long_group_is_not_several():
    generator = np.random.default_rng(0)
    p_values = []
    for seed in range(40):
        points = generator.normal(size=(64, 6)) * [5, 1, 1, 0.5, 0.5, 0.5]
        found = facets(torch.ones(64), torch.from_numpy(points), encoder=lambda it: it, permutations=19, seed=seed)
        p_values.append(found.found.p_value)
    assert np.mean(np.array(p_values) <= 0.2) < 0.2 + 3.5 * math.sqrt(0.16 / 40)


def test_two_groups_by_hand():
    points = torch.cat([torch.zeros(40, 2), torch.ones(20, 2)]) + 1e-3 * torch.randn(60, 2)
    values = torch.linspace(1, 0.5, 60)
    found = facets(values, points, encoder=lambda it: it)
    assert found.shares == pytest.approx((2 / 3, 1 / 3))
    assert found.groups.tolist() == [0] * 40 + [1] * 20
    assert found.top.tolist() == list(range(60))
    assert found.is_several
    assert found.found.statistic > 0.99


def test_a_rare_group_is_no_facet():
    points = torch.cat([torch.zeros(57, 2), 9 * torch.ones(3, 2)]) + 1e-3 * torch.randn(60, 2)
    found = facets(torch.linspace(1, 0.5, 60), points, encoder=lambda it: it)
    assert found.found.p_value == 0.01
    assert not found.is_several


def test_what_has_no_facets_is_refused():
    with pytest.raises(ValueError, match="24 or more inputs, got 5"):
        facets(torch.ones(5), torch.randn(5, 3))
    with pytest.raises(ValueError, match="must differ"):
        facets(torch.ones(30), torch.ones(30, 3))
