"""An answer as a sum over parts: which part was found where, and how much of the score it makes up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from slots.errors import UsageError
from slots.model.slot_model import SlotModel
from slots.parts.backbone import PartsBackbone, check_parts_backbone
from slots.shapes import RawInputs

_BATCH = 64


@dataclass(frozen=True)
class PartShare:
    """One part of an answer.

    Parameters
    ----------
    part : int
        Place of the part in the backbone's ``vectors``.
    cells : tuple of pairs of int
        Rows and columns of the cells in which the slot looks for it and finds it here: cells overlap.
    box : tuple of four int
        Top, left, bottom and right of the pixels where it was found: rows ``top <= row < bottom``.
    share : float
        What it adds to the cosine of the slot; all shares of an answer add up to that cosine.
    source : tuple of three int or None
        Training example, row and column of the top left pixel of the patch that the part is. None: no patch.
    """

    part: int
    cells: tuple[tuple[int, int], ...]
    box: tuple[int, int, int, int]
    share: float
    source: tuple[int, int, int] | None


@dataclass(frozen=True)
class PartsOfAnswer:
    """An answer and what it is made of.

    Parameters
    ----------
    label, answered_by : int
        Label and slot, as `Prediction` has them.
    slot : int
        The slot that is taken apart: the one that answered, if it was trained. Else the trained slot of the same label
        that scores highest, if there is one: what the closing pass or an update adds are single examples with all
        their features.
    cosine : float
        Of the slot's weights and the input's features.
    shares : tuple of PartShare
        Largest share first; those of the slot's parts that are in the input.
    """

    label: int
    answered_by: int
    slot: int
    cosine: float
    shares: tuple[PartShare, ...]


@torch.no_grad()
def explain_by_parts(model: SlotModel, x: RawInputs) -> list[PartsOfAnswer]:
    """Take the answers of a model apart into the parts that its slots found.

    Parameters
    ----------
    model : SlotModel
        With a backbone of parts, and without views.
    x : uint8 array of shape (example, height, width[, channel])
        Inputs.

    Returns
    -------
    list of PartsOfAnswer
        One for each input.

    Raises
    ------
    UsageError
        If the model has another backbone, or matches views.

    Notes
    -----
    A slot's score is ``sum over features of weight * response / |responses|``. Features of the backbone `parts` and
    weights of slots that were fitted with ``features_per_slot`` are not negative, so no share is.
    """
    backbone = check_parts_backbone(model.backbone)
    if model.views.n_views > 1:
        raise UsageError(f"`model` must match inputs as they are, got views {model.views.spec!r}. Fit it without.")
    answers = model.predict(x)
    weights = functional.normalize(model.head.weights.detach().double(), dim=1)
    found = []
    for start in range(0, len(answers), _BATCH):
        inputs = model.preprocessing(x[start : start + _BATCH], model.device)
        unit = functional.normalize(model.backbone(inputs).double(), dim=1)
        for row in range(len(inputs)):
            label, answered_by = int(answers.labels[start + row]), int(answers.slots[start + row])
            slot = _trained(model, weights @ unit[row], label, answered_by)
            shares = weights[slot] * unit[row]
            merged = _merged(backbone, inputs[row : row + 1], shares)
            found.append(PartsOfAnswer(label, answered_by, slot, float(shares.sum()), merged))
    return found


def _trained(model: SlotModel, cosines: Float[Tensor, " slot"], label: int, answered_by: int) -> int:
    """The slot to take apart."""
    trained = model.head.pooled & (model.head.labels == label)
    if bool(model.head.pooled[answered_by]) or not bool(trained.any()):
        return answered_by
    return int(cosines.masked_fill(~trained, -torch.inf).argmax())


def _merged(
    backbone: PartsBackbone, one: Float[Tensor, "1 channel height width"], shares: Float[Tensor, " feature"]
) -> tuple[PartShare, ...]:
    """The shares by part and place, largest first: a place in several cells is one."""
    groups: dict[tuple[int, int, int], list[tuple[tuple[int, int], float]]] = {}
    features = shares.nonzero()[:, 0].tolist()
    for feature, (row, column) in zip(features, backbone.found_at(one, features)[0].tolist(), strict=True):
        part, cell = divmod(feature, math.prod(backbone.cells))
        groups.setdefault((part, row, column), []).append((divmod(cell, backbone.cells[1]), float(shares[feature])))
    parts = [
        PartShare(
            part=part,
            cells=tuple(cell for cell, _ in members),
            box=tuple(backbone.field((row, column))),
            share=math.fsum(share for _, share in members),
            source=_source(backbone, part),
        )
        for (part, row, column), members in groups.items()
    ]
    return tuple(sorted(parts, key=lambda it: (-it.share, it.part, it.box)))


def _source(backbone: PartsBackbone, part: int) -> tuple[int, int, int] | None:
    """Example and top left pixel of the patch that a part is."""
    example, row, column = backbone.sources[part].tolist()
    if example < 0:
        return None
    field = backbone.field((row, column))
    return example, field.top, field.left
