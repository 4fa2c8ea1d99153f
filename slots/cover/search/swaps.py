"""Fewer slots by swaps: the best exchange for an uncovered example, after Lin et al. (2020), in a sparse cover.

A step takes an uncovered example at random and looks at each candidate that covers it together with the one whose loss
would then weigh least: what the newcomer covers too is not lost. The best pair changes places. A step of row weighting
looks at less, the more so the denser the cover; in sparse ones it takes more time to find as few.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from slots.cover.kernels import Ints
from slots.cover.search.state import (
    N_CHOSEN,
    NOBODY,
    STEP,
    SearchState,
    is_covered,
    put_in,
    some_uncovered,
    take_out,
    weigh_more,
)
from slots.jit import compiled_in_place


class SwapState(NamedTuple):
    """A search, and what finds its swaps.

    ``leaders``: a tournament among the chosen, the one whose loss weighs least at 1; candidate ``i`` stands at
    ``len(leaders) // 2 + i``, or -1 where it is not chosen. ``relief``: by how much less a loss would weigh, zero
    between two looks; ``touched``: where it is not.
    """

    search: SearchState
    leaders: Ints
    relief: Ints
    touched: Ints


def swap_state(search: SearchState) -> SwapState:
    """Everything for swaps, the chosen of ``search`` in their places."""
    leaders = np.full(2 << max(len(search.score) - 1, 0).bit_length(), NOBODY, np.int64)
    state = SwapState(search, leaders, relief=np.zeros_like(search.score), touched=np.zeros_like(search.weight))
    _play_all(state)
    return state


@compiled_in_place
def _lighter(s: SearchState, a: int, b: int) -> bool:
    """Whether the loss of ``a`` weighs less than that of ``b``; of equals the longest unmoved, then the first."""
    if a < 0 or b < 0:
        return b < 0 <= a
    if s.score[a] != s.score[b]:
        return bool(s.score[a] > s.score[b])
    return bool(s.moved_at[a] < s.moved_at[b] or (s.moved_at[a] == s.moved_at[b] and a < b))


@compiled_in_place
def _play(s: SwapState, i: int) -> None:
    """Let a candidate that changed play anew, as far up as that changes anything."""
    at = len(s.leaders) // 2 + i
    s.leaders[at] = i if s.search.chosen_place[i] >= 0 else NOBODY
    at >>= 1
    while at:
        left, right = s.leaders[2 * at], s.leaders[2 * at + 1]
        leader = left if _lighter(s.search, left, right) else right
        if s.leaders[at] == leader and leader != i:
            return
        s.leaders[at] = leader
        at >>= 1


@compiled_in_place
def _play_all(s: SwapState) -> None:
    """The whole tournament."""
    for i in range(len(s.search.score)):
        _play(s, i)


@compiled_in_place
def lightest(s: SwapState, spared: int) -> int:
    """The chosen candidate whose loss weighs least, but for one; -1 where there is none."""
    if s.leaders[1] != spared or spared < 0:
        return int(s.leaders[1])
    best = NOBODY
    at = len(s.leaders) // 2 + spared
    while at > 1:
        if _lighter(s.search, s.leaders[at ^ 1], best):
            best = int(s.leaders[at ^ 1])
        at >>= 1
    return best


@compiled_in_place
def enter(s: SwapState, i: int) -> None:
    """Add a candidate to the chosen."""
    put_in(s.search, i)
    for place in range(s.search.cover.starts[i], s.search.cover.starts[i + 1]):
        j = s.search.cover.lists[place]
        if s.search.n_covering[j] == 2:
            _play(s, s.search.covering_sum[j] - i)
    _play(s, i)


@compiled_in_place
def leave(s: SwapState, i: int) -> None:
    """Remove a candidate from the chosen."""
    take_out(s.search, i)
    _play(s, i)
    for place in range(s.search.cover.starts[i], s.search.cover.starts[i + 1]):
        j = s.search.cover.lists[place]
        if s.search.n_covering[j] == 1:
            _play(s, s.search.covering_sum[j])


@compiled_in_place
def partner(s: SwapState, new: int, lightest_now: int, spared: int) -> tuple[int, int]:
    """Who leaves best where ``new`` enters, and the weight that is covered more after both (negative: less)."""
    out, loss, n = lightest_now, s.search.score[lightest_now], 0
    for place in range(s.search.cover.starts[new], s.search.cover.starts[new + 1]):
        j = s.search.cover.lists[place]
        if s.search.n_covering[j] != 1 or s.search.covering_sum[j] == spared:
            continue
        other = s.search.covering_sum[j]
        s.touched[n] = other
        n += 1
        s.relief[other] += s.search.weight[j]
        lighter = s.search.score[other] + s.relief[other]
        if lighter > loss or (lighter == loss and s.search.moved_at[other] < s.search.moved_at[out]):
            out, loss = other, lighter
    for place in range(n):
        s.relief[s.touched[place]] = 0
    return out, s.search.score[new] + loss


@compiled_in_place
def best_swap(s: SwapState, j: int, entered: int, left: int) -> tuple[int, int, int]:
    """The pair for an uncovered example: who enters, who leaves, and the weight that is covered more.

    Of equal ones the pair longest unmoved. Whoever entered last stays, whoever left last does not come back. (-1, -1)
    where there is no pair.
    """
    lightest_now = lightest(s, entered)
    new = out = NOBODY
    gain = 0
    if lightest_now < 0:
        return new, out, gain
    moved_at = s.search.moved_at
    for place in range(s.search.cover.column_starts[j], s.search.cover.column_starts[j + 1]):
        i = s.search.cover.column_lists[place]
        if i == left or (new >= 0 and s.search.score[i] < gain):  # a loss is never negative: it cannot be better
            continue
        other, more = partner(s, i, lightest_now, entered)
        if new < 0 or more > gain or (more == gain and moved_at[i] + moved_at[other] < moved_at[new] + moved_at[out]):
            new, out, gain = i, other, more
    return new, out, gain


@compiled_in_place
def search_by_swaps(s: SwapState, n_steps: int, enough: int, last: Ints) -> None:
    """Take steps until there are no more, or the best cover needs at most ``enough`` candidates.

    ``last``: who entered and who left last, of shape (2,), -1 for nobody; kept from call to call.
    """
    for _ in range(n_steps):
        while is_covered(s.search):
            if s.search.scalars[N_CHOSEN] <= enough:
                return
            s.search.scalars[STEP] += 1
            leave(s, s.leaders[1])
            last[0] = last[1] = NOBODY
        s.search.scalars[STEP] += 1
        new, out, gain = best_swap(s, some_uncovered(s.search), last[0], last[1])
        if new < 0:
            last[0] = last[1] = NOBODY
            continue
        if gain <= 0:
            weigh_more(s.search)
        leave(s, out)
        enter(s, new)
        last[0], last[1] = new, out
