"""Many small slots without labels: spherical k-means on a sample, so that a thousand slots cost seconds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.matching import normalize
from slots.progress import Progress
from slots.rounding import add_by_owner_
from slots.shapes import Features, SlotVectors

SCORES_HELD = 1 << 24
"""Scores held at once in a pass over all inputs (64 MiB in float32)."""

_SAMPLE = 25  # inputs a slot that the first passes look at; the last looks at all


@torch.no_grad()
def spherical_means(unit: Features, n_slots: int, *, passes: int, seed: int, report: Progress) -> SlotVectors:
    """Unit vectors, each the normalised mean of the inputs that are nearer to it than to any other.

    Parameters
    ----------
    unit : float tensor of shape (example, feature)
        Rows of length 1.
    n_slots : int
        >= 1.
    passes : int
        >= 1; all but the last are on 25 inputs a slot.
    seed : int
    report : callable

    Returns
    -------
    float tensor of shape (slot, feature)
        At most ``n_slots``: a slot that wins nothing takes the place of the worst matched input, and goes if it wins
        nothing in the last pass either.

    Notes
    -----
    Dhillon and Modha 2001.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(unit), generator=generator).to(unit.device)
    sample = unit[order[: max(n_slots, _SAMPLE * n_slots)]]
    weights = sample[:n_slots].clone()
    for step in range(passes):
        last = step + 1 == passes
        x = unit if last else sample
        scores, owners = nearest(x, weights, 1)
        wins = torch.bincount(owners[:, 0], minlength=len(weights))
        weights = normalize(add_by_owner_(torch.zeros_like(weights), owners[:, 0], x))
        if last:
            weights = weights[wins > 0]
        else:
            empty = (wins == 0).nonzero()[:, 0]
            weights[empty] = x[scores[:, 0].argsort(stable=True)[: len(empty)]]
        report(f"slots, pass {step + 1}/{passes}", (step + 1) / passes)
    return weights


@torch.no_grad()
def nearest(
    unit: Features, weights: SlotVectors, count: int
) -> tuple[Float[Tensor, "example near"], Int[Tensor, "example near"]]:
    """Cosines and numbers of the slots nearest to each input, the nearest first; ties go to the lowest.

    Parameters
    ----------
    unit : float tensor of shape (example, feature)
    weights : float tensor of shape (slot, feature)
    count : {1, 2}
        At most the number of slots.

    Returns
    -------
    scores : float tensor of shape (example, count)
    slots : int64 tensor of shape (example, count)
    """
    scores = torch.empty(len(unit), count, dtype=unit.dtype, device=unit.device)
    slots = torch.empty(len(unit), count, dtype=torch.long, device=unit.device)
    for rows in blocks(len(unit), len(weights)):
        near = unit[rows] @ weights.T
        for place in range(count):
            scores[rows, place], slots[rows, place] = near.max(1)
            near.scatter_(1, slots[rows, place, None], -torch.inf)
    return scores, slots


def blocks(n: int, columns: int) -> Iterator[slice]:
    """Slices of ``n`` rows whose scores fit into `SCORES_HELD`."""
    step = max(1, SCORES_HELD // max(1, columns))
    for first in range(0, n, step):
        yield slice(first, min(n, first + step))
