"""What an update says: the report, and the labels that speak against an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from slots.shapes import Ids
from slots.update.queries import Proposal


@dataclass(frozen=True)
class Contradiction:
    """A given label that speaks against a slot; the slot's answer stands.

    Parameters
    ----------
    example : int
        Row of the new data.
    label : int
        The label given.
    answer : int
        The label of the slot that matched.
    slot : int
        That slot; `slots.model.editing` can relabel or delete it.
    """

    example: int
    label: int
    answer: int
    slot: int


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Parameters
    ----------
    generation : int
        Number of the new generation; that of the model before, when nothing was added.
    n_examples, n_unmatched : int
        New examples, and those no slot matched.
    labels_used : int
        Given labels that stand behind a new slot or limit one.
    slots_added, clusters_added : int
        New slots, and how many of them stand for a cluster without a name.
    slots : int64 array
        The new slots' places in the head.
    sources : int64 array of shape (new slot,)
        Row of the given label that each new slot rests on (with ``spread`` the nearest one of its label); -1 for a
        cluster, and for a slot that continues an old label on the word of the old slots.
    contradictions : tuple of Contradiction
        Given labels of matched examples that differ from the answer.
    proposal : Proposal
        What was unmatched and what would have been asked; it holds no features any more.
    scope : {"as planned", "fewer guess", "matches only", "nothing"}
        What the judgement left of the plan: all new slots take part in the guess where nothing matches, some of them,
        or none; or no slot was added.
    verdict : str
        The same as a sentence with its figures; empty where nothing was judged.
    """

    generation: int
    n_examples: int
    n_unmatched: int
    labels_used: int
    slots_added: int
    clusters_added: int
    slots: Ids
    sources: Ids
    contradictions: tuple[Contradiction, ...]
    proposal: Proposal
    scope: str = "as planned"
    verdict: str = ""


def figures(done: UpdateReport) -> dict[str, Any]:
    """What the history says of an update."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_examples": done.n_examples,
        "unmatched": done.n_unmatched,
        "labels_used": done.labels_used,
        "slots_added": done.slots_added,
        "clusters_added": done.clusters_added,
        "scope": done.scope,
        "verdict": done.verdict,
        "contradictions": [[c.example, c.label, c.answer, c.slot] for c in done.contradictions],
    }


def contradictions(proposal: Proposal, given: Ids) -> tuple[Contradiction, ...]:
    """Given labels (-1 for unknown) of matched examples that differ from the answer."""
    answers = proposal.prediction
    rows = np.flatnonzero(answers.matched & (given >= 0) & (given != answers.labels))
    return tuple(Contradiction(int(i), int(given[i]), int(answers.labels[i]), int(answers.slots[i])) for i in rows)
