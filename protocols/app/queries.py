"""The list of examples to label: a CSV to fill in, a page that shows them, and the filled-in list read again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import check_sum
from protocols.pages.environment import csv_text, from_text
from protocols.summaries.update import COLUMNS
from slots.errors import DataError
from slots.model.slot_model import SlotModel
from slots.shapes import RawInputs
from slots.update.queries import Proposal


def queries_csv(model: SlotModel, x: RawInputs, proposal: Proposal) -> str:
    """The query list as CSV, best first, with an empty column for the labels, and with the texts where there are any.

    Parameters
    ----------
    model : SlotModel
        Gives the guesses their names.
    x : array of shape (example, ...)
        The new data; each row of the list carries a check sum of its example.
    proposal : Proposal
        For ``x``.

    Returns
    -------
    str
    """
    guesses = [model.class_name(int(label)) for label in proposal.prediction.labels[proposal.queries]]
    rows = zip(proposal.queries.tolist(), guesses, proposal.gains.tolist(), strict=True)
    lines = [(row, "", guess, gain, check_sum(x, row)) for row, guess, gain in rows]
    if x.ndim != 1:
        return csv_text(COLUMNS, lines)
    return csv_text((*COLUMNS, "text"), [(*line, str(x[line[0]])) for line in lines])


def read_labels(path: Path, x: RawInputs) -> tuple[dict[int, str], npt.NDArray[np.int64]]:
    """Read a filled-in query list; other CSV files with the columns ``example`` and ``label`` will do as well.

    Parameters
    ----------
    path : Path
        CSV file; rows with an empty label are questions that stay open.
    x : array of shape (example, ...)
        The data that the list was made for.

    Returns
    -------
    labels : dict of int to str
        Name of the label of each example that got one.
    unlabelled : int64 array
        Examples of the list without a label.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, names a row that is not there or names one twice, or was made for
        other data.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"`labels` must be a readable CSV file, got {path}: {error}. Check the path.") from error
    if lines and not {"example", "label"} <= set(lines[0][1]):
        raise DataError(
            f"`{path}` must have the columns example and label, got {', '.join(map(str, lines[0][1]))}. "
            "Fill in the queries.csv of `slots update`."
        )
    labels: dict[int, str] = {}
    unlabelled, seen = [], set[int]()
    for line, row in lines:  # a row ends there: texts may hold newlines
        example = _row_number(row["example"], len(x), f"{path}, line {line}")
        if example in seen:
            raise DataError(f"`{path}` must name each example once, got {example} again in line {line}. Drop one.")
        seen.add(example)
        if (check := (row.get("check") or "").strip()) and check != check_sum(x, example):
            raise DataError(
                f"`{path}` must be for this data, but example {example} (line {line}) is another one. "
                "Name the data, and the --part, that the list was made for."
            )
        name = from_text((row["label"] or "").strip())
        if name:
            labels[example] = name
        else:
            unlabelled.append(example)
    return labels, np.array(unlabelled, np.int64)


def _row_number(text: str | None, n: int, place: str) -> int:
    try:
        row = int(text or "")
    except ValueError:
        row = -1
    if not 0 <= row < n:
        raise DataError(f"`example` must be a row of the data, 0 to {n - 1}, got {text!r} ({place}). Correct it.")
    return row
