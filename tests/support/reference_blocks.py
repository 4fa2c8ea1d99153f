"""Whole `explor` nets with other blocks, in training, from their layers' literal forms."""

from __future__ import annotations

import torch
from support import reference_nets as reference
from torch import Tensor


def dilated_convolution(x: Tensor, weight: Tensor, *, stride: int, padding: int, dilation: int) -> Tensor:
    """Bias-free convolution whose positions lie apart."""
    corners = reference.places(*x.shape[2:], weight.shape[2], stride, padding, dilation)
    out = torch.zeros(len(x), len(weight), corners[-1][0] + 1, corners[-1][1] + 1, dtype=x.dtype)
    for i, j, top, left in corners:
        for r in range(weight.shape[2]):
            for c in range(weight.shape[3]):
                row, column = top + dilation * r, left + dilation * c
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                    out[:, :, i, j] += x[:, :, row, column] @ weight[:, :, r, c].detach().T
    return out


def gated(x: Tensor, kernel: Tensor, norm: tuple[Tensor, Tensor], **geometry: int) -> Tensor:
    return reference.silu_batchnorm(dilated_convolution(x, kernel, **geometry), *norm)


def exclusive_net(x: Tensor, kernels: list, norms: list, choices: list, *, residual: int, **sharpness) -> Tensor:
    """A stem; blocks of a choice in each window, a convolution over every second place, residual pairs; the mean."""
    layers = iter(list(zip(kernels, norms, strict=True)))
    same = {"stride": 1, "padding": 1, "dilation": 1}
    x = gated(x, *next(layers), **same)
    for weight, logits in choices:
        x = reference.explor_window(x, weight, logits, stride=1, **sharpness)
        x = gated(x, *next(layers), stride=2, padding=2, dilation=2)
        for _ in range(residual):
            x = x + gated(gated(x, *next(layers), **same), *next(layers), **same)
    return x.mean((2, 3))
