"""What a protocol returns: figures of each method in one seed, and their means and intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from protocols.summaries.intervals import Interval, interval

SCHEMA = 1
"""Version of the JSON that `Outcome.as_json` writes."""

Kind = Literal["share", "score", "count", "seconds", "bytes", "text"]


@dataclass(frozen=True)
class Column:
    """A column of a table: one metric, its unit, and which end of it is good.

    Parameters
    ----------
    key : str
        Name in `Row.figures`, e.g. ``"held_out_50"``.
    heading : str
        As a person reads it, e.g. ``"held out, 50 labels"``.
    kind : {"share", "score", "count", "seconds", "bytes", "text"}
        ``share`` is in [0, 1] and shown in percent; ``score`` (an index such as NMI, in [-1, 1]) with three places.
    better : {"higher", "lower"}, optional
        Which values are better; None where neither is.
    """

    key: str
    heading: str
    kind: Kind = "share"
    better: Literal["higher", "lower"] | None = "higher"


@dataclass(frozen=True)
class Row:
    """Figures of one method in one seed.

    Parameters
    ----------
    method : str
        As the table names it. The same method has the same name in every seed.
    figures : mapping
        Column key to value. A missing key, None or NaN: not measured.
    ours : bool, default False
        Marks the project's own methods, which tables set apart.
    group : str, default ""
        Rows of one group are compared with each other only, e.g. a data stream or a far set.
    note : str, default ""
        One sentence that a reader needs to compare fairly.
    task : str, default ""
        Where a group spans several data sets: which of them. Such rows are compared within their task, and shown in one
        wide table of their group, a line a task.
    """

    method: str
    figures: Mapping[str, float | None]
    ours: bool = False
    group: str = ""
    note: str = ""
    task: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a chart in one seed; ``x`` is the same in every seed.

    Parameters
    ----------
    chart : str
        Charts are told apart by this title.
    method : str
        As the table names it.
    x, y : sequence of float
        Shares stay in [0, 1].
    x_label, y_label : str
        Words on the axes, with units.
    log_x : bool, default False
        Whether ``x`` is drawn on a logarithmic axis.
    ours : bool, default False
        Marks the project's own methods, which are drawn stronger.
    """

    chart: str
    method: str
    x: Sequence[float]
    y: Sequence[float]
    x_label: str
    y_label: str
    log_x: bool = False
    ours: bool = False


@dataclass(frozen=True)
class SeedOutcome:
    """Rows, curves and facts that one seed of a protocol gave.

    Parameters
    ----------
    rows : sequence of Row
        One for each method and group, in the table's order.
    curves : sequence of Curve
        Lines of the charts; none by default.
    facts : mapping
        Everything else worth keeping, of plain JSON values: splits, counts, options that were derived.
    skipped : mapping
        Peer to the reason why it was not run, e.g. ``"not installed: pip install 'neural-slots[peers]'"``.
    """

    rows: Sequence[Row]
    curves: Sequence[Curve] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values; numbers that are not finite become None."""
        document: dict[str, Any] = to_json(asdict(self))
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SeedOutcome:
        """The reverse of `as_json`."""
        return cls(
            rows=[Row(**row) for row in document["rows"]],
            curves=[Curve(**curve) for curve in document["curves"]],
            facts=document["facts"],
            skipped=document["skipped"],
        )


@dataclass(frozen=True)
class MethodSummary:
    """One method over all seeds: the interval of each figure by its column's key."""

    method: str
    group: str
    ours: bool
    note: str
    figures: Mapping[str, Interval]
    task: str = ""


def merge_rows(seeds: Sequence[SeedOutcome], columns: Sequence[Column]) -> list[MethodSummary]:
    """Rows of the same method, group and task over seeds, in the order of their first appearance."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for outcome in seeds:
        for row in outcome.rows:
            found.setdefault((row.group, row.task, row.method), []).append(row)
    merged = []
    for (group, task, method), rows in found.items():
        figures = {}
        for column in columns:
            values = [row.figures.get(column.key) for row in rows]
            if column.kind != "text" and (known := interval([v for v in values if v is not None])) is not None:
                figures[column.key] = known
        merged.append(MethodSummary(method, group, rows[0].ours, rows[0].note, figures, task))
    return merged


def merge_curves(seeds: Sequence[SeedOutcome]) -> list[tuple[Curve, list[float | None]]]:
    """Each curve's mean over seeds, and the half width of its 95 % interval at each point (None for one seed)."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for outcome in seeds:
        for curve in outcome.curves:
            found.setdefault((curve.chart, curve.method), []).append(curve)
    merged = []
    for curves in found.values():
        first = curves[0]
        same = [curve for curve in curves if list(curve.x) == list(first.x)]
        points = [interval(list(values)) for values in zip(*(curve.y for curve in same), strict=True)]
        y = [math.nan if point is None else point.mean for point in points]
        halves = [None if point is None else point.half for point in points]
        merged.append((Curve(**{**asdict(first), "y": y}), halves))
    return merged


def to_json(value: Any) -> Any:
    """The value as what JSON holds: NumPy numbers as Python's, not-finite numbers as None, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): to_json(it) for key, it in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json(it) for it in value]
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
