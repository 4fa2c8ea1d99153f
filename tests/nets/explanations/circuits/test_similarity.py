"""Likeness of representations against loops, closed forms and what must leave it as it is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from support import reference_circuits as literal

from backbones.explanations.circuits import MEASURES, cka, matching, procrustes, svcca, universality


def normal(n, p, seed=0):
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(("n", "p", "q"), [(4, 2, 3), (9, 3, 2), (7, 20, 30), (12, 5, 40)])
def test_cka_is_that_of_the_papers(unbiased, n, p, q):
    a = normal(n, p) + 5
    b = torch.tanh(normal(n, q, 1)) + a[:, :1] + 1e-3 * normal(n, q, 2)
    assert cka(a, b, unbiased=unbiased) == pytest.approx(literal.cka(a.tolist(), b.tolist(), unbiased), abs=1e-9)


@pytest.mark.parametrize("n", [128, 256, 1024])
def test_unbiased_cka_of_independent_data_is_near_nothing_and_biased_is_not(n):
    pairs = [(normal(n, 32, 2 * seed), normal(n, 32, 2 * seed + 1)) for seed in range(10)]
    assert max(abs(cka(a, b)) for a, b in pairs) < 0.02
    assert np.mean([cka(a, b, unbiased=False) for a, b in pairs]) > 0.9 * 32 / (n + 32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0.1, 10), st.floats(-100, 100))
def test_rotation_scale_and_shift_change_nothing(seed, p, scale, shift):
    a, b = normal(80, p, seed), normal(80, p, seed + 1) + normal(80, p, seed) * 0.7
    turned = scale * b @ torch.from_numpy(ortho_group.rvs(p, random_state=seed % 2**31)) + shift
    for measure in (cka, procrustes, lambda x, y: cka(x, y, unbiased=False), lambda x, y: svcca(x, y, keep=1)):
        assert measure(a, turned) == pytest.approx(measure(a, b), abs=1e-8)
        assert measure(b, turned) == pytest.approx(1)
        assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(5)), st.floats(0.1, 10))
def test_a_matching_finds_shuffled_units(seed, order, scale):
    a = normal(60, 5, seed)
    found = matching(a, scale * a[:, order] + 3)
    assert [order[it] for it in found.partners] == list(range(5))
    assert found.score == pytest.approx(1)


@pytest.mark.parametrize(("p", "q"), [(3, 3), (2, 4)])
def test_a_matching_is_the_best_of_all(p, q):
    a, b = normal(12, p), normal(12, q, 1)
    assert matching(a, b).score == pytest.approx(literal.best_matching(a.tolist(), b.tolist()))


def test_a_soft_matching_shares_units_out():
    a = normal(200, 2)
    twice = torch.cat([a, a], 1)
    assert matching(a, twice, soft=True).score == pytest.approx(1)  # each has two copies, half of its mass to either
    assert matching(a, a.flip(1), soft=True).score == pytest.approx(1)
    three = torch.cat([a, -a[:, :1]], 1)  # of mass 1/3 each; the odd one fits nobody
    corr = np.corrcoef(a.T.numpy(), three.T.numpy())[:2, 2:]
    # Unit 0 gives 1/3 to its copy and keeps 1/6 for another, unit 1 likewise: all that is left goes to the odd one.
    best = (corr[0, 0] + corr[1, 1]) / 3 + (corr[0, 2] + corr[1, 2]) / 6
    assert matching(a, three, soft=True).score == pytest.approx(best)


def test_a_dead_unit_matches_nothing():
    a = normal(30, 3)
    dead = a.clone()
    dead[:, 1] = 7.0
    found = matching(a, dead)
    assert found.correlations.tolist() == pytest.approx([1, 0, 1])


def test_procrustes_of_two_planes():
    """For columns of which one is shared, a quarter of the norm of either."""
    x = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert procrustes(x[:, :2], x[:, 1:]) == pytest.approx(0.5)
    assert svcca(torch.cat([x[:, :2]] * 12), torch.cat([x[:, 1:]] * 12)) == pytest.approx(0.5)


def test_directions_of_little_variance_do_not_count():
    a = normal(400, 3)
    b = torch.cat([a[:, :2], 1e-3 * normal(400, 1, 9)], 1)
    c = torch.cat([a[:, :2], 1e-3 * normal(400, 1, 8)], 1)
    assert svcca(b, c) == pytest.approx(1, abs=1e-5)
    assert svcca(b, c, keep=1) < 0.8


def test_copies_of_each_other_are_significant():
    a, untrained = normal(120, 4), normal(120, 4, 2)
    for it in universality(a, a.flip(1), control=untrained, permutations=49):
        assert it.found.p_value == 1 / 50
        assert it.found.statistic == pytest.approx(1)
        assert it.found.null_q99 < it.found.statistic
        assert it.control == pytest.approx(MEASURES[it.measure](a, untrained))


@pytest.mark.parametrize("measure", MEASURES)
def test_p_values_of_noise_are_uniform(measure):
    pairs = [(normal(40, 3, s), normal(40, 3, s + 500)) for s in range(100)]
    found = [universality(*pair, measures=[measure], permutations=9, seed=s)[0] for s, pair in enumerate(pairs)]
    shares = np.array([it.found.p_value for it in found])
    for level in (0.2, 0.5):
        assert abs((shares <= level).mean() - level) < 3.5 * math.sqrt(level * (1 - level) / 100)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cka(normal(5, 2), normal(6, 2)), r"same 4 or more samples, got \(5, 2\) and \(6, 2\)"),
        (lambda: cka(normal(3, 2), normal(3, 2)), "same 4 or more samples"),
        (lambda: cka(torch.ones(9, 2), normal(9, 2)), "`a` must vary with the inputs, got a constant"),
        (lambda: procrustes(normal(9, 2), normal(9, 2) / 0), "`b` must be finite"),
        (lambda: cka(torch.eye(6), normal(6, 2)), "alignment of .* of one with itself"),
        (lambda: svcca(normal(40, 4), normal(40, 2)), "more than 10 inputs for each of 4 directions, got 40"),
        (lambda: svcca(normal(90, 4), normal(90, 2), keep=0), "`keep` must lie in"),
        (lambda: matching(normal(9, 2)[..., None], normal(9, 2)), r"must have shape \(sample, unit\)"),
        (lambda: universality(normal(9, 2), normal(9, 2), measures=["dcor"]), "`measures` must be one of cka, svcca"),
        (lambda: universality(normal(9, 2), normal(9, 2), permutations=0), "`permutations` must be a positive"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
