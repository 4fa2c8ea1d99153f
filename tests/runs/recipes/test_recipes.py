"""Recipes: each can be built on the shapes it is for, and the user's changes win."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.nets import strokes

import backbones
from backbones.explanations.metrics import stability
from backbones.explanations.reconstruction import reconstruct
from protocols.app.fit import fit_and_save
from protocols.data.dataset import Dataset
from protocols.recipes.building import build_backbone, pick_device
from protocols.recipes.planning import parse_options, parse_vouch, plan
from protocols.recipes.recipes import GPU_RECIPES, RECIPES, Recipe, find_recipe
from protocols.recipes.weights import list_trained, load_trained, write_trained
from slots.closing.config import ClosingConfig
from slots.errors import UsageError
from slots.features.views import parse_views
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig

SHAPES = {
    "digits": (8, 8, 1),
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "": (64, 64, 3),
}


def images(name, shape):
    x = np.zeros((2, *shape), np.uint8)
    return Dataset(name, x, np.array([0, 1]), x, np.array([0, 1]), ("a", "b"), "digest")


@pytest.mark.parametrize(("backbone", "data"), [key for key in RECIPES if key[0] != "none"])
def test_every_recipe_builds_and_its_views_parse(backbone, data):
    source = images(data or "holiday", SHAPES[data])
    name, recipe = plan(source, backbone, {"frozen": False} if backbone == "pretrained" else None)
    net = build_backbone(name, source, recipe, seed=0)
    assert name == backbone
    height, width, channels = SHAPES[data]
    x = torch.zeros(2, channels, height, width)
    assert net.eval()(x).shape == (2, net.feature_dim)
    parse_views(recipe.train.views)(x)
    parse_views(recipe.train.augment).sample(x)


@pytest.mark.parametrize(("backbone", "data"), GPU_RECIPES)
def test_a_gpu_gets_larger_nets(backbone, data):
    source = images(data, SHAPES[data])
    sizes = {}
    for device in ("cpu", "cuda:0"):
        _, recipe = plan(source, backbone, device=device)
        net = build_backbone(backbone, source, recipe, seed=0)
        sizes[device] = sum(p.numel() for p in net.parameters())
        assert recipe.train.device == device
    assert sizes["cuda:0"] > 2 * sizes["cpu"]


def test_recipes_name_backbones_that_exist():
    assert {name for name, _ in RECIPES} - {"none"} <= set(backbones.BACKBONES)


def test_a_data_set_without_a_recipe_gets_the_backbones_own():
    assert find_recipe("pixels", "holiday") is RECIPES["pixels", ""]
    assert find_recipe("nonsense", "holiday") == Recipe()


def test_the_users_changes_win_over_the_recipe():
    _, recipe = plan(images("mnist", (28, 28, 1)), None, epochs=3, views=None, closing="full", seed=7)
    assert (recipe.train.epochs, recipe.train.seed, recipe.train.closing.mode) == (3, 7, "full")
    assert recipe.train.views == RECIPES["pixels", "mnist"].train.views


@pytest.mark.parametrize(("word", "level"), [(None, 0.98), ("0.9", 0.9), ("none", None)])
def test_the_level_at_which_slots_vouch(word, level):
    _, recipe = plan(images("mnist", (28, 28, 1)), None, vouch=parse_vouch(word), reach=0.8)
    assert recipe.train.closing == replace(RECIPES["pixels", "mnist"].train.closing, vouch=level, reach=0.8)


def test_the_share_that_stays_open_is_the_closings_and_needs_a_level():
    rows = np.zeros((2, 5), np.float32)
    source = Dataset("rows", rows, np.array([0, 1]), rows, np.array([0, 1]), (), "digest")
    _, recipe = plan(source, None, open_share=0.0)
    assert recipe.config == AutoConfig(TrainConfig(closing=ClosingConfig(open_share=0.0)))
    for changes, found in [({"closing": "full"}, "the closing full"), ({"vouch": "none"}, "vouch none")]:
        with pytest.raises(UsageError, match=f"must be left out .* got 0.1 with {found}"):
            plan(source, None, open_share=0.1, **changes)


def test_what_nobody_tuned_is_left_to_a_look_at_the_data():
    rows = np.zeros((2, 5), np.float32)
    source = Dataset("rows", rows, np.array([0, 1]), rows, np.array([0, 1]), (), "digest")
    _, recipe = plan(source, None, epochs=7, scale=None, seed=3, reach=0.8)
    base = TrainConfig(epochs=7, seed=3, closing=ClosingConfig(reach=0.8))
    assert recipe.config == AutoConfig(base, frozenset({"epochs", "seed"}))
    assert plan(source, None)[1].config == AutoConfig()  # as `slots.fit` alone
    photos = images("holiday", (8, 8, 3))
    assert plan(photos, "pixels", views="flip")[1].config == AutoConfig(TrainConfig(views="flip"), frozenset({"views"}))
    frozen = {"weights": "some.pt"}
    assert isinstance(plan(photos, "cifar_resnet20", frozen)[1].config, AutoConfig)
    learning = [("cifar_resnet20", {"frozen": False}, photos), ("explor", {}, photos)]
    tuned = [("pixels", {}, images("mnist", (28, 28, 1))), ("cifar_resnet20", frozen, images("cifar10", (32, 32, 3)))]
    for backbone, options, data in [*learning, *tuned]:
        assert isinstance(plan(data, backbone, options)[1].config, TrainConfig)


def test_a_fit_that_looked_goes_on_after_it_was_killed(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (np.eye(3, 6)[y] * 4 + rng.normal(size=(300, 6)) * [1, 1, 1, 9, 9, 9]).astype(np.float32)
    source = Dataset("rows", x, y, x, y, ("a", "b", "c"), "digest")
    name, recipe = plan(source, None, epochs=6)
    whole, wanted = fit_and_save(source, name, recipe, out=tmp_path / "whole", command="")
    assert whole.featurizer.whitening is not None

    def killed(step, share):
        if (tmp_path / ".m.checkpoint.safetensors").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_and_save(source, name, recipe, out=tmp_path / "m", command="", progress=killed)
    assert not (tmp_path / "m").exists()
    steps = []
    again, summary = fit_and_save(
        source, name, recipe, out=tmp_path / "m", command="", resume=True, progress=lambda *at: steps.append(at)
    )
    assert not any("epoch 1/" in step for step, _ in steps)
    assert all(torch.equal(again.head.state_dict()[key], value) for key, value in whole.head.state_dict().items())
    assert (summary.look, summary.vouching) == (wanted.look, wanted.vouching)


def test_the_same_seed_draws_the_same_weights():
    source = images("mnist", (28, 28, 1))
    name, recipe = plan(source, "explor")
    first, second, other = (build_backbone(name, source, recipe, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_messages():
    rows = np.zeros((2, 5), np.float32)
    source = Dataset("rows", rows, np.array([0, 1]), rows, np.array([0, 1]), (), "digest")
    with pytest.raises(UsageError, match="must be none for features, got 'pixels'"):
        plan(source, "pixels")
    with pytest.raises(UsageError, match="`name` must be one of"):
        build_backbone("nonsense", images("mnist", (28, 28, 1)), Recipe(), seed=0)
    with pytest.raises(UsageError, match="`device` must be auto, cpu or a CUDA device"):
        pick_device("abacus")


def test_options_are_json_or_text():
    words = ["widths=[8, 9]", "a_x=0.5", "logits=dobble", "frozen=false"]
    assert parse_options(words, weights="w.pt") == {
        "widths": [8, 9], "a_x": 0.5, "logits": "dobble", "frozen": False, "weights": "w.pt"
    }  # fmt: skip
    _, recipe = plan(images("cifar10", (32, 32, 3)), "explor", {"widths": [8, 9]})
    assert recipe.backbone == {**RECIPES["explor", "cifar10"].backbone, "widths": [8, 9]}
    name, recipe = plan(images("cifar10", (32, 32, 3)), "torchvision:resnet18", {"weights": "default"})
    assert (name, recipe.backbone["network"]) == ("pretrained", "torchvision:resnet18")


def test_a_detached_backbone_learns_from_reconstruction_alone(tmp_path):
    x, y = strokes(120)
    source = Dataset("bars", x[..., None], y, x[..., None], y, ("across", "down"), "digest")
    options = {"widths": [8, 8], "windows": [4, 2]}

    def loss(backbone):
        return float(reconstruct(backbone, torch.from_numpy(x)[:, None] / 255, balanced=True).loss.detach())

    for detach in (False, True):
        name, recipe = plan(source, "unfolding", options, reconstruction=1.0, detach=detach, epochs=8)
        train = replace(recipe.train, slots_per_class=2, batch_size=20, matrix_lr=0.0, backbone_lr=1e-2)
        train = replace(train, standardize=False, augment="none", autocast=False)
        recipe = replace(recipe, backbone=options, train=train)
        fresh = build_backbone(name, source, recipe, seed=0).eval()
        model, _ = fit_and_save(source, name, recipe, out=tmp_path / f"{detach}", command="")
        assert loss(model.backbone) < 0.9 * loss(fresh)  # measured: 0.88 before, 0.76 after


def test_a_stabilized_backbone_has_templates_that_stay(tmp_path):
    x, y = strokes(120)
    source = Dataset("bars", x[..., None], y, x[..., None], y, ("across", "down"), "digest")
    noise = torch.randn(12, 1, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    found = {}
    for weight in (0.0, 3.0):
        name, recipe = plan(source, "cnn", stabilize=weight, epochs=20)
        train = replace(recipe.train, slots_per_class=2, batch_size=20, augment="none", autocast=False)
        model, summary = fit_and_save(
            source, name, replace(recipe, train=train), out=tmp_path / f"{weight}", command=""
        )
        assert summary.test_accuracy > 0.9
        found[weight] = np.mean([stability(model.backbone.template(noise, w)) for w in model.head.weights.detach()])
    assert found[3.0] > found[0.0] + 0.3


@pytest.mark.parametrize("pair", list_trained())
def test_the_weights_that_come_with_the_project_load(pair):
    name, data, *larger = pair.split("-")
    trained = load_trained(name, data, "cuda:0" if larger else "cpu")
    assert larger in ([], ["gpu"])
    height, width, channels = SHAPES[data]
    net = trained.build((channels, height, width)).eval()
    features = net(torch.rand(2, channels, height, width))
    assert features.shape == (2, net.feature_dim)
    assert torch.isfinite(features).all()
    assert 0.5 < trained.figures["test_accuracy"] < 1
    command = f"slots fit --backbone {name} --data {data}"
    assert trained.figures["command"] == (f"{command} --device cuda" if larger else command)


def test_a_gpu_takes_larger_weights_where_there_are_some():
    on_cpu, on_gpu = (load_trained("explor", "cifar10", device) for device in ("cpu", "cuda"))
    assert on_gpu.options["widths"] > on_cpu.options["widths"]
    assert on_gpu.figures["test_accuracy"] > on_cpu.figures["test_accuracy"]
    assert load_trained("unfolding", "cifar10", "cuda").options == load_trained("unfolding", "cifar10").options


def test_trained_weights_come_back_in_half_precision_and_stay_frozen(tmp_path, monkeypatch):
    torch.manual_seed(0)
    backbone = backbones.build("explor", input_shape=(1, 8, 8), stem="whitening", block="pool", widths=[6, 8])
    path = write_trained(backbone, "digits", {"accuracy": 0.5}, tmp_path)
    assert path.stat().st_size < 3 * sum(value.numel() for value in backbone.state_dict().values()) + 4000
    monkeypatch.setattr("protocols.recipes.weights.FOLDER", tmp_path)
    assert list_trained() == ["explor-digits"]
    trained = load_trained("explor", "digits")
    assert (trained.options, trained.figures) == (backbone.options, {"accuracy": 0.5})
    source = images("digits", (8, 8, 1))
    x = torch.rand(3, 1, 8, 8)
    for fine_tune in (False, True):
        name, recipe = plan(source, "explor", pretrained=True, fine_tune=fine_tune)
        net = build_backbone(name, source, recipe, seed=0)
        torch.testing.assert_close(net.eval()(x), backbone.eval()(x), rtol=1e-2, atol=1e-2)
        assert any(p.requires_grad for p in net.parameters()) == fine_tune
        assert not net.layers[0].weight.requires_grad  # a stem that is looked up stays as it is
    assert recipe.train.epochs < RECIPES["explor", "digits"].train.epochs
    with pytest.raises(UsageError, match=r"`pretrained` must be one of explor-digits, got positive-digits\."):
        plan(source, "positive", pretrained=True)
    with pytest.raises(UsageError, match=r"`option` must be left out with pretrained, got widths\."):
        plan(source, "explor", {"widths": [4]}, pretrained=True)
    with pytest.raises(UsageError, match=r"`fine_tune` must come with pretrained, got it alone\."):
        plan(source, "explor", fine_tune=True)
    with torch.no_grad():
        backbone.layers[2].weight.fill_(1e6)
    with pytest.raises(UsageError, match="`backbone` must have weights below 65,504, got a larger one"):
        write_trained(backbone, "digits", {}, tmp_path)
    assert list_trained() == ["explor-digits"]


def tiny(kind):
    shape, dtype = ((4, 8, 8, 1), np.uint8) if kind == "images" else ((4, 8), np.float32)
    part = np.zeros(shape, dtype), np.array([0, 1, 0, 1])
    return Dataset("mine", *part, *part, ("a", "b"), "")


def test_parts_are_planned_for_their_backbone_alone():
    name, recipe = plan(tiny("images"), "parts", {"channels": 9}, max_parts=7, features_per_slot=3)
    assert (name, recipe.backbone["channels"], recipe.parts.max_parts) == ("parts", 9, 7)
    assert recipe.train.features_per_slot == 3
    _, recipe = plan(images("cifar10", (32, 32, 3)), "parts", max_parts=7)
    assert (recipe.train.features_per_slot, recipe.parts.features_per_slot, recipe.parts.max_parts) == (10, 5, 7)
    _, recipe = plan(images("cifar10", (32, 32, 3)), "parts", features_per_slot=3)
    assert (recipe.train.features_per_slot, recipe.parts.features_per_slot) == (3, None)
    with pytest.raises(UsageError, match="`max_parts` must come with the backbone parts, got 7"):
        plan(tiny("images"), "pixels", max_parts=7)
    with pytest.raises(UsageError, match="`reconstruction` must be left out with the backbone parts"):
        plan(tiny("images"), "parts", reconstruction=1.0)


def test_readable_chooses_the_backbone_and_how_to_train_it():
    name, recipe = plan(images("mnist", (28, 28, 1)), None, readable=True, epochs=3)
    assert (name, recipe.backbone["gate"], recipe.stabilize, recipe.train.epochs) == ("unfolding", "silu", 1.0, 3)
    name, recipe = plan(images("mine", (64, 64, 3)), "unfolding", {"widths": [8, 8, 8]}, readable=True)
    assert (name, recipe.backbone["widths"], recipe.stabilize) == ("unfolding", [8, 8, 8], 1.0)
    assert plan(tiny("images"), None, readable=True, stabilize=0.2)[1].stabilize == 0.2
    for source, backbone in ((tiny("images"), "explor"), (tiny("features"), None)):
        with pytest.raises(UsageError, match="`readable` must come with images and the backbone unfolding, got"):
            plan(source, backbone, readable=True)
    with pytest.raises(UsageError, match="`readable` must be left out with pretrained"):
        plan(images("cifar10", (32, 32, 3)), None, readable=True, pretrained=True)


def test_what_losses_on_templates_contradict():
    with pytest.raises(UsageError, match="`stabilize` must come with a backbone that learns, got none"):
        plan(tiny("images"), "pixels", stabilize=1.0)
    with pytest.raises(UsageError, match="`stabilize` must come with a backbone that learns, got none"):
        plan(tiny("features"), None, stabilize=1.0)
    with pytest.raises(UsageError, match="`stabilize` must be left out with the backbone parts"):
        plan(tiny("images"), "parts", stabilize=1.0)
    with pytest.raises(UsageError, match="`stabilize` must be left out with reconstruction, got both"):
        plan(tiny("images"), "cnn", stabilize=1.0, reconstruction=1.0)
    with pytest.raises(UsageError, match="`stabilize` must be finite and >= 0, got nan"):
        plan(tiny("images"), "cnn", stabilize=float("nan"))


def test_few_features_leave_nothing_to_a_look_at_the_data():
    assert plan(tiny("features"), None)[1].reads_data
    assert not plan(tiny("features"), None, features_per_slot=2)[1].reads_data
