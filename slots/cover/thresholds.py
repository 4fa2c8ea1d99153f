"""What the tiled and the fused way to the thresholds of caps have in common."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.rounding import strictly_above
from slots.shapes import Thresholds

ROUNDING = 1e-12
"""Above by less is equal: a candidate's own score is 1 give or take 1e-16, and 1 may be its threshold."""


def just_above(top: Float[Tensor, " row"], order: Int[Tensor, " row"]) -> Thresholds:
    """Thresholds just above the largest scores.

    Parameters
    ----------
    top : float64 tensor of shape (row,)
        Largest cosine to an example of another label; minus infinity where there is none.
    order : int64 tensor of shape (row,)
        Where each of them belongs.

    Returns
    -------
    float32 tensor of shape (row,)
    """
    found = torch.where(top > -math.inf, strictly_above(top), torch.full_like(top, -math.inf, dtype=torch.float32))
    return torch.empty_like(found).index_copy_(0, order, found)
