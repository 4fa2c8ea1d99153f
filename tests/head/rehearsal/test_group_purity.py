"""The radius of groups against a literal greedy cover; what pools that lie closer together change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import mixture

from slots.head.similarities import normalize
from slots.rehearsal.group_purity import N_GROUPS, GroupRadius, group_radius
from slots.training import TrainConfig, fit


def rows(n_classes, count, *, seed, spread):
    x, y = mixture(n_classes, count, seed=seed, spread=spread)
    return normalize(torch.from_numpy(x)), torch.from_numpy(y)


def literal_purity(unit, labels, radius):
    """Greedy maximum coverage with sets, then the mean share of the middle's label among what each pick adds."""
    n = len(unit)
    caps = [{j for j in range(n) if j == i or float(unit[i] @ unit[j]) > math.cos(radius)} for i in range(n)]
    open_ones, shares = set(range(n)), []
    while open_ones and len(shares) < N_GROUPS:
        middle = max(range(n), key=lambda i: (len(caps[i] & open_ones), -i))
        group = caps[middle] & open_ones
        shares.append(sum(int(labels[j]) == int(labels[middle]) for j in group) / len(group))
        open_ones -= group
    return sum(shares) / len(shares)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 0.5), st.floats(0.7, 1.0), st.floats(0.3, 1.5))
def test_the_stated_purity_is_that_of_a_literal_cover_and_no_larger_step_is_as_pure(seed, spread, purity, most):
    unit, labels = rows(3, 12, seed=seed, spread=spread)
    found = group_radius(unit, labels, unit[:, None], purity=purity, most=most)
    steps = [most * (place + 1) / 60 for place in range(60)]
    measured = [literal_purity(unit, labels, radius) for radius in steps]
    below = next((place for place, value in enumerate(measured) if value < purity), len(steps))
    assert found.purity == pytest.approx(measured[max(0, below - 1)], abs=1e-6)
    assert found.radius <= steps[max(0, below - 1)] + 1e-9


def test_a_pool_that_lies_closer_together_gets_smaller_groups():
    unit, labels = rows(4, 60, seed=1, spread=0.25)
    same = group_radius(unit, labels, unit[:, None], purity=0.95, most=1.0)
    blurred = normalize(unit + 2 * unit.mean(0))
    closer = group_radius(unit, labels, blurred[:, None], purity=0.95, most=1.0)
    assert closer.radius < 0.7 * same.radius
    assert closer.purity == same.purity

    def inside(x, radius):
        return int((x @ x.T > math.cos(radius)).sum()) - len(x)

    assert inside(blurred, closer.radius) <= 1.02 * inside(unit, same.radius)


def test_the_best_view_counts():
    unit, labels = rows(3, 40, seed=2, spread=0.3)
    turned = torch.stack([unit, normalize(unit + 2 * unit.mean(0))], 1)
    alone = group_radius(unit, labels, unit[:, None], purity=0.9, most=1.0)
    assert group_radius(unit, labels, turned, purity=0.9, most=1.0).radius < alone.radius


def test_nothing_is_measured_on_few_examples_or_one_label():
    unit, labels = rows(3, 40, seed=3, spread=0.2)
    assert group_radius(unit[:19], labels[:19], unit[:, None], purity=0.9, most=0.7) == GroupRadius(0.7, None)
    assert group_radius(unit, labels * 0, unit[:, None], purity=0.9, most=0.7) == GroupRadius(0.7, None)
    assert group_radius(unit, labels, unit[:5, None], purity=0.9, most=0.7) == GroupRadius(0.7, None)


def test_proposals_stand_for_examples_of_their_label():
    x, y = mixture(6, 120, seed=4, feature=12, spread=0.22)
    known = y < 4
    config = TrainConfig(epochs=2, slots_per_class=2, held_out=0.1)
    model, _ = fit(x[known], y[known], config=config)
    fresh, truth = mixture(6, 120, seed=5, feature=12, spread=0.22)
    found = model.propose(fresh, budget=20)
    unit = normalize(torch.from_numpy(fresh))
    open_ones, shares = set(found.unmatched.tolist()), []
    for query in found.queries:
        cap = {j for j in open_ones if j == query or float(unit[query] @ unit[j]) > math.cos(found.radius)}
        shares.append(np.mean([truth[j] == truth[query] for j in cap]))
        open_ones -= cap
    assert found.purity >= 0.95
    assert np.mean(shares) >= 0.9
    assert "On remembered examples such groups have the label of their middle to" in str(found)
    wide = model.propose(fresh, budget=20, purity=0.5)
    assert wide.radius >= found.radius
