"""A plot as SVG: two axes, ticks that a person would choose, and marks whose look the page's own style decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420.0, 280.0
"""Of a plot (units of its SVG)."""

LEFT, RIGHT, TOP, BOTTOM = 50.0, 406.0, 14.0, 236.0
"""Edges of what lies between the axes."""


@dataclass(frozen=True)
class Axis:
    """From values to places: ``low`` lies at ``start``, ``high`` at ``end``; values beyond are put to the edge.

    Parameters
    ----------
    low, high : float
        Values at the ends, ``low < high``.
    start, end : float
        Places of the ends (units of the SVG).
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @staticmethod
    def across(low: float, high: float) -> Axis:
        """From left to right."""
        return Axis(low, high, LEFT, RIGHT)

    @staticmethod
    def up(low: float, high: float) -> Axis:
        """From the bottom to the top."""
        return Axis(low, high, BOTTOM, TOP)


@dataclass(frozen=True)
class Plot:
    """A plot with all that stands for it in words.

    Parameters
    ----------
    title, says : str
        Above it, and what it shows in a sentence or two.
    drawing : Markup
        What is inside its ``<svg>``.
    keys : tuple of (str, str)
        Of each kind of mark its class and its words.
    heads, rows : tuples of str
        Its numbers as a table.
    """

    title: str
    says: str
    drawing: Markup
    keys: tuple[tuple[str, str], ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def element(tag: str, text: str = "", **attributes: object) -> Markup:
    """An element of SVG; a trailing underscore of a name is left out, and other underscores are hyphens.

    Parameters
    ----------
    tag : str
        Its name.
    text : str
        What it holds, escaped here.
    **attributes : str or float
        Escaped here.

    Examples
    --------
    >>> element("text", "a<b", x=1, class_="note", text_anchor="end")
    Markup('<text x="1" class="note" text-anchor="end">a&lt;b</text>')
    """
    listed = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{listed}>{escape(text)}</{tag}>")  # noqa: S704  # names are ours, values were escaped


def line(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A line through places."""
    return element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=kind)


def area(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A filled shape with these corners."""
    return element("polygon", points=" ".join(f"{x},{y}" for x, y in points), class_=kind)


def words(text: str, x: float, y: float, *, anchor: str = "middle", kind: str = "") -> Markup:
    """Text at a place."""
    return element("text", text, x=x, y=y, text_anchor=anchor, **({"class_": kind} if kind else {}))


def frame(across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]], *, below: str, beside: str) -> Markup:
    """Axes with ticks and titles.

    Parameters
    ----------
    across, up : sequences of (float, str)
        Places of ticks along either axis, and their words.
    below, beside : str
        Titles of the axes; that of the upright one stands above it.
    """
    parts = [element("line", x1=LEFT, y1=y, x2=RIGHT, y2=y, class_="grid") for y, _ in up]
    parts += [words(text, LEFT - 6, y + 4, anchor="end") for y, text in up]
    parts += [element("line", x1=x, y1=BOTTOM, x2=x, y2=BOTTOM + 4, class_="axis") for x, _ in across]
    parts += [words(text, x, BOTTOM + 18) for x, text in across]
    parts.append(element("line", x1=LEFT, y1=BOTTOM, x2=RIGHT, y2=BOTTOM, class_="axis"))
    parts.append(words(below, (LEFT + RIGHT) / 2, BOTTOM + 38, kind="title"))
    middle = (TOP + BOTTOM) / 2
    turned = {"transform": f"rotate(-90 12 {middle})"}
    parts.append(element("text", beside, x=12, y=middle, text_anchor="middle", class_="title", **turned))
    return Markup("").join(parts)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most so many.

    Examples
    --------
    >>> ticks(0.93, 1.0), ticks(0, 37)
    ([0.94, 0.96, 0.98, 1.0], [0.0, 10.0, 20.0, 30.0])
    """
    span = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * it for it in (1, 2, 5, 10) if power * it >= span * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * it, 10) for it in range(first, math.floor(high / step + 1e-9) + 1)]
