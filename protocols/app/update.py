"""What ``slots update`` does: propose or learn, prove that no matched answer changed, measure, and save."""

from __future__ import annotations

import shlex
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from protocols.app.answers import true_labels
from protocols.app.queries import queries_csv, read_labels
from protocols.data.dataset import Dataset
from protocols.pages.queries_page import queries_page
from protocols.summaries.update import SCHEMA, Accuracies, UpdateSummary
from slots.errors import UsageError
from slots.head.prediction import Prediction, changed_matched
from slots.model.slot_model import SlotModel
from slots.progress import Progress
from slots.shapes import Ids, RawInputs
from slots.storage.atomic import write_text
from slots.storage.locking import reserved
from slots.storage.states import POINTER
from slots.update.config import UpdateConfig
from slots.update.queries import Proposal
from slots.update.report import UpdateReport


@dataclass(frozen=True)
class UpdatePlan:
    """What ``slots update`` was asked: which data, how many labels, or which.

    Parameters
    ----------
    part : {"train", "test"}
        Part of the data that is new.
    budget : int, optional
        Largest number of queries.
    labels : Path, optional
        A filled-in query list.
    dry_run : bool
        Ask, and change nothing.
    source : str
        How the user named the data, for the command on the page.
    columns : tuple of str
        Options that say what its columns are, for the same command.
    wait : float
        How long to wait while another process is writing to the model (seconds).
    doubt : bool
        Ask where answers are most in doubt, not where most is unmatched.
    """

    part: str
    budget: int | None = None
    labels: Path | None = None
    dry_run: bool = False
    source: str = ""
    columns: tuple[str, ...] = ()
    wait: float = 0.0
    doubt: bool = False


def update_and_save(
    model: SlotModel,
    data: Dataset,
    plan: UpdatePlan,
    *,
    folder: Path,
    command: str,
    config: UpdateConfig | None = None,
    progress: Progress | None = None,
) -> UpdateSummary:
    """Update a model with one part of a data set and save it as its next generation.

    Parameters
    ----------
    model : SlotModel
        As it lies in ``folder``.
    data : Dataset
        Same kind and shape of inputs as the model's; labels in it only measure.
    plan : UpdatePlan
        Part of the data, budget or list of labels, and whether anything is written.
    folder : Path
        The model folder; ``queries.csv`` and ``queries.html`` go there too.
    command : str
        Recorded with the result.
    config : UpdateConfig, optional
        How slots are made. Default: `UpdateConfig`'s own.
    progress : callable, optional
        ``progress(step, share)``, told the progress.

    Returns
    -------
    UpdateSummary

    Raises
    ------
    DataError
        If data or labels do not fit the model.
    UsageError
        If the options contradict each other.
    OutdatedError
        If another generation was written since the model was loaded; nothing is lost but this update's work.
    """
    if plan.labels is not None and plan.budget is not None:
        raise UsageError("`budget` must be left out with labels, got both. The list says what was asked.")
    started = time.monotonic()
    x, held_x = (data.x_train, data.x_test) if plan.part == "train" else (data.x_test, data.x_train)
    y, held_y = (data.y_train, data.y_test) if plan.part == "train" else (data.y_test, data.y_train)
    held_before = model.predict(held_x) if bool((held_y >= 0).any()) and not plan.dry_run else None
    proposal, given = _ask(model, x, plan, progress)
    asked = np.array(sorted(given), np.int64)
    paths = (None, None) if given else _write_queries(model, x, proposal, folder, plan)
    done, before = None, model.generation
    if not plan.dry_run:
        done = model.update(x, dict(given), proposal=proposal, config=config, progress=progress)
    after = proposal.prediction
    made = done is not None and done.generation != before
    if made and proposal.source is not None:  # the features are known: only the slots are new
        after = model.snapshot().predict(proposal.source)
    changed = len(changed_matched(proposal.prediction, after))
    held_after = model.predict(held_x) if held_before is not None else None
    if held_before is not None and held_after is not None:
        changed += len(changed_matched(held_before, held_after))
    truth, held_truth = (
        true_labels(model, data, y),
        true_labels(model, data, held_y),
    )  # now that the new names are known
    everything = np.arange(len(x))
    summary = UpdateSummary(
        schema=SCHEMA,
        command=command,
        data=data.name,
        data_digest=data.digest,
        part=plan.part,
        n_examples=len(x),
        unmatched=len(proposal.unmatched),
        queries=len(proposal.queries),
        covered=proposal.covered / max(1, len(proposal.unmatched)),
        bound=proposal.bound / max(1, len(proposal.unmatched)),
        labels_used=done.labels_used if done else 0,
        contradictions=_contradictions(model, done),
        slots_added=done.slots_added if done else 0,
        clusters_added=done.clusters_added if done else 0,
        generation=model.generation,
        changed_matched_answers=changed,
        stream=_accuracies(proposal.prediction, after, truth, everything, asked),
        never_queried=_accuracies(proposal.prediction, after, truth, np.setdiff1d(everything, asked), asked[:0]),
        held_out=None
        if held_before is None or held_after is None
        else _accuracies(held_before, held_after, held_truth, np.arange(len(held_x)), asked[:0]),
        queries_file=paths[0],
        page=paths[1],
        dry_run=plan.dry_run,
        elapsed_s=round(time.monotonic() - started, 2),
        purity=proposal.purity,
        scope=done.scope if done else "",
        verdict=done.verdict if done else "",
    )
    if made:
        line = model.history[-1]
        model.history[-1] = replace(line, figures={**line.figures, **asdict(summary)})
        with reserved(folder, wait=plan.wait) if (folder / POINTER).exists() else nullcontext():
            model.save(folder, keep_history=True)
    return summary


def _ask(
    model: SlotModel, x: RawInputs, plan: UpdatePlan, progress: Progress | None
) -> tuple[Proposal, dict[int, str]]:
    """The proposal and the labels given: of a list, its own examples without a label stay as queries."""
    if plan.labels is None:
        return model.propose(x, budget=plan.budget, by="doubt" if plan.doubt else "cover", progress=progress), {}
    labels, open_rows = read_labels(plan.labels, x)
    proposal = model.propose(x, budget=0, progress=progress)
    open_rows = np.intersect1d(open_rows, proposal.unmatched)
    return replace(proposal, queries=open_rows, gains=np.zeros(len(open_rows), np.int64)), labels


def _write_queries(
    model: SlotModel, x: RawInputs, proposal: Proposal, folder: Path, plan: UpdatePlan
) -> tuple[str, str]:
    """Write the list and its page into the model folder."""
    table, page = folder / "queries.csv", folder / "queries.html"
    again = [
        "slots",
        "update",
        str(folder),
        "--data",
        plan.source,
        *plan.columns,
        "--part",
        plan.part,
        "--labels",
        "labels.csv",
    ]
    write_text(table, queries_csv(model, x, proposal))
    write_text(page, queries_page(model, x, proposal, command=shlex.join(again)))
    return str(table), str(page)


def _accuracies(before: Prediction, after: Prediction, truth: Ids, rows: Ids, asked: Ids) -> Accuracies | None:
    rows = rows[truth[rows] != -1]
    if len(rows) == 0:
        return None
    right = before.labels[rows] == truth[rows]
    control = right | np.isin(rows, asked)
    return Accuracies(
        len(rows), float(right.mean()), float((after.labels[rows] == truth[rows]).mean()), float(control.mean())
    )


def _contradictions(model: SlotModel, done: UpdateReport | None) -> list[dict[str, Any]]:
    if done is None:
        return []
    return [
        {
            "example": it.example,
            "label": model.class_name(it.label),
            "answer": model.class_name(it.answer),
            "slot": it.slot,
        }
        for it in done.contradictions
    ]
