"""What ``slots report`` does: the page of a model as it is now, measured on the data that is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.app.answers import true_labels
from protocols.data.dataset import Dataset
from protocols.data.loading import NAMES, default_data_dir, load_data
from protocols.pages.fit_report import Occasion, write_report
from protocols.provenance import versions
from protocols.summaries.evaluation import Evaluation, evaluate
from protocols.summaries.fit import SCHEMA, FitSummary
from protocols.summaries.reliability import measure_reliability
from slots.errors import DataError, UsageError
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.shapes import Ids, RawInputs
from slots.storage.generations import LogEntry, lineage, log

_NAMED = 5  # classes that are named in a sentence


@dataclass(frozen=True)
class ReportSummary:
    """What ``slots report`` wrote and measured, in the order it is printed.

    Parameters
    ----------
    schema : int
        Version of this record as JSON.
    model, report : str
        The folder, and the page.
    generation, n_slots : int
        What the page shows.
    data : str or None
        What was measured; None where nothing was.
    on_test : Evaluation or None
        Of the labelled examples whose class has a slot.
    n_foreign : int
        Labelled examples of classes that no slot stands for, which are left out.
    learned_by : tuple of int
        Generations that learned from these very examples.
    """

    schema: int
    model: str
    report: str
    generation: int
    n_slots: int
    data: str | None
    on_test: Evaluation | None
    n_foreign: int
    learned_by: tuple[int, ...]


@dataclass(frozen=True)
class Tested:
    """Labelled examples that a page measures, and what the model says of them.

    Parameters
    ----------
    x, y : arrays of shape (example, ...) and (example,)
        Inputs, and ids of the model's labels, each of which has a slot.
    prediction : Prediction
        Of ``x``.
    foreign : array of shape (foreign example, ...)
        Inputs whose class no slot stands for.
    foreign_names : tuple of str
        Those classes.
    n_foreign_matched : int
        Foreign inputs that a slot matches.
    """

    x: RawInputs
    y: Ids
    prediction: Prediction
    foreign: RawInputs
    foreign_names: tuple[str, ...] = ()
    n_foreign_matched: int = 0


def data_of_fit(model: SlotModel, data_dir: Path | None) -> Dataset | None:
    """The data that a model was fitted on, where that has a name of its own and lies on this machine already.

    Parameters
    ----------
    model : SlotModel
        Its record says what the data was called, and its digest.
    data_dir : Path, optional
        Where named data sets lie.

    Returns
    -------
    Dataset or None
        None for files and folders: a model may come from a stranger, and shall not say what is read here.
    """
    figures = model.history[0].figures if model.history else {}
    name = figures.get("data")
    if name not in NAMES or (name != "digits" and not ((data_dir or default_data_dir()) / f"{name}.npz").exists()):
        return None
    try:
        found = load_data(str(name), data_dir=data_dir)
    except DataError:
        return None
    return found if found.is_named_by(figures) else None


def report_and_save(model: SlotModel, data: Dataset | None, *, folder: Path, out: Path) -> ReportSummary:
    """Measure a model on data, and write its page.

    Parameters
    ----------
    model : SlotModel
        As it lies in ``folder``.
    data : Dataset or None
        Its labelled test part is measured; labels are matched by name. None: nothing is.
    folder : Path
        The model folder.
    out : Path
        The page; an older one there is replaced when the new one is complete.

    Returns
    -------
    ReportSummary

    Raises
    ------
    DataError
        If the inputs are not what the model takes.
    UsageError
        If ``out`` is a folder.
    StorageError
        If the page cannot be written.
    """
    if out.is_dir():
        raise UsageError(f"`--out` must be a file, got the folder {str(out)!r}. Add a name, such as report.html.")
    entries = log(folder)
    figures = model.history[0].figures if model.history else {}
    own = data is not None and data.is_named_by(figures)
    tested = None if data is None else measure(model, data)
    on_test = evaluate(tested.prediction, tested.y) if tested is not None and len(tested.y) else None
    learned = () if data is None else _learned_by(model, data)
    occasion = Occasion(
        tested_on=data.name if data is not None else "",
        is_own=own,
        notes=_notes(tested, on_test, learned, data),
        history=entries,
    )
    summary = _summary(model, entries, on_test, folder=folder, figures=figures)
    page = _page_data(model, data, tested, figures)
    answers = Prediction.concatenate([]) if tested is None else tested.prediction
    fresh = slice(None) if tested is not None and not learned else slice(0)  # what was learned from measures nothing
    reliability = measure_reliability(
        model,
        page.x_test[fresh],
        page.y_test[fresh],
        _rows(answers, fresh),
        vouched=summary.vouching,
        foreign=None if tested is None or learned else tested.foreign,
        is_fit=entries[-1].content == 0,
    )
    summary = replace(summary, report=str(out))
    write_report(model, page, answers, summary, out, occasion=occasion, reliability=reliability)
    return ReportSummary(
        schema=1,
        model=str(folder),
        report=str(out),
        generation=model.generation,
        n_slots=model.head.n_slots,
        data=None if data is None else data.name,
        on_test=on_test,
        n_foreign=0 if tested is None else len(tested.foreign),
        learned_by=learned,
    )


def measure(model: SlotModel, data: Dataset) -> Tested:
    """What a model answers to the labelled test part of a data set.

    Parameters
    ----------
    model : SlotModel
        The slots that answer.
    data : Dataset
        Its labels are matched by name.

    Returns
    -------
    Tested
    """
    labelled = np.flatnonzero(data.y_test >= 0)
    x, truth = data.x_test[labelled], true_labels(model, data, data.y_test[labelled])
    answers = model.predict(x)
    known = np.isin(truth, model.head.labels.cpu().numpy())
    names = tuple(data.class_names[label] for label in np.unique(data.y_test[labelled[~known]]))
    return Tested(
        x[known],
        truth[known],
        _rows(answers, known),
        x[~known],
        names,
        int(answers.matched[~known].sum()),
    )


def _rows(prediction: Prediction, rows: slice | npt.NDArray[np.bool_]) -> Prediction:
    """Some of the answers."""
    return Prediction(**{name: column[rows] for name, column in vars(prediction).items()})


def _learned_by(model: SlotModel, data: Dataset) -> tuple[int, ...]:
    """Generations in the present content that learned from the test part of this data."""
    lines = [vars(line) for line in model.history]
    digests = {data.digest, data.source_digest} - {""}
    found = []
    for number in lineage(lines):
        figures = next(line["figures"] for line in lines if line["number"] == number)
        if figures.get("data_digest") in digests and figures.get("part") == "test":
            found.append(number)
    return tuple(sorted(found))


def _notes(
    tested: Tested | None, on_test: Evaluation | None, learned: Sequence[int], data: Dataset | None
) -> tuple[str, ...]:
    """What a reader must know before the figures."""
    notes = []
    if tested is None or data is None:
        notes.append(
            "No data was named, so nothing was measured anew. Figures of answers, where there are any, are of the fit."
        )
        return tuple(notes)
    if on_test is None:
        notes.append(f"{data.name} has no labelled test example of a class that a slot stands for.")
    if learned:
        which = f"Generation{'s' if len(learned) > 1 else ''} {', '.join(map(str, learned))}"
        notes.append(
            f"{which} learned from these very examples, so the figures are better than on new ones; no plot shows them."
        )
    if n := len(tested.foreign):
        shown = ", ".join(tested.foreign_names[:_NAMED]) + (", …" if len(tested.foreign_names) > _NAMED else "")
        are = "example is" if n == 1 else "examples are"
        notes.append(
            f"{n:,} {are} of classes that no slot stands for ({shown}) and left out of these figures; "
            f"slots match {tested.n_foreign_matched:,} of them."
        )
    return tuple(notes)


def _summary(
    model: SlotModel,
    entries: Sequence[LogEntry],
    on_test: Evaluation | None,
    *,
    folder: Path,
    figures: Mapping[str, Any],
) -> FitSummary:
    """The record of the fit with the figures of now; those of the fit stay where its content is current."""
    recorded = FitSummary.of_history(figures)
    fit = recorded or _unrecorded(model, folder)
    fit = replace(fit, n_slots=model.head.n_slots, model=str(folder))
    if on_test is None and recorded is not None and entries[-1].content == 0:
        return fit
    return replace(
        fit,
        test_accuracy=None if on_test is None else on_test.accuracy,
        test_matched=None if on_test is None else on_test.matched,
        test_ambiguous=None if on_test is None else on_test.ambiguous,
        test_accuracy_matched=None if on_test is None else on_test.accuracy_matched,
    )


def _unrecorded(model: SlotModel, folder: Path) -> FitSummary:
    """What is known of a fit that left no record, as one in Python does."""
    return FitSummary(
        schema=SCHEMA,
        command="",
        data=folder.resolve().name,
        data_digest="",
        backbone=model.backbone_spec[0] if model.backbone_spec else "none",
        n_slots=model.head.n_slots,
        slots_per_class={},
        train_accuracy=None,
        train_matched=None,
        train_precision=None,
        test_accuracy=None,
        test_matched=None,
        test_ambiguous=None,
        test_accuracy_matched=None,
        contradictions=[],
        interrupted=False,
        elapsed_s=0.0,
        epochs=0,
        seed=0,
        device="",
        model=str(folder),
        report="",
        versions=versions(),
    )


def _page_data(model: SlotModel, data: Dataset | None, tested: Tested | None, figures: Mapping[str, Any]) -> Dataset:
    """What the page draws from: the training part of the fit where it is at hand, and what was measured."""
    shape = model.preprocessing.shape
    if model.preprocessing.kind == "images":
        nothing = np.zeros((0, *shape[1:], shape[0]), np.uint8)
    else:
        nothing = np.zeros((0, *shape), object if model.preprocessing.kind == "text" else np.float32)
    none = np.zeros(0, np.int64)
    whole = data is not None and data.digest == figures.get("data_digest")  # exemplars count in its rows
    x_train, y_train = (data.x_train, data.y_train) if whole and data is not None else (nothing, none)
    x, y = (nothing, none) if tested is None else (tested.x, tested.y)
    name = data.name if data is not None else ""
    return Dataset(name, x_train, y_train, np.asarray(x), y, model.labels.names, "")
