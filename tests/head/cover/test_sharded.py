"""Greedy over shards: the picks, gains and bounds of all examples in one block, however they are cut."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.reference_cover import greedy

from slots.cover import sharded
from slots.cover.bits import as_words, pack_bits
from slots.cover.greedy import greedy_set_cover_packed, whole_block
from slots.cover.sharded import coverage_of, first_covers, greedy_over_shards


def packed(covers):
    return as_words(pack_bits(torch.from_numpy(np.ascontiguousarray(covers))))


def cut(covers, places):
    """Shards between some places, empty ones too."""
    return [packed(part) for part in np.split(covers, np.sort(places), axis=1)]


def cases(most_candidates=12, most_examples=150):
    shape = st.tuples(st.integers(0, most_candidates), st.integers(0, most_examples))
    some = shape.flatmap(lambda it: arrays(np.bool_, it))
    return some.flatmap(lambda it: st.tuples(st.just(it), st.lists(st.integers(0, it.shape[1]), max_size=4)))


@settings(deadline=None, max_examples=200)
@given(cases(), st.none() | st.integers(1, 6), st.integers(1, 4), st.sampled_from([1, 2, 32]))
@example((np.ones((3, 70), bool), [64]), None, 1, 1)
def test_the_picks_of_one_block(case, most, least, at_once):
    covers, places = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharded, "_AT_ONCE", at_once)
        picks = greedy_over_shards(cut(covers, places), min_gain=least, max_slots=most)
    expected = greedy_set_cover_packed([whole_block(torch.from_numpy(covers))], min_gain=least, max_slots=most)
    assert picks.tolist() == expected.tolist() == greedy(covers, min_gain=least, max_slots=most, coverage=1.0)


@settings(deadline=None, max_examples=100)
@given(cases(), st.integers(0, 5))
def test_what_is_covered_and_what_could_be(case, most):
    covers, places = case
    shards, n_examples = cut(covers, places), covers.shape[1]
    picks = greedy_over_shards(shards, max_slots=most)
    found = coverage_of(shards, picks, n_examples)
    taken = [int((covers[pick] & ~covers[picks[:i]].any(0)).sum()) for i, pick in enumerate(picks)]
    left = covers & ~covers[picks].any(0)
    assert found.gains.tolist() == taken
    assert found.next_gain == (left.sum(1).max() if len(covers) else 0)
    assert found[1:] == coverage_of([packed(covers)], picks, n_examples)[1:]
    best = max(covers[list(few)].any(0).sum() for few in itertools.combinations(range(len(covers)), len(picks)))
    assert best <= found.bound <= n_examples
    parts = zip(shards, widths(places, n_examples), strict=True)
    first = np.concatenate([first_covers(shard[picks], n) for shard, n in parts])
    expected = [next((i for i, pick in enumerate(picks) if covers[pick, j]), -1) for j in range(n_examples)]
    assert first.tolist() == expected


def widths(places, n):
    return np.diff([0, *np.sort(places), n]).astype(int).tolist()


def test_few_rows_are_read_after_the_first_gains():
    """Lazily: of the candidates only those that may be best are looked at again."""
    rng = np.random.default_rng(0)
    covers = rng.random((400, 900)) < 0.02 * rng.random((400, 1)) ** 4
    asked = []

    class Counting:
        def __init__(self, rows):
            self.rows, self.shape = rows, rows.shape

        def __getitem__(self, which):
            asked.append(np.size(np.arange(len(self.rows))[which]))
            return self.rows[which]

    shards = [Counting(it) for it in cut(covers, [200, 700])]
    picks = greedy_over_shards(shards, max_slots=10)
    assert len(picks) == 10
    assert sum(asked) < 3 * (400 + 10 * 100)
    assert greedy_over_shards([], max_slots=3).tolist() == []
