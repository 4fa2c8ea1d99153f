"""Many clients ask while one generation after another is written; each answer is held against its generation's own."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from support.flipping import flipped
from support.load import Order, drive
from support.pressure import PREDICT
from support.service import rows, running

from slots.head.prediction import Answer
from slots.model.editing import relabel
from slots.model.slot_model import SlotModel
from slots.storage.atomic import replace_file
from slots.storage.states import POINTER

NAMES = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu"]
RATE = 0.05
"""False-alarm rate at which the service answers where it was told none."""


@dataclass
class Swapped:
    """What came of answers under swaps."""

    answers: Counter = field(default_factory=Counter)
    """How many each generation gave, by its number."""
    wrong: list = field(default_factory=list)
    """What the answer was, and what the generation that it names says of that row alone."""
    statuses: dict = field(default_factory=dict)
    """Requests by status."""
    requests: int = 0
    seconds: float = 0.0
    between: list = field(default_factory=list)
    """Seconds between two generations that became current."""


def generations(folder, n):
    """Write so many generations after a folder's own, each of which calls every input otherwise than the one before.

    Then the folder's own is the current one again; the others are what the pointers that are given back name.
    """
    model, pointer = SlotModel.load(folder), folder / POINTER
    slots = [np.flatnonzero(model.head.labels.numpy() == label).tolist() for label in range(model.n_labels)]
    first, others = pointer.read_bytes(), []
    for turn in range(n):
        for place, numbers in enumerate(slots):
            relabel(model, numbers, NAMES[(turn + place) % len(NAMES)])
        model.save(folder, keep_history=True)
        others.append(pointer.read_text())
    replace_file(pointer, first)
    return others


def asked_under_swaps(folder, data, n_answers, *, clients, swaps, seconds, seed=0):
    """Ask for so many answers, one to three a request, while a new generation becomes current every so many seconds.

    The service is this process's; whoever asks is another one, and keeps what it was answered word for word. The
    generations lie there beforehand, and a third process does what a writer does last: it replaces the pointer.
    """
    x, sizes = _requests(n_answers, seed)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    bodies = [json.dumps({"inputs": part.tolist()}) for part in parts]
    pointers = generations(folder, swaps)
    with (
        running(folder, data, poll_seconds=0.02) as client,
        flipped(folder / POINTER, seconds, pointers) as between,
    ):
        load = drive(Order(client.base_url.port, PREDICT, clients, 0, "POST", bodies, once=True, keep=True))
    replace_file(folder / POINTER, pointers[-1].encode())  # it names all generations
    found = _compared(folder, parts, load.answers)
    found.statuses, found.requests, found.seconds = load.statuses, len(parts), load.seconds
    found.between = between
    return found


def _requests(n_answers, seed):
    """Feature rows, all different, and how many of them go into each request."""
    sizes, rng = [], np.random.default_rng(seed)
    while sum(sizes) < n_answers:
        sizes.append(min(int(rng.integers(1, 4)), n_answers - sum(sizes)))
    return rows(n_answers, seed + 1, classes=4)[0], sizes


def _compared(folder, parts, answers):
    """Each answer beside that of the generation that it names, loaded anew, to the row alone."""
    found, models = Swapped(), {}
    for part, text in zip(parts, answers, strict=True):
        document = json.loads(text)
        generation = document["generation"]
        if generation not in models:
            models[generation] = SlotModel.load(folder, generation=generation)
        found.answers[generation] += len(document["answers"])
        alone = [_alone(models[generation], row[None]) for row in part]
        if document["answers"] != alone:
            found.wrong.append((document, alone))
    return found


def _alone(model, row):
    """What a model says of one row, as the service's API writes it; numbers to the last bit."""
    said, novelty = model.predict(row), model.assess_novelty(row, false_alarm_rate=RATE)
    other = int(said.runner_up_slots[0])
    return {
        "label": model.class_name(int(said.labels[0])),
        "label_id": int(said.labels[0]),
        "answer": Answer(int(said.answers[0])).name.lower(),
        "slot": int(said.slots[0]),
        "margin": _number(said.margins[0]),
        "runner_up": None if other < 0 else model.class_name(int(model.head.labels[other])),
        "runner_up_margin": None if other < 0 else _number(said.runner_up_margins[0]),
        "novelty": {
            "p_value": float(novelty.p_values[0]),
            "score": round(float(novelty.scores[0]), 6),
            "novel": bool(novelty.novel[0]),
            "reason": str(novelty.reasons[0]),
        },
    }


def _number(margin):
    """A margin; None for that of a slot that matches nothing."""
    return float(margin) if math.isfinite(margin) else None
