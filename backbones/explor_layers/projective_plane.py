"""Dobble: sets of inputs of which two share at most one, as the symbols on the cards of the game do."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def dobble_sets(n_inputs: int, n_sets: int) -> Bool[Tensor, "input set"]:
    """Choose for each set its inputs: lines and points of a projective plane.

    The plane of prime order ``q`` has ``q^2 + q + 1`` points and as many lines; each line holds ``q + 1`` points, and
    two lines meet in exactly one. The smallest plane with enough points and lines is taken, the rest is dropped: what
    stays of two lines still shares at most one point, and a line that lost all its points is empty.

    Parameters
    ----------
    n_inputs : int
        Number of points to keep (count, >= 1).
    n_sets : int
        Number of lines to keep (count, >= 1).

    Returns
    -------
    bool tensor of shape (input, set)
        True where the input is in the set.

    Notes
    -----
    Points and lines are the triples over the integers modulo ``q`` up to a factor, the first nonzero entry being 1; a
    point lies on a line when the inner product of their triples is 0 modulo ``q``.

    Examples
    --------
    >>> dobble_sets(7, 7).sum(0)  # the Fano plane
    tensor([3, 3, 3, 3, 3, 3, 3])
    """
    order = 2
    while order * order + order + 1 < max(n_inputs, n_sets) or any(order % factor == 0 for factor in range(2, order)):
        order += 1
    triples = [(1, a, b) for a in range(order) for b in range(order)] + [(0, 1, a) for a in range(order)] + [(0, 0, 1)]
    points = torch.tensor(triples)
    return (points[:n_inputs] @ points[:n_sets].T) % order == 0
