"""The files of a run: ``result.json``, ``result.md`` and a page with tables and curves that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protocols.harness.charts import charts
from protocols.harness.outcome import Column, MethodSummary
from protocols.harness.runner import Outcome
from protocols.harness.tables import cell, columns_of, groups, heading, is_best, markdown, notes, wide_tables
from protocols.pages.environment import render_page
from slots.storage.atomic import write_text


@dataclass(frozen=True)
class Files:
    """The three files of a run: JSON, Markdown and the page."""

    json: Path
    markdown: Path
    page: Path


@dataclass(frozen=True)
class Figure:
    """One cell of the page: the mean, ``± half`` or nothing, and whether it is the best of its column."""

    mean: str
    half: str
    best: bool


@dataclass(frozen=True)
class Line:
    """A method's row of the page's table."""

    method: str
    ours: bool
    cells: Sequence[Figure]


def write_files(outcome: Outcome, out: Path) -> Files:
    """Write the three files; each is replaced when its new version is complete.

    Parameters
    ----------
    outcome : Outcome
        Of all seeds that are done.
    out : Path
        Folder of the run.

    Returns
    -------
    Files

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    files = Files(out / "result.json", out / "result.md", out / "report.html")
    write_text(files.json, json.dumps(outcome.as_json(), indent=1) + "\n")
    write_text(files.markdown, markdown(outcome))
    write_text(files.page, render(outcome))
    return files


def render(outcome: Outcome) -> str:
    """The page as text."""
    tables = []
    for name, rows in groups(outcome.rows):
        used = columns_of(rows, outcome.columns)
        lines = [Line(row.method, row.ours, _cells(row, rows, used)) for row in rows]
        tables.append((name, [heading(column) for column in used], lines))
    hardware = [f"{key} {value}" for key, value in outcome.hardware.items() if value is not None]
    return render_page(
        "run.html",
        outcome=outcome,
        tables=tables,
        wide=[(it.title, it.methods, it.cells()) for it in wide_tables(outcome.rows, outcome.columns)],
        notes=[line.removeprefix("- ") for line in notes(outcome)],
        charts=charts([run.outcome for run in outcome.seeds]),
        seeds=", ".join(f"{run.seed} ({run.elapsed_s:,.0f} s)" for run in outcome.seeds),
        options=", ".join(f"{key}={json.dumps(value)}" for key, value in outcome.options.items()) or "none",
        machine=", ".join(hardware),
        versions=", ".join(f"{name} {version}" for name, version in outcome.versions.items()),
    )


def _cells(row: MethodSummary, rows: Sequence[MethodSummary], columns: Sequence[Column]) -> list[Figure]:
    """The figures of one row."""
    found = []
    for column in columns:
        value = row.figures.get(column.key)
        mean, _, half = cell(value, column.kind).partition(" ± ")
        found.append(Figure(mean, f"± {half}" if half else "", is_best(value, rows, column)))
    return found
