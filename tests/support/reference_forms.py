"""Slow, literal soft maxima and masks, written from the formulas, number by number."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shares(logits: list[float], a_l: float, null_score: float | None) -> list[float]:
    """Softmax of the scores; the last share is that of the null option, an input of 0."""
    scores = [a_l * one for one in logits] + ([] if null_score is None else [null_score])
    total = sum(math.exp(score - max(scores)) for score in scores)
    return [math.exp(score - max(scores)) / total for score in scores]


def soft_maximum(
    x: list[float], logits: list[float], *, form: str, a_x: float, a_l: float, key: str, null_score: float | None
) -> float:
    """One neuron's value before its weight."""
    p = shares(logits, a_l, null_score)
    temperature = math.sqrt(sum(value**2 for value in x) / len(x)) if key == "rms" else 1.0
    if null_score is not None:
        x = [*x, 0.0]
    if form == "pnorm":
        exponent = 1 + a_x
        return sum(q * max(value, 0.0) ** exponent for q, value in zip(p, x, strict=True)) ** (1 / exponent)
    if a_x == 0:
        return sum(q * value for q, value in zip(p, x, strict=True))
    total = sum(q * math.exp(a_x * value / temperature) for q, value in zip(p, x, strict=True))
    return temperature / a_x * math.log(total)


def soft_linear(x: Tensor, weight: Tensor, logits: Tensor, **choice) -> Tensor:
    """Rows of inputs to rows of neurons; one weight a neuron."""
    rows = [
        [w * soft_maximum(row, one, **choice) for w, one in zip(weight.tolist(), logits.tolist(), strict=True)]
        for row in x.tolist()
    ]
    return torch.tensor(rows, dtype=x.dtype)


def soft_window(x: Tensor, weight: Tensor, logits: Tensor, *, stride: int, **choice) -> Tensor:
    """The inputs are all channels at all positions of a window, which lies inside of the picture."""
    side = logits.shape[2]
    rows = range(0, x.shape[2] - side + 1, stride)
    columns = range(0, x.shape[3] - side + 1, stride)
    out = torch.zeros(len(x), len(logits), len(rows), len(columns), dtype=x.dtype)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = x[:, :, top : top + side, left : left + side].flatten(1)
            out[:, :, i, j] = soft_linear(window, weight, logits.flatten(1), **choice)
    return out


def soft_conv(x: Tensor, weight: Tensor, logits: Tensor, **choice) -> Tensor:
    """At each position of the kernel the channels are the inputs; positions add (no border, step 1)."""
    side = logits.shape[2]
    out = torch.zeros(len(x), len(logits), x.shape[2] - side + 1, x.shape[3] - side + 1, dtype=x.dtype)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for r in range(side):
                for c in range(side):
                    out[:, :, i, j] += soft_linear(x[:, :, i + r, j + c], weight, logits[:, :, r, c], **choice)
    return out


def sparsemax(logits: list[float]) -> list[float]:
    """The nearest point of the simplex: the threshold is found by trying every number of inputs kept."""
    best: list[float] = []
    for kept in range(1, len(logits) + 1):
        threshold = (sum(sorted(logits, reverse=True)[:kept]) - 1) / kept
        shares_ = [max(0.0, one - threshold) for one in logits]
        if abs(sum(shares_) - 1) < 1e-9:
            best = shares_
    return best
