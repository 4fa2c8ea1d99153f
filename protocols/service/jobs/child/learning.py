"""Jobs that learn: the groups of a review, and an update with the proof of what it did not change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import backbones
from protocols.recipes.building import load_model, pick_device
from protocols.service.jobs.child.material import Material, read_inputs, read_list
from protocols.service.jobs.child.tasks import Task
from slots.errors import DataError
from slots.head.prediction import Prediction, changed_matched
from slots.model.comparison import diff
from slots.model.slot_model import SlotModel
from slots.progress import Progress, part
from slots.update.config import UpdateConfig
from slots.update.queries import Proposal
from slots.update.report import UpdateReport
from slots.update.self_training import SelfTrainingConfig


@dataclass(frozen=True)
class Group:
    """What one label would settle.

    Parameters
    ----------
    middle : int
        Number of the item to look at.
    gain : int
        Items it covers that no group before it does (count).
    members : list of int
        Numbers of these items, the middle first.
    """

    middle: int
    gain: int
    members: list[int]


@dataclass(frozen=True)
class Reviewed:
    """The query list of a review.

    Parameters
    ----------
    generation : int
        The generation that was asked.
    items, unmatched : int
        Items looked at, and those of them that no slot matches (count).
    bound : int
        As many groups could cover no more than this (count).
    purity : float or None
        Share of a group that is expected to have its label, in [0, 1].
    groups : list of Group
        The most useful first.
    """

    generation: int
    items: int
    unmatched: int
    bound: int
    purity: float | None
    groups: list[Group]


@dataclass(frozen=True)
class ContradictedLabel:
    """A label that speaks against a slot; the slot's answer stands.

    Parameters
    ----------
    item : str
        Id of the labelled item.
    label : str
        What people said.
    answer : str
        What the slot says.
    slot : int
        The slot.
    """

    item: str
    label: str
    answer: str
    slot: int


@dataclass(frozen=True)
class Learned:
    """What an update did.

    Parameters
    ----------
    before, generation : int
        The generation that was updated, and the new one; the same where nothing was added.
    dry_run : bool
        Whether it was only found out.
    items, unmatched, unmatched_after : int
        Items looked at, and those that no slot matches, before and after (count).
    labels_given, labels_used : int
        Labels at hand, and those that stand behind a new slot or limit one (count).
    labels_in_doubt : int
        Labelled items left out, because people differ or are not sure (count).
    left_out : int
        Items beyond the most that one update takes (count).
    slots_added, clusters_added : int
        New slots, and those among them that stand for a cluster without a name (count).
    changed_matched_answers : int
        Items that were matched before and are answered otherwise now (count): 0 by construction, counted all the same.
    proven : bool
        Whether for every possible input what was matched before has the same answer now.
    reasons : list of str
        Why it is not proven; empty where it is.
    scope, verdict : str
        What the judgement left of the plan, and why.
    contradictions : list of ContradictedLabel
        Labels that differ from what a slot says.
    learned : list of int
        Numbers of the items whose labels it has learned from; empty where there is no new generation.
    """

    before: int
    generation: int
    dry_run: bool
    items: int
    unmatched: int
    unmatched_after: int
    labels_given: int
    labels_used: int
    labels_in_doubt: int
    left_out: int
    slots_added: int
    clusters_added: int
    changed_matched_answers: int
    proven: bool
    reasons: list[str]
    scope: str
    verdict: str
    contradictions: list[ContradictedLabel]
    learned: list[int]


def review(task: Task, progress: Progress) -> dict[str, Any]:
    """Find the groups that a few labels would settle; the form is `Reviewed`."""
    items = read_list(task.material)
    progress("loading", 0.0)
    model = load_model(task.folder, device=task.device)
    if not items.numbers:
        return asdict(Reviewed(model.generation, 0, 0, 0, None, []))
    x = read_inputs(task.material, model)
    found = model.propose(x, budget=task.arguments.get("budget"), by="doubt", progress=part(progress, 0.1, 1.0))
    groups = [
        Group(items.numbers[middle], len(rows), [items.numbers[row] for row in rows])
        for middle, rows in zip(found.queries.tolist(), found.groups, strict=True)
    ]
    return asdict(
        Reviewed(model.generation, len(items.numbers), len(found.unmatched), found.bound, found.purity, groups)
    )


def learn(task: Task, progress: Progress) -> dict[str, Any]:
    """Make a generation that knows what people said; the form is `Learned`."""
    items, budget = read_list(task.material), task.arguments.get("budget")
    dry_run, spread = bool(task.arguments.get("dry_run")), bool(task.arguments.get("spread"))
    if not items.numbers or (not items.labels and not budget):
        raise DataError(
            "There is nothing to learn: no item was labelled since the last update. "
            "Label some, or give a `budget` of clusters to be named later."
        )
    progress("loading", 0.0)
    model = load_model(task.folder, device=task.device)
    before = SlotModel.load(
        task.folder, generation=model.generation, build=backbones.build, device=pick_device(task.device)
    )
    x = read_inputs(task.material, model)
    proposal = model.propose(x, budget=budget or 0, progress=part(progress, 0.1, 0.4))
    asked = proposal.prediction
    config = UpdateConfig(spread=SelfTrainingConfig() if spread else None, recall=spread)
    source = proposal.source
    done = model.update(
        x, dict(items.labels), proposal=proposal, config=config, ids=items.ids, progress=part(progress, 0.4, 0.9)
    )
    progress("comparing", 0.9)
    after, made = asked, model.generation != before.generation
    if made:
        after = model.predict(x) if source is None else model.snapshot().predict(source)
    result = _learned((before, model), items, proposal, done, answers=(asked, after), dry_run=dry_run)
    if made and not dry_run:
        line = model.history[-1]
        model.history[-1] = replace(line, figures={**line.figures, **_recorded(task, result)})
        progress("saving", 0.95)
        model.save(task.folder, keep_history=True)
    return asdict(result)


def _recorded(task: Task, result: Learned) -> dict[str, Any]:
    """What the history keeps of a job: by its token it is found again if nobody hears the answer."""
    return {
        "job": task.token,
        "by": task.by,
        "changed_matched_answers": result.changed_matched_answers,
        "proven": result.proven,
    }


def _learned(
    models: tuple[SlotModel, SlotModel],
    items: Material,
    proposal: Proposal,
    done: UpdateReport,
    *,
    answers: tuple[Prediction, Prediction],
    dry_run: bool,
) -> Learned:
    """The result of an update that is planned, and not saved yet."""
    (before, model), (asked, after) = models, answers
    difference = diff(before, model)
    made = model.generation != before.generation and not dry_run
    return Learned(
        before=before.generation,
        generation=model.generation,
        dry_run=dry_run,
        items=len(items.numbers),
        unmatched=len(proposal.unmatched),
        unmatched_after=int((~after.matched).sum()),
        labels_given=len(items.labels),
        labels_used=done.labels_used,
        labels_in_doubt=items.disagreed,
        left_out=items.left_out,
        slots_added=done.slots_added,
        clusters_added=done.clusters_added,
        changed_matched_answers=len(changed_matched(asked, after)),
        proven=difference.proven,
        reasons=list(difference.reasons),
        scope=done.scope,
        verdict=done.verdict,
        contradictions=[
            ContradictedLabel(
                items.ids[it.example], model.class_name(it.label), model.class_name(it.answer), int(it.slot)
            )
            for it in done.contradictions
        ],
        learned=[items.numbers[row] for row in items.labels] if made else [],
    )
