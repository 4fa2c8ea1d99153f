"""`slots explain`: units of a stored model, their arguments and their page."""

import json

import numpy as np
import pytest
import torch
from support.fuzz_folders import of_text
from support.pages import asked_for, parse
from typer.testing import CliRunner

from protocols.app.reporting.explaining import MOST, named_units
from protocols.app.reporting.network import Network
from protocols.commands.app import app
from protocols.recipes.building import load_model
from slots.errors import UsageError


def run(*words, fails=False):
    done = CliRunner().invoke(app, [str(it) for it in words])
    if fails:
        assert isinstance(done.exception, UsageError), done.output
        return str(done.exception)
    assert done.exit_code == 0, done.exception
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("explain") / "digits"
    run("fit", "--data", "digits", "--classes", "0-4", "--backbone", "cnn", "--epochs", 1, "--views", "none", "--reach",
        0.8, "--slots-per-class", 3, "--out", made)  # fmt: skip
    return made


@pytest.fixture(scope="module")
def explained(folder):
    units = ("layers.0:3", "layers.3:5", "slots:2")
    words = [word for unit in units for word in ("--unit", unit)]
    said = run("explain", folder, *words, "--images", 120, "--permutations", 19, "--json")
    return json.loads(said), parse((folder / "explain.html").read_text())


def test_the_record_and_the_page_say_the_same(explained):
    record, page = explained
    assert list(record["units"]) == ["layers.0:3", "layers.3:5", "slots:2"]
    assert (record["n_images"], record["permutations"], record["seed"]) == (120, 19, 0)
    for name, rows in record["units"].items():
        section = page.by_id(f"unit-{name}".replace(".", "-").replace(":", "-"))
        assert name in section.all("h2")[0].text
        lines = section.all("tbody")[0].all("tr")
        for row, line in zip(rows, lines, strict=True):
            assert row["name"] in line.text
            if row["statistic"] is None:
                assert row["why_not"] in line.text
            else:
                assert f"{row['statistic']:.2f} {row['p_value']:.3f}" in " ".join(line.text.split())
                (dot,) = line.all("circle", cls="dot")
                assert ("weak" in dot.attributes["class"].split()) == (not row["counts"])
                assert line.all("circle", cls="ring")
    assert record["units"]["slots:2"][5]["why_not"].startswith("No convolution or linear layer")


def test_circuits_end_in_the_picture(explained):
    _, page = explained
    deep, slot = (page.by_id(it).all("svg", cls="circuit")[0] for it in ("unit-layers-3-5", "unit-slots-2"))
    assert len(deep.all("line", cls="edge")) == 4
    assert len(deep.all("image")) == 4 + 1 + 4  # sources, the unit, kernels
    assert {it.text.rpartition(":")[0] for it in deep.all("text") if ":" in it.text} == {"layers.0", "layers.3"}
    assert "slots:2" in slot.text
    assert len(slot.all("line", cls="edge")) == 4 + 2 * 4
    assert all(it.attributes["href"].startswith("data:image/png;base64,") for it in slot.all("image"))
    first = page.by_id("unit-layers-0-3")
    assert first.all("svg", cls="circuit")[0].all("line", cls="edge") == []  # it looks at the picture


def test_the_page_asks_for_nothing(explained):
    _, page = explained
    assert all(it.startswith(("#", "data:")) for it in asked_for(page))
    (policy,) = [it for it in page.all("meta") if "http-equiv" in it.attributes]
    assert policy.attributes["content"].startswith("default-src 'none'; script-src 'none'; style-src 'sha256-")
    assert all(it.attributes["alt"] for it in page.all("img"))


def test_examples_go_from_most_to_least(explained):
    _, page = explained
    for section in page.by_id("main").all("section"):
        says = [float(it.text) for it in section.all("ol")[0].all("li")]
        assert says == sorted(says, reverse=True)
        assert len(says) == 9


def test_a_layer_alone_stands_for_its_units_drawn_at_random(folder, tmp_path):
    words = ("--images", 64, "--permutations", 1, "--out", tmp_path / "page.html")
    network, x = Network(load_model(folder, device="cpu")), torch.rand(3, 1, 8, 8)
    ((layer, first),) = named_units(network, ["layers.7"], 0, x)
    assert layer == "layers.7"
    assert len(first) == len(set(first)) == MOST
    assert first not in (list(range(MOST)), named_units(network, ["layers.7"], 1, x)[0][1])
    assert named_units(network, ["slots:1", "layers.0:3", "slots:1", "slots:0"], 0, x) == [
        ("slots", [1, 0]),
        ("layers.0", [3]),
    ]
    said = run("explain", folder, "--unit", "layers.0:1", *words)
    assert "layers.0:1" in said
    assert f"Page: {tmp_path / 'page.html'}" in said


def test_the_network_says_what_the_slots_say(folder):
    model = load_model(folder, device="cpu")
    x = np.random.default_rng(0).integers(0, 17, (20, 8, 8, 1)).astype(np.uint8)
    network = Network(model)
    features = model.features(x)[:, 0]
    cosines = torch.nn.functional.normalize(features.detach(), dim=1) @ model.head.weights.T
    assert torch.allclose(network(model.preprocessing(x)), cosines, atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("layers.3", "must be a file"),
        ("conv1:3", "must be a module of the network, got 'conv1'. It has layers.0, layers.1"),
        ("conv1", "must be named LAYER:INDEX, got 'conv1'"),
        ("layers.0:99", "must be one of the 16 units of 'layers.0', got 99"),
    ],
)
def test_what_is_no_unit_is_refused(folder, tmp_path, unit, said):
    out = tmp_path if said == "must be a file" else tmp_path / "page.html"
    assert said in run("explain", folder, "--unit", unit, "--images", 64, "--out", out, fails=True)
    assert not (tmp_path / "page.html").exists()


def test_few_inputs_are_refused(folder, tmp_path):
    few = tmp_path / "few.npz"
    np.savez(few, x_test=np.zeros((20, 8, 8, 1), np.uint8), y_test=np.zeros(20, np.int64))
    said = run("explain", folder, "--unit", "slots:0", "--data", few, fails=True)
    assert "64 or more inputs, got 20" in said


def test_rows_of_features_have_no_pictures(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = (np.eye(2)[y] @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(200, 6))).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    run("fit", "--data", tmp_path / "rows.npz", "--epochs", 1, "--out", tmp_path / "model")
    words = ("--data", tmp_path / "rows.npz", "--permutations", 9)
    run("explain", tmp_path / "model", "--unit", "slots:0", *words)
    page = parse((tmp_path / "model" / "explain.html").read_text())
    assert page.all("img") == []
    assert "no images" in page.by_id("main").text


def test_a_model_of_text_is_refused(tmp_path):
    of_text(tmp_path / "texts")
    with pytest.raises(UsageError, match="takes models of images or features, got one of text"):
        Network(load_model(tmp_path / "texts", device="cpu"))
