"""Row weighting (Gao, Weise, Li 2015): the chosen candidate whose loss weighs least goes, the heaviest comes in."""

from __future__ import annotations

from slots.cover.search.state import (
    N_CHOSEN,
    NOBODY,
    STEP,
    TABU,
    SearchState,
    is_covered,
    put_in,
    some_uncovered,
    take_out,
    weigh_more,
)
from slots.jit import compiled_in_place


@compiled_in_place
def _cheapest(s: SearchState) -> int:
    """The chosen candidate whose loss weighs least, the longest unmoved of equals; the one just put in is spared."""
    best = -1
    for place in range(s.scalars[N_CHOSEN]):
        i = s.chosen[place]
        if i == s.scalars[TABU]:
            continue
        if best < 0 or s.score[i] > s.score[best] or (s.score[i] == s.score[best] and s.moved_at[i] < s.moved_at[best]):
            best = i
    return best


@compiled_in_place
def _may_return(s: SearchState, i: int) -> bool:
    """Whether anything changed around a candidate since it was taken out."""
    for place in range(s.cover.starts[i], s.cover.starts[i + 1]):
        if s.changed_at[s.cover.lists[place]] > s.moved_at[i]:
            return True
    return False


@compiled_in_place
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


@compiled_in_place
def search(s: SearchState, n_steps: int, enough: int) -> None:
    """Take steps until there are no more, or the best cover needs at most ``enough`` candidates."""
    for _ in range(n_steps):
        while is_covered(s):
            if s.scalars[N_CHOSEN] <= enough:
                return
            s.scalars[TABU] = NOBODY
            s.scalars[STEP] += 1
            take_out(s, _cheapest(s))
        s.scalars[STEP] += 1
        out = _cheapest(s)
        if out >= 0:
            take_out(s, out)
        s.scalars[STEP] += 1
        new = _heaviest(s, some_uncovered(s))
        if new >= 0:
            put_in(s, new)
            s.scalars[TABU] = new
        weigh_more(s)
