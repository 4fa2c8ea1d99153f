"""Photographs of any size through a network of torchvision, read as its publishers read them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models, transforms

import backbones
from backbones.nets.pretrained import published_input
from protocols.commands import main
from protocols.data.images import load_images
from protocols.recipes.planning import cut_of, plan
from slots.errors import UsageError


def photograph(path, size, hue):
    """A smooth picture of a size (height, width)."""
    down, right = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
    pixels = np.stack([down * 255, right * 255, np.full(size, hue)], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.round().astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("size", [(300, 400), (500, 260), (100, 120), (224, 224)])
def test_pictures_are_cut_as_torchvision_cuts_them(tmp_path, size):
    path = photograph(tmp_path / "a.png", size, 100)
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(Image.open(path))
    ours = load_images([path], image_size=(224, 224), crop=224 / 256)[0]
    assert ours.shape == (224, 224, 3)
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 3
    squeezed = load_images([path], image_size=(224, 224))[0]
    assert size == (224, 224) or np.abs(squeezed.astype(int) - ours.astype(int)).max() > 10


def test_what_a_network_expects_is_its_librarys_word():
    told = models.get_model_weights("efficientnet_b1").DEFAULT.transforms()
    seen = published_input("torchvision:efficientnet_b1")
    assert (seen.size, round(seen.size / seen.crop)) == (told.crop_size[0], told.resize_size[0])
    backbone = backbones.build("pretrained", input_shape=(3, 64, 64), network="torchvision:vit_b_16", size=224)
    assert backbone.options["mean"] == list(models.get_model_weights("vit_b_16").DEFAULT.transforms().mean)
    with pytest.raises(ValueError, match="must be one of torchvision"):
        published_input("torchvision:none")
    with pytest.raises(ValueError, match=r"`crop` must lie in \(0, 1\], got 0"):
        backbones.build("pretrained", input_shape=(3, 32, 32), crop=0)


def test_which_sides_win(tmp_path):
    (tmp_path / "tables").mkdir()
    assert cut_of(str(tmp_path), "torchvision:resnet18", {}) == ((224, 224), 224 / 256)
    assert cut_of(str(tmp_path), "torchvision:resnet18", {"size": 96}) == ((96, 96), 224 / 256)
    assert cut_of(str(tmp_path), "torchvision:resnet18", {"size": 96}, side=64) == ((64, 64), 224 / 256)
    assert cut_of(str(tmp_path), "cnn", {}, side=64) == ((64, 64), None)
    assert cut_of(str(tmp_path), None, {}) == (None, None)
    assert cut_of("digits", "torchvision:resnet18", {}) == (None, None)
    with pytest.raises(UsageError, match="list_models"):
        cut_of(str(tmp_path), "torchvision:none", {})


def test_small_images_are_enlarged_to_the_networks_own_size():
    from protocols.data.loading import load_data

    for options, size in (({"weights": "w"}, 224), ({"weights": "w", "size": 64}, 64)):
        assert plan(load_data("digits"), "torchvision:resnet18", options)[1].backbone["size"] == size


@pytest.fixture
def run(capsys):
    def run(*arguments, status=0):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), *(["--json"] if status == 0 else [])])
        printed = capsys.readouterr()
        assert end.value.code == status, printed.err
        return json.loads(printed.out) if status == 0 else printed.err

    return run


def test_a_folder_of_photographs_from_the_fit_to_a_single_one(run, tmp_path):
    torch.manual_seed(0)
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "weights.pt")
    rng = np.random.default_rng(0)
    for name, hue in (("dark", 0), ("light", 255)):
        for i in range(15):
            photograph(tmp_path / "photos" / name / f"{i:02}.png", tuple(rng.integers(40, 90, 2)), hue)
    refused = run("fit", "--data", tmp_path / "photos", "--backbone", "cnn", status=3)
    assert "Pass image_size=" in refused
    assert "or --image-size to slots fit" in refused
    network = (
        "--backbone",
        "torchvision:resnet18",
        "--weights",
        tmp_path / "weights.pt",
        "--image-size",
        48,
        "--epochs",
        2,
    )
    fitted = run("fit", "--data", tmp_path / "photos", *network, "--views", "none", "--out", tmp_path / "m")
    assert fitted["test_accuracy"] == 1.0
    assert run("show", tmp_path / "m")["input"] == "3x48x48"
    assert run("evaluate", tmp_path / "m", "--data", tmp_path / "photos")["accuracy"] == 1.0
    files = [tmp_path / "photos" / "dark" / f"{i:02}.png" for i in (4, 9)]
    single = run("predict", tmp_path / "m", *files)["answers"]
    rows = run("predict", tmp_path / "m", "--data", tmp_path / "photos")["answers"]
    assert [it["margin"] for it in single] == [it["margin"] for it in rows[:2]]  # the fourth and ninth were set aside
    squeezed = run("fit", "--data", tmp_path / "photos", "--image-size", 16, "--epochs", 1, "--out", tmp_path / "p")
    assert squeezed["test_accuracy"] == 1.0
    single = run("predict", tmp_path / "p", *files)["answers"]
    rows = run("predict", tmp_path / "p", "--data", tmp_path / "photos")["answers"]
    assert [it["input"] for it in single] == list(map(str, files))
    set_aside = [f"{name}/{i:02}.png" for name in ("dark", "light") for i in (4, 9, 14)]
    assert [it["input"] for it in rows] == set_aside
    told = ("label", "answer", "slot", "margin")
    assert [[it[key] for key in told] for it in single] == [[it[key] for key in told] for it in rows[:2]]
