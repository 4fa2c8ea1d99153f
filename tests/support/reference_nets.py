"""Slow, literal ExplOR layers and gated normalisation, written from the formulas, loop by loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def key_of(x: Tensor, kind: str) -> Tensor:
    """Key of one vector of inputs."""
    if kind == "raw":
        return x
    return x / math.sqrt(sum(value**2 for value in x.tolist()) / len(x))


def explor_neuron(
    x: Tensor, key: Tensor, weight: Tensor, logits: Tensor, *, a_x: float, a_l: float, null_score: float | None = None
) -> float:
    """One neuron: softmax of the scores of its inputs (and of the null option), times the weighted inputs."""
    x, key, weight, logits = (values.detach().tolist() for values in (x, key, weight, logits))
    scores = [a_x * k + a_l * logit for k, logit in zip(key, logits, strict=True)]
    choices = scores if null_score is None else [*scores, null_score]
    largest = max(choices)
    total = sum(math.exp(score - largest) for score in choices)
    return sum(math.exp(score - largest) / total * w * value for score, w, value in zip(scores, weight, x, strict=True))


def explor_linear(x: Tensor, weight: Tensor, logits: Tensor, *, key: str = "rms", **sharpness) -> Tensor:
    """Rows of inputs to rows of neurons; weight and logits of shape (neuron, input)."""
    return torch.tensor(
        [
            [explor_neuron(row, key_of(row, key), w, one, **sharpness) for w, one in zip(weight, logits, strict=True)]
            for row in x
        ],
        dtype=x.dtype,
    )


def places(height: int, width: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[tuple]:
    """Rows and columns of the kernel's corner, padding counted as negative."""
    reach = dilation * (kernel - 1)
    rows = range(-padding, height + padding - reach, stride)
    columns = range(-padding, width + padding - reach, stride)
    return [(i, j, row, column) for i, row in enumerate(rows) for j, column in enumerate(columns)]


def explor_window(
    x: Tensor, weight: Tensor, logits: Tensor, *, stride: int, padding: int = 0, key: str = "rms", **sharpness
) -> Tensor:
    """OR over channels and window: one softmax over all inputs of the window that lie inside of the picture."""
    neurons, _, kernel, _ = weight.shape
    corners = places(*x.shape[2:], kernel, stride, padding)
    out = torch.zeros(len(x), neurons, corners[-1][0] + 1, corners[-1][1] + 1, dtype=x.dtype)
    for b, picture in enumerate(x):
        for i, j, top, left in corners:
            inside = [
                (r, c)
                for r in range(kernel)
                for c in range(kernel)
                if 0 <= top + r < x.shape[2] and 0 <= left + c < x.shape[3]
            ]
            values = torch.cat([picture[:, top + r, left + c] for r, c in inside])
            keys = torch.cat([key_of(picture[:, top + r, left + c], key) for r, c in inside])
            for n in range(neurons):
                w = torch.cat([weight[n, :, r, c] for r, c in inside])
                one = torch.cat([logits[n, :, r, c] for r, c in inside])
                out[b, n, i, j] = explor_neuron(values, keys, w, one, **sharpness)
    return out


def explor_conv(
    x: Tensor,
    weight: Tensor,
    logits: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    key: str = "rms",
    **sharpness,
) -> Tensor:
    """At each kernel position an OR over the channels, summed over the positions inside of the picture."""
    neurons, _, kernel, _ = weight.shape
    corners = places(*x.shape[2:], kernel, stride, padding, dilation)
    out = torch.zeros(len(x), neurons, corners[-1][0] + 1, corners[-1][1] + 1, dtype=x.dtype)
    for b, picture in enumerate(x):
        for i, j, top, left in corners:
            for r in range(kernel):
                for c in range(kernel):
                    row, column = top + dilation * r, left + dilation * c
                    if not (0 <= row < x.shape[2] and 0 <= column < x.shape[3]):
                        continue
                    values = picture[:, row, column]
                    for n in range(neurons):
                        out[b, n, i, j] += explor_neuron(
                            values, key_of(values, key), weight[n, :, r, c], logits[n, :, r, c], **sharpness
                        )
    return out


def silu_batchnorm(x: Tensor, gain: Tensor, offset: Tensor, *, eps: float = 1e-5) -> Tensor:
    """In training: each channel over its deviation, times the sigmoid of its batch normalisation."""
    gain, offset = gain.detach(), offset.detach()
    out = torch.zeros_like(x)
    for c in range(x.shape[1]):
        channel = x[:, c]
        mean = channel.sum() / channel.numel()
        deviation = math.sqrt(float(((channel - mean) ** 2).sum()) / channel.numel() + eps)
        gate = 1 / (1 + torch.exp(-(gain[c] * (channel - mean) / deviation + offset[c])))
        out[:, c] = gain[c] * channel / deviation * gate
    return out


def convolution(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Bias-free convolution, place by place; positions outside of the picture add nothing."""
    corners = places(*x.shape[2:], weight.shape[2], stride, padding)
    out = torch.zeros(len(x), len(weight), corners[-1][0] + 1, corners[-1][1] + 1, dtype=x.dtype)
    for i, j, top, left in corners:
        for r in range(weight.shape[2]):
            for c in range(weight.shape[3]):
                if 0 <= top + r < x.shape[2] and 0 <= left + c < x.shape[3]:
                    out[:, :, i, j] += x[:, :, top + r, left + c] @ weight[:, :, r, c].detach().T
    return out


def halved(x: Tensor) -> Tensor:
    """Largest value of each 2x2 tile; an odd last row or column is left out."""
    out = torch.zeros(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2, dtype=x.dtype)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(2).max(2).values
    return out


def rectified_batchnorm(x: Tensor, gain: Tensor, offset: Tensor, *, eps: float = 1e-5) -> Tensor:
    """In training: ReLU of the ordinary batch normalisation."""
    gain, offset = gain.detach(), offset.detach()
    out = torch.zeros_like(x)
    for c in range(x.shape[1]):
        mean = x[:, c].mean()
        deviation = ((x[:, c] - mean) ** 2).mean().add(eps).sqrt()
        out[:, c] = (gain[c] * (x[:, c] - mean) / deviation + offset[c]).clamp_min(0.0)
    return out


def positive_net(
    x: Tensor, kernels: list[Tensor], norms: list[tuple[Tensor, Tensor]], *, silu: bool, pool, whitening: bool = False
) -> Tensor:
    """`positive` in training: 5x5, then 3x3 convolutions after halving, each normalised and gated; pooled places.

    After a whitening stem and its ReLU: 3x3 convolutions, each halved, normalised and gated.
    """
    gated = silu_batchnorm if silu else rectified_batchnorm
    if whitening:
        x = convolution(x, kernels[0], padding=0).clamp_min(0)
        for kernel, (gain, offset) in zip(kernels[1:], norms, strict=True):
            x = gated(halved(convolution(x, kernel, padding=1)), gain, offset)
        return torch.stack([torch.stack([pool(maps.flatten()) for maps in row]) for row in x])
    for layer, (kernel, (gain, offset)) in enumerate(zip(kernels, norms, strict=True)):
        x = convolution(halved(x) if layer else x, kernel, padding=1 if layer else 2)
        x = gated(x, gain, offset)
    return torch.stack([torch.stack([pool(maps.flatten()) for maps in row]) for row in x])


def explor_net(
    x: Tensor,
    kernels: list[Tensor],
    norms: list[tuple[Tensor, Tensor]],
    choices: list[tuple[Tensor, Tensor]],
    *,
    stride: int,
    **sharpness,
) -> Tensor:
    """`explor` in training: blocks of convolution, gated normalisation and 2x2 choice; a last pair; the mean."""
    for layer, (kernel, (gain, offset)) in enumerate(zip(kernels, norms, strict=True)):
        geometry = {"stride": 1, "padding": 1} if layer else {"stride": stride, "padding": kernel.shape[2] // 2}
        x = silu_batchnorm(convolution(x, kernel, **geometry), gain, offset)
        if layer < len(choices):
            weight, logits = choices[layer]
            x = explor_window(x, weight, logits, stride=2, **sharpness)
    return x.mean((2, 3))
