"""Greedy set multi-cover: few candidates that show every example in several places."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from slots.cover.kernels import Ints, Words, count_bits
from slots.errors import UsageError
from slots.jit import compiled

Rows = npt.NDArray[np.float32]
MOST_CELLS = 64
"""Cells that fit into one word."""


def greedy_multi_cover(
    cells: Words,
    *,
    times: int,
    max_picks: int | None = None,
    min_gain: int = 1,
    vectors: Rows | None = None,
    apart: float = 1.0,
) -> tuple[Ints, Ints]:
    """Pick few candidates so that each example is covered in several cells, as far as it can be.

    An example is served when it is covered in ``times`` different cells, whoever covers them. At each step the
    candidate is taken that adds most cells which examples still lack; ties go to the lowest index.

    Parameters
    ----------
    cells : uint64 array of shape (candidate, example)
        Bit ``c`` says whether the candidate covers the example in cell ``c``.
    times : int
        Different cells that an example needs (count, >= 1).
    max_picks : int, optional
        Upper bound on the number of picks (count, >= 1). Default: no bound.
    min_gain : int, default 1
        Lacking cells, summed over the examples, that a pick must add (count, >= 1).
    vectors : float32 array of shape (candidate, feature), optional
        Unit vectors of the candidates. Default: none is like another.
    apart : float, default 1.0
        Candidates whose cosine to a pick is larger are not picked any more, in (0, 1]; 1 allows all.

    Returns
    -------
    picks : int64 array of shape (pick,)
        Candidates in the order of picking.
    covered : int64 array of shape (example,)
        In how many cells each example is covered by them; more than ``times`` where it came by itself.

    Raises
    ------
    UsageError
        If ``cells`` is no matrix of words, or a number is out of its range.

    Notes
    -----
    ``sum over examples of min(times, cells covered)`` is monotone and submodular, so the greedy needs at most
    ``1 + ln(d)`` times as many picks as an optimal choice that serves as much, ``d`` the most that one candidate adds
    [1]_. With one cell and ``times=1`` it is the set cover of `slots.cover`. Among candidates that must lie apart the
    bound does not hold.

    References
    ----------
    .. [1] L. A. Wolsey, "An analysis of the greedy algorithm for the submodular set covering problem", Combinatorica 2,
       1982.

    Examples
    --------
    >>> cells = np.array([[0b01, 0b00], [0b10, 0b01], [0b01, 0b10]], np.uint64)
    >>> greedy_multi_cover(cells, times=2)
    (array([1, 2]), array([2, 2]))
    """
    words = np.ascontiguousarray(cells)
    if words.ndim != 2 or words.dtype != np.uint64:
        raise UsageError(
            f"`cells` must be a uint64 matrix (candidate, example), got {words.dtype} of shape {words.shape}. "
            "Pack the cells of each pair into one word."
        )
    for name, value in (("times", times), ("max_picks", 1 if max_picks is None else max_picks), ("min_gain", min_gain)):
        if value < 1:
            raise UsageError(f"`{name}` must be >= 1, got {value}. Pass a larger number.")
    if not 0 < apart <= 1:
        raise UsageError(f"`apart` must lie in (0, 1], got {apart}. 0.95 takes only one of two that look the same.")
    unit = np.zeros((len(words), 0), np.float32) if vectors is None else np.ascontiguousarray(vectors, np.float32)
    unit = unit[:, :0] if apart == 1 and unit.ndim == 2 else unit  # rounding takes a cosine above 1
    if unit.ndim != 2 or len(unit) != len(words):
        raise UsageError(f"`vectors` must have {len(words)} rows, one a candidate, got shape {unit.shape}. Give all.")
    return _greedy(words, unit, len(words) if max_picks is None else max_picks, (times, min_gain, apart))


def packed_cells(fires: npt.NDArray[np.bool_]) -> Words:
    """Cells of each pair as one word: ``fires`` of shape (candidate, example, cell).

    Raises
    ------
    UsageError
        If there are more than 64 cells.
    """
    if fires.shape[2] > MOST_CELLS:
        raise UsageError(f"There must be at most {MOST_CELLS} cells, got {fires.shape[2]}. Use larger cells.")
    values = np.uint64(1) << np.arange(fires.shape[2], dtype=np.uint64)
    return np.asarray((fires * values).sum(2, dtype=np.uint64))


@compiled
def _greedy(cells: Words, unit: Rows, max_picks: int, rule: tuple[int, int, float]) -> tuple[Ints, Ints]:
    """Gains only fall, so an old gain is an upper bound: candidates below the best new one are not looked at."""
    times, min_gain, apart = rule
    n, width = cells.shape
    have = np.zeros(width, np.uint64)
    bounds = np.zeros(n, np.int64)
    for i in range(n):
        bounds[i] = _gain(cells[i], have, times)
    picks = np.zeros(min(n, max_picks), np.int64)
    count = 0
    while count < len(picks):
        best, at = min_gain - 1, -1
        for i in range(n):
            if bounds[i] > best:
                bounds[i] = _gain(cells[i], have, times)
                if bounds[i] > best:
                    best, at = bounds[i], i
        if at < 0:
            break
        picks[count] = at
        count += 1
        for j in range(width):
            have[j] |= cells[at, j]
        for i in range(n):
            if bounds[i] > 0 and _cosine(unit[i], unit[at]) > apart:
                bounds[i] = 0
    covered = np.zeros(width, np.int64)
    for j in range(width):
        covered[j] = count_bits(have[j])
    return picks[:count], covered


@compiled
def _cosine(first: Rows, second: Rows) -> float:
    """Inner product in float64; 0 of vectors without entries."""
    total = 0.0
    for j in range(len(first)):
        total += float(first[j]) * float(second[j])
    return total


@compiled
def _gain(row: Words, have: Words, times: int) -> int:
    """Cells that a candidate adds to examples which lack some."""
    total = 0
    for j in range(len(row)):
        lacks = times - count_bits(have[j])
        if lacks > 0:
            total += min(lacks, count_bits(row[j] & ~have[j]))
    return total
