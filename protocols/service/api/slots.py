"""Routes of the slots: what a model consists of, slot by slot, with what each remembers and how it did."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from protocols.service.answering.choosing import Order, Wanted, chosen
from protocols.service.answering.explaining import Example, examples, radius
from protocols.service.answering.loaded import Loaded
from protocols.service.api.access import ReadModel
from protocols.service.api.problems import Problem

router = APIRouter(prefix="/api/v1/models/{model}/slots", tags=["models"])

MOST = 500
"""Slots of one answer (count)."""


class SlotFacts(BaseModel):
    """A slot.

    Parameters
    ----------
    slot : int
        Its number in the generation that is named beside it; a deletion moves those behind it.
    label : str
        Name of its label.
    label_id : int
        Id of its label.
    cluster : bool
        Whether its label stands for a cluster that nobody has named.
    made_by : int
        Generation that made it.
    trained : bool
        Whether training moved it; false for one that was made of an example.
    precision, support : float or None
        Radii of its caps (degrees); None for one without limit.
    hits : int
        Training examples that it matches (count).
    held_out, held_out_right : int
        Held-out examples that it matched, and those of its label (count).
    lately : int
        How many of the latest answers it gave (count).
    """

    slot: int
    label: str
    label_id: int
    cluster: bool
    made_by: int
    trained: bool
    precision: float | None
    support: float | None
    hits: int
    held_out: int
    held_out_right: int
    lately: int


class SlotList(BaseModel):
    """Some slots of a model, all of one generation.

    Parameters
    ----------
    model : str
        The model.
    generation : int
        Its generation, which the slots' numbers belong to.
    found : int
        Slots that are asked for in all (count).
    slots : list of SlotFacts
        A part of them.
    """

    model: str
    generation: int
    found: int
    slots: list[SlotFacts]


class OneSlot(SlotFacts):
    """A slot and what it remembers.

    Parameters
    ----------
    model : str
        The model.
    generation : int
        Its generation, which the slot's number belongs to.
    nearest_foreign : int or None
        The slot of another label whose weight is nearest; None where there is none.
    nearest_foreign_angle : float or None
        The angle between the two weights (degrees).
    examples : list of Example
        What it remembers, the nearest to its middle first.
    """

    model: str
    generation: int
    nearest_foreign: int | None
    nearest_foreign_angle: float | None
    examples: list[Example]


Generation = Annotated[
    int | None,
    Query(ge=0, description="The generation that the numbers belong to: where another one answers now, 409."),
]


@router.get("")
async def slots(
    model: ReadModel,
    *,
    label: Annotated[str | None, Query(max_length=256, description="Name of their label.")] = None,
    made_by: Annotated[int | None, Query(ge=0, description="The generation that made them.")] = None,
    hits: Annotated[int, Query(ge=0, le=1 << 40, description="Training examples that they match at least.")] = 0,
    order: Annotated[Order, Query(description="What comes first.")] = "label",
    start: Annotated[int, Query(ge=0, le=1 << 40, description="Place of the first one.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 100,
    generation: Generation = None,
) -> SlotList:
    """The slots of a model: which label each answers, how far it reaches, and how it did."""
    current = _current(model.current, generation)
    lately = model.recent.by_slot(current.model.head.n_slots, current.generation)
    found = chosen(current, lately, Wanted(label, made_by, hits, order))
    part = [facts(current, slot, int(lately[slot])) for slot in found[start : start + limit].tolist()]
    return SlotList(model=model.name, generation=current.generation, found=len(found), slots=part)


@router.get("/{slot}")
async def slot(model: ReadModel, slot: int, generation: Generation = None) -> OneSlot:
    """One slot: what it remembers, and the slot of another label that is nearest."""
    current = _current(model.current, generation)
    head = current.model.head
    if not 0 <= slot < head.n_slots:
        raise Problem(404, f"There is no slot {slot}; generation {current.generation} has {head.n_slots}.")
    lately = model.recent.by_slot(head.n_slots, current.generation)
    foreign, angle = nearest_foreign(current, slot)
    return OneSlot(
        **facts(current, slot, int(lately[slot])).model_dump(),
        model=model.name,
        generation=current.generation,
        nearest_foreign=foreign,
        nearest_foreign_angle=angle,
        examples=examples(current, slot),
    )


def facts(current: Loaded, slot: int, lately: int) -> SlotFacts:
    """What a generation says of one of its slots."""
    head = current.model.head
    label = int(head.labels[slot])
    seen, right = head.held_out[slot].tolist()
    return SlotFacts(
        slot=slot,
        label=current.names[label],
        label_id=label,
        cluster=label in current.model.clusters,
        made_by=int(head.generations[slot]),
        trained=bool(head.pooled[slot]),
        precision=radius(float(head.precision_thresholds[slot])),
        support=radius(float(head.support_thresholds[slot])),
        hits=int(head.hits[slot]),
        held_out=seen,
        held_out_right=right,
        lately=lately,
    )


def nearest_foreign(current: Loaded, slot: int) -> tuple[int | None, float | None]:
    """The slot of another label whose weight is nearest, and the angle between the weights (degrees)."""
    head = current.model.head
    weights = head.weights.detach().double()
    cosines = (weights @ weights[slot]).masked_fill(head.labels == head.labels[slot], -math.inf)
    best = int(cosines.argmax())
    if math.isinf(float(cosines[best])):
        return None, None
    return best, math.degrees(math.acos(max(-1.0, min(1.0, float(cosines[best])))))


def _current(current: Loaded, generation: int | None) -> Loaded:
    """The generation that answers; what a number means in another one, it cannot say."""
    if generation not in (None, current.generation):
        raise Problem(
            409,
            f"Generation {current.generation} answers now, not {generation}; numbers of slots may differ. "
            "Ask without `generation`, or see /diff.",
        )
    return current
