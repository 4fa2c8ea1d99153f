"""Rows of the `slot-update` protocol beside ours: k-means prototypes, fed by each way to choose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from protocols.harness.protocol import Setting
from protocols.runs.slot_update import query_strategies
from protocols.runs.slot_update.metrics import Answers
from protocols.runs.slot_update.splits import Labels, Split
from slots.model.slot_model import SlotModel
from slots.progress import Progress
from slots.shapes import RawInputs

Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

NAMES: Final = {
    "random": "random",
    "margin": "margin",
    "margin-rounds": "margin, in rounds",
    "k-center": "k-center",
    "unmatched-cover": "cover of the unmatched",
    "our-questions": "our questions",
    "probcover": "ProbCover",
    "probcover-best": "ProbCover, best radius",
}

_NOTE = "1,000 k-means prototypes of the same features; labelled examples join as they are."
_MARGIN_ROUNDS = (25, 25, 50, 50, 100)


@dataclass(frozen=True)
class Peer:
    """One row: its name, its labels of the never-seen part before, and its answers at each budget."""

    method: str
    before: Labels
    answers: Sequence[Answers]
    note: str


@dataclass(frozen=True)
class QueryLog:
    """What our own row leaves to the peers: the fitted model, and the rows that it asked for in their order."""

    model: SlotModel
    asked: Rows


def peer_rows(
    setting: Setting, split: Split, ours: QueryLog, budgets: Sequence[int], *, seed: int, progress: Progress
) -> Iterator[Peer]:
    """Every peer of the setting, and random selection always.

    Parameters
    ----------
    setting : Setting
        Names the peers to run.
    split : Split
        Of features.
    ours : QueryLog
        Some peers get the questions that we asked.
    budgets : sequence of int
        Ascending.
    seed : int
        Of k-means and of random questions.
    progress : callable
        ``progress(step, share)`` of the peers.
    """
    progress("k-means prototypes", 0.0)
    started = time.perf_counter()
    head = query_strategies.Prototypes(_rows(split.base), split.base_y, _rows(split.stream), seed)
    made_s = time.perf_counter() - started
    before = head.answer(_rows(split.test), np.zeros(0, np.int64), np.zeros(0, np.int64))
    ways = _ways(head, split, ours, max(budgets), seed)
    for place, (name, choose) in enumerate(ways.items()):
        if name != "random" and name not in setting.peers:
            continue
        progress(name, 0.1 + 0.6 * place / len(ways))
        started = time.perf_counter()
        chosen = choose()
        answers = _answers(head, split, chosen, budgets, made_s + time.perf_counter() - started)
        yield Peer(f"prototypes: {NAMES[name]}", before, answers, _NOTE)
    if {"probcover", "probcover-best"} & set(setting.peers):
        progress("ProbCover", 0.7)
        yield from _prob_covers(setting, head, split, before, budgets, seed=seed, made_s=made_s)


def _rows(x: RawInputs) -> Features:
    """Features as NumPy's rows."""
    return np.asarray(x, np.float32)


def _ways(
    head: query_strategies.Prototypes, split: Split, ours: QueryLog, most: int, seed: int
) -> dict[str, Callable[[], Rows]]:
    """Each way to choose but ProbCover, which has several radii."""

    def padded(rows: Rows) -> Rows:
        """Where there are too few, random ones behind them."""
        rest = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(split.stream_y)), rows))
        return np.concatenate([rows, rest[: most - len(rows)]])

    return {
        "random": lambda: np.random.default_rng(seed).permutation(len(split.stream_y))[:most],
        "margin": lambda: query_strategies.by_margin(head, most),
        "margin-rounds": lambda: query_strategies.by_margin_in_rounds(head, split.stream_y, most, _MARGIN_ROUNDS),
        "k-center": lambda: query_strategies.k_center(head, most),
        "unmatched-cover": lambda: padded(ours.model.propose(split.stream, budget=most).queries),
        "our-questions": lambda: padded(ours.asked),
    }


def _answers(
    head: query_strategies.Prototypes, split: Split, chosen: Rows, budgets: Sequence[int], seconds: float
) -> list[Answers]:
    """What the prototypes say with the first of the chosen rows."""
    found = []
    for budget in budgets:
        asked = chosen[:budget]
        test, stream = (head.answer(_rows(part), asked, split.stream_y[asked]) for part in (split.test, split.stream))
        found.append(Answers(test, stream, asked, len(head.labels) + len(asked), seconds))
    return found


def _prob_covers(
    setting: Setting,
    head: query_strategies.Prototypes,
    split: Split,
    before: Labels,
    budgets: Sequence[int],
    *,
    seed: int,
    made_s: float,
) -> Iterator[Peer]:
    """ProbCover with the radius of its paper, and with the best one in hindsight."""
    started = time.perf_counter()
    n_classes = len(np.unique(np.concatenate([split.stream_y, split.base_y])))
    radius = query_strategies.pure_radius(head, n_classes, seed)
    radii = [radius, *(stretch * radius for stretch in query_strategies.STRETCHES if "probcover-best" in setting.peers)]
    covers = query_strategies.prob_cover(head, radii, max(budgets))
    seconds = made_s + (time.perf_counter() - started) / len(radii)
    tried = [_answers(head, split, chosen, budgets, seconds) for chosen in covers]
    if "probcover" in setting.peers:
        yield Peer(f"prototypes: {NAMES['probcover']}", before, tried[0], f"{_NOTE} Radius by the rule of its paper.")
    if "probcover-best" in setting.peers:
        best = [max(each, key=lambda it: it.accuracy(split)) for each in zip(*tried, strict=True)]
        note = f"{_NOTE} For each budget the best of {len(radii)} radii by the never-seen examples: nobody can know it."
        yield Peer(f"prototypes: {NAMES['probcover-best']}", before, best, note)
