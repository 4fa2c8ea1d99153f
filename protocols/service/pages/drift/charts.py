"""What the charts of drift are drawn from: points and heights in the units of their SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.service.drift.minutes import BINS, Minute
from slots.head.prediction import Answer

WIDTH, HEIGHT = 600.0, 100.0
"""Of a chart (units of its SVG)."""

_GAP = 0.15  # of a column's width


@dataclass(frozen=True)
class Columns:
    """One column of stacked shares: left edge, width, and heights from below in hundredths.

    Parameters
    ----------
    x, width : float
        Place.
    matched, ambiguous, unmatched : float
        Heights, which sum to 100.
    """

    x: float
    width: float
    matched: float
    ambiguous: float
    unmatched: float


@dataclass(frozen=True)
class Capital:
    """The capital over time, on a logarithmic scale.

    Parameters
    ----------
    lines : list of str
        Points of one line an era.
    threshold, start : float
        Heights from above of the threshold, and of the capital that an era starts with.
    low, high : float
        Decimal logarithms at the lower and upper edge.
    """

    lines: list[str]
    threshold: float
    start: float
    low: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """P-values by their size.

    Parameters
    ----------
    heights : list of float
        Of each bin, in hundredths of the chart.
    even : float
        Height that all bins would have if nothing had changed.
    total : int
        P-values (count).
    lowest : float
        Share of them in the first bin, the most novel ones.
    """

    heights: list[float]
    even: float
    total: int
    lowest: float


def columns(seen: Sequence[Minute], first: int, end: int, step: int) -> list[Columns]:
    """Shares of the answers, step by step; of two eras in one step the later one stands in front."""
    made = []
    for it in seen:
        counts, n = it.answers, it.n or 1
        x, width = _across(it.start, first, end, step)
        made.append(
            Columns(
                x + width * _GAP / 2, width * (1 - _GAP), *(100 * counts[kind] / n for kind in reversed(tuple(Answer)))
            )
        )
    return made


def capital(seen: Sequence[Minute], first: int, end: int, step: int, *, threshold: float) -> Capital:
    """The capital's course; ``threshold`` is a decimal logarithm."""
    values = [it.log10 for it in seen]
    low = min([-1.0, *values])
    high = min(max([threshold + 0.5, *values]), 3 * threshold)  # far above the alarm nobody reads a height

    def height(value: float) -> float:
        return round(HEIGHT * (high - min(value, high)) / (high - low), 2)

    points: dict[int, list[str]] = {}
    for it in seen:
        x, width = _across(it.start, first, end, step)
        y = height(it.log10)
        points.setdefault(it.era, []).extend([f"{x:.2f},{y}", f"{x + width:.2f},{y}"])
    return Capital([" ".join(it) for it in points.values()], height(threshold), height(0.0), low, high)


def histogram(counts: Sequence[int]) -> Histogram:
    """Counts of p-values as a chart, the fullest bin of them nearly as high as the chart."""
    total, most = sum(counts), max([*counts, 1])
    scale = 95 / max(most, total / BINS)
    return Histogram([scale * n for n in counts], scale * total / BINS, total, counts[0] / total if total else 0.0)


def _across(start: int, first: int, end: int, step: int) -> tuple[float, float]:
    """Left edge and width of a step in a chart of the time from ``first`` to ``end``."""
    left, right = max(start, first), min(start + step, end)
    return WIDTH * (left - first) / (end - first), WIDTH * (right - left) / (end - first)
