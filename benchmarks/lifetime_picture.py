"""The picture of a life: accuracy by day of each method, with what happens on which day, and what it cost.

Usage::

    python benchmarks/lifetime_picture.py docs/results/run-lifetime-mnist-pixels.json docs/lifetime.png
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from protocols.harness.outcome import merge_curves
from protocols.harness.runner import Outcome

COLOURS = {"slots": "#d55e00", "5-NN": "#0072b2", "logistic": "#009e73", "network": "#8a6d00"}
SHORT = {
    "slots": "slots: the service",
    "5-NN": "5-NN on a vector index",
    "logistic": "logistic regression, nightly",
    "network": "network with replay",
}
PANELS = {
    "Accuracy on the test examples of all that has come": "right, of all that has come",
    "Recall of the new classes that have come": "right, of the new classes",
}


def draw(found: Outcome) -> Figure:
    """Two panels: all that has come, and the new classes alone."""
    seeds = [run.outcome for run in found.seeds]
    facts = seeds[0].facts
    merged = merge_curves(seeds)
    figure = Figure(figsize=(9.6, 4.0), dpi=100, layout="constrained")
    for axes, (chart, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        lines = [(curve, halves) for curve, halves in merged if curve.chart == chart]
        for curve, halves in lines:
            key = next(it for it in COLOURS if curve.method.startswith(it))
            x, y = np.array(curve.x), 100 * np.array(curve.y)
            half = np.array([100 * (it or 0.0) for it in halves])
            axes.plot(x, y, color=COLOURS[key], linewidth=2.6 if curve.ours else 1.4, label=SHORT[key])
            axes.fill_between(x, y - half, y + half, color=COLOURS[key], alpha=0.1, linewidth=0)
        low = min(100 * min(curve.y) for curve, _ in lines)
        axes.set_ylim(max(0, 10 * math.floor(low / 10) - 10), 100)
        mark(axes, facts)
        axes.set_xlim(1, len(facts["inputs a day"]))
        axes.set_title(title + ", %", loc="left", fontsize=10)
        axes.set_xlabel("day")
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9, frameon=False)
    return figure


def mark(axes: object, facts: dict) -> None:
    """What happens on which day."""
    arrivals = sorted({day for day in facts["day of each class"].values() if day})
    events = [(day, "new class") for day in arrivals]
    events += [(facts["first day of the other domain"], "turned"), (facts["bad day"], "bad labels")]
    for day, word in events:
        axes.axvline(day, color="#999999", linewidth=0.8, linestyle=":")
        axes.text(day + 0.15, axes.get_ylim()[0], word, rotation=90, fontsize=7, color="#555555", va="bottom")


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    found = Outcome.from_json(json.loads(args.result.read_text()))
    draw(found).savefig(args.picture, metadata={"Software": None})


if __name__ == "__main__":
    main()
