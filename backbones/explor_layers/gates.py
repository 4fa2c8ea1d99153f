"""``e = exp(a_x k(x))``, how much an input wants to be chosen, in few passes over memory.

The key is the input over its root mean square, so the chances do not change when the input is scaled.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

KEY_LIMIT: Final = 8.0
"""Keys are clamped to this: with 64 inputs or fewer the root mean square keeps them below it anyway."""


def inverse_rms(x: Float[Tensor, "... input"]) -> Float[Tensor, "... 1"]:
    """One over the root mean square along the last axis, at most 1e6."""
    # A floor, not an added epsilon: above it the key is exactly independent of the input's scale.
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (norm / math.sqrt(x.shape[-1])).clamp_min(1e-6).reciprocal()


def chances_and_values(
    x: Float[Tensor, "... input"], a_x: float
) -> tuple[Float[Tensor, "... input"], Float[Tensor, "... input"]]:
    """``e = exp(a_x clamp(x / rms(x)))`` and ``e * x``, with the gradient through the keys.

    The same as the plain formula, derivatives of any order included, in half the passes over memory: on a CPU those
    cost as much as the matrix products. ``8 a_x`` must be far from the logarithm of the largest float.
    """
    chances, values = _ChancesAndValues.apply(x, a_x)
    return chances, values


class _ChancesAndValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a_x: float) -> tuple[Tensor, Tensor]:
        chances = x * (a_x * inverse_rms(x))
        if _may_clamp(x):
            chances.clamp_(-a_x * KEY_LIMIT, a_x * KEY_LIMIT)
        chances.exp_()
        # An output may be saved: its own graph makes the second derivative right.
        ctx.save_for_backward(x, chances)
        ctx.a_x = a_x
        return chances, chances * x

    @staticmethod
    def backward(ctx: Any, to_chances: Tensor, to_values: Tensor) -> tuple[Tensor, None]:
        x, chances = ctx.saved_tensors
        inverse = inverse_rms(x)
        # With k = x r and r = 1 / rms: dk_i = r dx_i - k_i r^2 <x, dx> / n, so the key's gradient h goes to
        # r h - k r^2 <h, x> / n, which is r h - x r^3 <h, x> / n. Where rms is at its floor r is constant.
        to_key = torch.addcmul(to_chances, to_values, x) * chances
        if _may_clamp(x):
            to_key = to_key * ((x * inverse).abs() <= KEY_LIMIT)
        shared = (to_key * x).mean(-1, keepdim=True) * inverse**3 * (inverse < 1e6)
        to_x = to_values * chances
        to_x = torch.addcmul(to_x, to_key, ctx.a_x * inverse)
        return torch.addcmul(to_x, x, -ctx.a_x * shared), None


def _may_clamp(x: Tensor) -> bool:
    """Whether a key can be above the limit at all: the largest is the root of the number of inputs."""
    return x.shape[-1] > KEY_LIMIT**2
