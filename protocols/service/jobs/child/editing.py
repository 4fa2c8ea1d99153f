"""The job that edits: other labels for slots, one label of several, slots forgotten; it lists what it changes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from protocols.recipes.building import load_model
from protocols.service.inbox.refusals import other_generation
from protocols.service.jobs.child.tasks import Task
from slots.model.editing import EditReport, delete, merge, relabel
from slots.model.slot_model import SlotModel
from slots.progress import Progress


def edit(task: Task, progress: Progress) -> dict[str, Any]:
    """Edit a model, and save it unless it is a dry run; the form is `slots.model.editing.EditReport`."""
    progress("loading", 0.0)
    model = load_model(task.folder, device=task.device)
    asked = task.arguments.get("generation")
    if asked not in (None, model.generation):
        raise other_generation(asked, model.generation)
    progress("editing", 0.5)
    done = _edited(model, task.arguments)
    if not task.arguments["dry_run"]:
        line = model.history[-1]
        model.history[-1] = replace(line, figures={**line.figures, "job": task.token, "by": task.by})
        progress("saving", 0.9)
        model.save(task.folder, keep_history=True)
    return {**asdict(done), "dry_run": task.arguments["dry_run"], "n_in_passing": done.n_in_passing}


def _edited(model: SlotModel, asked: dict[str, Any]) -> EditReport:
    if asked["what"] == "relabel":
        return relabel(model, asked["slots"], asked["label"])
    if asked["what"] == "merge":
        return merge(model, asked["labels"], asked["label"])
    return delete(model, asked["slots"])
