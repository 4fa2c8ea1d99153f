"""The plots of a report: their numbers, counted anew, where they come from, and marks that differ without colour."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pages import parse
from support.service import rows

import protocols
from protocols.app.fit import fit_and_save
from protocols.app.reporting.report import measure, report_and_save
from protocols.data.dataset import make_dataset
from protocols.pages.plots.reliability import reliability_plots
from protocols.pages.plots.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, ticks
from protocols.recipes.building import load_model
from protocols.recipes.planning import plan
from protocols.summaries.fit import Vouched
from protocols.summaries.reliability import measure_reliability
from slots.features.source import FeatureSource
from slots.head.decision import decide

NAMES = ("red", "green", "blue", "grey")


def blobs(n, seed, classes=3):
    return rows(n, seed, classes=classes, spread=1.3)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Blobs that overlap, their model with a promise, and what its page measured."""
    x, y = blobs(600, 0)
    xt, yt = blobs(400, 1, classes=4)
    data = make_dataset("blobs", (x, y), (xt, yt), NAMES)
    folder = tmp_path_factory.mktemp("blobs") / "m"
    name, recipe = plan(data, "none", {}, epochs=2, slots_per_class=3, vouch=0.98)
    model, summary = fit_and_save(data, name, recipe, out=folder, command="slots fit")
    tested = measure(model, data)
    found = measure_reliability(
        model, tested.x, tested.y, tested.prediction, vouched=summary.vouching, foreign=tested.foreign
    )
    return folder, data, model, summary, tested, found


def answers_with_caps(model, x, y, degrees):
    """Matched and right where all precision caps are smaller, by the model's own rule."""
    caps = model.head.caps()
    radius = caps.precision.double().clamp(-1, 1).arccos() - math.radians(degrees)
    smaller = replace(caps, precision=radius.clamp(0, math.pi).cos().float())
    found = decide(FeatureSource(model.featurizer, x, keep=False)(slice(0, len(x))), smaller)
    fires = found.matched
    return int(fires.sum()), int((found.labels == y)[fires].sum())


def test_the_curve_is_what_the_model_would_answer_with_smaller_and_larger_caps(fitted):
    *_, model, summary, tested, found = fitted
    assert summary.vouching.smaller_by > 0.5
    curve = found.of_test
    assert curve.n == len(tested.y)
    here = (
        int(tested.prediction.matched.sum()),
        int((tested.prediction.labels == tested.y)[tested.prediction.matched].sum()),
    )
    assert (curve.here.n_matched, curve.here.n_right) == here
    assert curve.points[0].smaller_by == pytest.approx(-summary.vouching.smaller_by)
    assert curve.points[-1].smaller_by > 1
    for it in curve.points:
        # Depths and cosines round differently; at most an example next to a border.
        literal = answers_with_caps(model, tested.x, tested.y, it.smaller_by)
        assert np.abs(np.subtract(literal, (it.n_matched, it.n_right))).max() <= 1, it
    matched = [it.n_matched for it in curve.points]
    assert matched == sorted(matched, reverse=True)
    assert matched[0] > matched[-1]


def test_the_curve_of_the_fit_is_of_examples_that_were_left_out(fitted):
    folder, data, _, summary, _, found = fitted
    vouched = summary.vouching
    assert found.of_fit.n == vouched.n_checked <= len(data.x_train)
    assert (found.of_fit.here.n_matched, found.of_fit.here.n_right) == (vouched.n_matched, vouched.n_right)
    at = [(angle, matched, right) for angle, matched, right in vouched.course if angle == vouched.smaller_by]
    assert at == [(vouched.smaller_by, vouched.n_matched, vouched.n_right)]
    assert Vouched.of_history(load_model(folder).history[0].figures) == vouched


def test_each_promise_is_measured_at_the_angle_that_it_takes(fitted):
    *_, summary, tested, found = fitted
    model = fitted[2]
    assert [it.level for it in found.promises] == [it[0] for it in summary.vouching.asked]
    assert [it.level for it in found.promises if it.is_own] == [0.98]
    now = summary.vouching.smaller_by
    for it, (_, angle, shown) in zip(found.promises, summary.vouching.asked, strict=True):
        assert it.shown == shown
        if angle is None:
            assert (it.n_matched, it.n_right) == (0, 0)
            continue
        literal = answers_with_caps(model, tested.x, tested.y, angle - now)
        assert np.abs(np.subtract(literal, (it.n_matched, it.n_right))).max() <= 1, it


def test_novelty_scores_are_those_of_the_model_and_its_threshold_decides(fitted):
    model, tested, found = fitted[2], fitted[4], fitted[5].novelty
    for x, scores in ((tested.x, found.tested), (tested.foreign, found.foreign)):
        told = model.assess_novelty(x, false_alarm_rate=found.rate)
        np.testing.assert_allclose(scores, told.scores, rtol=1e-6)
        assert ((scores > found.threshold) == told.novel).all()
    np.testing.assert_array_equal(found.familiar, model.novelty.calibration)
    assert (found.foreign > found.threshold).mean() > (found.tested > found.threshold).mean()


def test_many_examples_are_thinned_evenly_and_said_so(fitted, monkeypatch):
    folder, data, model, summary, tested, _ = fitted
    monkeypatch.setattr("protocols.summaries.reliability.MOST", 100)
    found = measure_reliability(model, tested.x, tested.y, tested.prediction, vouched=summary.vouching)
    step = math.ceil(len(tested.y) / 100)
    assert found.of_test.n == len(tested.y[::step]) <= 100
    assert found.n_left_out == len(tested.y) - found.of_test.n
    assert found.of_test.here.n_matched == tested.prediction.matched[::step].sum()
    report_and_save(model, data, folder=folder, out=folder.parent / "thin.html")
    page = parse((folder.parent / "thin.html").read_text())
    assert f"{found.n_left_out}, spread evenly, are not measured here" in page.by_id("reliability").text


def test_the_page_has_each_plot_with_words_keys_and_numbers(fitted):
    folder = fitted[0]
    page = parse((folder / "report.html").read_text())
    section = page.by_id("reliability")
    assert "measured on examples that trained nothing" in section.text
    figures = section.all("figure", cls="plot")
    assert [it.all("h3")[0].text for it in figures] == [
        "Right among the matched, as the caps shrink",
        "Promised and measured",
        "How novel examples look",
    ]
    for figure in figures:
        drawing = next(it for it in figure.all("svg") if "key" not in it.attributes.get("class", ""))
        assert drawing.attributes["role"] == "img"
        assert figure.all("figcaption")[0].all("p")[0].text in " ".join(drawing.attributes["aria-label"].split())
        (table,) = figure.all("table")
        assert len(table.all("tbody")[0].all("tr")) >= 6
        assert all(
            len(line.all("td")) == len(table.all("th", scope="col")) - 1 for line in table.all("tbody")[0].all("tr")
        )
        places = [
            float(it)
            for mark in drawing._walk()
            for it in re.findall(r"-?\d+\.?\d*", mark.attributes.get("points", ""))
        ]
        assert not places or (min(places) >= 0 and max(places) <= 420)
        kinds = {
            it.attributes.get("class")
            for svg in figure.all("svg", cls="key")
            for it in svg.children
            if not isinstance(it, str)
        }
        assert len(kinds) == len(figure.all("li"))


def test_marks_differ_without_colour():
    """Lines by their dashes or width, areas by being areas."""
    style = (Path(protocols.__file__).parent / "templates" / "report.css").read_text()
    looks = {}
    for kind in ("tested", "left-out", "foreign", "limit", "promise"):
        (rule,) = re.findall(rf"\.plot \.{kind} {{([^}}]*)}}", style)
        looks[kind] = tuple(re.findall(r"(stroke-dasharray|stroke-width): ([^;]*);", rule))
    in_one_plot = (("tested", "left-out", "limit"), ("tested", "foreign", "limit"))
    for together in in_one_plot:
        assert len({looks[kind] for kind in together}) == len(together)


def test_nothing_that_was_learned_is_plotted(fitted, tmp_path):
    folder, data, *_ = fitted
    again = load_model(folder)
    again.update(data.x_test)
    line = again.history[-1]
    again.history[-1] = replace(line, figures={**line.figures, "data_digest": data.digest, "part": "test"})
    again.save(tmp_path / "m")
    report_and_save(again, data, folder=tmp_path / "m", out=tmp_path / "page.html")
    page = parse((tmp_path / "page.html").read_text())
    assert "no plot shows them" in page.all("header")[0].text
    (plot,) = page.by_id("reliability").all("figure", cls="plot")
    assert "600 examples that were left out" in plot.text
    assert "test part" not in plot.text


def test_without_numbers_there_is_no_plot(fitted, tmp_path):
    model, tested = fitted[2], fitted[4]
    bare = load_model(fitted[0])
    bare.novelty = None
    none = tested.prediction.__class__.concatenate([])
    found = measure_reliability(bare, tested.x[:0], tested.y[:0], none, vouched=None)
    assert reliability_plots(found, tested="the test part") == []
    no_match = replace(tested.prediction, answers=np.zeros_like(tested.prediction.answers))
    bare.head.support_thresholds.fill_(2.0)
    found = measure_reliability(bare, tested.x, tested.y, no_match, vouched=None)
    (plot,) = reliability_plots(found, tested="the test part")
    assert "the slots match 0.0" in plot.says.replace("\u00a0", " ")
    assert "nan" not in str(plot.drawing)
    assert model.novelty is not None


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.93, 1.0), (-3.2, 41.0), (1e-4, 3e-4), (0.995, 1.0)])
def test_ticks_are_round_few_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low - 1e-12 <= min(found)
    assert max(found) <= high + 1e-12
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:e}"[0] in "125"


def test_axes_keep_values_inside():
    across, up = Axis.across(0.0, 2.0), Axis.up(0.9, 1.0)
    assert [across(it) for it in (-1, 0, 1, 2, 9)] == [LEFT, LEFT, (LEFT + RIGHT) / 2, RIGHT, RIGHT]
    assert (up(0.9), up(1.0), up(0.5)) == (BOTTOM, TOP, BOTTOM)
