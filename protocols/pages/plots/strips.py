"""A statistic on a line from -1 to 1, over the grey band of its null."""

from __future__ import annotations

from markupsafe import Markup, escape

from protocols.pages.plots.svg import Axis, element
from protocols.summaries.units import ArgumentRow

WIDTH, HEIGHT = 240, 30
_AXIS = Axis(-1, 1, 8, WIDTH - 8)
_MIDDLE = 11.0


def strip(row: ArgumentRow) -> Markup:
    """One measured argument as a small drawing.

    Parameters
    ----------
    row : ArgumentRow
        With a statistic in [-1, 1].

    Returns
    -------
    Markup
        An ``<svg>``: a band from the 1 % to the 99 % quantile of the null with its mean, the statistic as a dot, and
        the control as a ring. Nothing where nothing was measured.
    """
    if row.statistic is None or row.null_q01 is None or row.null_q99 is None or row.null_mean is None:
        return Markup("")
    low, high = _AXIS(row.null_q01), _AXIS(row.null_q99)
    parts = [element("line", x1=_AXIS(-1), y1=_MIDDLE, x2=_AXIS(1), y2=_MIDDLE, class_="grid")]
    parts += [element("text", f"{tick:g}", x=_AXIS(tick), y=HEIGHT - 1, text_anchor="middle") for tick in (-1, 0, 1)]
    parts += [element("line", x1=_AXIS(0), y1=_MIDDLE - 6, x2=_AXIS(0), y2=_MIDDLE + 6, class_="grid")]
    parts.append(element("rect", x=low, y=_MIDDLE - 6, width=max(2.0, round(high - low, 2)), height=12, class_="null"))
    parts.append(
        element("line", x1=_AXIS(row.null_mean), y1=_MIDDLE - 6, x2=_AXIS(row.null_mean), y2=_MIDDLE + 6, class_="axis")
    )
    if row.control is not None:
        parts.append(element("circle", cx=_AXIS(row.control), cy=_MIDDLE, r=4, class_="ring"))
    parts.append(
        element("circle", cx=_AXIS(row.statistic), cy=_MIDDLE, r=4.5, class_="dot" if row.counts else "dot weak")
    )
    said = f"{row.name}: {row.statistic:.2f}, null {row.null_q01:.2f} to {row.null_q99:.2f}"
    inner = Markup("").join(parts)
    return Markup('<svg class="strip" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, escape(said), inner
    )
