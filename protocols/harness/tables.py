"""The table of a run as text: cells, Markdown, and rows for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.harness.outcome import Column, MethodSummary
from protocols.harness.runner import Outcome
from protocols.summaries.intervals import Interval


def cell(found: Interval | None, kind: str, *, interval: bool = True) -> str:
    """One figure as a person reads it.

    Parameters
    ----------
    found : Interval, optional
        Over seeds. None: nothing was measured, a dash.
    kind : str
        Of the column.
    interval : bool, default True
        Add the half width of the 95 % interval where there is one.

    Returns
    -------
    str
        Shares in percent; bytes in MB (10^6); a dash where nothing was measured.

    Examples
    --------
    >>> cell(Interval(0.9634, 0.0012, 3), "share"), cell(Interval(0.5, None, 1), "share"), cell(None, "count")
    ('96.34 ± 0.12', '50.00', '-')
    """
    if found is None:
        return "-"
    scale, places = {"share": (100.0, 2), "score": (1.0, 3), "seconds": (1.0, 1), "bytes": (1e-6, 2)}.get(kind, (1, 0))
    if kind == "count":
        places = 0 if found.mean == round(found.mean) and not found.half else 1
    text = f"{scale * found.mean:,.{places}f}"
    if not interval or found.half is None or kind in ("seconds", "bytes"):
        return text
    half = f"{scale * found.half:,.{places}f}"
    return text if float(half.replace(",", "")) == 0 else f"{text} ± {half}"


def heading(column: Column) -> str:
    """A column's heading with its unit."""
    unit = {"share": ", %", "seconds": ", s", "bytes": ", MB"}.get(column.kind, "")
    return column.heading + ("" if column.heading == "seconds" else unit)


def best(rows: Sequence[MethodSummary], column: Column) -> float | None:
    """The best mean of a column, None where there is no better or nobody was measured."""
    means = [row.figures[column.key].mean for row in rows if column.key in row.figures]
    if not means or column.better is None:
        return None
    return max(means) if column.better == "higher" else min(means)


def is_best(found: Interval | None, rows: Sequence[MethodSummary], column: Column) -> bool:
    """Whether a figure reads as the best of its column: equal to the digits shown, so that ties are seen as ties."""
    winner = best(rows, column)
    if found is None or winner is None or len(rows) < 2:
        return False
    return cell(found, column.kind, interval=False) == cell(Interval(winner, None, 1), column.kind)


def groups(rows: Sequence[MethodSummary]) -> list[tuple[str, list[MethodSummary]]]:
    """Rows by group, in the order of their first appearance; without those of single tasks (`wide_tables`)."""
    names = list(dict.fromkeys(row.group for row in rows if not row.task))
    return [(name, [row for row in rows if row.group == name and not row.task]) for name in names]


@dataclass(frozen=True)
class WideTable:
    """One figure of a group on many data sets: a line a task, a column a method.

    Parameters
    ----------
    name : str
        The group.
    column : Column
        The figure that is shown: the first with a better end that any of the rows has.
    methods : sequence of MethodSummary
        The first row of each method, for its name and whose it is.
    lines : sequence of (task, rows)
        A row for each of the methods in their order, None where one was not measured.
    """

    name: str
    column: Column
    methods: Sequence[MethodSummary]
    lines: Sequence[tuple[str, Sequence[MethodSummary | None]]]

    def cells(self) -> list[tuple[str, list[tuple[str, bool]]]]:
        """Each task with its figures as a person reads them, and whether each is the best of its line."""
        found = []
        for task, rows in self.lines:
            there = [row for row in rows if row is not None]
            figures = [None if row is None else row.figures.get(self.column.key) for row in rows]
            shown = [(cell(it, self.column.kind), is_best(it, there, self.column)) for it in figures]
            found.append((task, shown))
        return found

    @property
    def title(self) -> str:
        """Group and figure."""
        return f"{self.name}: {heading(self.column)}" if self.column.heading != self.name else heading(self.column)


def wide_tables(rows: Sequence[MethodSummary], columns: Sequence[Column]) -> list[WideTable]:
    """The tables of groups that span several data sets, in the order of their first appearance."""
    found = []
    for name in dict.fromkeys(row.group for row in rows if row.task):
        mine = [row for row in rows if row.group == name and row.task]
        column = next((it for it in columns_of(mine, columns) if it.better is not None), None)
        if column is None:
            continue
        first: dict[str, MethodSummary] = {}
        for row in mine:
            first.setdefault(row.method, row)
        places = {(row.task, row.method): row for row in mine}
        tasks = dict.fromkeys(row.task for row in mine)
        lines = [(task, [places.get((task, method)) for method in first]) for task in tasks]
        found.append(WideTable(name, column, list(first.values()), lines))
    return found


def columns_of(rows: Sequence[MethodSummary], columns: Sequence[Column]) -> list[Column]:
    """Columns in which any of the rows has a figure."""
    return [column for column in columns if any(column.key in row.figures for row in rows)]


def markdown(outcome: Outcome, *, level: int = 1) -> str:
    """The result as a Markdown section: tables, notes, and how it was made.

    Parameters
    ----------
    outcome : Outcome
        Of all seeds that are done.
    level : int, default 1
        Of its heading.
    """
    parts = [f"{'#' * level} {outcome.title}", "", outcome.about, ""]
    for name, rows in groups(outcome.rows):
        parts += [f"**{name}**", ""] if name else []
        parts += [markdown_table(rows, outcome.columns), ""]
    for table in wide_tables(outcome.rows, outcome.columns):
        parts += [f"**{table.title}**", "", wide_markdown(table), ""]
    parts += ["", *notes(outcome), ""] if notes(outcome) else []
    parts += [made_by(outcome), ""]
    return "\n".join(parts)


def markdown_table(rows: Sequence[MethodSummary], columns: Sequence[Column]) -> str:
    """Rows as a Markdown table; ours in bold, the best of each column too."""
    used = columns_of(rows, columns)
    lines = ["| method | " + " | ".join(heading(column) for column in used) + " |", "|---" * (1 + len(used)) + "|"]
    for row in rows:
        cells = [f"**{row.method}**" if row.ours else row.method]
        for column in used:
            found = row.figures.get(column.key)
            text = cell(found, column.kind)
            cells.append(f"**{text}**" if is_best(found, rows, column) else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def wide_markdown(table: WideTable) -> str:
    """A wide table in Markdown; ours and the best of each line in bold."""
    names = [f"**{it.method}**" if it.ours else it.method for it in table.methods]
    lines = ["| data | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for task, cells in table.cells():
        lines.append(f"| {task} | " + " | ".join(f"**{text}**" if it else text for text, it in cells) + " |")
    return "\n".join(lines)


def notes(outcome: Outcome) -> list[str]:
    """What all seeds say together, and what a reader needs to compare fairly, one line each."""
    said: dict[str, list[str]] = {}
    for row in outcome.rows:
        if row.note and row.method not in said.setdefault(row.note, []):
            said[row.note].append(row.method)
    lines = [f"- {found}" for found in outcome.findings]
    lines += [f"- {'; '.join(methods)}: {note}" for note, methods in said.items()]
    return lines + [f"- {name} was not run: {why}" for name, why in outcome.skipped.items()]


def made_by(outcome: Outcome) -> str:
    """One paragraph that says how to make it again."""
    n, hardware = len(outcome.seeds), outcome.hardware
    total = sum(run.elapsed_s for run in outcome.seeds)
    took = f"{total:,.0f} s in all " if total else ""
    machine = f"{hardware['processor']}, {hardware['threads']} threads" + (
        f", {hardware['gpu']}" if hardware["gpu"] else ""
    )
    interval = "mean ± half of the 95 % interval by Student's t" if n > 1 else "one seed, no interval"
    versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    return (
        f"`{outcome.command}`; data `{outcome.data_digest[:16]}`, features {outcome.backbone}, "
        f"{n} {'seed' if n == 1 else 'seeds'} ({interval}), {took}on {machine}; "
        f"commit {outcome.commit or 'unknown'}; {versions}."
    )


def terminal_rows(rows: Sequence[MethodSummary], columns: Sequence[Column], headline: str) -> list[tuple[str, ...]]:
    """Header and rows for the terminal's table: ours marked with a star, intervals in the headline's column only."""
    used = columns_of(rows, columns)
    lines = [("  method", *(heading(column) for column in used))]
    for row in rows:
        cells = [cell(row.figures.get(it.key), it.kind, interval=it.key == headline) for it in used]
        lines.append((("* " if row.ours else "  ") + row.method, *cells))
    return lines
