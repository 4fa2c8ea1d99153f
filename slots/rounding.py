"""Rounding to the safe side, and arithmetic that neither settings nor threads can change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.distributed import ALONE, Ranks
from slots.shapes import Thresholds

FLOAT32_GAP = 2e-6
"""What a float32 cosine may be off, with room to spare."""

_SAFETY = 1e-9  # far above float64 rounding of a cosine (1e-15), far below float32's (6e-8)

_backends: Any = torch.backends  # their types do not know these settings
_PRODUCTS = (_backends.cuda.matmul, _backends.mkldnn.matmul)  # on a GPU, on the CPU


def strictly_above(threshold: Float[Tensor, "*slots"]) -> Thresholds:
    """Smallest convenient float32 above a float64 score, so that an example with that score never fires."""
    up = (threshold + _SAFETY).float()
    return torch.nextafter(up, torch.full_like(up, math.inf))


def strictly_below(threshold: Float[Tensor, "*slots"]) -> Thresholds:
    """Largest convenient float32 below a float64 score, so that an example with that score always fires."""
    down = (threshold - _SAFETY).float()
    return torch.nextafter(down, torch.full_like(down, -math.inf))


def product_error(n_features: int) -> float:
    """Largest error of a float32 product of two rows of length 1 (up to float32 rounding), however it is summed.

    Notes
    -----
    ``n u / (1 - n u)`` with ``u = 2^-24`` bounds the sum (Higham 2002, section 3.1), for any order and with fused
    operations; eight more roundings stand for the normalisation of both rows.

    Examples
    --------
    >>> product_error(784) < 5e-5
    True
    """
    rounding = (n_features + 8) * 2.0**-24
    return rounding / (1 - rounding) if rounding < 1 else math.inf


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16; of CPUs those with AVX512-BF16 or AMX.

    Others imitate them: a training step of `explor` then takes seven times as long as in float32 (AVX2, one thread).
    """
    if device.type != "cpu":
        return True
    cpu: Any = torch.cpu
    if hasattr(cpu, "get_capabilities"):
        found = cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return bool(getattr(cpu, "_is_avx512_bf16_supported", bool)())


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 products float32, whatever torch was told, by its older or its newer settings.

    TensorFloat-32 and bfloat16 are off by 1e-3: a hundred times what every bound here leaves room for.

    Notes
    -----
    Products look at the newer settings, and `torch.set_float32_matmul_precision` writes them, too. Asking for the older
    ones raises where somebody used the newer.
    """
    before = [backend.fp32_precision for backend in _PRODUCTS]
    for backend in _PRODUCTS:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, was in zip(_PRODUCTS, before, strict=True):
            backend.fp32_precision = "none"  # what it inherits, and goes on to inherit where that is what it was
            if backend.fp32_precision != was:
                backend.fp32_precision = was


def full_product(
    rows: Float[Tensor, "*batch feature"], columns: Float[Tensor, "feature column"], *, out: Tensor | None = None
) -> Tensor:
    """``rows @ columns`` in `full_precision`, written into ``out`` where that is given."""
    if _PRODUCTS[rows.device.type == "cpu"].fp32_precision in {"ieee", "none"}:
        return torch.matmul(rows, columns, out=out)
    with full_precision():
        return torch.matmul(rows, columns, out=out)


class ExactSums:
    """Sums of float32 rows of length up to 1 by owner, exact, so that they do not depend on any order.

    Each number is kept as two integers, of 2^-24 and of 2^-60. So 2^38 rows can be added by any number of processes,
    and a sum is off by 2^-61 a row at most.

    Parameters
    ----------
    shape : tuple of int
        Owners and features.
    device : torch device, default "cpu"
        Of the rows.

    Examples
    --------
    >>> sums = ExactSums((2, 1))
    >>> sums.add(torch.tensor([1, 1]), torch.tensor([[0.5], [0.25]]))
    >>> sums.value()
    tensor([[0.0000],
            [0.7500]], dtype=torch.float64)
    """

    def __init__(self, shape: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self._parts = torch.zeros(2, *shape, dtype=torch.int64, device=device)

    def add(self, owners: Int[Tensor, " row"], rows: Float[Tensor, "row feature"]) -> None:
        """Add each row to the sum of its owner.

        Parameters
        ----------
        owners : int64 tensor of shape (row,)
            In [0, owner).
        rows : float32 tensor of shape (row, feature)
            Numbers in [-1, 1], up to rounding.
        """
        scaled = rows.double() * 2.0**24
        coarse = scaled.round()
        self._parts[0].index_add_(0, owners, coarse.long())
        self._parts[1].index_add_(0, owners, ((scaled - coarse) * 2.0**36).round().long())

    def value(self, ranks: Ranks = ALONE) -> Float[Tensor, "owner feature"]:
        """The float64 sums of what all processes added."""
        coarse, fine = ranks.total(self._parts)
        found: Tensor = coarse.double() / 2.0**24 + fine.double() / 2.0**60
        return found


def add_by_owner_(
    sums: Float[Tensor, "owner feature"], owners: Int[Tensor, " row"], rows: Float[Tensor, "row feature"]
) -> Float[Tensor, "owner feature"]:
    """Add each row to the sum of its owner, in place and in an order that repeats: the same rows, the same bits.

    Parameters
    ----------
    sums : float tensor of shape (owner, feature)
        What is added to.
    owners : int64 tensor of shape (row,)
        In [0, owner).
    rows : float tensor of shape (row, feature)
        What is added.

    Returns
    -------
    float tensor of shape (owner, feature)
        ``sums``.

    Notes
    -----
    On a GPU ``index_add_`` adds in whatever order threads arrive; ``index_put_`` with ``accumulate`` sorts first. On
    the CPU it is the other way round: ``index_add_`` goes row by row.
    """
    if rows.device.type == "cpu":
        return sums.index_add_(0, owners, rows)
    return sums.index_put_((owners,), rows, accumulate=True)
