"""A source without parts of its own, divided into a training part and a test part: always in the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.2
"""Share of each class that is set aside to test on."""


def rows_to_test(y: NDArray[np.int64], *, seed: int = 0) -> NDArray[np.int64]:
    """Rows that become the test part: a fifth of each class, drawn at random, and every row without a label.

    Parameters
    ----------
    y : int64 array of shape (example,)
        Labels, -1 for unknown.
    seed : int, default 0
        Of the draw.

    Returns
    -------
    int64 array of shape (test example,)
        Sorted. At least one example of a class stays for training; a class of up to four gives none.

    Examples
    --------
    >>> rows_to_test(np.array([0, 0, 0, 0, 0, 1, -1])).tolist()
    [2, 6]
    """
    rng = np.random.default_rng(seed)
    chosen = [np.flatnonzero(y < 0)]
    for label in np.unique(y[y >= 0]):
        rows = np.flatnonzero(y == label)
        chosen.append(rng.permutation(rows)[: int(len(rows) * TEST_SHARE)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
