"""Fewer slots by local search: row weighting (Gao, Weise, Li 2015) on each independent part of a reduced cover.

As soon as everything is covered, a candidate is taken out; from then on one goes out and one comes in a step, until
everything is covered with fewer. Examples that stay uncovered gain weight, which drives the search out of dead ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from slots.cover.kernels import Ints, SparseCoverage, rarest_first, reverse_delete, sparse_coverage
from slots.cover.reductions import Component
from slots.jit import compiled

_STEP, _N_CHOSEN, _N_OPEN, _TABU, _RANDOM, _N_BEST = range(6)

_PATIENCE, _PATIENCE_EACH = 100_000, 1000
"""Steps without progress after which the search gives up on a component: so many, and so many for each candidate."""


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


@compiled
def _put_in(s: SearchState, i: int) -> None:
    """Add a candidate to the chosen."""
    s.score[i] = -s.score[i]
    s.moved_at[i] = s.scalars[_STEP]
    s.chosen_place[i] = s.scalars[_N_CHOSEN]
    s.chosen[s.scalars[_N_CHOSEN]] = i
    s.scalars[_N_CHOSEN] += 1
    for place in range(s.cover.starts[i], s.cover.starts[i + 1]):
        j = s.cover.lists[place]
        s.n_covering[j] += 1
        s.changed_at[j] = s.scalars[_STEP]
        if s.n_covering[j] == 1:
            for other in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
                s.score[s.cover.column_lists[other]] -= s.weight[j]
            s.score[i] += s.weight[j]
            s.scalars[_N_OPEN] -= 1
            last = s.uncovered[s.scalars[_N_OPEN]]
            s.uncovered[s.uncovered_place[j]] = last
            s.uncovered_place[last] = s.uncovered_place[j]
        elif s.n_covering[j] == 2:
            s.score[s.covering_sum[j]] += s.weight[j]
        s.covering_sum[j] += i


@compiled
def _take_out(s: SearchState, i: int) -> None:
    """Remove a candidate from the chosen."""
    s.score[i] = -s.score[i]
    s.moved_at[i] = s.scalars[_STEP]
    s.scalars[_N_CHOSEN] -= 1
    last = s.chosen[s.scalars[_N_CHOSEN]]
    s.chosen[s.chosen_place[i]] = last
    s.chosen_place[last] = s.chosen_place[i]
    s.chosen_place[i] = -1
    for place in range(s.cover.starts[i], s.cover.starts[i + 1]):
        j = s.cover.lists[place]
        s.n_covering[j] -= 1
        s.changed_at[j] = s.scalars[_STEP]
        s.covering_sum[j] -= i
        if s.n_covering[j] == 0:
            for other in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
                s.score[s.cover.column_lists[other]] += s.weight[j]
            s.score[i] -= s.weight[j]
            s.uncovered[s.scalars[_N_OPEN]] = j
            s.uncovered_place[j] = s.scalars[_N_OPEN]
            s.scalars[_N_OPEN] += 1
        elif s.n_covering[j] == 1:
            s.score[s.covering_sum[j]] -= s.weight[j]


@compiled
def _cheapest(s: SearchState) -> int:
    """The chosen candidate whose loss weighs least, the longest unmoved of equals; the one just put in is spared."""
    best = -1
    for place in range(s.scalars[_N_CHOSEN]):
        i = s.chosen[place]
        if i == s.scalars[_TABU]:
            continue
        if best < 0 or s.score[i] > s.score[best] or (s.score[i] == s.score[best] and s.moved_at[i] < s.moved_at[best]):
            best = i
    return best


@compiled
def _may_return(s: SearchState, i: int) -> bool:
    """Whether anything changed around a candidate since it was taken out."""
    for place in range(s.cover.starts[i], s.cover.starts[i + 1]):
        if s.changed_at[s.cover.lists[place]] > s.moved_at[i]:
            return True
    return False


@compiled
def _heaviest(s: SearchState, j: int) -> int:
    """The candidate for an uncovered example that covers most weight, the longest unmoved of equals."""
    best = -1
    for place in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
        i = s.cover.column_lists[place]
        if best >= 0 and (
            s.score[i] < s.score[best] or (s.score[i] == s.score[best] and s.moved_at[i] >= s.moved_at[best])
        ):
            continue
        if _may_return(s, i):
            best = i
    return best


@compiled
def search(s: SearchState, n_steps: int, enough: int) -> None:
    """Take steps until there are no more, or the best cover needs at most ``enough`` candidates."""
    for _ in range(n_steps):
        while s.scalars[_N_OPEN] == 0:
            s.scalars[_N_BEST] = s.scalars[_N_CHOSEN]
            for place in range(s.scalars[_N_CHOSEN]):
                s.best[place] = s.chosen[place]
            if s.scalars[_N_BEST] <= enough:
                return
            s.scalars[_TABU] = -1
            s.scalars[_STEP] += 1
            _take_out(s, _cheapest(s))
        s.scalars[_STEP] += 1
        out = _cheapest(s)
        if out >= 0:
            _take_out(s, out)
        random = s.scalars[_RANDOM]  # xorshift, 63 bits kept: no state outside the arrays, so runs repeat
        random ^= (random << 13) & 0x7FFFFFFFFFFFFFFF
        random ^= random >> 7
        random ^= (random << 17) & 0x7FFFFFFFFFFFFFFF
        s.scalars[_RANDOM] = random
        s.scalars[_STEP] += 1
        new = _heaviest(s, s.uncovered[random % s.scalars[_N_OPEN]])
        if new >= 0:
            _put_in(s, new)
            s.scalars[_TABU] = new
        for place in range(s.scalars[_N_OPEN]):
            j = s.uncovered[place]
            s.weight[j] += 1
            for other in range(s.cover.column_starts[j], s.cover.column_starts[j + 1]):
                s.score[s.cover.column_lists[other]] += 1


@compiled
def start(s: SearchState, picks: Ints) -> None:
    """Set up the arrays with nothing chosen, then put the picks in."""
    for j in range(len(s.weight)):
        s.uncovered[j] = j
        s.uncovered_place[j] = j
    s.scalars[_N_OPEN] = len(s.weight)
    for i in range(len(s.score)):
        s.score[i] = s.cover.starts[i + 1] - s.cover.starts[i]
    for i in picks:
        _put_in(s, i)
    s.scalars[_TABU] = -1
    s.scalars[_STEP] = 1


@dataclass
class ComponentSearch:
    """One component's search and how long it has gone without progress."""

    component: Component
    state: SearchState
    lower_bound: int
    idle_steps: int = 0
    taken_steps: int = 0

    @classmethod
    def of(cls, component: Component, seed: int) -> ComponentSearch:
        """Start from the rarest-example-first cover."""
        n = len(component.candidates)
        cover = sparse_coverage(component.starts, component.lists, component.n_examples)
        order = np.argsort(np.diff(cover.column_starts), kind="stable")
        picks = reverse_delete(cover, rarest_first(cover, order))
        examples = [np.zeros(component.n_examples, np.int64) for _ in range(5)]
        candidates = [np.zeros(n, np.int64) for _ in range(5)]
        scalars = np.zeros(6, np.int64)
        scalars[_RANDOM] = 0x2545F491 * (2 * seed + 1) & 0x7FFFFFFFFFFFFFFF
        state = SearchState(
            cover=cover,
            weight=np.ones(component.n_examples, np.int64),
            n_covering=examples[0],
            covering_sum=examples[1],
            changed_at=examples[2],
            score=candidates[0],
            moved_at=candidates[1],
            chosen=candidates[2],
            chosen_place=np.full(n, -1, np.int64),
            uncovered=examples[3],
            uncovered_place=examples[4],
            best=candidates[3],
            scalars=scalars,
        )
        start(state, picks)
        state.best[: len(picks)] = picks
        scalars[_N_BEST] = len(picks)
        return cls(component, state, independent_examples(cover, order))

    @property
    def finished(self) -> bool:
        """Whether the best cover is proved smallest, or patience is over."""
        return self.size <= self.lower_bound or self.idle_steps >= self.patience

    @property
    def patience(self) -> int:
        """Steps without progress that are put up with."""
        return _PATIENCE + _PATIENCE_EACH * len(self.component.candidates)

    @property
    def size(self) -> int:
        """Picks of the best cover so far."""
        return int(self.state.scalars[_N_BEST])

    def advance(self, n_steps: int) -> None:
        """Search on."""
        before = self.size
        search(self.state, n_steps, self.lower_bound)
        self.taken_steps += n_steps
        self.idle_steps = self.idle_steps + n_steps if self.size == before else 0

    def picks(self) -> Ints:
        """The best cover, as places in the block."""
        return self.component.candidates[self.state.best[: self.size]]


@compiled
def independent_examples(cover: SparseCoverage, order: Ints) -> int:
    """Examples taken greedily in ``order`` so that no two share a candidate: each needs a pick of its own."""
    blocked = np.zeros(len(cover.column_starts) - 1, np.bool_)
    n = 0
    for j in order:
        if blocked[j]:
            continue
        n += 1
        for place in range(cover.column_starts[j], cover.column_starts[j + 1]):
            i = cover.column_lists[place]
            for shared in range(cover.starts[i], cover.starts[i + 1]):
                blocked[cover.lists[shared]] = True
    return n


def search_components(components: list[Component], *, deadline: float, seed: int, max_steps: int | None) -> list[Ints]:
    """Best cover of each component when the clock (`time.perf_counter`) reaches ``deadline``, or all have finished.

    All advance in turn, the larger ones by more steps; with ``max_steps`` a component stops after that many.
    """
    searches = [ComponentSearch.of(component, seed + n) for n, component in enumerate(components)]
    running = [one for one in searches if not one.finished]
    while running and time.perf_counter() < deadline:
        for one in running:
            left = one.patience if max_steps is None else max_steps - one.taken_steps
            one.advance(min(left, 50 + len(one.component.candidates)))
            if time.perf_counter() >= deadline:
                break
        running = [one for one in running if not one.finished and (max_steps is None or one.taken_steps < max_steps)]
    return [one.picks() for one in searches]
