"""Slots behind the guesses of a `Recall`: of the two best labels, the slot most like the input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.head.recalling.recall import NEAR, Recall
from slots.head.similarities import normalize
from slots.shapes import Ids, SlotLabels, SlotVectors, ViewFeatures

_HELD = 1 << 22  # float64 similarities held at once: 32 MB


@dataclass(frozen=True)
class Recalled:
    """Guesses, best first; tensors of shape (input, label), with two labels, or one where there is only one.

    Parameters
    ----------
    labels : int64 tensor
        The best labels that have a slot.
    slots : int64 tensor
        The slot of each label that is most like the input, of equals the first.
    views : int64 tensor
        The view that it is most like.
    """

    labels: Int[Tensor, "input label"]
    slots: Int[Tensor, "input label"]
    views: Int[Tensor, "input label"]


def recalled(
    features: ViewFeatures, weights: SlotVectors, slot_labels: SlotLabels, recall: Recall, pooled: Ids
) -> Recalled | None:
    """Guess about inputs that no slot matches.

    Parameters
    ----------
    features : float tensor of shape (input, view, feature)
        As the head gets them.
    weights, slot_labels : tensors of shapes (slot, feature) and (slot,)
        Of all slots.
    recall : Recall
        On the same device.
    pooled : int64 array of shape (input,)
        Labels that the pooled score gives.

    Returns
    -------
    Recalled or None
        None where no label of the recall has a slot.
    """
    if not bool(torch.isin(recall.labels, slot_labels).any()):
        return None
    labels, _ = recall.ranked(features, pooled, slot_labels)
    unit, parts = normalize(weights.double()), []
    step = max(1, _HELD // max(1, features.shape[1] * len(weights)))
    for rows in torch.arange(len(features), device=features.device).split(step):
        scores = normalize(features[rows].double()) @ unit.T
        parts.append([_nearest(scores, labels[rows, place], slot_labels) for place in range(labels.shape[1])])
    slots, views = (
        torch.stack([torch.cat([it[place][which] for it in parts]) for place in range(labels.shape[1])], 1)
        for which in (0, 1)
    )
    return Recalled(labels, slots, views)


def _nearest(
    scores: Float[Tensor, "input view slot"], labels: Int[Tensor, " input"], slot_labels: SlotLabels
) -> tuple[Tensor, Tensor]:
    """For each input the most similar slot of its label and the view; scores closer than `NEAR` are equal."""
    mine = (slot_labels[None] == labels[:, None])[:, None]
    rounded = (scores / NEAR).round().masked_fill(~mine, -np.inf)
    place = rounded.transpose(1, 2).flatten(1).argmax(1)
    return place // scores.shape[1], place % scores.shape[1]
