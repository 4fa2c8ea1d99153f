"""The page of a model at any time: as it is now, measured on what is named, and never on what it learned from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pages import asked_for, parse
from support.service import rows, small_model
from typer.testing import CliRunner

import backbones
from protocols.app.fit import fit_and_save
from protocols.app.reporting.report import data_of_fit, report_and_save
from protocols.commands.app import app
from protocols.data.dataset import make_dataset
from protocols.data.loading import load_data
from protocols.recipes.building import load_model
from protocols.recipes.planning import plan
from protocols.summaries.fit import FitSummary
from slots.errors import StorageError, UsageError
from slots.storage.generations import Generation
from slots.training import TrainConfig, fit

NAMES = ("red", "green", "blue", "grey")


def run(*words, status=0):
    done = CliRunner().invoke(app, [str(it) for it in words])
    if status:
        assert isinstance(done.exception, (UsageError, StorageError)), done.output
        assert done.exception.exit_code == status
    else:
        assert done.exit_code == 0, done.exception
    return done


def archive(path, *, n=60, seed=5, classes=4, part="test"):
    x, y = rows(n, seed, classes=classes)
    np.savez(path, **{f"x_{part}": x, f"y_{part}": y, "class_names": np.array(NAMES)})
    return x, y


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A fit of digits 0 to 7, its page, and the same after an update with the test part."""
    folder = tmp_path_factory.mktemp("digits") / "eight"
    run(
        "fit", "--data", "digits", "--classes", "0-7", "--epochs", 1, "--views", "none", "--reach", 0.8, "--out", folder
    )
    fitted = (folder / "report.html").read_text()
    run("report", folder, "--out", folder.parent / "same.html")
    again = (folder.parent / "same.html").read_text()
    run("update", folder, "--data", "digits", "--part", "test", "--budget", 10, "--device", "cpu")
    run("report", folder)
    return folder, parse(fitted), parse(again), parse((folder / "report.html").read_text())


def tiles(page):
    (found,) = page.all("dl", cls="tiles")
    return dict(zip([it.text for it in found.all("dt")], [it.text for it in found.all("dd")], strict=True))


def test_what_the_fit_showed_is_shown_again(digits):
    _, fitted, again, _ = digits
    assert tiles(again) == tiles(fitted)
    assert fitted.by_id("gallery").text == again.by_id("gallery").text
    assert [p.attributes["src"] for p in fitted.by_id("gallery").all("img")] == [
        p.attributes["src"] for p in again.by_id("gallery").all("img")
    ], "templates are drawn from what the slots remember"
    for name in ("classes", "confusion", "wrong", "unmatched"):
        assert [it.text for it in fitted.by_id(name).all("td")] == [it.text for it in again.by_id(name).all("td")]
    foreign = int((load_data("digits").y_test >= 8).sum())
    assert f"{foreign} examples are of classes that no slot stands for (8, 9)" in again.all("header")[0].text
    assert "Nothing was learned since the fit." in again.by_id("history").text
    assert set(asked_for(again)) <= {"data:,"} | {it for it in asked_for(again) if it.startswith(("#", "data:"))}


def test_after_an_update_it_says_so_and_counts_what_was_learned(digits):
    folder, _, _, after = digits
    model = load_model(folder)
    head = after.all("header")[0].text
    assert "generation 1, update" in head
    assert "Generation 1 learned from these very examples" in head
    assert "That is of the fit, without what came later." in head
    (body,) = after.by_id("history").all("tbody")
    lines = [[it.text for it in line.all("th") + line.all("td")] for line in body.all("tr")]
    assert [line[:2] for line in lines] == [["0", "fit"], ["1", "update"]]
    assert lines[1][3] == str(model.head.n_slots)
    assert [line[6] for line in lines] == ["kept", "current"]
    made = int((model.head.generations == 1).sum())
    assert made > 0
    assert sum("update 1" in card.text for card in after.by_id("gallery").all("li", cls="card")) == made
    assert after.all("h1")[0].text == f"digits remembered as {model.head.n_slots} slots"


def test_other_data_is_measured_by_the_names_of_its_classes(tmp_path):
    small_model(tmp_path / "m")
    x, y = archive(tmp_path / "new.npz")
    done = run("report", tmp_path / "m", "--data", tmp_path / "new.npz", "--json")
    told = json.loads(done.stdout)
    model = load_model(tmp_path / "m")
    known = y < 3
    right = model.predict(x[known]).labels == y[known]
    assert told["on_test"]["n"] == known.sum()
    assert told["on_test"]["accuracy"] == right.mean()
    assert (told["n_foreign"], told["data"], told["generation"]) == ((~known).sum(), "new", 0)
    page = parse(Path(told["report"]).read_text())
    assert page.all("h1")[0].text == f"m remembered as {model.head.n_slots} slots"
    assert tiles(page)["accuracy on new"] == f"{100 * right.mean():.2f} %"
    assert "Confusion on new" in page.by_id("confusion").text
    assert "How often matched answers are right on new data was not measured." in page.all("header")[0].text
    assert f"{(~known).sum()} examples are of classes that no slot stands for (grey)" in page.all("header")[0].text


def test_without_data_the_page_is_written_and_nothing_is_claimed(tmp_path):
    small_model(tmp_path / "m")
    done = run("report", tmp_path / "m", "--out", tmp_path / "page.html")
    assert not (tmp_path / "m" / "report.html").exists()
    page = parse((tmp_path / "page.html").read_text())
    assert "No data was named, so nothing was measured anew." in page.all("header")[0].text
    assert set(tiles(page).values()) == {"–"}
    assert "Next: slots report" in done.stderr


def test_figures_of_the_fit_stay_until_something_is_learned(tmp_path):
    x, y = rows(300, 1)
    data = make_dataset("blobs", (x[:200], y[:200]), (x[200:], y[200:]), NAMES[:3])
    name, recipe = plan(data, "none", {}, epochs=1, slots_per_class=1)
    model, summary = fit_and_save(data, name, recipe, out=tmp_path / "m", command="slots fit --data blobs")
    assert data_of_fit(model, None) is None, "a file is not looked for"
    assert FitSummary.of_history(load_model(tmp_path / "m").history[0].figures) == summary
    report_and_save(model, None, folder=tmp_path / "m", out=tmp_path / "a.html")
    assert tiles(parse((tmp_path / "a.html").read_text()))["test accuracy"] == f"{100 * summary.test_accuracy:.2f} %"
    new = (rows(40, 2, classes=4)[0] * 5).astype(np.float32)
    assert model.update(new).slots_added > 0
    model.save(tmp_path / "m", keep_history=True)
    report_and_save(model, None, folder=tmp_path / "m", out=tmp_path / "b.html")
    assert tiles(parse((tmp_path / "b.html").read_text()))["test accuracy"] == "–"


def test_what_a_folder_says_of_its_fit_is_not_trusted(tmp_path):
    model = small_model(tmp_path / "m")
    full = fit_figures(tmp_path)
    assert FitSummary.of_history(full) is not None
    for change in (
        {"elapsed_s": "long"},
        {"contradictions": ["a"]},
        {"versions": {"python": 3}},
        {"epochs": True},
        {"vouching": {"level": "high"}},
        {"vouching": [1]},
        {"look": {"tries": [{}]}},
        {"look": 3},
        {"test_accuracy": [1.0]},
    ):
        assert FitSummary.of_history({**full, **change}) is None, change
    assert FitSummary.of_history({key: it for key, it in full.items() if key != "seed"}) is None
    line = model.history
    model.history = [*line, *load_model(tmp_path / "whole").history]
    model.history[0] = replace(model.history[0], figures={**full, "look": 3, "data": "mnist"})
    model.save(tmp_path / "m")
    run("report", tmp_path / "m", "--data-dir", tmp_path)
    assert "No data was named" in (tmp_path / "m" / "report.html").read_text()


def fit_figures(tmp_path):
    x, y = rows(120, 1)
    data = make_dataset("blobs", (x[:80], y[:80]), (x[80:], y[80:]), NAMES[:3])
    name, recipe = plan(data, "none", {})
    fit_and_save(data, name, recipe, out=tmp_path / "whole", command="slots fit")
    return json.loads(json.dumps(load_model(tmp_path / "whole").history[0].figures))


def test_large_images_draw_templates_where_the_data_is_at_hand(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    x = np.clip(rng.integers(0, 256, (2, 80, 80, 1))[y] + rng.normal(0, 20, (30, 80, 80, 1)), 0, 255).astype(np.uint8)
    data = make_dataset("big", (x[:20], y[:20]), (x[20:], y[20:]), ("a", "b"))
    net = backbones.build("pixels", input_shape=(1, 80, 80))
    model = fit(data.x_train, data.y_train, backbone=net, config=TrainConfig(epochs=0, slots_per_class=1))[0]
    model.history.append(Generation(0, "fit", model.head.n_slots, {"data_digest": data.digest}))
    model.save(tmp_path / "m")
    templates = {}
    for given in (data, None):
        report_and_save(model, given, folder=tmp_path / "m", out=tmp_path / "page.html")
        page = parse((tmp_path / "page.html").read_text())
        templates[given is None] = sum(p.attributes["alt"].startswith("Template") for p in page.all("img"))
    assert templates[False] >= model.head.n_slots
    assert templates[True] == 0


def test_a_place_that_is_none_is_refused(tmp_path):
    small_model(tmp_path / "m")
    run("report", tmp_path / "m", "--out", tmp_path, status=2)
    (tmp_path / "file").write_text("")
    run("report", tmp_path / "m", "--out", tmp_path / "file" / "page.html", status=5)


def test_the_named_set_of_a_fit_is_found_by_its_digest_alone():
    data = load_data("digits")
    model = fit(rows(40, 0)[0], rows(40, 0)[1], config=TrainConfig(epochs=0, slots_per_class=1))[0]
    assert data_of_fit(model, None) is None
    for digest, found in ((data.digest, True), ("0" * 64, False)):
        model.history = [Generation(0, "fit", 3, {"data": "digits", "data_digest": digest})]
        assert (data_of_fit(model, None) is not None) is found
    model.history = [Generation(0, "fit", 3, {"data": ["digits"], "data_digest": data.digest})]
    assert data_of_fit(model, None) is None
