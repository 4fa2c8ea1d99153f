"""What speaks against a label: the slots that the example holds back, and the examples nearest to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.shapes import Features, Ids, SlotLabels, SlotVectors

Labels = npt.NDArray[np.int64]

DAMAGES = 5
"""Damaged slots named for each example, the most damaged first."""

_BLOCK = 1024


@dataclass(frozen=True)
class Damage:
    """What an example under its given label takes from one slot of another label.

    Parameters
    ----------
    slot : int
        Place of the slot in the head.
    radians : float
        By which the slot's precision cap is smaller with the example than without any listed one, > 0.
    matches : int
        Trusted examples of the slot's own label that it would match without, and does not with the example.
    """

    slot: int
    radians: float
    matches: int


@dataclass(frozen=True)
class Evidence:
    """Evidence against one label: the slots of others that it damages, and the nearest trusted examples.

    Parameters
    ----------
    example : int
        Row of the example.
    damages : tuple of Damage
        The `DAMAGES` worst, by matches, then by radians.
    n_damaged : int
        All slots that it holds back.
    matches : int
        Matches over all of these slots.
    same, other : int
        The nearest trusted example under the given label, and under any other; -1 for none.
    same_angle, other_angle : float
        Radians between the features, in [0, pi]; NaN for none.
    """

    example: int
    damages: tuple[Damage, ...]
    n_damaged: int
    matches: int
    same: int
    same_angle: float
    other: int
    other_angle: float


@torch.no_grad()
def gather_evidence(features: Features, y: Labels, head: IncrementalNeuralHashing, listed: Ids) -> list[Evidence]:
    """Evidence against each listed example; all that are not listed are trusted.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        As the head takes them; on its device.
    y : int64 array of shape (example,)
        Given labels.
    head : IncrementalNeuralHashing
        With at least one slot. Its own precision thresholds are not used, since listed examples may have set them.
    listed : int64 array
        Suspicious examples.

    Returns
    -------
    list of Evidence
        In the order of ``listed``.

    Notes
    -----
    The precision cap of a slot ends where the nearest example of another label lies. With ``t`` the largest score of a
    *trusted* example of another label and ``s > t`` the score of the listed one, the cap is ``arccos t - arccos s``
    radians smaller with it, and loses the slot's own trusted examples with scores in ``(t, s]`` inside the support cap.
    """
    head.scores(features[:0])  # raises the message about shapes
    unit = normalize(features.float())
    labels = torch.from_numpy(y).to(unit.device)
    trusted = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
    trusted[torch.from_numpy(listed).to(unit.device)] = False
    limits = _trusted_limits(unit[trusted], labels[trusted], head)
    found: list[Evidence] = []
    own = _OwnScores(unit[trusted], labels[trusted], head)
    trusted_ids = trusted.nonzero()[:, 0]
    for rows in np.array_split(listed, max(1, -(-len(listed) // _BLOCK))):
        at = torch.from_numpy(rows).to(unit.device)
        scores = unit[at] @ head.weights.detach().T
        holds = (scores > limits) & (labels[at][:, None] != head.labels)
        same, same_angle, other, other_angle = _nearest_trusted(
            unit[at], labels[at], unit[trusted], labels[trusted], trusted_ids
        )
        for i, example in enumerate(rows.tolist()):
            slots = holds[i].nonzero()[:, 0].tolist()
            damages = [own.damage(slot, float(limits[slot]), float(scores[i, slot])) for slot in slots]
            damages.sort(key=lambda it: (-it.matches, -it.radians, it.slot))
            found.append(
                Evidence(
                    example,
                    tuple(damages[:DAMAGES]),
                    len(damages),
                    sum(it.matches for it in damages),
                    int(same[i]),
                    float(same_angle[i]),
                    int(other[i]),
                    float(other_angle[i]),
                )
            )
    return found


@torch.no_grad()
def n_displaced(features: Features, y: Labels, weights: SlotVectors, slot_labels: SlotLabels) -> npt.NDArray[np.int64]:
    """Displaced examples: how many each example displaces from slots of other labels.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        Any scale; only their directions count.
    y : int64 array of shape (example,)
        Given labels.
    weights : float tensor of shape (slot, feature)
        Unit vectors.
    slot_labels : int64 tensor of shape (slot,)
        Label of each slot.

    Returns
    -------
    int64 array of shape (example,)
        Each example belongs to its most similar slot of its own label (the lowest of equals). For each slot of another
        label, an example displaces those of the slot's own that are less similar to the slot than it is.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.9, 0.4]])
    >>> n_displaced(x, np.array([0, 0, 1]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    array([0, 0, 1])
    """
    unit, labels = normalize(features.float()), torch.from_numpy(y).to(features.device)
    parts = [block @ weights.T for block in unit.split(_BLOCK * 8)]
    scores = torch.cat(parts) if parts else unit @ weights.T
    foreign = labels[:, None] != slot_labels
    owners = scores.masked_fill(foreign, -math.inf).argmax(1)
    owned = ~foreign.all(1)
    damage = torch.zeros(len(unit), dtype=torch.long, device=unit.device)
    for slot in range(len(weights)):
        own = scores[owned & (owners == slot), slot].sort().values
        rivals = foreign[:, slot]
        damage[rivals] += torch.searchsorted(own, scores[rivals, slot].contiguous())
    return damage.cpu().numpy()


def _trusted_limits(unit: Features, labels: Tensor, head: IncrementalNeuralHashing) -> Float[Tensor, " slot"]:
    """The largest score of a trusted example of another label for each slot; -1 for none."""
    limits = torch.full_like(head.precision_thresholds, -1.0)
    if len(unit) == 0:
        return limits
    for block, of in zip(unit.split(_BLOCK * 8), labels.split(_BLOCK * 8), strict=True):
        scores = block @ head.weights.detach().T
        limits = torch.maximum(limits, scores.masked_fill(of[:, None] == head.labels, -1.0).amax(0))
    return limits


class _OwnScores:
    """Scores of each slot's own trusted examples inside its support cap, sorted; made when a slot is asked for."""

    def __init__(self, unit: Features, labels: Tensor, head: IncrementalNeuralHashing) -> None:
        self._unit, self._labels, self._head = unit, labels, head
        self._kept: dict[int, npt.NDArray[np.float32]] = {}

    def damage(self, slot: int, limit: float, score: float) -> Damage:
        """What an example with this score takes from the slot whose trusted rivals end at ``limit``."""
        if slot not in self._kept:
            head = self._head
            own = self._unit[self._labels == head.labels[slot]]
            inside = own @ head.centres[slot] > head.support_thresholds[slot]
            self._kept[slot] = (own[inside] @ head.weights.detach()[slot]).sort().values.cpu().numpy()
        between = np.searchsorted(self._kept[slot], [limit, score], side="right")
        angles = math.acos(max(-1.0, min(1.0, limit))) - math.acos(max(-1.0, min(1.0, score)))
        return Damage(slot, angles, int(between[1] - between[0]))


def _nearest_trusted(
    unit: Features, labels: Tensor, trusted: Features, trusted_labels: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Id and angle of the nearest trusted example of the same label, and of any other."""
    found: list[Tensor] = []
    scores = unit @ trusted.T
    same = labels[:, None] == trusted_labels
    for wanted in (same, ~same):
        if len(ids) == 0:
            found += [torch.full((len(unit),), -1), torch.full((len(unit),), math.nan)]
            continue
        best, place = scores.masked_fill(~wanted, -math.inf).max(1)
        none = best == -math.inf
        found += [ids[place].masked_fill(none, -1), best.clamp(-1, 1).arccos().masked_fill(none, math.nan)]
    return found[0], found[1], found[2], found[3]
