"""Slow, literal forms of the early nets and of the layers with several views, loop by loop."""

from __future__ import annotations

import math

import torch
from support import reference_nets as reference
from torch import Tensor


def pooled(x: Tensor, size: int, stride: int, padding: int = 0) -> Tensor:
    """Largest value of each window, of what lies in the picture."""
    corners = reference.places(*x.shape[2:], size, stride, padding)
    out = torch.zeros(*x.shape[:2], corners[-1][0] + 1, corners[-1][1] + 1, dtype=x.dtype)
    for i, j, top, left in corners:
        window = x[:, :, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)]
        out[:, :, i, j] = window.flatten(2).max(2).values
    return out


def gelu(x: Tensor) -> Tensor:
    """``x`` times the normal distribution function of ``x``."""
    shares = [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.flatten().tolist()]
    return x * torch.tensor(shares, dtype=x.dtype).view_as(x)


def normalised(x: Tensor, gain: Tensor, offset: Tensor, eps: float = 1e-5) -> Tensor:
    """Batch normalisation in training."""
    out = torch.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        mean = values.sum() / values.numel()
        variance = ((values - mean) ** 2).sum() / values.numel()
        out[:, c] = gain[c].detach() * (values - mean) / (variance + eps).sqrt() + offset[c].detach()
    return out


def largest(x: Tensor) -> Tensor:
    """Largest value of each map."""
    return torch.tensor([[float(maps.max()) for maps in row] for row in x], dtype=x.dtype)


def disjunction(x: Tensor, kernel: Tensor, gain: Tensor, offset: Tensor, *, stride: int, conjunctions: int) -> Tensor:
    """In training: parts where they fit best, normalised over the batch, and the mean of each conjunction's."""
    found = normalised(largest(reference.convolution(x, kernel, stride=stride))[:, :, None, None], gain, offset)
    size = len(kernel) // conjunctions
    columns = [found[:, k * size : (k + 1) * size, 0, 0].sum(1) / size for k in range(conjunctions)]
    return torch.stack(columns, 1)


def arranged(
    x: Tensor,
    parts: Tensor,
    templates: Tensor,
    gain: Tensor,
    offset: Tensor,
    *,
    stride: int,
    room: int,
    grid: int,
    padding: int = 0,
    silu: bool = False,
) -> Tensor:
    """`directional` and, for given kernels, `gumbel`, in training."""
    maps = pooled(reference.convolution(x, parts, stride=stride), room, grid, padding)
    maps = reference.silu_batchnorm(maps, gain, offset) if silu else gelu(normalised(maps, gain, offset))
    return largest(reference.convolution(maps, templates))


def choice(logits: Tensor, top: int) -> Tensor:
    """1 for the ``top`` largest logits of each neuron at each position; the lower channel of two equals."""
    logits = logits.detach()
    out = torch.zeros_like(logits)
    for n in range(len(logits)):
        for r in range(logits.shape[2]):
            for c in range(logits.shape[3]):
                order = sorted(range(logits.shape[1]), key=lambda i: (-float(logits[n, i, r, c]), i))
                for i in order[:top]:
                    out[n, i, r, c] = 1
    return out


def at(picture: Tensor, row: float, column: float) -> Tensor:
    """Bilinear value of (..., height, width) at a place; 0 outside."""
    total = torch.zeros(picture.shape[:-2], dtype=picture.dtype)
    for r in range(math.floor(row), math.floor(row) + 2):
        for c in range(math.floor(column), math.floor(column) + 2):
            if 0 <= r < picture.shape[-2] and 0 <= c < picture.shape[-1]:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * picture[..., r, c]
    return total


def scaled_view(weight: Tensor, size: int) -> Tensor:
    """Filters at another size, with the same sum of a flat filter."""
    before = weight.shape[2]
    view = torch.zeros(*weight.shape[:2], size, size, dtype=weight.dtype)
    for r in range(size):
        for c in range(size):
            step = (before - 1) / (size - 1)
            view[:, :, r, c] = at(weight, r * step, c * step) * before**2 / size**2
    return view


def perspective_view(weight: Tensor, a: float, b: float) -> Tensor:
    """Filters under the homography with the last row (a, b, 1)."""
    size = weight.shape[2]
    half = (size - 1) / 2
    view = torch.zeros_like(weight)
    for r in range(size):
        for c in range(size):
            u, v = (c - half) / half, (r - half) / half
            depth = 1 + a * u + b * v
            view[:, :, r, c] = at(weight, v / depth * half + half, u / depth * half + half)
    return view


def projected_view(weight: Tensor, direction: int) -> Tensor:
    """Shadow of solids (filter, channel, row, column, height): each layer moved, then summed."""
    size, depth = weight.shape[2], weight.shape[4]
    half = (size - 1) / 2
    angle = 2 * math.pi * direction / 8
    view = torch.zeros(weight.shape[:4], dtype=weight.dtype)
    for z in range(depth):
        height = -1 + 2 * z / (depth - 1) if depth > 1 else 0.0
        for r in range(size):
            for c in range(size):
                row, column = r - height * math.sin(angle) * half, c - height * math.cos(angle) * half
                view[:, :, r, c] += at(weight[..., z], row, column)
    return view
