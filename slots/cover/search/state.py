"""What every local search keeps of a cover: who is chosen, what is covered, and what a move would change.

As soon as everything is covered, a candidate is taken out; from then on one goes out and one comes in a step, until
everything is covered with fewer. Examples that stay uncovered gain weight, which drives a search out of dead ends.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from slots.cover.kernels import Ints, SparseCoverage
from slots.jit import compiled_in_place

NOBODY: Final = -1
STEP, N_CHOSEN, N_OPEN, TABU, RANDOM, N_BEST = range(6)
"""Places of `SearchState.scalars`."""


class SearchState(NamedTuple):
    """Arrays of one search.

    ``score``: weight that adding a candidate would cover, or minus what dropping it opens.
    """

    cover: SparseCoverage
    weight: Ints
    n_covering: Ints
    covering_sum: Ints  # sum of the chosen that cover an example: their name where there is one
    changed_at: Ints  # step at which an example's number of covering candidates last changed
    score: Ints
    moved_at: Ints  # step at which a candidate last went in or out
    chosen: Ints
    chosen_place: Ints  # place in `chosen`; -1 outside
    uncovered: Ints
    uncovered_place: Ints
    best: Ints
    scalars: Ints


@compiled_in_place
def put_in(s: SearchState, i: int) -> None:
    """Add a candidate to the chosen."""
    s.score[i] = -s.score[i]
    s.moved_at[i] = s.scalars[STEP]
    s.chosen_place[i] = s.scalars[N_CHOSEN]
    s.chosen[s.scalars[N_CHOSEN]] = i
    s.scalars[N_CHOSEN] += 1
    for place in range(s.cover.starts[i], s.cover.starts[i + 1]):
        j = s.cover.lists[place]
        s.n_covering[j] += 1
        s.changed_at[j] = s.scalars[STEP]
        if s.n_covering[j] == 1:
            for other in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
                s.score[s.cover.column_lists[other]] -= s.weight[j]
            s.score[i] += s.weight[j]
            s.scalars[N_OPEN] -= 1
            last = s.uncovered[s.scalars[N_OPEN]]
            s.uncovered[s.uncovered_place[j]] = last
            s.uncovered_place[last] = s.uncovered_place[j]
        elif s.n_covering[j] == 2:
            s.score[s.covering_sum[j]] += s.weight[j]
        s.covering_sum[j] += i


@compiled_in_place
def take_out(s: SearchState, i: int) -> None:
    """Remove a candidate from the chosen."""
    s.score[i] = -s.score[i]
    s.moved_at[i] = s.scalars[STEP]
    s.scalars[N_CHOSEN] -= 1
    last = s.chosen[s.scalars[N_CHOSEN]]
    s.chosen[s.chosen_place[i]] = last
    s.chosen_place[last] = s.chosen_place[i]
    s.chosen_place[i] = -1
    for place in range(s.cover.starts[i], s.cover.starts[i + 1]):
        j = s.cover.lists[place]
        s.n_covering[j] -= 1
        s.changed_at[j] = s.scalars[STEP]
        s.covering_sum[j] -= i
        if s.n_covering[j] == 0:
            for other in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
                s.score[s.cover.column_lists[other]] += s.weight[j]
            s.score[i] -= s.weight[j]
            s.uncovered[s.scalars[N_OPEN]] = j
            s.uncovered_place[j] = s.scalars[N_OPEN]
            s.scalars[N_OPEN] += 1
        elif s.n_covering[j] == 1:
            s.score[s.covering_sum[j]] -= s.weight[j]


@compiled_in_place
def is_covered(s: SearchState) -> bool:
    """Whether nothing is open; then the chosen are kept as the best."""
    if s.scalars[N_OPEN]:
        return False
    s.scalars[N_BEST] = s.scalars[N_CHOSEN]
    for place in range(s.scalars[N_CHOSEN]):
        s.best[place] = s.chosen[place]
    return True


@compiled_in_place
def some_uncovered(s: SearchState) -> int:
    """An uncovered example, drawn at random."""
    random = s.scalars[RANDOM]  # xorshift, 63 bits kept: no state outside the arrays, so runs repeat
    random ^= (random << 13) & 0x7FFFFFFFFFFFFFFF
    random ^= random >> 7
    random ^= (random << 17) & 0x7FFFFFFFFFFFFFFF
    s.scalars[RANDOM] = random
    return s.uncovered[random % s.scalars[N_OPEN]]  # type: ignore[no-any-return]


@compiled_in_place
def weigh_more(s: SearchState) -> None:
    """Let every uncovered example weigh one more."""
    for place in range(s.scalars[N_OPEN]):
        j = s.uncovered[place]
        s.weight[j] += 1
        for other in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
            s.score[s.cover.column_lists[other]] += 1


def search_state(cover: SparseCoverage, picks: Ints, seed: int) -> SearchState:
    """A search that begins with these picks, which cover everything."""
    n, n_examples = len(cover.starts) - 1, len(cover.column_starts) - 1
    examples = [np.zeros(n_examples, np.int64) for _ in range(5)]
    candidates = [np.zeros(n, np.int64) for _ in range(4)]
    scalars = np.zeros(6, np.int64)
    scalars[RANDOM] = 0x2545F491 * (2 * seed + 1) & 0x7FFFFFFFFFFFFFFF
    state = SearchState(
        cover=cover,
        weight=np.ones(n_examples, np.int64),
        n_covering=examples[0],
        covering_sum=examples[1],
        changed_at=examples[2],
        score=candidates[0],
        moved_at=candidates[1],
        chosen=candidates[2],
        chosen_place=np.full(n, NOBODY, np.int64),
        uncovered=examples[3],
        uncovered_place=examples[4],
        best=candidates[3],
        scalars=scalars,
    )
    _start(state, picks)
    state.best[: len(picks)] = picks
    scalars[N_BEST] = len(picks)
    return state


@compiled_in_place
def _start(s: SearchState, picks: Ints) -> None:
    """Set up the arrays with nothing chosen, then put the picks in."""
    for j in range(len(s.weight)):
        s.uncovered[j] = j
        s.uncovered_place[j] = j
    s.scalars[N_OPEN] = len(s.weight)
    for i in range(len(s.score)):
        s.score[i] = s.cover.starts[i + 1] - s.cover.starts[i]
    for i in picks:
        put_in(s, i)
    s.scalars[TABU] = -1
    s.scalars[STEP] = 1
