"""Decisions on a device that computes in float64 as quickly as in float32: all of a block there, one copy back.

`slots.head.decision` proposes pairs in float32 and brings them to the host, which decides; each step waits for the
device. Here every score is made in float64, so that next to nothing is in doubt, and every step has a size that the
host knows. What is in doubt all the same is marked: the CPU decides it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.head.caps import SlotCaps, margins
from slots.head.deciding.exact import exact_margins
from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.kept import Kept
from slots.shapes import SlotVectors, ViewFeatures

BLOCK_ELEMENTS = 1 << 24
"""Float64 scores held at once where a device makes all of them (count): 128 MB, several times over."""

_NONE = np.iinfo(np.int64).max
_FULL_RATE = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})
"""Compute capabilities of GPUs made for float64: P100, V100, A100, H100 and H200, B200."""


def _off(n_features: int) -> float:
    """Most by which a float64 product of unit rows is off, whatever the order of its sum."""
    return max(1e-12, n_features * 2.0**-52)


def quick_in_float64(device: torch.device) -> bool:
    """Whether a device computes in float64 about as quickly as in float32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) in _FULL_RATE


@dataclass(frozen=True)
class DeviceSlots:
    """What the decisions of a block need of the slots beside their caps, on their device.

    Parameters
    ----------
    caps : SlotCaps
        The slots.
    weights, centres : float64 tensors of shape (slot, feature)
        Of unit length.
    classes : int64 tensor of shape (class,)
        Labels that take part in the pooled score, ascending.
    members : int64 tensor of shape (class, member)
        Their pooled slots, padded with -1.
    class_of : int64 tensor of shape (slot,)
        Place of each pooled slot's label in ``classes``; -1 of the others.
    """

    caps: SlotCaps
    weights: SlotVectors
    centres: SlotVectors
    classes: Int[Tensor, " class"]
    members: Int[Tensor, "class member"]
    class_of: Int[Tensor, " slot"]

    @staticmethod
    def of(caps: SlotCaps) -> DeviceSlots:
        """Those of some slots; all of them are pooled where none is."""
        labels, pooled, device = caps.labels.cpu(), caps.pooled.cpu(), caps.weights.device
        pooled = pooled if bool(pooled.any()) else torch.ones_like(pooled)
        classes = labels[pooled].unique()
        class_of = torch.where(pooled, torch.searchsorted(classes, labels), -1)
        members = class_groups(class_of, torch.arange(len(classes)))
        unit = normalize(caps.weights.double()), normalize(caps.centres.double())
        return DeviceSlots(caps, *unit, classes.to(device), members.to(device), class_of.to(device))

    @cached_property
    def on_host(self) -> SlotCaps:
        """The slots on the CPU, which decides what is in doubt."""
        caps = self.caps
        return SlotCaps(
            weights=caps.weights.cpu(),
            centres=caps.centres.cpu(),
            precision=caps.precision.cpu(),
            support=caps.support.cpu(),
            labels=caps.labels.cpu(),
            generations=caps.generations.cpu(),
            pooled=caps.pooled.cpu(),
            beta=caps.beta,
            kept=Kept(),
        )


@dataclass(frozen=True)
class Settled:
    """Answers of a block on its device, columns of a `slots.head.Prediction`; all of shape (example,).

    Parameters
    ----------
    labels, answers, slots : int64 tensors
        As there.
    margins : float64 tensor
        Radians.
    runner_up_slots : int64 tensor
        -1 for none.
    runner_up_margins : float64 tensor
        Minus infinity for none.
    doubtful : bool tensor
        What is not known for sure.
    """

    labels: Int[Tensor, " example"]
    answers: Int[Tensor, " example"]
    slots: Int[Tensor, " example"]
    margins: Float[Tensor, " example"]
    runner_up_slots: Int[Tensor, " example"]
    runner_up_margins: Float[Tensor, " example"]
    doubtful: Bool[Tensor, " example"]


def settled(features: ViewFeatures, caps: SlotCaps, slots: DeviceSlots) -> Settled:
    """Answer inputs without waiting for the device.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features; any scale.
    caps : SlotCaps
        At least one slot; what its ``recall`` guesses is not looked at.
    slots : DeviceSlots
        Of the same slots; they may have been made when ``beta`` was another.

    Returns
    -------
    Settled
    """
    step = max(1, BLOCK_ELEMENTS // max(1, features.shape[1] * len(slots.weights)))
    parts = [_block(block, caps, slots) for block in features.split(step)]
    return Settled(*(torch.cat(columns) for columns in zip(*(vars(it).values() for it in parts), strict=True)))


def _block(block: ViewFeatures, caps: SlotCaps, slots: DeviceSlots) -> Settled:
    """Answers of so many inputs as fit into memory."""
    unit = normalize(block.double())
    by_weight, by_centre = unit @ slots.weights.T, unit @ slots.centres.T
    depths, doubtful = _firing(by_weight, by_centre, caps)
    oldest = caps.generations.expand_as(depths).masked_fill(depths.isinf(), _NONE).flatten(1).amin(1)
    matched = oldest < _NONE
    depths = depths.masked_fill(caps.generations != oldest[:, None, None], -math.inf)
    deepest = _two_labels(block, caps, depths.flatten(1))
    nearest = _two_classes(block, caps, slots, by_weight)
    first, second = (_either(matched, *pair) for pair in zip(deepest, nearest, strict=True))
    return Settled(
        labels=caps.labels[first.slots],
        answers=2 * matched.long() - (matched & (second.slots >= 0)).long(),
        slots=first.slots,
        margins=first.margins,
        runner_up_slots=second.slots,
        runner_up_margins=second.margins,
        doubtful=doubtful | first.doubtful | second.doubtful,
    )


class _Found(NamedTuple):
    """A slot and its margin for each example, -1 and minus infinity for none, and whether another may be as good."""

    slots: Int[Tensor, " example"]
    margins: Float[Tensor, " example"]
    doubtful: Bool[Tensor, " example"]


def _either(matched: Bool[Tensor, " example"], one: _Found, other: _Found) -> _Found:
    return _Found(*(torch.where(matched, *columns) for columns in zip(one, other, strict=True)))


def _firing(by_weight: Tensor, by_centre: Tensor, caps: SlotCaps) -> tuple[Tensor, Bool[Tensor, " example"]]:
    """Depth of each pair that fires, minus infinity of the others; and the examples of which that is in doubt."""
    precision, support, off = caps.precision.double(), caps.support.double(), _off(caps.weights.shape[1])
    least = torch.minimum(by_weight - precision, by_centre - support)
    depths = margins(by_weight, by_centre, precision, support)
    return depths.masked_fill(least <= 0, -math.inf), (least.abs() <= off).flatten(1).any(1)


def _two_labels(block: ViewFeatures, caps: SlotCaps, depths: Float[Tensor, "example pair"]) -> tuple[_Found, _Found]:
    """The slot of largest margin, and the same among the other labels."""
    level = 3 * math.sqrt(_off(block.shape[-1]))  # an angle next to 0 is off by up to sqrt(2 off)
    labels = caps.labels.repeat(block.shape[1])
    leader = labels[depths.argmax(1)][:, None]
    lead = _largest(block, caps, depths.masked_fill(labels != leader, -math.inf), level)
    rival = _largest(block, caps, depths.masked_fill(labels == leader, -math.inf), level)
    between = (rival.slots >= 0) & (lead.margins - rival.margins <= level)
    return lead, rival._replace(doubtful=rival.doubtful | between)


def _two_classes(
    block: ViewFeatures, caps: SlotCaps, slots: DeviceSlots, by_weight: Float[Tensor, "example view slot"]
) -> tuple[_Found, _Found]:
    """The nearest slot of the class of largest pooled score, and that of the next class."""
    beta, off = caps.beta, _off(block.shape[-1])
    pooled = softmax_pool(by_weight.amax(1), slots.members, beta=beta)
    scores, ranked = pooled.topk(min(3, pooled.shape[1]), dim=1)
    level = (scores[:, :-1] - scores[:, 1:] <= 2 * off * (1 + 2 * beta)).any(1)  # a pool moves by no more
    class_of, pairs = slots.class_of.repeat(block.shape[1]), by_weight.flatten(1)
    found = [
        _largest(block, caps, pairs.masked_fill(class_of != of[:, None], -math.inf), 2 * off) for of in ranked.T[:2]
    ]
    found[0] = found[0]._replace(doubtful=found[0].doubtful | level)
    if len(found) == 1:
        slot, margin, _ = found[0]
        found.append(_Found(torch.full_like(slot, -1), torch.full_like(margin, -math.inf), torch.zeros_like(level)))
    return found[0], found[1]


def _largest(block: ViewFeatures, caps: SlotCaps, values: Float[Tensor, "example pair"], level: float) -> _Found:
    """The pair of the largest value in each row and its exact margin; in doubt where the next is level with it."""
    best, places = values.topk(min(2, values.shape[1]), dim=1)
    slot, view = places[:, 0] % len(caps.labels), places[:, 0] // len(caps.labels)
    exact = exact_margins(block, caps, (torch.arange(len(block), device=block.device), view, slot))
    none = best[:, 0].isinf()
    doubtful = ~none & (best[:, 0] - best[:, -1] <= level) if best.shape[1] > 1 else torch.zeros_like(none)
    return _Found(slot.masked_fill(none, -1), exact.masked_fill(none, -math.inf), doubtful)
