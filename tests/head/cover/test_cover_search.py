"""Refined set cover: reductions, constructions and local search against brute force."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.reference_cover import greedy, smallest_cover_size

from slots.cover.bits import CoverBlock, as_words, pack_bits
from slots.cover.greedy import greedy_set_cover
from slots.cover.kernels import sparse_coverage, sparse_rows, transposed
from slots.cover.reductions import reduce_cover
from slots.cover.refined import refined_set_cover, refined_set_cover_packed


def matrices(max_candidates=9, max_examples=10):
    shape = st.tuples(st.integers(0, max_candidates), st.integers(0, max_examples))
    return shape.flatmap(lambda s: arrays(np.bool_, s))


def random_matrix(seed, n_candidates, n_examples, density):
    return np.random.default_rng(seed).random((n_candidates, n_examples)) < density


def searched(covers, seed=0, max_steps=2000):
    return refined_set_cover(covers, time_budget_s=math.inf, seed=seed, max_steps=max_steps)


@pytest.mark.parametrize("looked_at", [-1, math.inf], ids=["row weighting", "swaps"])
@settings(deadline=None, max_examples=150)
@given(covers=matrices())
def test_small_covers_are_smallest(looked_at, covers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slots.cover.search.components.MOST_LOOKED_AT", looked_at)
        picks = searched(covers).numpy()
    assert np.array_equal(covers[picks].any(0), covers.any(0))
    assert len(picks) == len(set(picks.tolist())) == smallest_cover_size(covers)


@settings(deadline=None, max_examples=100)
@given(covers=matrices(12, 14), budget=st.sampled_from([0.0, 0.001]))
def test_never_more_than_greedy(covers, budget):
    picks = refined_set_cover(covers, time_budget_s=budget).numpy()
    assert np.array_equal(covers[picks].any(0), covers.any(0))
    assert len(picks) <= len(greedy(covers))


def test_search_finds_fewer_than_the_constructions():
    covers = random_matrix(0, 150, 200, 0.05)
    greedy_size = len(greedy_set_cover(covers))
    constructed = len(refined_set_cover(covers, time_budget_s=0.0))
    found = searched(covers, max_steps=20_000).numpy()
    assert np.array_equal(covers[found].any(0), covers.any(0))
    assert len(found) < constructed <= greedy_size


def test_same_seed_gives_the_same_picks_and_another_may_not():
    covers = random_matrix(1, 120, 150, 0.06)
    first = searched(covers, seed=3)
    assert searched(covers, seed=3).tolist() == first.tolist()
    assert any(searched(covers, seed=s).tolist() != first.tolist() for s in range(4, 9))


def test_picks_come_most_useful_first():
    covers = random_matrix(2, 60, 80, 0.1)
    picks = searched(covers).tolist()
    order = greedy(covers[sorted(picks)])
    assert [sorted(picks)[i] for i in order] == picks


def reduced(covers):
    rows = as_words(pack_bits(torch.from_numpy(covers)))
    return reduce_cover(rows, sparse_coverage(*sparse_rows(rows), covers.shape[1]))


def test_reductions_by_hand():
    covers = np.array(
        [
            [1, 1, 0, 0, 0],  # alone on example 0: forced; then example 1 is covered
            [0, 1, 1, 0, 0],  # left with example 2: a subset of the next
            [0, 0, 1, 1, 0],  # covers 2 and 3; example 3 forces it
            [0, 0, 0, 0, 1],  # equal to the next: the first stays, and is forced
            [0, 0, 0, 0, 1],
        ],
        dtype=bool,
    )
    forced, parts = reduced(covers)
    assert forced.tolist() == [0, 2, 3]
    assert parts == []


def test_a_cycle_cannot_be_reduced_and_two_are_two_parts():
    cycle = np.eye(5, dtype=bool) | np.roll(np.eye(5, dtype=bool), 1, axis=1)
    both = np.block([[cycle, np.zeros((5, 5), bool)], [np.zeros((5, 5), bool), cycle]])
    order = np.array([0, 5, 1, 6, 2, 7, 3, 8, 4, 9])
    forced, parts = reduced(both[order])
    assert forced.tolist() == []
    assert [order[part.candidates].tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [part.n_examples for part in parts] == [5, 5]
    assert len(searched(both)) == 6


@settings(deadline=None, max_examples=100)
@given(covers=matrices())
def test_reductions_keep_a_smallest_cover(covers):
    forced, parts = reduced(covers)
    size = len(forced)
    for part in parts:
        matrix = np.zeros((len(part.candidates), part.n_examples), bool)
        for i in range(len(part.candidates)):
            matrix[i, part.lists[part.starts[i] : part.starts[i + 1]]] = True
        assert matrix.any(0).all()
        size += smallest_cover_size(matrix)
    assert size == smallest_cover_size(covers)


class Clock:
    """A clock that stands still until it was asked a number of times, and is far ahead from then on."""

    def __init__(self, asked):
        self.asked = asked

    def perf_counter(self):
        self.asked -= 1
        return 0.0 if self.asked >= 0 else 1e9


@settings(deadline=None, max_examples=100)
@given(covers=matrices(), rounds=st.integers(0, 3))
def test_reductions_that_are_cut_short_leave_a_whole_problem(covers, rounds):
    rows = as_words(pack_bits(torch.from_numpy(covers)))
    cover = sparse_coverage(*sparse_rows(rows), covers.shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slots.cover.reductions.time", Clock(rounds))
        forced, parts = reduce_cover(rows, cover, deadline=1.0)
    chosen = [forced, *(part.candidates[np.diff(part.starts) > 0] for part in parts)]
    assert all((np.diff(part.starts) >= 0).all() and part.n_examples for part in parts)
    picks = np.concatenate(chosen)
    assert len(set(picks.tolist())) == len(picks)
    assert np.array_equal(covers[picks].any(0), covers.any(0))


@settings(deadline=None, max_examples=60)
@given(covers=matrices(12, 14), asked=st.integers(0, 8))
def test_a_deadline_anywhere_leaves_a_cover_no_larger_than_greedy(covers, asked):
    clock = Clock(asked)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("refined", "reductions", "search.components"):
            patch.setattr(f"slots.cover.{module}.time", clock)
        picks = refined_set_cover(covers, time_budget_s=1.0).numpy()
    assert np.array_equal(covers[picks].any(0), covers.any(0))
    assert len(picks) <= len(greedy(covers))


_NOTHING_NEW = """
import math, numpy as np
from slots.cover import kernels, reductions, refined
from slots.cover.search import components, row_weighting, state, swaps

def compiled():
    found = {}
    for module in (kernels, reductions, components, row_weighting, state, swaps):
        found |= {f"{module.__name__}.{n}": f.signatures for n, f in vars(module).items() if hasattr(f, "signatures")}
    return {name: len(signatures) for name, signatures in found.items()}

refined.compile_search()
before = compiled()
rng = np.random.default_rng(0)
refined.refined_set_cover(rng.random((90, 120)) < 0.06, time_budget_s=math.inf, max_steps=500)
assert compiled() == before, (before, compiled())
assert before["slots.cover.search.row_weighting.search"] == 1, before
assert before["slots.cover.search.swaps.search_by_swaps"] == 1, before
"""


def test_all_that_a_search_needs_is_compiled_before_its_time_begins():
    """Else the first search on a machine spends its budget on the compiler and finds another model."""
    subprocess.run([sys.executable, "-c", _NOTHING_NEW], check=True, timeout=300)


def test_the_time_begins_after_the_compiler(monkeypatch):
    """Whatever compiling takes, the search gets its budget."""
    calls = []
    monkeypatch.setattr("slots.cover.refined.compile_search", lambda: calls.append("compiled"))
    real = time.perf_counter

    class Watch:
        @staticmethod
        def perf_counter():
            calls.append("clock")
            return real()

    monkeypatch.setattr("slots.cover.refined.time", Watch)
    refined_set_cover(random_matrix(0, 40, 50, 0.1), time_budget_s=0.01)
    assert calls[:2] == ["compiled", "clock"]


def test_transposing_twice_comes_back():
    covers = random_matrix(4, 30, 70, 0.2)
    starts, lists = sparse_rows(as_words(pack_bits(torch.from_numpy(covers))))
    again = transposed(*transposed(starts, lists, 70), 30)
    assert np.array_equal(again[0], starts)
    assert np.array_equal(again[1], lists)
    assert np.array_equal(np.nonzero(covers)[1], lists)


def test_blocks_are_refined_each_for_itself():
    a, b = random_matrix(5, 40, 50, 0.1), random_matrix(6, 50, 70, 0.1)
    blocks = [
        CoverBlock(0, torch.arange(0, 80, 2), torch.arange(50), pack_bits(torch.from_numpy(a))),
        CoverBlock(1, torch.arange(100, 150), torch.arange(50, 120), pack_bits(torch.from_numpy(b))),
    ]
    picks = refined_set_cover_packed(blocks, time_budget_s=math.inf, max_steps=5000).numpy()
    first, second = picks[picks < 80] // 2, picks[picks >= 100] - 100
    assert len(first) + len(second) == len(picks)
    assert np.array_equal(a[first].any(0), a.any(0))
    assert np.array_equal(b[second].any(0), b.any(0))
    assert len(first) == len(searched(a, max_steps=5000))
    assert len(second) == len(searched(b, max_steps=5000))


def test_no_blocks_give_no_picks():
    assert refined_set_cover_packed([]).tolist() == []


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"time_budget_s": -1.0}, "`time_budget_s` must be at least 0, got -1.0. 0 means"),
        ({"time_budget_s": math.nan}, "`time_budget_s` must be at least 0, got nan"),
        ({"seed": -1}, "`seed` must be at least 0, got -1. Any other"),
        ({"max_steps": -1}, "`max_steps` must be at least 0, got -1. Leave"),
    ],
)
def test_numbers_out_of_range(numbers, message):
    with pytest.raises(ValueError, match=message):
        refined_set_cover(torch.ones(2, 2, dtype=torch.bool), **numbers)
