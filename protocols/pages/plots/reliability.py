"""The plots of a report: what is matched and rightly so, whether promises hold, and how novel test examples look."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from protocols.pages.environment import count, percent
from protocols.pages.plots.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, Plot, area, element, frame, line, ticks, words
from protocols.summaries.intervals import wilson_lower
from protocols.summaries.reliability import MatchCurve, NoveltyScores, Promise, Reliability

_BINS = 28
_LISTED = 12  # rows of a curve's table
_LEAST = 20  # matched examples below which a share is no more than luck


def reliability_plots(found: Reliability, *, tested: str) -> list[Plot]:
    """All plots that there are numbers for.

    Parameters
    ----------
    found : Reliability
        As measured.
    tested : str
        What the test examples are, in words that follow *of*.
    """
    plots = []
    if found.of_test is not None or found.of_fit is not None:
        plots.append(match_plot(found.of_test, found.of_fit, found.level, tested=tested))
    if found.promises:
        plots.append(promise_plot(found.promises, tested=tested))
    if found.novelty is not None:
        plots.append(novelty_plot(found.novelty, tested=tested))
    return plots


def match_plot(of_test: MatchCurve | None, of_fit: MatchCurve | None, level: float | None, *, tested: str) -> Plot:
    """Right among the matched against the share matched, as all caps shrink."""
    given = [(it, kind) for it, kind in ((of_test, "tested"), (of_fit, "left-out")) if it is not None]
    drawn = {kind: [p for p in it.points if p.n_matched >= min(_LEAST, it.n)] for it, kind in given}
    shares = [p.n_right / p.n_matched for points in drawn.values() for p in points if p.n_matched]
    low = min([*shares, 0.97 if level is None else level])
    low = max(0.0, math.floor(100 * (low - 0.02 * (low > 0.9) - 0.05 * (low <= 0.9))) / 100)
    across, up = Axis.across(0.0, 1.0), Axis.up(low, 1.0)
    parts = [
        frame(
            [(across(it), f"{100 * it:.0f}") for it in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)],
            [(up(it), f"{100 * it:g}") for it in ticks(low, 1.0)],
            below="matched, % of all",
            beside="right, % of the matched",
        )
    ]
    if level is not None:
        parts += [element("line", x1=LEFT, y1=up(level), x2=RIGHT, y2=up(level), class_="limit")]
        parts.append(words(f"asked: {100 * level:g} %", LEFT + 6, up(level) + 15, anchor="start", kind="small"))
    for it, kind in given:
        points = [(p.n_matched / it.n, p.n_right, p.n_matched) for p in drawn[kind] if p.n_matched]
        if kind == "tested" and points:
            lower = [(across(x), up(wilson_lower(right, n))) for x, right, n in points]
            upper = [(across(x), up(1 - wilson_lower(n - right, n))) for x, right, n in points]
            parts.append(area([*lower, *upper[::-1]], "band"))
        parts.append(line([(across(x), up(right / n)) for x, right, n in points], kind))
    for it, kind in given:
        if it.here.n_matched:
            place = across(it.here.n_matched / it.n), up(it.here.n_right / it.here.n_matched)
            parts.append(element("circle", cx=place[0], cy=place[1], r=5, class_=f"here {kind}-point"))
    main = given[0][0]
    here = main.here
    right = percent(here.n_right / here.n_matched if here.n_matched else None)
    whose = f"examples of {tested}" if of_test is not None else "left-out examples"
    says = f"Of {count(main.n)} {whose} the slots match {percent(here.n_matched / main.n)}, {right} of these rightly."
    names = {"tested": f"{count(of_test.n)} examples of {tested}, with the 95 % interval" if of_test else ""}
    names["left-out"] = f"{count(of_fit.n)} left-out examples" if of_fit else ""
    keys = tuple((kind, names[kind]) for _, kind in given)
    return Plot(
        "Right among the matched, as the caps shrink",
        says,
        Markup("").join(parts),
        (*keys, ("here", "the model as it is; to the right of it caps would be larger, to the left smaller")),
        ("caps smaller by", "matched", "right among them"),
        _curve_rows(main),
    )


def _curve_rows(curve: MatchCurve) -> tuple[tuple[str, ...], ...]:
    """Some points of a curve, the model's own among them."""
    points = curve.points
    places = set(np.linspace(0, len(points) - 1, min(_LISTED, len(points))).round().astype(int).tolist())
    places |= {place for place, it in enumerate(points) if it == curve.here}
    rows = []
    for it in (points[place] for place in sorted(places)):
        right = percent(it.n_right / it.n_matched if it.n_matched else None, 2)
        own = " (as it is)" if it == curve.here else ""
        rows.append((f"{it.smaller_by:+.2f}°{own}", f"{count(it.n_matched)} of {count(curve.n)}", right))
    return tuple(rows)


def promise_plot(promises: tuple[Promise, ...], *, tested: str) -> Plot:
    """What was measured at each level beside the level itself."""
    rates = [it.n_right / it.n_matched for it in promises if it.n_matched]
    bounds = [wilson_lower(it.n_right, it.n_matched) for it in promises if it.n_matched]
    low = max(0.0, math.floor(20 * (min([*rates, *bounds, promises[0].level]) - 0.005)) / 20)
    up, step = Axis.up(low, 1.0), (RIGHT - LEFT) / len(promises)
    middles = [round(LEFT + step * (place + 0.5), 2) for place in range(len(promises))]
    parts = [
        frame(
            [(x, f"{100 * it.level:g}") for x, it in zip(middles, promises, strict=True)],
            [(up(it), f"{100 * it:g}") for it in ticks(low, 1.0)],
            below="promised, % right of the matched",
            beside="measured, %",
        )
    ]
    rows = []
    for x, it in zip(middles, promises, strict=True):
        y, half = up(it.level), round(0.38 * step, 2)
        kind = "promise" if it.shown else "promise unshown"
        parts.append(element("line", x1=x - half, y1=y, x2=x + half, y2=y, class_=kind))
        measured = between = "–"
        if it.n_matched:
            least, rate = wilson_lower(it.n_right, it.n_matched), it.n_right / it.n_matched
            most = 1 - wilson_lower(it.n_matched - it.n_right, it.n_matched)
            parts.append(element("line", x1=x, y1=up(least), x2=x, y2=up(most), class_="whisker"))
            parts.append(element("circle", cx=x, cy=up(rate), r=6 if it.is_own else 4, class_="measured"))
            parts.append(words(count(it.n_matched), x, BOTTOM - 6, kind="small"))
            measured, between = percent(rate, 2), f"{percent(least, 2)} to {percent(most, 2)}"
        own = " (of the fit)" if it.is_own else ""
        rows.append((f"{100 * it.level:g} %{own}", measured, between, count(it.n_matched), "yes" if it.shown else "no"))
    asked = next((it for it in promises if it.is_own), promises[-1])
    share = percent(asked.n_right / asked.n_matched if asked.n_matched else None)
    kept = f"{share} are measured" if asked.n_matched else "Nothing is matched"
    says = f"{kept} at the level of the fit, {100 * asked.level:g} %, on examples of {tested}."
    return Plot(
        "Promised and measured",
        says,
        Markup("").join(parts),
        (
            ("promise", "promised; dashed where the left-out examples were too few to show it"),
            (
                "measured",
                f"measured on examples of {tested}, with the 95 % interval; large: the level of the fit; below: how "
                "many are matched",
            ),
        ),
        ("promised", "measured", "95 % interval", "matched", "shown at the fit"),
        tuple(rows),
    )


def novelty_plot(found: NoveltyScores, *, tested: str) -> Plot:
    """Histograms of novelty scores, and the threshold of the false-alarm rate."""
    sets = {"familiar": found.familiar, "tested": found.tested, "foreign": found.foreign}
    sets = {kind: scores for kind, scores in sets.items() if len(scores)}
    every = np.concatenate(list(sets.values()))
    low = float(every.min())
    reach = max(found.threshold - low, 1e-9)
    high = low + min(max(1.6 * reach, float(np.quantile(every, 0.98)) - low), 3 * reach)
    edges = np.linspace(low, high, _BINS + 1)
    heights = {kind: np.histogram(np.clip(it, low, high), edges)[0] / len(it) for kind, it in sets.items()}
    top = max(float(it.max()) for it in heights.values()) * 1.08
    across, up = Axis.across(low, high), Axis.up(0.0, top)
    parts = [
        frame(
            [(across(it), f"{it:g}") for it in ticks(low, high)],
            [(up(it), f"{100 * it:g}") for it in ticks(0.0, top, most=5)],
            below="novelty score; the last column holds all above",
            beside="% of its examples",
        )
    ]
    for kind, shares in heights.items():
        outline = _outline(edges, shares, across, up)
        parts.append(area(outline, "familiar") if kind == "familiar" else line(outline[1:-1], kind))
    x = across(found.threshold)
    parts.append(element("line", x1=x, y1=TOP, x2=x, y2=BOTTOM, class_="limit"))
    parts.append(words(f"novel: {percent(found.rate, 0)} false alarms", x + 6, TOP + 10, anchor="start", kind="small"))
    names = {
        "familiar": "that were left out",
        "tested": f"of {tested}",
        "foreign": f"of {tested}, whose class no slot stands for",
    }
    above = {kind: float((it > found.threshold).mean()) for kind, it in sets.items()}
    keys = tuple(
        (kind, f"{count(len(it))} examples {names[kind]}: {percent(above[kind])} above") for kind, it in sets.items()
    )
    said = [f"{percent(above[kind])} of {count(len(it))} examples {names[kind]}" for kind, it in sets.items()]
    return Plot(
        "How novel examples look",
        f"Above the threshold lie {'; '.join(said)}.",
        Markup("").join(parts),
        (*keys, ("limit", f"the threshold, {found.threshold:.3g}: above it an input is called novel")),
        ("score from", "to", *(names[kind] for kind in sets)),
        tuple(
            (f"{a:.2f}", f"{b:.2f}" if place < _BINS - 1 else "any", *(percent(heights[kind][place]) for kind in sets))
            for place, (a, b) in enumerate(itertools.pairwise(edges))
        ),
    )


def _outline(
    edges: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], across: Axis, up: Axis
) -> list[tuple[float, float]]:
    """Corners of a histogram, from its lower left to its lower right."""
    corners = [(across(edges[0]), BOTTOM)]
    for a, b, share in zip(edges[:-1], edges[1:], shares, strict=True):
        corners += [(across(a), up(share)), (across(b), up(share))]
    return [*corners, (across(edges[-1]), BOTTOM)]
