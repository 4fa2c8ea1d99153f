"""What a planned update would spoil of the old, and which new slots may guess where nothing matches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.rehearsal.memory import RehearsalMemory
from slots.shapes import ViewFeatures

TOLERANCE = 0.005
"""Share of old examples that may lose their right answer, net of those that gain it, a standard error included."""

MARGINS = (0.05, 0.1)
"""Cosines by which old examples' labels must lead while new slots are refined, tried until the old lose no more."""

_ROUNDS = 30


@dataclass(frozen=True)
class Judged:
    """Which new slots may guess, and what the old data lose then.

    Parameters
    ----------
    pooled : bool tensor of shape (new slot,)
        New slots that take part in the pooled score.
    lost : float
        Net share of remembered examples, which took no part in making the slots, whose answer gets wrong, and a
        standard error; negative where more get right.
    """

    pooled: Bool[Tensor, " slot"]
    lost: float


@torch.no_grad()
def harmless(before: SlotCaps, joined: SlotCaps, memory: RehearsalMemory, *, tolerance: float = TOLERANCE) -> Judged:
    """Take new slots out of the pooled score until old examples keep their answers.

    Parameters
    ----------
    before : SlotCaps
        The present slots.
    joined : SlotCaps
        The same followed by the new ones, which are pooled as planned.
    memory : RehearsalMemory
        Its judges decide.
    tolerance : float, default TOLERANCE
        Net share of the judges that may lose a right answer, a standard error included (in [0, 1)).

    Returns
    -------
    Judged
        ``lost`` above ``tolerance`` where no choice of pooled slots helps: slots that match do harm.

    Notes
    -----
    Ours. Each lost answer is laid at the door of the slot that gave the new one; in each round the worst of them leave.
    Examples that trained old slots are answered more surely than new data, so the loss on new data may be larger.
    """
    features, labels = (part.to(before.weights.device) for part in memory.judging()[:2])
    first, pooled = len(before.labels), joined.pooled.clone()
    views = features[:, None]
    answers = decide(views, before)
    open_ones = torch.from_numpy(~answers.matched).to(labels.device)
    right = torch.from_numpy(answers.labels).to(labels) == labels
    views, labels, right = views[open_ones], labels[open_ones], right[open_ones]
    lost = 0.0
    for _ in range(_ROUNDS):
        after = decide(views, replace(joined, pooled=pooled))
        spoiled = right.long() - (torch.from_numpy(after.labels).to(labels) == labels).long()
        lost = _loss(spoiled, len(answers))
        winners = torch.from_numpy(after.slots).to(labels.device)
        guessed = (winners >= first) & torch.from_numpy(~after.matched).to(labels.device)
        harm = torch.zeros(len(pooled), device=labels.device).index_add_(0, winners[guessed], spoiled[guessed].float())
        harm[~pooled] = 0
        worst = harm.argsort(descending=True, stable=True)
        worst = worst[harm[worst] > 0]
        if lost <= tolerance or len(worst) == 0:
            break
        excess = (lost - tolerance) * len(answers)
        leaving = 1 + int((harm[worst].cumsum(0) < excess).sum())
        pooled[worst[:leaving]] = False
    return Judged(pooled[first:], lost)


def _loss(spoiled: Tensor, n: int) -> float:
    """Net loss and a standard error of the paired difference: the root of the number of changed answers."""
    return (float(spoiled.sum()) + math.sqrt(int((spoiled != 0).sum()))) / max(1, n)


def join(before: SlotCaps, new: SlotCaps) -> SlotCaps:
    """Present slots followed by new ones, as they stand after a commit."""
    return SlotCaps(
        torch.cat([before.weights, new.weights]),
        torch.cat([before.centres, new.centres]),
        torch.cat([before.precision, new.precision]),
        torch.cat([before.support, new.support]),
        torch.cat([before.labels, new.labels]),
        torch.cat([before.generations, new.generations]),
        torch.cat([before.pooled, new.pooled]),
        before.beta,
    )


@torch.no_grad()
def right_answers(views: ViewFeatures, labels: Tensor, caps: SlotCaps) -> np.ndarray:
    """Which examples get their label, bool array of shape (example,)."""
    return np.asarray(decide(views, caps).labels == labels.cpu().numpy())


AS_PLANNED, FEWER, MATCHES, NOTHING = "as planned", "fewer guess", "matches only", "nothing"
"""What is left of a plan."""

LEAST_LABELS = 8
"""Given labels from which a trial with halves of them says something."""


@dataclass(frozen=True)
class Trial:
    """Which given labels were answered right by slots that they took no part in; bool arrays of shape (label,).

    Parameters
    ----------
    before : bool array of shape (label,)
        By the present model.
    matching : bool array of shape (label,)
        With new slots that answer only what they match.
    guessing : bool array of shape (label,)
        With new slots that also guess.
    """

    before: np.ndarray
    matching: np.ndarray
    guessing: np.ndarray


@dataclass(frozen=True)
class Decision:
    """What is added of a plan.

    Parameters
    ----------
    pooled : bool tensor of shape (new slot,)
        New slots that take part in the pooled score.
    scope : {"as planned", "fewer guess", "matches only", "nothing"}
        In a word.
    verdict : str
        Why, as a sentence.
    margin : float
        Cosine by which old examples' labels must lead while the new slots are refined.
    """

    pooled: Bool[Tensor, " slot"]
    scope: str
    verdict: str
    margin: float = MARGINS[0]


def decide_scope(planned: Tensor, judged: Judged, trial: Trial | None, *, has_new_labels: bool) -> Decision:
    """Come down a ladder: all new slots guess, fewer of them, none (they answer what they match), or none is added.

    Parameters
    ----------
    planned : bool tensor of shape (new slot,)
        New slots that were to guess.
    judged : Judged
        What the old data say.
    trial : Trial or None
        What the given labels say; None where there are too few.
    has_new_labels : bool
        Whether a label was given that no old slot has. Without the update all of its examples are answered wrong, so
        the benefit of the doubt is the update's, and what the old data lose is said, not forbidden; else it must win by
        a standard error of the paired difference, and by two.

    Returns
    -------
    Decision
    """
    pooled, silent = judged.pooled, torch.zeros_like(judged.pooled)
    old = f"Of old examples at most {100 * max(0.0, judged.lost):.2f} % lose their answer (a standard error included)."
    if trial is None:
        trust_guess, trust_match, seen = (
            has_new_labels,
            True,
            f"Fewer than {LEAST_LABELS} labels could not be tried out.",
        )
    else:
        gain, changed = _gain(trial.before, trial.guessing)
        matches, _ = _gain(trial.before, trial.matching)
        needed = 0.0 if has_new_labels else max(2.0, changed**0.5)
        trust_guess, trust_match = gain >= needed and gain >= matches, matches >= 0
        seen = (
            f"Of {len(trial.before)} labels, each tried with slots of half of the others, {int(trial.before.sum())} "
            f"were answered before, {int(trial.matching.sum())} with slots that only match, "
            f"{int(trial.guessing.sum())} with slots that also guess."
        )
    if trust_guess and (judged.lost <= TOLERANCE or has_new_labels) and bool(pooled.any() or not planned.any()):
        out = int((planned & ~pooled).sum())
        fewer = f" {out} of {int(planned.sum())} new slots answer only what they match." if out else ""
        return Decision(pooled, FEWER if out else AS_PLANNED, f"{seen} {old}{fewer}")
    if trust_match:
        return Decision(silent, MATCHES, f"{seen} {old} So new slots answer only what they match.")
    return Decision(silent, NOTHING, f"{seen} So no slot was added.")


def _gain(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Net labels won, and labels that changed sides."""
    return int(after.sum()) - int(before.sum()), int((before != after).sum())
