"""The curves of a run as SVG charts: one line a method, ours thick, the 95 % interval as a band."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence

from protocols.harness.outcome import Curve, SeedOutcome, merge_curves

_PEERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c00", "#666666", "#332288", "#999933", "#44aa99")
_OURS = ("#d55e00", "#8b2500", "#f0a070")
_DASHES = ("-", "--", ":", "-.")  # told apart without colour too


def charts(seeds: Sequence[SeedOutcome]) -> list[tuple[str, str]]:
    """Draw every chart of a run as SVG.

    Parameters
    ----------
    seeds : sequence of SeedOutcome
        Their curves of one chart and method are averaged.

    Returns
    -------
    list of (title, SVG)
        The SVG is self-contained, with text as text.
    """
    merged = merge_curves(seeds)
    titles = list(dict.fromkeys(curve.chart for curve, _ in merged))
    return [(title, _draw([it for it in merged if it[0].chart == title])) for title in titles]


def _draw(lines: Sequence[tuple[Curve, list[float | None]]]) -> str:
    """One chart."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "slots", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(8.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        first = lines[0][0]
        percent = _is_share(lines)
        counts = {True: 0, False: 0}
        for curve, halves in lines:
            place = counts[curve.ours]
            counts[curve.ours] += 1
            palette = _OURS if curve.ours else _PEERS
            colour = palette[place % len(palette)]
            scale = 100.0 if percent else 1.0
            y = [scale * value for value in curve.y]
            axes.plot(
                curve.x,
                y,
                label=curve.method,
                zorder=3 if curve.ours else 2,
                color=colour,
                linewidth=2.6 if curve.ours else 1.3,
                linestyle="-" if curve.ours else _DASHES[place // len(palette) % len(_DASHES)],
                marker="o" if len(curve.x) <= 20 else "",
                markersize=5 if curve.ours else 3.5,
            )
            if any(half is not None and half > 0 for half in halves):
                low = [a - scale * (h or 0) for a, h in zip(y, halves, strict=True)]
                high = [a + scale * (h or 0) for a, h in zip(y, halves, strict=True)]
                axes.fill_between(curve.x, low, high, color=colour, alpha=0.12, linewidth=0)
        if first.log_x:
            axes.set_xscale("log")
        if len(first.x) <= 12:
            axes.set_xticks(list(first.x), [f"{value:,g}" for value in first.x])
            axes.minorticks_off()
        axes.set_xlabel(first.x_label)
        axes.set_ylabel(first.y_label + (", %" if percent else ""))
        _limit(axes, lines, percent)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        last = {curve.method: curve.y[-1] for curve, _ in lines}  # the legend in the order of the lines' right ends
        handles = sorted(axes.lines, key=lambda line: -last[str(line.get_label())])
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub("<defs>\\s*<style.*?</style>\\s*</defs>", "", svg, flags=re.DOTALL)  # the page's own style says it
    return svg.replace("#000000", "currentColor")  # readable on a dark page too


def _limit(axes: object, lines: Sequence[tuple[Curve, list[float | None]]], percent: bool) -> None:
    """Keep shares inside what is possible, however wide their intervals are."""
    if percent:
        low, high = axes.get_ylim()  # type: ignore[attr-defined]
        known = [100 * value for curve, _ in lines for value in curve.y if not math.isnan(value)]
        room = max(1.0, 0.08 * (max(known) - min(known))) if known else 1.0
        bottom, top = max(0.0, low, min(known) - 3 * room), min(100.0 + room / 4, high, max(known) + 3 * room)
        axes.set_ylim(bottom if bottom < top else low, top)  # type: ignore[attr-defined]


def _is_share(lines: Sequence[tuple[Curve, list[float | None]]]) -> bool:
    """Whether all values lie in [0, 1], so that a person reads them in percent."""
    return all(0 <= value <= 1 for curve, _ in lines for value in curve.y if not math.isnan(value))
