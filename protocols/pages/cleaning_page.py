"""The page of ``slots clean``: each suspicious example beside what its label and its features say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocols.pages.cards import excerpt
from protocols.pages.environment import render_page
from protocols.pages.pictures import data_uri, png
from protocols.summaries.cleaning import CleaningSummary, SuspectLabels
from slots.features.exemplars import thumbnails
from slots.label_errors.evidence import Evidence

SHOWN = 150
"""Examples shown on the page; the CSV lists all."""

CONFUSED = 12
"""Pairs of labels in the page's table."""


@dataclass(frozen=True)
class ShownExample:
    """An example or slot beside a suspect: its image or text (empty for feature rows), words, label, degrees away."""

    uri: str
    words: str
    label: str
    degrees: float | None
    said: str = ""


@dataclass(frozen=True)
class Card:
    """One suspicious example as the page shows it; ``slots`` as pairs of a picture and what the slot would gain."""

    rank: int
    example: int
    given: str
    suggested: str
    share: float
    picture: str
    same: ShownExample | None
    other: ShownExample | None
    slots: list[tuple[ShownExample, str]]
    n_damaged: int
    matches: int
    said: str = ""


def cleaning_page(found: SuspectLabels, summary: CleaningSummary) -> str:
    """The page as text; it asks for no other file and no network.

    Parameters
    ----------
    found : SuspectLabels
        Examples, evidence and suspicion of each.
    summary : CleaningSummary
        Counts and options for the head of the page.

    Returns
    -------
    str
    """
    return render_page(
        "cleaning.html",
        summary=summary,
        cards=_cards(found, found.evidence[:SHOWN]),
        images=found.x.ndim != 2,
        confused=summary.confused[:CONFUSED],
        most=max((it.count for it in summary.confused), default=1),
    )


def _cards(found: SuspectLabels, evidence: list[Evidence]) -> list[Card]:
    """The cards, with pictures where the data has them."""
    wanted = {it.example for it in evidence} | {it.same for it in evidence} | {it.other for it in evidence}
    wanted |= {int(found.exemplars[it.damages[0].slot]) for it in evidence if it.damages}
    ids = sorted(wanted - {-1})
    pictures = dict.fromkeys(ids, "")
    if ids and found.x.ndim > 2:
        images = thumbnails(found.x, found.rows[np.array(ids)][:, None])
        pictures = {example: data_uri(png(image[0])) for example, image in zip(ids, images, strict=True)}
    texts = {example: excerpt(found.x, int(found.rows[example])) for example in ids}
    suspicion = found.errors.suspicion
    highest = max((float(suspicion[it.example]) for it in evidence), default=1.0) or 1.0

    def neighbour(example: int, angle: float) -> ShownExample | None:
        if example < 0:
            return None
        words, label = f"example {found.rows[example]}", found.names[found.y[example]]
        return ShownExample(pictures[example], words, label, float(np.degrees(angle)), texts[example])

    cards = []
    for rank, it in enumerate(evidence, 1):
        slots = []
        for damage in it.damages[:1]:
            exemplar = int(found.exemplars[damage.slot])
            picture = pictures.get(exemplar, "")
            words = f"{np.degrees(damage.radians):.1f}° wider, {damage.matches:,} more"
            label, said = found.slot_labels[damage.slot], texts.get(exemplar, "")
            slots.append((ShownExample(picture, f"slot {damage.slot}", label, None, said), words))
        cards.append(
            Card(
                rank,
                int(found.rows[it.example]),
                found.names[found.y[it.example]],
                found.names[found.errors.suggested[it.example]],
                float(suspicion[it.example]) / highest,
                pictures[it.example],
                neighbour(it.same, it.same_angle),
                neighbour(it.other, it.other_angle),
                slots,
                it.n_damaged,
                it.matches,
                texts[it.example],
            )
        )
    return cards
