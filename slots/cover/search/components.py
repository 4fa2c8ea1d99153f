"""Fewer slots by local search on each independent part of a reduced cover, by the kind of step that suits it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from slots.cover.greedy import NO_LIMIT, all_open
from slots.cover.kernels import Ints, SparseCoverage, greedy_rows, rarest_first, reverse_delete, sparse_coverage
from slots.cover.reductions import Component, packed_lists
from slots.cover.search.row_weighting import search
from slots.cover.search.state import N_BEST, NOBODY, SearchState, search_state
from slots.cover.search.swaps import SwapState, search_by_swaps, swap_state
from slots.jit import compiled

PATIENCE, PATIENCE_EACH = 100_000, 1000
"""Steps without progress after which the search gives up on a component: so many, and so many for each candidate."""

MOST_LOOKED_AT: Final = 1000
"""Entries of the cover that a step by swaps may look at on average. Where they are more, row weighting finds as few
candidates sooner: on OR-Library's files the two change places between 720 (scpc) and 2,379 (scpb)."""


@dataclass
class ComponentSearch:
    """One component's search and how long it has gone without progress; ``swaps`` where it goes by swaps."""

    component: Component
    state: SearchState
    swaps: SwapState | None
    lower_bound: int
    idle_steps: int = 0
    taken_steps: int = 0

    def __post_init__(self) -> None:
        self.last_swap = np.full(2, NOBODY, np.int64)

    @classmethod
    def of(cls, component: Component, seed: int, *, by_swaps: bool | None = None) -> ComponentSearch:
        """Start from the rarest-example-first cover; with swaps from the greedy one where that is smaller."""
        if by_swaps is None:
            by_swaps = looked_at(component) <= MOST_LOOKED_AT
        cover = sparse_coverage(component.starts, component.lists, component.n_examples)
        order = np.argsort(np.diff(cover.column_starts), kind="stable")
        picks = reverse_delete(cover, rarest_first(cover, order))
        if by_swaps:
            rows = packed_lists(component.starts, component.lists, component.n_examples)
            greedy, _ = greedy_rows(rows, all_open(rows), 1, NO_LIMIT, NO_LIMIT)
            picks = min(reverse_delete(cover, greedy), picks, key=len)
        state = search_state(cover, picks, seed)
        return cls(component, state, swap_state(state) if by_swaps else None, independent_examples(cover, order))

    @property
    def finished(self) -> bool:
        """Whether the best cover is proved smallest, or patience is over."""
        return self.size <= self.lower_bound or self.idle_steps >= self.patience

    @property
    def patience(self) -> int:
        """Steps without progress that are put up with."""
        return PATIENCE + PATIENCE_EACH * len(self.component.candidates)

    @property
    def size(self) -> int:
        """Picks of the best cover so far."""
        return int(self.state.scalars[N_BEST])

    def advance(self, n_steps: int) -> None:
        """Search on."""
        before = self.size
        if self.swaps is None:
            search(self.state, n_steps, self.lower_bound)
        else:
            search_by_swaps(self.swaps, n_steps, self.lower_bound, self.last_swap)
        self.taken_steps += n_steps
        self.idle_steps = self.idle_steps + n_steps if self.size == before else 0

    def picks(self) -> Ints:
        """The best cover, as places in the block."""
        return self.component.candidates[self.state.best[: self.size]]


def looked_at(component: Component) -> float:
    """Entries of the cover that one step by swaps looks at: of each candidate of an example, all it covers (mean)."""
    sizes = np.diff(component.starts)
    return float(sizes @ sizes) / component.n_examples


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
