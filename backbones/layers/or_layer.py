"""`OrConv2d`: at each position of a window the one part that answers best, and the sum of those over the window."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

_BLOCK = 1 << 22
"""Products held at a time while the best are found: 16 MiB of float32."""


class OrConv2d(nn.Module):
    """``y_m(p) = sum_ij max_k W_mkij x_k(p + ij)``: an AND over positions of ORs over parts.

    Parameters
    ----------
    in_channels, out_channels : int
        Number of parts and of units.
    kernel_size : int
        Side of the square window (pixels, >= 1).
    stride : int
        Step of the window (pixels, >= 1).
    padding : tuple of two int
        Zeros around the picture, above and below, left and right (pixels, >= 0); they add nothing.

    Notes
    -----
    The choice among equals is the lowest part; where the best is exactly 0, as on a blank background, it is none, so
    that filters stay blank there. No gradient flows through the choice, and none has to: it does not change when the
    input is scaled, so the gradient with respect to the input explains the value exactly.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        # The largest of many products is large already: a sum over positions needs no wider weights.
        self.weight = nn.Parameter(torch.randn(shape) / kernel_size)

    def forward(self, x: Float[Tensor, "batch part height width"]) -> Float[Tensor, "batch unit row column"]:
        """The units' values at each place of the window."""
        above, left = self.padding
        padded = functional.pad(x, (left, left, above, above))
        window = self.weight.shape[2]
        rows, columns = (side - window + 1 for side in padded.shape[2:])
        total: Tensor | None = None
        for i in range(window):
            for j in range(window):
                here = padded[:, :, i : i + rows : self.stride, j : j + columns : self.stride]
                best = _best(here.permute(0, 2, 3, 1), self.weight[:, :, i, j])
                total = best if total is None else total + best
        assert total is not None
        return total.permute(0, 3, 1, 2)


def _best(x: Float[Tensor, "... part"], weight: Float[Tensor, "unit part"]) -> Float[Tensor, "... unit"]:
    """For each unit the largest weighted part."""
    if torch.onnx.is_in_onnx_export():  # a graph cannot loop over blocks
        return (x[..., None, :] * weight).amax(-1)
    rows = x.reshape(-1, x.shape[-1])
    chosen = _choose(rows.detach(), weight.detach())
    best = rows.gather(1, chosen) * weight.T.gather(0, chosen)
    best = best * (best.detach() != 0)  # as a ReLU has no slope at 0
    return best.view(*x.shape[:-1], len(weight))


@torch.no_grad()
def _choose(rows: Float[Tensor, "row part"], weight: Float[Tensor, "unit part"]) -> Int[Tensor, "row unit"]:
    """Which part is largest after weighting, found block by block: all products at once would not fit."""
    size = max(1, _BLOCK // max(1, math.prod(weight.shape)))
    chosen = torch.empty(len(rows), len(weight), dtype=torch.int64, device=rows.device)
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        chosen[start : start + size] = (block[:, None] * weight).argmax(2)
    return chosen
