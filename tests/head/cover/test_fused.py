"""The fused kernels give what the torch path gives: on a GPU, and everywhere in Triton's interpreter.

The interpreter has to be asked for before Triton is imported, so without a GPU one test runs this file once more, in a
process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.quick_interpreter import quick_interpreter

from slots.cover import by_class, coverage, greedy
from slots.cover.bits import CoverBlock, pack_bits
from slots.cover.by_class import class_cover
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.greedy import greedy_set_cover_packed

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
CASES = int(os.environ.get("SLOTS_TEST_CASES", "20"))

kernels = pytest.mark.skipif(not INTERPRETED and DEVICE == "cpu", reason="a test of its own runs these interpreted")
whole_file = pytest.mark.skipif(INTERPRETED, reason="this is that run")


OLD_INTERPRETER = ("-W", "ignore:Conversion of an array with ndim > 0 to a scalar:DeprecationWarning")
"""Triton 3.5 warns in its interpreter, of itself."""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.slow
@whole_file
def test_all_of_this_in_the_interpreter():
    done = subprocess.run(  # noqa: PLW1510
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OLD_INTERPRETER, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout


@pytest.fixture(autouse=True, scope="module")
def interpreter_that_keeps_what_it_finds():
    if not INTERPRETED:
        yield
        return
    with quick_interpreter():
        yield


def fused(yes):
    """The modules of the cover, told whether there are kernels; small tiles, so that small data has several."""
    stack = ExitStack()
    for module in (greedy, coverage, by_class):
        stack.enter_context(mock.patch.object(module, "has_fused_kernels", return_value=yes))
    if yes and INTERPRETED:
        import slots.cover.fused.scores as scores
        from slots.cover.fused.tiles import ClassTiles, Tiling

        small = {"tiling": Tiling(32, 16, 4, 2)}
        stack.enter_context(mock.patch.dict(scores.foreign_maxima.__kwdefaults__, small))
        stack.enter_context(mock.patch.dict(ClassTiles.of.__func__.__kwdefaults__, small))
    return stack


@st.composite
def examples(draw, most=70):
    """Features with ties, zero rows, opposite rows and copies under other labels, and their labels."""
    n, d = draw(st.integers(1, most)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rounded = draw(st.booleans())
    x = rng.normal(size=(n, d)) * 10 ** rng.uniform(-0.5 if rounded else -3, 3, size=(n, 1))
    if rounded:
        x = x.round()
        x[rng.random(n) < 0.1] = 0  # a tenth: such a row is as near to any other, and each of these pairs is computed
    if draw(st.booleans()):
        copies = rng.integers(0, n, n // 3)
        x[rng.integers(0, n, n // 3)] = x[copies] * rng.choice([-1, 1, 2])
    y = rng.integers(0, draw(st.integers(1, 6)), n)
    return torch.from_numpy(x.astype(np.float32)).to(DEVICE), torch.from_numpy(y).to(DEVICE)


def orthogonal_but_for_rounding():
    """The largest score of the first row is 0 in one order of summing, 3e-17 in another."""
    x = torch.zeros(18, 4)
    x[0], x[1] = torch.tensor([1.0, -1, 0, 1]), torch.tensor([-231.0, 739, -638, 673])
    x[3], x[5], x[9] = torch.tensor([3.0, 0, -5, -3]), torch.tensor([0.0, 1, 0, 0]), torch.tensor([0.0, -2, 0, 1])
    x[11], x[12] = torch.tensor([-1.0, 0, 0, 0]), torch.tensor([-1.0, 1, 0, -1])
    x[16], x[17] = torch.tensor([0.0, 3, -2, -1]), torch.tensor([0.0, -3, 2, 1])
    y = torch.zeros(18, dtype=torch.long)
    y[[1, 2, 3, 7, 12, 15]] = 1
    return x.to(DEVICE), y.to(DEVICE)


@kernels
@settings(deadline=None, max_examples=CASES)
@given(data=examples())
@example(data=orthogonal_but_for_rounding())
def test_thresholds(data):
    x, y = data
    with fused(False):
        expected = cap_thresholds(x, y, x, y)
    with fused(True):
        assert torch.equal(cap_thresholds(x, y, x, y), expected)
        assert torch.equal(cap_thresholds(x, y, x.clone(), y.clone()), expected)  # each tile one way


@kernels
@settings(deadline=None, max_examples=CASES)
@given(data=examples(), others=examples(40), margin=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 1000))
def test_bits_of_any_candidates(data, others, margin, seed):
    x, y = data
    candidates, labels = others[0][:, :1].expand(-1, x.shape[1]) + 0.5, others[1]
    thresholds = (torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) * 2 - 1).to(DEVICE)
    with fused(False):
        expected = coverage_bits(candidates, labels, thresholds, x, y, margin=margin)
    with fused(True):
        found = coverage_bits(candidates, labels, thresholds, x, y, margin=margin)
    assert [block.label for block in found] == [block.label for block in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for part in ("candidates", "examples", "words"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part))


@kernels
@settings(deadline=None, max_examples=CASES)
@given(
    data=examples(),
    limits=st.sampled_from([{}, {"max_slots": 3}, {"min_gain": 2}, {"coverage": 0.7}]),
)
def test_the_whole_cover(data, limits):
    x, y = data
    with fused(False):
        expected = class_cover(x.cpu(), y.cpu(), **limits)
    rounds = mock.patch.object(greedy, "_on_cpu", return_value=False)  # a CPU would take the lazy greedy
    with fused(True), rounds:
        found = class_cover(x, y, **limits)
    for part in ("picked", "thresholds", "covered", "contradictions"):
        assert torch.equal(getattr(found, part).cpu(), getattr(expected, part))


@kernels
@settings(deadline=None, max_examples=CASES)
@given(
    covers=arrays(bool, st.tuples(st.integers(0, 30), st.integers(0, 150))),
    more=arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 70))),
    min_gain=st.integers(1, 3),
)
def test_rounds_on_blocks_of_any_size(covers, more, min_gain):
    first, second = torch.from_numpy(covers), torch.from_numpy(more)
    n, m = first.shape
    expected = greedy_set_cover_packed([block(0, first, 0, 0), block(1, second, n, m)], min_gain=min_gain)
    there = [block(0, first.to(DEVICE), 0, 0), block(1, second.to(DEVICE), n, m)]
    with fused(True), mock.patch.object(greedy, "_on_cpu", return_value=False):
        assert greedy_set_cover_packed(there, min_gain=min_gain).tolist() == expected.tolist()


def block(label, matrix, first_row, first_column):
    return CoverBlock(
        label,
        first_row + torch.arange(matrix.shape[0], device=matrix.device),
        first_column + torch.arange(matrix.shape[1], device=matrix.device),
        pack_bits(matrix),
    )


@kernels
def test_a_list_that_is_too_short_is_made_again():
    import slots.cover.fused.scores as scores

    rows = scores.SplitRows.of(torch.ones(90, 8, device=DEVICE), torch.arange(90, device=DEVICE) % 2)
    with mock.patch.object(scores, "_LEAST_PAIRS", 100):  # every pair may be the largest
        i, j = scores.near_maxima(rows, rows, symmetric=True, tiling=scores.Tiling(32, 16, 4, 2))
    assert len(i) == 90 * 45
    assert len(torch.unique(i * 90 + j)) == 90 * 45


@kernels
@settings(deadline=None, max_examples=CASES)
@given(data=examples())
def test_in_stripes_where_the_block_maxima_are_too_many(data):
    import slots.cover.fused.scores as scores

    x, y = data
    with fused(False):
        expected = cap_thresholds(x, y, x, y)
    with fused(True), mock.patch.object(scores, "_MAXIMA_FLOATS", 100):
        assert torch.equal(cap_thresholds(x, y, x, y), expected)


@kernels
def test_rounds_are_counted_anew_when_a_bid_has_no_room_for_more():
    import slots.cover.fused.rounds as rounds

    chain = torch.eye(44, 45, dtype=torch.bool) | torch.eye(44, 45, dtype=torch.bool).roll(1, 1)  # one pick a round
    expected = greedy_set_cover_packed([block(0, chain, 0, 0)])
    assert len(expected) > 20
    there = [block(0, chain.to(DEVICE), 0, 0)]
    few = mock.patch.object(rounds, "_MOST_ROUNDS", 9)
    with fused(True), few, mock.patch.object(greedy, "_on_cpu", return_value=False):
        assert greedy_set_cover_packed(there).tolist() == expected.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize(("n", "d", "classes"), [(3000, 100, 7), (5000, 784, 3), (2000, 33, 400)])
def test_the_gpu_covers_as_the_cpu_does(n, d, classes):
    rng = torch.Generator().manual_seed(n)
    x, y = torch.rand(n, d, generator=rng) ** 3, torch.randint(0, classes, (n,), generator=rng)
    expected, found = class_cover(x, y), class_cover(x.to("cuda"), y.to("cuda"))
    for part in ("picked", "thresholds", "covered", "contradictions"):
        assert torch.equal(getattr(found, part).cpu(), getattr(expected, part))
