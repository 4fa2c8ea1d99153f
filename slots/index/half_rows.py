"""The rows of the bound in bfloat16, with as much room as its rounding needs.

Where a processor multiplies matrices of bfloat16, it makes eight times as many products a second as in float32. A
number moves by up to 2^-8 of itself, and a cosine by up to 8e-3. How far the row of a slot and that of an input moved
is known, and by Cauchy and Schwarz their product moved no farther than both together.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from slots.rounding import product_error

EXTRA = 2
"""Columns that rows in bfloat16 have more than in float32."""

TYPICAL_ERROR = 3.3e-3
"""What rounding of both rows adds to a bound, as measured."""

_ROOM = 1.02  # the other row's length, with room to spare: it is 1 up to 2^-8
_TWICE_ROUNDED = 2.0**-15  # of a number given as the sum of two in bfloat16


@cache
def has_half_products() -> bool:
    """Whether products of bfloat16 matrices have instructions of their own here (Intel's AMX)."""
    asked: Any = getattr(torch.cpu, "get_capabilities", dict)
    return bool(asked().get("amx_bf16", False))


def half_slots(rows: Float[Tensor, "slot column"]) -> Float[Tensor, "slot half_column"]:
    """Slots' side from float32 rows whose last column is added to the product.

    Parameters
    ----------
    rows : float32 tensor of shape (slot, column)
        All but the last column of length 1 or less, up to float32 rounding.

    Returns
    -------
    bfloat16 tensor of shape (slot, column + 2)
        The last three columns: what is added, as the sum of two numbers, and one.
    """
    vectors, limits = rows[:, :-1], rows[:, -1:].double()
    half = vectors.bfloat16()
    limits = limits + _ROOM * torch.linalg.vector_norm((vectors - half.float()).double(), dim=1, keepdim=True)
    limits += (1 + limits.abs()) * (_TWICE_ROUNDED + 2 * product_error(rows.shape[1] + EXTRA))
    high = limits.bfloat16()
    return torch.cat([half, high, (limits - high.double()).bfloat16(), torch.ones_like(high)], 1)


def half_inputs(rows: Float[Tensor, "row column"]) -> Float[Tensor, "row half_column"]:
    """Inputs' side from float32 rows whose last column is one.

    Parameters
    ----------
    rows : float32 tensor of shape (row, column)
        All but the last column of length 1 or less, up to float32 rounding.

    Returns
    -------
    bfloat16 tensor of shape (row, column + 2)
        The last three columns: one twice, and how far the row moved.
    """
    half = rows.new_ones(len(rows), rows.shape[1] + EXTRA, dtype=torch.bfloat16)
    vectors = half[:, : rows.shape[1] - 1]
    vectors.copy_(rows[:, :-1])
    # Its own rounding to bfloat16 takes less than the square of the room leaves.
    half[:, -1] = _ROOM**2 * torch.linalg.vector_norm(rows[:, :-1] - vectors.float(), dim=1)
    return half
