"""Coverage bits from features, labels and thresholds: the exact rule, whatever the tile."""

import math

import numpy as np
import pytest
import torch
from support.reference_cover import caps, greedy, inside

from slots.cover.bits import unpack_bits
from slots.cover.by_class import class_cover
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.greedy import greedy_set_cover_packed
from slots.cover.refined import refined_set_cover_packed


def dense(blocks, n_candidates, n_examples):
    covers = np.zeros((n_candidates, n_examples), bool)
    for block in blocks:
        bits = unpack_bits(block.words, len(block.examples)).numpy()
        covers[np.ix_(block.candidates.numpy(), block.examples.numpy())] = bits
    return covers


def problem(seed, n, n_features, n_labels, *, shared=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, n_features, generator=generator) + shared  # a large shared part makes all cosines alike
    return x, torch.randint(0, n_labels, (n,), generator=generator) * 3 - 1


@pytest.mark.parametrize("block", [64, 100, 2048])
@pytest.mark.parametrize(("n_features", "n_labels", "shared"), [(3, 3, 0.0), (8, 12, 0.0), (5, 2, 300.0), (4, 1, 0.0)])
def test_caps_and_bits_equal_the_definition(block, n_features, n_labels, shared):
    x, y = problem(1, 330, n_features, n_labels, shared=shared)
    thresholds = cap_thresholds(x, y, x, y, block=block)
    expected = caps(x.numpy(), y.numpy(), x.numpy(), y.numpy())
    assert np.array_equal(thresholds.numpy(), expected)
    covers = dense(coverage_bits(x, y, thresholds, x, y, block=block), 330, 330)
    assert np.array_equal(covers, inside(x.numpy(), expected, x[:, None].numpy()) & (y[:, None] == y).numpy())


@pytest.mark.parametrize("block", [64, 192, 2048])
def test_other_candidates_views_and_second_caps(block):
    x, y = problem(2, 300, 6, 4)
    views = torch.stack([x, x.roll(1, 1), x.flip(1)], 1)
    candidates, own = problem(3, 210, 6, 5)
    centres, _ = problem(4, 210, 6, 5)
    thresholds, support = torch.full((210,), 0.9), torch.full((210,), 0.88)
    assert np.array_equal(
        cap_thresholds(candidates, own, x, y, block=block).numpy(),
        caps(candidates.numpy(), own.numpy(), x.numpy(), y.numpy()),
    )
    blocks = coverage_bits(
        candidates, own, thresholds, views, y, centres=centres, support_thresholds=support, margin=0.02, block=block
    )
    depth = np.cos(np.arccos(np.array([0.9, 0.88], np.float32).astype(float)) - 0.02)
    by_view = [
        inside(candidates.numpy(), np.full(210, depth[0]), views[:, v : v + 1].numpy())
        & inside(centres.numpy(), np.full(210, depth[1]), views[:, v : v + 1].numpy())
        for v in range(3)
    ]
    expected = np.any(by_view, axis=0) & (own[:, None] == y).numpy()
    assert 0 < expected.sum() < 0.9 * (own[:, None] == y).sum()
    assert np.array_equal(dense(blocks, 210, 300), expected)
    assert sorted(torch.cat([block.examples for block in blocks]).tolist()) == list(range(300))


def test_the_example_that_sets_a_threshold_never_fires():
    x, y = problem(5, 200, 3, 2, shared=300.0)
    thresholds = cap_thresholds(x, y, x, y)
    unit = torch.nn.functional.normalize(x.double())
    foreign = (unit @ unit.T).masked_fill(y[:, None] == y, -1).amax(1)
    assert bool((foreign < thresholds.double()).all())
    assert bool((thresholds.double() - foreign < 3e-7).all())


def test_nothing_limits_a_cap_without_other_labels():
    x, y = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
    assert cap_thresholds(x, y, x, y).tolist() == [-math.inf] * 5
    result = class_cover(x, y)
    assert result.picked.tolist() == [0]
    assert result.n_covered == 5


def test_margin_makes_caps_smaller_until_they_vanish():
    x = torch.tensor([[1.0, 0.0], [math.cos(0.1), math.sin(0.1)], [math.cos(0.3), math.sin(0.3)]])
    y = torch.zeros(3, dtype=torch.long)
    thresholds = torch.tensor([math.cos(0.2)])

    def covered(margin):
        blocks = coverage_bits(x[:1], y[:1], thresholds, x, y, margin=margin)
        return dense(blocks, 1, 3)[0].tolist()

    assert covered(0.0) == [True, True, False]
    assert covered(0.15) == [True, False, False]
    assert covered(0.25) == [False, False, False]


@pytest.mark.parametrize("limits", [{}, {"max_slots": 5}, {"min_gain": 2}, {"coverage": 0.5}])
def test_class_cover_is_the_greedy_of_the_definition(limits):
    x, y = problem(6, 120, 4, 3)
    thresholds = caps(x.numpy(), y.numpy(), x.numpy(), y.numpy())
    covers = inside(x.numpy(), thresholds, x[:, None].numpy()) & (y[:, None] == y).numpy()
    result = class_cover(x, y, **limits)
    assert result.picked.tolist() == greedy(covers, **limits)
    assert np.array_equal(result.covered.numpy(), covers[result.picked.numpy()].any(0))
    assert np.array_equal(result.thresholds.numpy(), thresholds[result.picked.numpy()])


def test_block_and_order_of_examples_change_nothing():
    x, y = problem(7, 300, 5, 4)
    small, large = class_cover(x, y, block=64), class_cover(x, y, block=4096)
    assert small.picked.tolist() == large.picked.tolist()
    assert small.thresholds.tolist() == large.thresholds.tolist()
    order = torch.randperm(300)
    shuffled = class_cover(x[order], y[order])
    assert shuffled.n_covered == small.n_covered
    assert sorted(cap_thresholds(x, y, x, y).tolist()) == sorted(
        cap_thresholds(x[order], y[order], x[order], y[order]).tolist()
    )


def test_contradictions_are_named_and_the_rest_is_covered():
    x, y = problem(8, 80, 4, 3)
    x[10], x[20] = x[30], 0
    y[10], y[30] = -1, 2
    result = class_cover(x, y)
    assert result.contradictions.tolist() == [10, 20, 30]
    assert (~result.covered).nonzero()[:, 0].tolist() == [10, 20, 30]


def test_many_equal_scores_are_as_exact_as_few():
    x = torch.eye(3).repeat(60, 1)[torch.randperm(180)]
    y = x.argmax(1)
    y[:9] = (y[:9] + 1) % 3  # contradictions of every kind
    thresholds = cap_thresholds(x, y, x, y, block=64)
    expected = caps(x.numpy(), y.numpy(), x.numpy(), y.numpy())
    assert np.array_equal(thresholds.numpy(), expected)
    assert not class_cover(x, y).covered.any()
    assert len(class_cover(x[9:], y[9:]).picked) == 3


def test_refined_class_cover_covers_all_with_no_more():
    x = torch.rand(600, 3, generator=torch.Generator().manual_seed(9))
    y = x.argmax(1) % 2
    plain, refined = class_cover(x, y), class_cover(x, y, mode="refined", time_budget_s=0.2)
    assert bool(refined.covered.all())
    assert len(refined.picked) < len(plain.picked)


def test_blocks_go_through_both_modes_alike():
    x, y = problem(10, 200, 5, 3)
    blocks = coverage_bits(x, y, cap_thresholds(x, y, x, y), x, y)
    assert greedy_set_cover_packed(blocks).tolist() == class_cover(x, y).picked.tolist()
    assert len(refined_set_cover_packed(blocks, time_budget_s=0)) <= len(class_cover(x, y).picked)


def test_precision_of_products_is_set_back():
    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    try:
        class_cover(*problem(11, 50, 4, 2))
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 63}, "`block` must be at least 64, got 63. A word"),
        ({"margin": -0.1}, "`margin` must be at least 0, got -0.1. It is an angle"),
        ({"centres": torch.ones(4, 2)}, "`centres` must come with `support_thresholds`, got one of them. Pass both"),
    ],
)
def test_arguments_of_bits(change, message):
    x, y = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        coverage_bits(x, y, torch.zeros(4), x, y, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.ones(4, 2, 2)}, r"`features` must have shape .* \(4, 2, 2\) and \(4,\) labels. Flatten"),
        ({"labels": torch.zeros(3)}, r"`features` must have shape .* \(4, 2\) and \(3,\) labels"),
        ({"mode": "best"}, "`mode` must be 'greedy' or 'refined', got 'best'. Choose"),
        ({"mode": "refined", "min_gain": 2}, "`mode` must be 'greedy' for a cover with limits, got 'refined'."),
        ({"block": 8}, "`block` must be at least 64, got 8"),
        ({"max_slots": 0}, "`max_slots` must be at least 1"),
        ({"time_budget_s": -1}, "`time_budget_s` must be at least 0"),
    ],
)
def test_arguments_of_class_cover(change, message):
    arguments = {"features": torch.ones(4, 2), "labels": torch.zeros(4, dtype=torch.long)} | change
    with pytest.raises(ValueError, match=message):
        class_cover(**arguments)


@pytest.mark.parametrize("floats", [np.float32, np.float64])
@pytest.mark.parametrize("ints", [np.int64, np.int32])
def test_arrays_are_covered_as_tensors_are(floats, ints):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(floats), rng.integers(0, 3, 60).astype(ints)
    found, expected = class_cover(x, y), class_cover(torch.from_numpy(x), torch.from_numpy(y).long())
    assert torch.equal(found.picked, expected.picked)
    assert torch.equal(found.covered, expected.covered)


def test_labels_that_are_no_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r"`labels` must be whole numbers, got torch.float64. Number the classes"):
        class_cover(torch.eye(2), torch.tensor([0.5, 1.0], dtype=torch.float64))
