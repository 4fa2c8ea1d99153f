"""How far two groupings of the same inputs agree."""

from __future__ import annotations

import numpy as np

from slots.shapes import Ids


def adjusted_rand(first: Ids, second: Ids) -> float:
    """The adjusted Rand index of two groupings.

    Parameters
    ----------
    first, second : int64 arrays of shape (example,)
        Group of each input; only which are equal counts.

    Returns
    -------
    float
        1 where both are the same grouping, also of no input; near 0 where they agree by chance; at least -0.5.

    Notes
    -----
    Hubert and Arabie 1985. `sklearn.metrics.adjusted_rand_score` returns the same number, bit for bit, and takes
    milliseconds longer to look at its arguments: the groups of a small graph are compared hundreds of times.

    Examples
    --------
    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 2]))
    0.0
    """
    if not len(first):
        return 1.0
    rows, columns, counts = paired_counts(first, second)
    n, both = len(first), int((counts**2).sum())
    mine, its = (int((np.bincount(ids, counts).astype(np.int64) ** 2).sum()) for ids in (rows, columns))
    apart_second, apart_first = mine - both, its - both  # pairs together in one grouping alone
    if apart_first == 0 and apart_second == 0:
        return 1.0
    together, apart = both - n, n * n - apart_first - apart_second - both
    of_first, of_second = together + apart_second, together + apart_first
    expected = of_first * (apart_second + apart) + of_second * (apart_first + apart)
    return 2.0 * (together * apart - apart_second * apart_first) / expected


def paired_counts(first: Ids, second: Ids) -> tuple[Ids, Ids, Ids]:
    """How many inputs have each pair of groups that occurs.

    Parameters
    ----------
    first, second : int64 arrays of shape (example,)
        Group of each input; at least one input.

    Returns
    -------
    rows, columns, counts : int64 arrays of shape (pair,)
        Place of the groups among all of ``first`` and among all of ``second``, and the inputs in both; by row, and
        then by column.

    Examples
    --------
    >>> paired_counts(np.array([7, 7, 3]), np.array([1, 1, 1]))
    (array([0, 1]), array([0, 0]), array([1, 2]))
    """
    _, rows = np.unique(first, return_inverse=True)
    names, columns = np.unique(second, return_inverse=True)
    pairs, counts = np.unique(rows * len(names) + columns, return_counts=True)
    return pairs // len(names), pairs % len(names), counts
