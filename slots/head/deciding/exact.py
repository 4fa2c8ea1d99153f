"""Cosines and margins of single pairs in float64: what every decision comes down to, whoever proposes the pairs."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slots.head.caps import SlotCaps, margins
from slots.head.similarities import normalize
from slots.shapes import SlotVectors, ViewFeatures

PAIR_ELEMENTS = 1 << 15
"""Numbers held at once while single pairs are computed: 256 KB in float64, still in a cache."""

_PAIR_ELEMENTS_ON_DEVICE = 1 << 22  # the same off the CPU, where every step costs launches, however small: 32 MB


def exact_scores(
    features: ViewFeatures, vectors: SlotVectors, pairs: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, " pair"]:
    """Cosine of single (example, view, slot) triples in float64, both sides normalised in float64."""
    return _exact_scores(features, (vectors,), pairs)[0]


def _exact_scores(
    features: ViewFeatures, vectors: tuple[SlotVectors, ...], pairs: tuple[Tensor, Tensor, Tensor]
) -> list[Float[Tensor, " pair"]]:
    """The same for several vectors of each slot."""
    example, view, slot = pairs
    rows, place = features.flatten(0, 1), example * features.shape[1] + view
    held = PAIR_ELEMENTS if features.device.type == "cpu" else _PAIR_ELEMENTS_ON_DEVICE
    step = max(1, held // max(1, features.shape[-1]))
    if 0 < len(slot) * (1 + len(vectors)) <= step:  # a few pairs of a few inputs, all sides at once
        sides = [rows.index_select(0, place).double(), *(it.index_select(0, slot).double() for it in vectors)]
        unit = normalize(torch.stack(sides))
        return list((unit[0] * unit[1:]).sum(-1).unbind())
    found = [[torch.zeros(0, dtype=torch.float64, device=features.device)] for _ in vectors]
    for i in range(0, len(slot), step):
        u = normalize(rows.index_select(0, place[i : i + step]).double())
        for parts, of_slots in zip(found, vectors, strict=True):
            parts.append((u * normalize(of_slots.index_select(0, slot[i : i + step]).double())).sum(-1))
    return [torch.cat(parts) for parts in found]


def exact_margins(
    features: ViewFeatures, caps: SlotCaps, pairs: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, " pair"]:
    """Margin of single (example, view, slot) triples in radians, from float64 scores.

    The sign follows the cosine rule (strictly above both thresholds) to the last bit.
    """
    slot = pairs[2]
    weight_scores, centre_scores = _exact_scores(features, (caps.weights, caps.centres), pairs)
    precision, support = caps.precision.index_select(0, slot).double(), caps.support.index_select(0, slot).double()
    depth = margins(weight_scores, centre_scores, precision, support)
    fires = (weight_scores > precision) & (centre_scores > support)
    return torch.where(fires, depth.clamp_min(np.finfo(np.float64).tiny), depth.clamp_max(0.0))
