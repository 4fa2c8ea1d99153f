"""Nested unfolding as it is told, from the top down: choose the parts, fold them into one filter, score the input.

A level is a dict: ``weight`` (unit, part, row, column), ``stride``, ``padding`` (rows, columns), ``gate``, and
``below``: how many levels down the level lies whose value is added (None: nothing is added). A gate is a function
``(weights, scores) -> shares``: for one unit and position the weights of all parts and their values, to how much of
each part counts. A filter has the shape of the input.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor


def every(scales):
    """All parts count, divided by the channel's scale."""
    return lambda _weights, _scores: [1 / s for s in scales]


def any_positive(scales):
    """Parts with a positive value count, divided by the channel's scale."""
    return lambda _weights, scores: [1 / s if v > 0 else 0.0 for v, s in zip(scores, scales, strict=True)]


def best_only(scales):
    """The part with the largest weighted value counts, the first of equals, unless that is 0."""

    def gate(weights, scores):
        answers = [w * v / s for w, v, s in zip(weights, scores, scales, strict=True)]
        best = answers.index(max(answers))
        return [1 / scales[k] if k == best and answers[best] != 0 else 0.0 for k in range(len(scores))]

    return gate


def by_degree(mean, variance, gain, offset, eps=1e-5):
    """Each part counts by the sigmoid of its normalised value, and is scaled as that."""

    def gate(_weights, scores):
        shares = []
        for k, value in enumerate(scores):
            scale = gain[k] / math.sqrt(variance[k] + eps)
            shares.append(scale / (1 + math.exp(-(scale * (value - mean[k]) + offset[k]))))
        return shares

    return gate


def unfold(x: Tensor, levels: list[dict]) -> tuple[Tensor, Tensor]:
    """All filters (unit, row, column, *input) of the top level for one input (channel, height, width), and values."""

    def value(folded: Tensor) -> float:
        return float((folded * x).sum())

    @cache
    def fold(level: int, unit: int, row: int, column: int) -> Tensor:
        spec = levels[level]
        total = torch.zeros_like(x)
        kernel = spec["weight"]
        for i in range(kernel.shape[2]):
            for j in range(kernel.shape[3]):
                r = row * spec["stride"] - spec["padding"][0] + i
                c = column * spec["stride"] - spec["padding"][1] + j
                height, width = x.shape[1:] if level == 0 else size(level - 1)
                if not (0 <= r < height and 0 <= c < width):
                    continue
                weights = kernel[unit, :, i, j].tolist()
                if level == 0:
                    total[:, r, c] += kernel[unit, :, i, j]
                    continue
                parts = [fold(level - 1, k, r, c) for k in range(len(weights))]
                shares = spec["gate"](weights, [value(part) for part in parts])
                for w, share, part in zip(weights, shares, parts, strict=True):
                    total += w * share * part
        if spec["below"] is not None:
            total += fold(level - spec["below"], unit, row, column)
        return total

    @cache
    def size(level: int) -> tuple[int, int]:
        spec = levels[level]
        before = x.shape[1:] if level == 0 else size(level - 1)
        return tuple(
            (side + 2 * pad - spec["weight"].shape[2]) // spec["stride"] + 1
            for side, pad in zip(before, spec["padding"], strict=True)
        )

    top = len(levels) - 1
    rows, columns = size(top)
    filters = torch.stack(
        [
            torch.stack([torch.stack([fold(top, m, r, c) for c in range(columns)]) for r in range(rows)])
            for m in range(len(levels[top]["weight"]))
        ]
    )
    return filters, (filters * x).flatten(3).sum(3)


def gate_top(filters: Tensor, values: Tensor, gate) -> tuple[Tensor, Tensor]:
    """The top level's own gate: filters and values by the shares that count."""
    shares = torch.zeros_like(values)
    for row in range(values.shape[1]):
        for column in range(values.shape[2]):
            found = values[:, row, column].tolist()
            shares[:, row, column] = torch.tensor(gate([1.0] * len(found), found), dtype=values.dtype)
    return filters * shares[..., None, None, None], values * shares


def pool(filters: Tensor, values: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Features and their filters from those of all places."""
    filters, values = filters.flatten(1, 2), values.flatten(1)
    if kind == "flatten":
        return filters.flatten(0, 1), values.flatten()
    if kind == "mean":
        return filters.mean(1), values.mean(1)
    best = [int(row.argmax()) for row in values]
    units = range(len(best))
    return filters[units, best], values[units, best]
