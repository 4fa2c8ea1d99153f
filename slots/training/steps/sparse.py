"""Slots of a few features: all but the largest weights are dropped, a few more with each step of the training."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from slots.shapes import SlotVectors

_UNTIL = 0.6
"""Share of the training after which a slot has no more features than it shall keep; the rest trains those."""


def allowed_features(n_features: int, wanted: int, progress: float) -> int:
    """How many features a slot may use when a share of the training is done.

    Parameters
    ----------
    n_features : int
        Features there are, >= 1.
    wanted : int
        Features that a slot may use in the end, >= 1.
    progress : float in [0, 1]
        The share.

    Returns
    -------
    int
        Falls from ``n_features`` to ``wanted`` by the same factor in each step, as in Zhu and Gupta (2017) the share
        of weights that are pruned rises: early weights say little about which features matter.

    Examples
    --------
    >>> [allowed_features(900, 9, progress) for progress in (0.0, 0.3, 0.6, 1.0)]
    [900, 90, 9, 9]
    """
    if wanted >= n_features:
        return n_features
    share = math.pow(wanted / n_features, min(1.0, progress / _UNTIL))
    return max(wanted, round(n_features * share))


@torch.no_grad()
def keep_largest_(weights: SlotVectors, count: int) -> Float[Tensor, "slot feature"]:
    """Set all weights of each slot to 0 but the ``count`` largest, and those below 0; in place.

    Parameters
    ----------
    weights : float tensor of shape (slot, feature)
        The first of equal weights is kept. A slot without a positive weight keeps its largest one as it is, so that
        none is ever without a direction.
    count : int
        >= 1.

    Returns
    -------
    float tensor of shape (slot, feature)
        ``weights``, no longer unit vectors.

    Examples
    --------
    >>> keep_largest_(torch.tensor([[0.5, -0.9, 0.6, 0.1], [-0.5, -0.1, -0.2, -0.3]]), 2)
    tensor([[ 0.5000,  0.0000,  0.6000,  0.0000],
            [ 0.0000, -0.1000,  0.0000,  0.0000]])
    """
    order = weights.sort(dim=1, descending=True, stable=True).indices[:, : min(count, weights.shape[1])]
    kept = torch.zeros_like(weights, dtype=torch.bool).scatter_(1, order, True)
    kept &= weights > 0
    none = ~kept.any(1)
    kept[none, order[none, 0]] = True
    return weights.masked_fill_(~kept, 0.0)
