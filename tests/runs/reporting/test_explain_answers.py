"""`slots explain MODEL IMAGE`: a page that says why, of models with parts and without."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from support.pages import asked_for, parse
from typer.testing import CliRunner

from protocols.commands.app import app
from protocols.pages.cards import Picture
from protocols.pages.plots.boxes import boxed, share_bar
from protocols.recipes.building import load_model
from slots.errors import DataError, UsageError
from slots.parts import explain_by_parts


def run(*words, fails=None):
    done = CliRunner().invoke(app, [str(it) for it in words])
    if fails is not None:
        assert isinstance(done.exception, (fails, SystemExit)), done.output
        return str(done.exception)
    assert done.exit_code == 0, done.exception
    return done.stdout


@pytest.fixture(scope="module")
def with_parts(tmp_path_factory):
    made = tmp_path_factory.mktemp("explain") / "parts"
    run("fit", "--data", "digits", "--classes", "0-2", "--backbone", "parts", "--epochs", 4, "--slots-per-class", 3,
        "--features-per-slot", 4, "--max-parts", 12, "--option", "channels=16", "--option", "width=16",
        "--out", made)  # fmt: skip
    return made


@pytest.fixture(scope="module")
def of_pixels(tmp_path_factory):
    made = tmp_path_factory.mktemp("explain") / "pixels"
    run("fit", "--data", "digits", "--classes", "0-2", "--epochs", 2, "--slots-per-class", 2, "--out", made)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three digits as image files."""
    folder = tmp_path_factory.mktemp("images")
    pictures = (load_digits().images[:3] * 255 / 16).astype(np.uint8)
    for place, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{place}.png")
    return pictures, [folder / f"{place}.png" for place in range(3)]


def test_an_answer_of_parts_is_a_sum(with_parts, files):
    pictures, paths = files
    record = json.loads(run("explain", with_parts, *paths, "--json"))
    page = parse((with_parts / "explain.html").read_text())
    model = load_model(with_parts)
    assert model.backbone.n_parts <= 12
    for place, (said, expected) in enumerate(zip(record["answers"], explain_by_parts(model, pictures), strict=True)):
        assert said["name"] == str(paths[place])
        assert (said["slot"], said["parts_of"]) == (expected.answered_by, expected.slot)
        assert said["label"] == model.class_name(expected.label)
        assert said["cosine"] == pytest.approx(sum(part["share"] for part in said["parts"]))
        assert [tuple(part["box"]) for part in said["parts"]] == [share.box for share in expected.shares]
        section = page.by_id(f"input-{place}")
        drawn = section.all("svg", cls="boxed")[0]
        assert len(drawn.all("rect")) == len(said["parts"][:8])
        lines = section.all("tbody")[0].all("tr")
        for part, line in zip(said["parts"][:8], lines, strict=False):
            assert f"{part['share'] / said['cosine']:.0%}".replace("%", " %") in line.text.replace("\u202f", " ")
            assert len(line.all("img")) == 2
        assert f"{said['cosine']:.3f}" in lines[-1].text
        assert said["answer"].capitalize() in section.text
    assert all(it.startswith(("#", "data:")) for it in asked_for(page))


def test_an_answer_without_parts_is_a_template(of_pixels, tmp_path):
    out = tmp_path / "why.html"
    record = json.loads(
        run("explain", of_pixels, "--data", "digits", "--images", 2, "--seed", 3, "--out", out, "--json")
    )
    page = parse(out.read_text())
    assert [it["parts"] for it in record["answers"]] == [[], []]
    assert [it["cosine"] for it in record["answers"]] == [None, None]
    for place, said in enumerate(record["answers"]):
        section = page.by_id(f"input-{place}")
        assert said["name"] in section.text
        assert any("red for it" in it.attributes["alt"] for it in section.all("img"))
        assert not section.all("table")


def test_the_table_names_the_page(with_parts):
    said = run("explain", with_parts, "--images", 3)
    assert f"Page: {with_parts / 'explain.html'}" in said
    assert said.count("digits test") == 3


def test_what_cannot_be_explained_is_refused(with_parts, files, tmp_path):
    _, paths = files
    run("explain", with_parts, paths[0], "--unit", "slots", fails=UsageError)
    assert "1 to 60 images, got 61" in run("explain", with_parts, *[paths[0]] * 61, fails=UsageError)
    assert "must be a file" in run("explain", with_parts, paths[0], "--out", tmp_path, fails=UsageError)
    run("explain", with_parts, tmp_path / "none.png", fails=DataError)
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.random.default_rng(0).random((60, 4)).astype("float32"), y=np.arange(60) % 2)
    run("fit", "--data", rows, "--epochs", 1, "--out", tmp_path / "rows")
    assert "explained for images" in run("explain", tmp_path / "rows", "--data", rows, fails=UsageError)


def test_boxes_are_drawn_at_the_scale_of_the_picture():
    drawn = parse(str(boxed(Picture("data:,", 80, 40, "It"), (10, 20), [(1, 2, 5, 8), (0, 0, 10, 20)])))
    first, second = drawn.all("rect")
    assert [float(first.attributes[it]) for it in ("x", "y", "width", "height")] == [9, 5, 22, 14]
    assert [float(second.attributes[it]) for it in ("x", "y", "width", "height")] == [1, 1, 78, 38]
    assert [it.text for it in drawn.all("text")] == ["1", "2"]
    (bar,) = parse(str(share_bar(0.5, 7))).all("rect")
    assert float(bar.attributes["width"]) == 110
    assert bar.attributes["class"] == "c0"
