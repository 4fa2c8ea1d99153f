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

_STEPS = 2.0**33
"""Scores are first rounded to one part in so many, a tenth of the room that is left above them. Near 0 float32 is so
fine that a score of 0, which is 1e-17 when summed in another order, would get two thresholds."""


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
    stepped = (top * _STEPS).round() / _STEPS
    found = torch.where(top > -math.inf, strictly_above(stepped), torch.full_like(top, -math.inf, dtype=torch.float32))
    return torch.empty_like(found).index_copy_(0, order, found)
