"""Why an input got its answer: the slot behind it, what that remembers, and the nearest slot of another label."""

from __future__ import annotations

import math
from dataclasses import dataclass

from protocols.pages.cards import remembered_texts
from protocols.pages.pictures import data_uri, png
from protocols.service.answering.loaded import Answers, Loaded


@dataclass(frozen=True)
class Example:
    """A remembered example.

    Parameters
    ----------
    id : str
        In the store of whoever gave it; empty where nobody said.
    image : str
        ``data:image/png;base64,...``; empty where it is no image.
    text : str
        Its beginning; empty where it is no text.
    """

    id: str
    image: str
    text: str


@dataclass(frozen=True)
class Claim:
    """What a slot says of an input.

    Parameters
    ----------
    slot : int
        Its number in the generation that answered.
    label : str
        Its label.
    margin : float or None
        How deep the input lies inside the slot's caps (degrees); negative outside; None where the slot never fires.
    made_by : int
        Generation that made the slot.
    precision, support : float or None
        Radii of its caps (degrees); None for one without limit.
    hits : int
        Training examples that it matches (count).
    held_out, held_out_right : int
        Held-out examples that it matched, and those of its label (count).
    examples : list of Example
        What it remembers, the nearest to its middle first.
    """

    slot: int
    label: str
    margin: float | None
    made_by: int
    precision: float | None
    support: float | None
    hits: int
    held_out: int
    held_out_right: int
    examples: list[Example]


@dataclass(frozen=True)
class Explanation:
    """Why an input got its answer.

    Parameters
    ----------
    behind : Claim
        The slot that answered; of an unmatched input the most similar one of the guessed label.
    foreign : Claim or None
        The nearest slot of another label; None where there is none.
    """

    behind: Claim
    foreign: Claim | None


def explanation(found: Answers, row: int) -> Explanation:
    """Explain one of some answers.

    Parameters
    ----------
    found : Answers
        With the generation that gave them.
    row : int
        Which of them.

    Returns
    -------
    Explanation
    """
    it = found.prediction
    other = int(it.runner_up_slots[row])
    return Explanation(
        claim(found.loaded, int(it.slots[row]), float(it.margins[row])),
        None if other < 0 else claim(found.loaded, other, float(it.runner_up_margins[row])),
    )


def claim(loaded: Loaded, slot: int, margin: float) -> Claim:
    """What a slot says of an input that lies so deep inside its caps (radians)."""
    head = loaded.model.head
    seen, right = head.held_out[slot].tolist()
    return Claim(
        slot=slot,
        label=loaded.names[int(head.labels[slot])],
        margin=math.degrees(margin) if math.isfinite(margin) else None,
        made_by=int(head.generations[slot]),
        precision=radius(float(head.precision_thresholds[slot])),
        support=radius(float(head.support_thresholds[slot])),
        hits=int(head.hits[slot]),
        held_out=seen,
        held_out_right=right,
        examples=examples(loaded, slot),
    )


def examples(loaded: Loaded, slot: int) -> list[Example]:
    """What a slot remembers, the nearest to its middle first; nothing of what was given as rows without ids."""
    model = loaded.model
    texts = remembered_texts(model, slot)
    found = []
    for place in range(model.head.exemplars.shape[1]):
        if int(model.head.exemplars[slot, place]) < 0:
            continue
        known = "" if model.exemplar_ids is None else str(model.exemplar_ids[slot, place])
        image, text = "", texts[place] if place < len(texts) else ""
        if model.thumbnails is not None and model.thumbnails.dtype != object:
            image = data_uri(png(model.thumbnails[slot, place]))
        if known or image or text:
            found.append(Example(known, image, text))
    return found


def radius(threshold: float) -> float | None:
    """Radius of a cap from its cosine (degrees); the head marks one without limit by -2, an empty one by 2."""
    if threshold > 1:
        return 0.0
    return math.degrees(math.acos(threshold)) if threshold >= -1 else None
