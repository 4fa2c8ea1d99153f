"""The slots of a model: a gallery to filter, and a page for each with what it remembers and what it does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

import torch
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, select

from protocols.pages.cards import Picture, exemplar_picture, picture, remembered_texts
from protocols.pages.pictures import diverging, signed_sum
from protocols.service.answering.choosing import Order, Wanted, chosen
from protocols.service.answering.loaded import Loaded
from protocols.service.api.access import ReadModel, TheService
from protocols.service.api.problems import Problem
from protocols.service.inbox.tables import item
from protocols.service.pages import stored
from protocols.service.pages.rendering import Page, page
from slots.model.slot_model import SlotModel

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/models/{model}/slots")

A_PAGE = 60
"""Slots on one page of the gallery."""

_LATELY = 24
_SIDE = 120  # pictures on a slot's own page (CSS pixels)


@dataclass(frozen=True)
class Tile:
    """A slot in the gallery.

    Parameters
    ----------
    slot, name : int, str
        Number, and the name of its label.
    generation, hits, lately : int
        Update that made it; training examples that it matches; latest answers that it gave.
    exemplar : Picture or None
        Its nearest remembered image.
    text : str
        Its nearest remembered text; empty where it has none.
    bars : Bars or None
        Its centre, where the model takes rows of numbers.
    """

    slot: int
    name: str
    generation: int
    hits: int
    lately: int
    exemplar: Picture | None
    text: str
    bars: stored.Bars | None


@dataclass(frozen=True)
class Behind:
    """The id of a remembered example, and the stored item of that id if there is one."""

    id: str
    number: int | None


class Filter(BaseModel):
    """Which slots to show, as the form sends it: empty fields let everything through.

    Parameters
    ----------
    label : str
        Name of their label.
    generation : str
        Number of the generation that made them.
    hits : str
        Training examples that they match at least (count).
    order : {"label", "size", "newest", "lately"}
        What comes first.
    start : int
        Place of the first one shown, >= 0.
    """

    label: str = Field("", max_length=256)
    generation: str = Field("", pattern="^[0-9]{0,12}$")
    hits: str = Field("", pattern="^[0-9]{0,12}$")
    order: Order = "label"
    start: int = Field(0, ge=0, le=1 << 40)

    @property
    def slots(self) -> Wanted:
        """The slots that it lets through."""
        made = int(self.generation) if self.generation else None
        return Wanted(self.label or None, made, int(self.hits or 0), self.order)

    def link(self, start: int) -> str:
        """Address of another part of the same slots."""
        kept = {name: value for name, value in self.model_dump(exclude_defaults=True).items() if name != "start"}
        return "?" + urlencode({**kept, "start": start})


@router.get("")
async def gallery(request: Request, model: ReadModel, wanted: Annotated[Filter, Query()]) -> Response:
    """The slots that a filter lets through, a page of them."""
    current = model.current
    head = current.model.head
    lately = model.recent.by_slot(head.n_slots, current.generation)
    found = chosen(current, lately, wanted.slots)
    return page(
        request,
        "slots.html",
        at="slots",
        model=model,
        tiles=[tile(current, slot, int(lately[slot])) for slot in found[wanted.start :][:A_PAGE].tolist()],
        n_found=len(found),
        n_slots=head.n_slots,
        names=sorted({current.names[it] for it in head.labels.tolist()}),
        generations=sorted(set(head.generations.tolist())),
        wanted=wanted,
        a_page=A_PAGE,
    )


@router.get("/{slot}")
async def one(request: Request, service: TheService, model: ReadModel, slot: int) -> Response:
    """All about one slot."""
    current = model.current
    head = current.model.head
    if not 0 <= slot < head.n_slots:
        raise Problem(404, f"There is no slot {slot}; generation {current.generation} has {head.n_slots}.")
    ids = [str(it) for it in current.model.exemplar_ids[slot] if it] if current.model.exemplar_ids is not None else []

    def read(connection: Connection) -> tuple[list[stored.StoredItem], list[Behind]]:
        query = select(item.c.id, item.c.number).where(item.c.model == model.name, item.c.id.in_(ids))
        numbers = {it.id: it.number for it in connection.execute(query)}
        latest = stored.newest(connection, model.name, most=_LATELY, slot=slot, generation=current.generation)
        return latest, [Behind(it, numbers.get(it)) for it in ids]

    latest, behind = await service.database.read(read)
    seen, right = head.held_out[slot].tolist()
    return page(
        request,
        "slot.html",
        at="slots",
        model=model,
        current=current,
        slot=slot,
        name=current.names[int(head.labels[slot])],
        is_cluster=int(head.labels[slot]) in current.model.clusters,
        made=int(head.generations[slot]),
        hits=int(head.hits[slot]),
        seen=seen,
        right=right,
        trained=bool(head.pooled[slot]),
        precision=reach(float(head.precision_thresholds[slot])),
        support=reach(float(head.support_thresholds[slot])),
        remembered=remembered(current.model, slot),
        texts=remembered_texts(current.model, slot),
        drawn=template(current.model, slot),
        centre=centre(current.model, slot),
        lately=int(model.recent.by_slot(head.n_slots, current.generation)[slot]),
        latest=latest,
        behind=behind,
    )


def tile(current: Loaded, slot: int, lately: int) -> Tile:
    """A slot as the gallery shows it."""
    model = current.model
    return Tile(
        slot,
        current.names[int(model.head.labels[slot])],
        int(model.head.generations[slot]),
        int(model.head.hits[slot]),
        lately,
        exemplar_picture(model, slot),
        next(iter(remembered_texts(model, slot)), ""),
        centre(model, slot),
    )


def centre(model: SlotModel, slot: int) -> stored.Bars | None:
    """The centre of a slot as bars, where the model takes rows of numbers and nothing else shows what it remembers."""
    if model.preprocessing.kind != "features":
        return None
    return stored.bars(model.head.centres[slot].detach().float().cpu().numpy())


def remembered(model: SlotModel, slot: int) -> list[Picture]:
    """All images that a slot remembers, the nearest first."""
    if model.thumbnails is None or model.thumbnails.dtype == object:
        return []
    there = (model.head.exemplars[slot] >= 0).cpu().numpy()
    name = model.class_name(int(model.head.labels[slot]))
    return [
        picture(image, f"Example {place + 1} of slot {slot}, label {name}", shown_side=_SIDE)
        for place, image in enumerate(model.thumbnails[slot][there])
    ]


def template(model: SlotModel, slot: int) -> Picture | None:
    """What a slot's weight looks for in its nearest example; None where the backbone cannot draw it."""
    draw = getattr(model.backbone, "template", None)
    channels, height, width = (*model.preprocessing.shape, 0, 0, 0)[:3]
    shown = model.thumbnails
    if not callable(draw) or shown is None or shown.shape[2:] != (height, width, channels):
        return None
    if int(model.head.exemplars[slot, 0]) < 0:
        return None
    inputs = model.preprocessing(shown[slot, :1], model.device)
    rows = torch.tensor([slot], device=model.device)
    weights = model.featurizer.directions(model.head.weights.detach()[rows])
    drawn = draw(inputs, weights).detach().float().cpu().numpy()[0]
    return picture(
        diverging(signed_sum(drawn)), f"Template of slot {slot}: red for it, blue against it", shown_side=_SIDE
    )


def reach(threshold: float) -> str:
    """How far a cap reaches, in degrees, from its cosine; the head marks one without limit by -2, an empty one by 2."""
    if -1 <= threshold <= 1:
        return f"{math.degrees(math.acos(threshold)):.1f}°"
    return "no limit" if threshold < -1 else "never fires"
