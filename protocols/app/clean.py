"""What ``slots clean`` does: list the labels that are likely wrong, with what speaks against each."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from protocols.app.suspects import backbone_name, find_suspects
from protocols.data.dataset import Dataset, check_sum
from protocols.pages.cleaning_page import cleaning_page
from protocols.pages.environment import csv_text
from protocols.summaries.cleaning import SCHEMA, CleaningPlan, CleaningSummary, Confused, SuspectLabels
from slots.model.slot_model import SlotModel
from slots.progress import Progress, silent
from slots.storage.atomic import write_text

COLUMNS = (
    "rank", "example", "given", "suggested", "suspicion", "slots", "radians", "matches", "same", "same_angle",
    "other", "other_label", "other_angle", "check",
)  # fmt: skip
"""Columns of ``label-errors.csv``, the most suspicious first. ``example``: row of the part that was examined;
``given`` and ``suggested``: names of labels; ``suspicion`` in [0, 1], to rank by; ``slots``: up to five slots of other
labels that the example holds back, the worst first, with blanks between them; ``radians`` by which the first of them
would be wider without the listed examples; ``matches`` that all of them would gain; ``same`` and ``other``: the nearest
example under the same and under another label among those not listed, with angles in radians; ``check``: a check sum
of the example. For text the ``text`` itself stands behind."""


def clean_and_write(
    data: Dataset,
    plan: CleaningPlan,
    *,
    out: Path,
    command: str,
    model: SlotModel | None = None,
    model_name: str | None = None,
    progress: Progress | None = None,
) -> CleaningSummary:
    """Find the suspicious labels of one part of a data set; write ``label-errors.csv`` and ``label-errors.html``.

    Parameters
    ----------
    data : Dataset
        Labelled examples; at least 20 in the part that is examined.
    plan : CleaningPlan
        Part, length of the list, backbone, seed and device.
    out : Path
        Folder of the two files; made if missing.
    command : str
        Shown on the page.
    model : SlotModel, optional
        Its features are judged by and its slots are the ones held back; it is left as it is. Default: a network is
        trained on the data, and slots are fitted to the examples that are not listed.
    model_name : str, optional
        How the user named the model.
    progress : callable, optional
        ``progress(step, share)``, told the progress.

    Returns
    -------
    CleaningSummary

    Raises
    ------
    DataError
        If there are too few labelled examples, a single label, or the data does not fit the model.
    UsageError
        If the backbone does not fit the data, or comes with a model.
    StorageError
        If the files cannot be written.
    """
    started = time.monotonic()
    found = find_suspects(data, plan, model=model, progress=progress or silent)
    table, page = out / "label-errors.csv", out / "label-errors.html"
    held_back = {it.slot for evidence in found.evidence for it in evidence.damages}
    summary = CleaningSummary(
        schema=SCHEMA,
        command=command,
        data=data.name,
        data_digest=data.digest,
        part=plan.part,
        model=model_name,
        backbone=backbone_name(data, plan) if model is None else "of the model",
        n_examples=len(found.rows),
        estimated_errors=found.errors.n_errors,
        listed=len(found.evidence),
        n_slots=len(found.slot_labels),
        slots_held_back=len(held_back),
        confused=_confused(found),
        table=str(table),
        page=str(page),
        seed=plan.seed,
        elapsed_s=round(time.monotonic() - started, 2),
    )
    write_text(table, cleaning_csv(found))
    write_text(page, cleaning_page(found, summary))
    return summary


def cleaning_csv(found: SuspectLabels) -> str:
    """The list as CSV, see `COLUMNS`."""
    lines = []
    for rank, it in enumerate(found.evidence, 1):
        row = int(found.rows[it.example])
        lines.append(
            (
                rank,
                row,
                found.names[found.y[it.example]],
                found.names[found.errors.suggested[it.example]],
                f"{found.errors.suspicion[it.example]:.6g}",
                " ".join(str(damage.slot) for damage in it.damages),
                f"{it.damages[0].radians:.6f}" if it.damages else "",
                it.matches,
                *_neighbour(found, it.same, it.same_angle),
                *_neighbour(found, it.other, it.other_angle, named=True),
                check_sum(found.x, row),
                *([str(found.x[row])] if found.x.ndim == 1 else []),
            )
        )
    return csv_text((*COLUMNS, "text") if found.x.ndim == 1 else COLUMNS, lines)


def _neighbour(found: SuspectLabels, example: int, angle: float, *, named: bool = False) -> tuple[str, ...]:
    if example < 0:
        return ("", "", "") if named else ("", "")
    label = (found.names[found.y[example]],) if named else ()
    return (str(int(found.rows[example])), *label, f"{angle:.6f}")


def _confused(found: SuspectLabels) -> list[Confused]:
    """Pairs that at least one label is estimated to be mistaken in, the largest first."""
    noise, labels = found.errors.noise, found.errors.labels
    counts = np.bincount(found.y, minlength=len(found.names))[labels]
    pairs = []
    for i, j in zip(*np.nonzero(~np.eye(len(labels), dtype=bool)), strict=True):
        expected = round(float(counts[i] * noise[i, j]))
        if expected:
            names = found.names[labels[i]], found.names[labels[j]]
            pairs.append(Confused(names[0], names[1], expected, float(noise[i, j])))
    return sorted(pairs, key=lambda it: -it.count)
