"""k-means of few rows in compiled loops, for when the calls of a library take ten times as long as the work."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from slots.jit import reordered

Rows = npt.NDArray[np.float32]
Draws = npt.NDArray[np.float64]

MOST_WORK: int = 4_000_000
"""Multiplications of a pass (rows x centres x features) up to which this is the quicker one."""

_PASSES = 10  # as in `kmeans.centres`: more move the centres little
_SAME = 1e-6  # squared distance, relative to the largest norm, below which rows are the same


def quick_directions(unit: Rows, most: int, *, seed: int) -> Rows:
    """Up to ``most`` centres of unit rows, as `kmeans.directions` finds them; other ones, as good.

    Parameters
    ----------
    unit : float32 array of shape (example, feature)
        Rows of length 1 or 0; those of length 0 take no part.
    most : int
        Centres wanted (count, >= 1).
    seed : int
        Of the first centres.

    Returns
    -------
    float32 array of shape (centre, feature)
        None of them 0; the different rows where they are no more. Empty where no row takes part.

    Notes
    -----
    First centres by greedy k-means++ (Arthur and Vassilvitskii 2007): of ``2 + log(most)`` draws with chances in
    proportion to the squared distance, the one that leaves the least is taken. Then up to ten passes over all rows
    (Lloyd), or until no row changes its centre; a centre that loses all its rows stays where it is.
    """
    rows = np.ascontiguousarray(unit[(unit != 0).any(1)])
    draws = np.random.default_rng(seed).random((min(most, len(rows)), 2 + int(math.log(most))))
    centres: Rows = _moved(rows, _first(rows, draws), _PASSES)
    return np.compress((centres != 0).any(1), centres, axis=0)


@reordered
def _first(rows: Rows, draws: Draws) -> Rows:
    """Different rows, far from each other; as many as there are draws, or as there are different rows."""
    count, trials = draws.shape
    n = len(rows)
    found = np.empty((count, rows.shape[1]), np.float32)
    squares, longest = np.empty(n), 0.0
    gaps, best, tried = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        squares[i], gaps[i] = _product(rows[i], rows[i]), 1.0
        longest = max(longest, squares[i])
    whole = float(n)
    for j in range(count):
        if whole <= 0:  # all other rows are copies
            return found[:j]
        least, pick = np.inf, -1
        for trial in range(1 if j == 0 else trials):
            row = _drawn(gaps, draws[j, trial] * whole)
            left = 0.0
            for i in range(n):
                gap = squares[i] + squares[row] - 2 * _product(rows[i], rows[row])
                gap = gap if gap > _SAME * longest else 0.0
                tried[i] = gap if j == 0 else min(gap, gaps[i])
                left += tried[i]
            if left < least:
                least, pick = left, row
                best, tried = tried, best
        for f in range(rows.shape[1]):
            found[j, f] = rows[pick, f]
        gaps, best, whole = best, gaps, least
    return found


@reordered
def _drawn(chances: Draws, at: float) -> int:
    """The item in which a place of the running sum lies; never one without a chance."""
    last = 0
    for i in range(len(chances)):
        if chances[i] > 0:
            last, at = i, at - chances[i]
            if at < 0:
                return last
    return last


@reordered
def _moved(rows: Rows, centres: Rows, passes: int) -> Rows:
    """The centres after some passes over all rows."""
    n_centres, n_features = centres.shape
    owner = np.full(len(rows), -1)
    halves, sizes, sums = np.empty(n_centres), np.empty(n_centres), np.empty((n_centres, n_features))
    for _ in range(passes):
        near = np.dot(rows, centres.T)
        for k in range(n_centres):
            halves[k] = _product(centres[k], centres[k]) / 2
            sizes[k] = 0
            for f in range(n_features):
                sums[k, f] = 0
        changed = False
        for i in range(len(rows)):
            mine, high = 0, -np.inf
            for k in range(n_centres):
                score = near[i, k] - halves[k]
                if score > high:
                    mine, high = k, score
            changed |= mine != owner[i]
            owner[i] = mine
            sizes[mine] += 1
            for f in range(n_features):
                sums[mine, f] += rows[i, f]
        for k in range(n_centres):
            if sizes[k] > 0:
                for f in range(n_features):
                    centres[k, f] = sums[k, f] / sizes[k]
        if not changed:
            break
    return centres


@reordered
def _product(one: Rows, other: Rows) -> float:
    total = 0.0
    for f in range(len(one)):
        total += one[f] * other[f]
    return total
