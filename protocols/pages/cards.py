"""What the report shows of single slots and examples: their pictures, and the facts beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from protocols.pages.pictures import data_uri, diverging, in_colour, png, shrink, side_by_side, signed_sum
from protocols.summaries.intervals import wilson_lower
from slots.features.exemplars import thumbnails
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.shapes import Ids, RawInputs

GALLERY = 600
"""Slots shown at most."""

_SHOWN_SIDE = 90  # a picture's longer side on the page is at most this (CSS pixels)
_STORED_SIDE = 48  # larger pictures are averaged down: a page of megabytes helps nobody
_FURTHER_BYTES = 1 << 20  # raw bytes of second to fourth exemplars in the page; past it only the nearest is shown
_BLOCK = 64  # templates drawn at once


@dataclass(frozen=True)
class Picture:
    """An image in the page: its data address, its size there (CSS pixels), and the words that stand for it."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class SlotCard:
    """What the report says of one slot: counts, held-out precision, radius, and its pictures.

    Parameters
    ----------
    slot, name : int, str
        Index, and the name of its class.
    nearest : int
        Training example nearest to it; -1 where it remembers none.
    generation, hits : int
        Update that made it; training examples that it matches.
    seen, right : int
        Held-out examples that it matched, and those of its class.
    bound : float
        Lower end of Wilson's 95 % interval of ``right / seen``; 0 where nothing was seen.
    radius : str
        How far it reaches around the mean of its examples, in degrees; or that it has no limit, or owns nothing.
    trained : bool
        Whether its weight was trained; otherwise it is a remembered example.
    exemplar, further : Picture or None
        Its nearest training example, and the next ones in a row.
    templates : tuple of Picture
        What its weight looks for.
    said : tuple of str
        The texts it remembers, the nearest first; empty where the data is no text.
    """

    slot: int
    name: str
    nearest: int
    generation: int
    hits: int
    seen: int
    right: int
    bound: float
    radius: str
    trained: bool
    exemplar: Picture | None
    further: Picture | None
    templates: tuple[Picture, ...]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleCard:
    """One test example and its answer; margins in degrees, positive inside the slot's caps, None if not finite.

    ``said`` and ``slot_said`` are the example's own text and that nearest to the slot, empty where the data is no text.
    """

    index: int
    picture: Picture | None
    truth: str
    answer: str
    is_right: bool
    is_ambiguous: bool
    slot: int
    margin: float | None
    slot_picture: Picture | None
    rival: str | None
    rival_slot: int
    rival_margin: float | None
    said: str = ""
    slot_said: str = ""


def gallery_slots(model: SlotModel, *, limit: int = GALLERY) -> Ids:
    """Slots to show: by class, those that match most first; where they are too many, the first of each class.

    Parameters
    ----------
    model : SlotModel
        Its slots' hits and labels decide.
    limit : int
        Slots at most (count, >= 1).

    Returns
    -------
    int64 array of shape (shown slot,)
    """
    labels, hits = model.head.labels.cpu().numpy(), model.head.hits.cpu().numpy()
    order = np.lexsort((np.arange(len(labels)), -hits, labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    kept = np.sort(np.argsort(place, kind="stable")[:limit])
    chosen: Ids = order[kept].astype(np.int64)
    return chosen


def slot_cards(model: SlotModel, x_train: npt.NDArray[Any], shown: Ids) -> list[SlotCard]:
    """What the report says of some slots.

    Parameters
    ----------
    model : SlotModel
        The slots, with their thumbnails where they have some.
    x_train : array of shape (example, ...)
        The data that the slots' exemplar ids point into.
    shown : int64 array of shape (shown slot,)
        Slots that get a card, in this order.

    Returns
    -------
    list of SlotCard
    """
    head = model.head
    templates = slot_templates(model, x_train, shown)
    has_images = model.thumbnails is not None and model.thumbnails.dtype != object
    with_further = (
        has_images and model.thumbnails is not None and 3 * len(shown) * model.thumbnails[0, 0].size <= _FURTHER_BYTES
    )
    cards = []
    for place, slot in enumerate(shown.tolist()):
        seen, right = head.held_out[slot].tolist()
        cards.append(
            SlotCard(
                slot=slot,
                name=model.class_name(int(head.labels[slot])),
                nearest=int(head.exemplars[slot, 0]),
                generation=int(head.generations[slot]),
                hits=int(head.hits[slot]),
                seen=seen,
                right=right,
                bound=wilson_lower(right, seen),
                radius=_radius(float(head.support_thresholds[slot])),
                trained=bool(head.pooled[slot]),
                exemplar=exemplar_picture(model, slot),
                further=_further(model, slot) if with_further else None,
                templates=templates[place],
                said=remembered_texts(model, slot),
            )
        )
    return cards


def slot_templates(model: SlotModel, x_train: npt.NDArray[Any], shown: Ids) -> list[tuple[Picture, ...]]:
    """Draw what each slot's weight looks for in its nearest exemplar; nothing where the backbone cannot tell.

    Parameters
    ----------
    model : SlotModel
        With a backbone that can draw templates, or without.
    x_train : array of shape (example, height, width, channel)
        Images that the exemplar ids of the fit's slots point into; may be empty where the remembered images are whole.
    shown : int64 array of shape (shown slot,)
        Slots to draw, in this order.

    Returns
    -------
    list of tuple of Picture
        For grey images one, what speaks for and against the slot; for colours also the colours themselves.
    """
    pictures: list[tuple[Picture, ...]] = [()] * len(shown)
    nearest = model.head.exemplars[:, 0].cpu().numpy()[shown]
    draw = getattr(model.backbone, "template", None)
    if not callable(draw) or model.preprocessing.kind != "images":
        return pictures
    kept, (_, height, width) = model.thumbnails, model.preprocessing.shape
    is_whole = kept is not None and kept.shape[2:4] == (height, width)  # smaller ones of large images draw nothing
    known = nearest >= 0
    if not is_whole:  # rows of an update's data mean nothing here
        known &= (model.head.generations.cpu().numpy()[shown] == 0) & (nearest < len(x_train))
    places = np.flatnonzero(known)
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        images = kept[shown[block], 0] if kept is not None and is_whole else x_train[nearest[block]]
        inputs = model.preprocessing(images, model.device)
        weights = model.head.weights.detach()[torch.from_numpy(shown[block]).to(model.device)]
        weights = model.featurizer.directions(weights)
        for place, template in zip(block.tolist(), draw(inputs, weights).float().cpu().numpy(), strict=True):
            pictures[place] = _template_pictures(template, int(shown[place]))
    return pictures


def exemplar_picture(model: SlotModel, slot: int) -> Picture | None:
    """The nearest remembered example of a slot; None for features and for a slot that remembers none."""
    if model.thumbnails is None or model.thumbnails.dtype == object or int(model.head.exemplars[slot, 0]) < 0:
        return None
    name = model.class_name(int(model.head.labels[slot]))
    return picture(model.thumbnails[slot, 0], f"Nearest training example of slot {slot}, class {name}")


def remembered_texts(model: SlotModel, slot: int) -> tuple[str, ...]:
    """The texts that a slot remembers, the nearest first; none where the model is not one of text."""
    if model.thumbnails is None or model.thumbnails.dtype != object:
        return ()
    return tuple(str(text) for text in model.thumbnails[slot] if text)


def excerpt(x: RawInputs, row: int) -> str:
    """The beginning of an example that is a text; empty for any other."""
    return str(thumbnails(x, np.array([[row]]))[0, 0]) if x.ndim == 1 else ""


def example_cards(
    model: SlotModel, x: npt.NDArray[Any], y: npt.NDArray[np.int64], prediction: Prediction, rows: Ids
) -> list[ExampleCard]:
    """What the report says of some labelled test examples.

    Parameters
    ----------
    model : SlotModel
        The slots that answered, for names and thumbnails.
    x : array of shape (example, ...)
        Test inputs.
    y : int64 array of shape (example,)
        True labels.
    prediction : Prediction
        Of ``x``.
    rows : int64 array of shape (shown example,)
        Positions in ``x``.

    Returns
    -------
    list of ExampleCard
    """
    cards = []
    for row in rows.tolist():
        slot, rival = int(prediction.slots[row]), int(prediction.runner_up_slots[row])
        truth = model.class_name(int(y[row]))
        cards.append(
            ExampleCard(
                index=row,
                picture=example_picture(x[row], f"Test example {row}, class {truth}"),
                truth=truth,
                answer=model.class_name(int(prediction.labels[row])),
                is_right=bool(prediction.labels[row] == y[row]),
                is_ambiguous=bool(prediction.ambiguous[row]),
                slot=slot,
                margin=_finite_degrees(prediction.margins[row]),
                slot_picture=exemplar_picture(model, slot),
                rival=model.class_name(int(model.head.labels[rival])) if rival >= 0 else None,
                rival_slot=rival,
                rival_margin=_finite_degrees(prediction.runner_up_margins[row]),
                said=excerpt(x, row),
                slot_said=next(iter(remembered_texts(model, slot)), ""),
            )
        )
    return cards


def example_picture(example: npt.NDArray[Any], alt: str) -> Picture | None:
    """An example as a picture; None for a row of features and for a text."""
    return picture(example, alt) if isinstance(example, np.ndarray) and example.ndim == 3 else None


def picture(image: npt.NDArray[np.uint8], alt: str, *, shown_side: int = _SHOWN_SIDE, images: int = 1) -> Picture:
    """An image as part of the page.

    Parameters
    ----------
    image : uint8 array of shape (height, width, channel)
        One channel (grey) or three (colour), 0 to 255.
    alt : str
        Words for those who do not see it.
    shown_side : int
        How long its longer side may be on the page (CSS pixels). It becomes the largest whole multiple of the image
        that fits, so that every pixel stays a square, and the image itself where none fits.
    images : int
        How many images it holds beside each other.

    Returns
    -------
    Picture
    """
    stored = image if images > 1 else shrink(image, _STORED_SIDE)
    height, width = stored.shape[:2]
    factor = max(1, int(shown_side // max(height, width / images)))
    return Picture(data_uri(png(stored)), width * factor, height * factor, alt)


def _further(model: SlotModel, slot: int) -> Picture | None:
    """Second to last exemplar of a slot in a row."""
    assert model.thumbnails is not None
    known = (model.head.exemplars[slot, 1:] >= 0).cpu().numpy()
    images = model.thumbnails[slot, 1:][known]
    if len(images) == 0:
        return None
    row = side_by_side(np.stack([shrink(image, _STORED_SIDE) for image in images]))
    return picture(row, f"{len(images)} more of its training examples", shown_side=_SHOWN_SIDE // 3, images=len(images))


def _template_pictures(template: npt.NDArray[np.float32], slot: int) -> tuple[Picture, ...]:
    """A template (channel, height, width) as pictures."""
    signed = picture(diverging(signed_sum(template)), f"Template of slot {slot}: red for it, blue against it")
    if template.shape[0] != 3:
        return (signed,)
    return signed, picture(in_colour(template), f"Colours that slot {slot} looks for, around grey")


def _finite_degrees(margin: float) -> float | None:
    """A margin in degrees; None for a slot that matches nothing, which is infinitely far."""
    return math.degrees(margin) if math.isfinite(margin) else None


def _radius(threshold: float) -> str:
    """Radius of a support cap from its cosine; the head marks a cap without limit by -2, an empty one by 2."""
    if -1 <= threshold <= 1:
        return f"{math.degrees(math.acos(threshold)):.1f}°"
    return "no limit" if threshold < -1 else "never fires"


def evenly(rows: Ids, limit: int) -> Ids:
    """At most ``limit`` of the rows, spread evenly over them, so that a few stand for all."""
    if len(rows) <= limit:
        return rows
    places: Ids = np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)
    return rows[places]


def contradiction_pictures(
    model: SlotModel, x: npt.NDArray[Any], y: npt.NDArray[np.int64], ids: Sequence[int]
) -> list[tuple[int, str, Picture | None, str]]:
    """Id, class, picture and text of training examples."""
    named = [(i, model.class_name(int(y[i]))) for i in ids]
    return [(i, name, example_picture(x[i], f"Training example {i}, class {name}"), excerpt(x, i)) for i, name in named]
