"""Greedy set cover: the same picks as a literal greedy, on packed bits and in parallel rounds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.reference_cover import greedy, smallest_cover_size

from slots import jit
from slots.cover import kernels
from slots.cover.bits import CoverBlock, _pack_on_device, pack_bits, unpack_bits
from slots.cover.greedy import _greedy_blocks_rounds, greedy_set_cover, greedy_set_cover_packed
from slots.cover.parallel import greedy_rounds


def matrices(max_candidates=9, max_examples=12):
    shape = st.tuples(st.integers(0, max_candidates), st.integers(0, max_examples))
    return shape.flatmap(lambda s: arrays(np.bool_, s))


def random_matrix(seed, n_candidates, n_examples, density):
    rng = np.random.default_rng(seed)
    return rng.random((n_candidates, n_examples)) < density * rng.random((n_candidates, 1))


def by_rounds(covers, min_gain=1):
    pairs = torch.from_numpy(covers).nonzero()
    return greedy_rounds(
        pairs[:, 0], pairs[:, 1], n_candidates=covers.shape[0], n_examples=covers.shape[1], min_gain=min_gain
    )


def test_hand_computed():
    covers = torch.tensor(
        [
            [1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 1, 0],
            [1, 1, 1, 0, 0, 0],
            [0, 0, 0, 0, 1, 1],
        ],
        dtype=torch.bool,
    )
    # candidates 1 and 2 cover three: 1 first; then 0 and 2 cover two: 0 first; then 3 covers the last.
    assert greedy_set_cover(covers).tolist() == [1, 0, 3]


@settings(deadline=None, max_examples=150)
@given(
    covers=matrices(),
    max_slots=st.none() | st.integers(1, 5),
    min_gain=st.integers(1, 4),
    coverage=st.sampled_from([0.07, 0.25, 0.5, 0.9, 1.0]),
)
def test_same_picks_as_literal_greedy(covers, max_slots, min_gain, coverage):
    limits = {"max_slots": max_slots, "min_gain": min_gain, "coverage": coverage}
    assert greedy_set_cover(covers, **limits).tolist() == greedy(covers, **limits)


@pytest.mark.parametrize(("n_candidates", "n_examples"), [(150, 64), (70, 65), (130, 200), (65, 127)])
@pytest.mark.parametrize("density", [0.05, 0.6])
def test_same_picks_as_literal_greedy_beyond_a_word(n_candidates, n_examples, density):
    covers = random_matrix(n_candidates, n_candidates, n_examples, density)
    expected = greedy(covers)
    assert len(expected) > 1
    assert greedy_set_cover(covers).tolist() == expected
    assert greedy_set_cover(torch.from_numpy(covers)).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(covers=matrices(), min_gain=st.integers(1, 3))
def test_rounds_make_the_sequential_picks_in_their_order(covers, min_gain):
    picks, gains = by_rounds(covers, min_gain)
    assert picks.tolist() == greedy(covers, min_gain=min_gain)
    assert gains.tolist() == sorted(gains.tolist(), reverse=True)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_rounds_equal_packed_on_larger_matrices(density):
    covers = random_matrix(3, 600, 700, density)
    picks, gains = by_rounds(covers)
    assert picks.tolist() == greedy_set_cover(covers).tolist()
    assert int(gains.sum()) == int(covers.any(0).sum())


@settings(deadline=None, max_examples=60)
@given(covers=matrices())
def test_covers_what_can_be_covered_within_the_logarithmic_bound(covers):
    picks = greedy_set_cover(covers).numpy()
    assert np.array_equal(covers[picks].any(0), covers.any(0))
    largest = int(covers.sum(1).max(initial=0))
    if largest:
        assert len(picks) <= (1 + math.log(largest)) * smallest_cover_size(covers)


@settings(deadline=None, max_examples=60)
@given(covers=matrices(), seed=st.integers(0, 100))
def test_order_of_examples_changes_nothing(covers, seed):
    shuffled = covers[:, np.random.default_rng(seed).permutation(covers.shape[1])]
    assert greedy_set_cover(shuffled).tolist() == greedy_set_cover(covers).tolist()


def test_order_of_candidates_changes_nothing_but_ties():
    rng = np.random.default_rng(0)
    sizes = 2 ** np.arange(6)  # disjoint sets of different sizes: no ties
    covers = np.repeat(np.eye(6, dtype=bool), sizes, axis=1)
    order = rng.permutation(6)
    picks = greedy_set_cover(covers[order]).numpy()
    assert order[picks].tolist() == [5, 4, 3, 2, 1, 0]


def blocks_of(covers, labels, example_labels):
    for label in np.unique(labels):
        rows, columns = np.flatnonzero(labels == label), np.flatnonzero(example_labels == label)
        yield CoverBlock(
            label=int(label),
            candidates=torch.from_numpy(rows),
            examples=torch.from_numpy(columns),
            words=pack_bits(torch.from_numpy(covers[np.ix_(rows, columns)])),
        )


@pytest.mark.parametrize(
    "limits", [{}, {"max_slots": 7}, {"min_gain": 3}, {"coverage": 0.8}, {"max_slots": 9, "coverage": 0.6}]
)
def test_blocks_by_class_equal_the_whole_matrix(limits):
    rng = np.random.default_rng(1)
    labels, example_labels = rng.integers(0, 3, 90), rng.integers(0, 3, 140)
    covers = random_matrix(2, 90, 140, 0.4) & (labels[:, None] == example_labels)
    picks = greedy_set_cover_packed(list(blocks_of(covers, labels, example_labels)), **limits)
    assert picks.tolist() == greedy(covers, **limits)


def test_blocks_by_class_in_rounds_as_on_a_gpu():
    rng = np.random.default_rng(3)
    labels, example_labels = rng.integers(0, 3, 80), rng.integers(0, 4, 150)
    covers = random_matrix(4, 80, 150, 0.3) & (labels[:, None] == example_labels)
    blocks = list(blocks_of(covers, labels, example_labels))
    picks, gains = _greedy_blocks_rounds(blocks, 2)
    assert picks.tolist() == greedy(covers, min_gain=2)
    assert int(gains.sum()) == int(covers[picks.numpy()].any(0).sum())
    assert (
        _greedy_blocks_rounds([CoverBlock(0, picks[:0], picks[:0], torch.zeros(0, 0, dtype=torch.long))], 1)[0].tolist()
        == []
    )


def test_without_a_folder_for_compiled_code_it_is_kept_in_memory(monkeypatch):
    compile_ = kernels.numba.njit

    def without_folder(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(**options)

    monkeypatch.setattr(kernels.numba, "njit", without_folder)
    assert jit.compiled(lambda x: x + 1)(2) == 3


def test_no_blocks_give_no_picks():
    assert greedy_set_cover_packed([]).tolist() == []


@settings(deadline=None, max_examples=50)
@given(covers=matrices(5, 140))
def test_packing_comes_back(covers):
    words = pack_bits(torch.from_numpy(covers))
    assert words.shape == (covers.shape[0], -(-covers.shape[1] // 64))
    assert np.array_equal(unpack_bits(words, covers.shape[1]).numpy(), covers)
    assert torch.equal(_pack_on_device(torch.from_numpy(covers)), words)


@pytest.mark.parametrize("covers", [torch.zeros(2, 2), torch.zeros(3, dtype=torch.bool)])
def test_covers_must_be_a_bool_matrix(covers):
    with pytest.raises(ValueError, match=r"`covers` must be a bool matrix .* Compare scores"):
        greedy_set_cover(covers)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_slots": 0}, "`max_slots` must be at least 1, got 0. Leave it out"),
        ({"min_gain": 0}, "`min_gain` must be at least 1, got 0. A pick"),
        ({"coverage": 0.0}, r"`coverage` must lie in \(0, 1\], got 0.0. 1.0 covers"),
    ],
)
def test_limits_out_of_range(limits, message):
    with pytest.raises(ValueError, match=message):
        greedy_set_cover(torch.ones(2, 2, dtype=torch.bool), **limits)
