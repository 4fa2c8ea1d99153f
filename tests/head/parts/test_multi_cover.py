"""The multi-cover: picks of a slow greedy, and what it says when asked for nonsense."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reference_parts import slow_multi_cover

from slots.errors import UsageError
from slots.parts.multi_cover import greedy_multi_cover, packed_cells


@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(0, 12), st.integers(0, 20), st.integers(1, 64)),
    times=st.integers(1, 5),
    max_picks=st.integers(1, 12),
    min_gain=st.integers(1, 4),
    density=st.floats(0.0, 0.5),
)
def test_picks_are_those_of_the_slow_greedy(seed, sizes, times, max_picks, min_gain, density):
    fires = np.random.default_rng(seed).random(sizes) < density
    picks, covered = greedy_multi_cover(packed_cells(fires), times=times, max_picks=max_picks, min_gain=min_gain)
    assert (picks.tolist(), covered.tolist()) == slow_multi_cover(fires, times, max_picks, min_gain)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 14), apart=st.sampled_from([0.1, 0.5, 0.9]))
def test_picks_lie_apart(seed, n, apart):
    rng = np.random.default_rng(seed)
    fires, vectors = rng.random((n, 12, 5)) < 0.2, rng.normal(size=(n, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    picks, covered = greedy_multi_cover(packed_cells(fires), times=2, vectors=vectors, apart=apart)
    assert (picks.tolist(), covered.tolist()) == slow_multi_cover(fires, 2, n, 1, cosines, apart)
    chosen = cosines[np.ix_(picks, picks)]
    assert (chosen[~np.eye(len(picks), dtype=bool)] <= apart).all()


def test_at_one_the_same_patch_may_be_picked_twice():
    fires, vectors = np.zeros((2, 2, 3), bool), np.full((2, 7), 7**-0.5, np.float32)
    fires[0, 0, 0] = fires[1, 1, 1] = True
    vectors[:] = np.nextafter(vectors, 1, dtype=np.float32)  # the square is above 1
    assert greedy_multi_cover(packed_cells(fires), times=1, vectors=vectors)[0].tolist() == [0, 1]
    assert greedy_multi_cover(packed_cells(fires), times=1, vectors=vectors, apart=0.9)[0].tolist() == [0]


def test_the_same_cell_twice_does_not_count():
    fires = np.zeros((3, 2, 4), bool)
    fires[0, :, 1] = fires[1, :, 1] = True
    fires[2, 0, 3] = True
    picks, covered = greedy_multi_cover(packed_cells(fires), times=2)
    assert picks.tolist() == [0, 2]
    assert covered.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (np.zeros((2, 2), np.int64), {"times": 1}, "must be a uint64 matrix"),
        (np.zeros(2, np.uint64), {"times": 1}, "of shape \\(2,\\)"),
        (np.zeros((2, 2), np.uint64), {"times": 0}, "`times` must be >= 1, got 0"),
        (np.zeros((2, 2), np.uint64), {"times": 1, "max_picks": 0}, "`max_picks` must be >= 1"),
        (np.zeros((2, 2), np.uint64), {"times": 1, "min_gain": 0}, "`min_gain` must be >= 1"),
        (np.zeros((2, 2), np.uint64), {"times": 1, "apart": 0.0}, "`apart` must lie in"),
        (np.zeros((2, 2), np.uint64), {"times": 1, "vectors": np.zeros((3, 2))}, "`vectors` must have 2 rows"),
    ],
)
def test_nonsense_is_refused(cells, options, message):
    with pytest.raises(UsageError, match=message):
        greedy_multi_cover(cells, **options)


def test_more_cells_than_a_word_has_bits_are_refused():
    with pytest.raises(UsageError, match="at most 64 cells, got 65"):
        packed_cells(np.zeros((1, 1, 65), bool))
