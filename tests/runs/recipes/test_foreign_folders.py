"""Opening a stranger's model folder uses no network, starts no process, and reads nothing that lies elsewhere."""

import hashlib
import json
import shutil
import socket
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from support.encoders import tiny_encoder
from support.watch import watched

import backbones
import slots
from backbones.building import BACKBONES
from backbones.text import finding
from protocols.recipes import load_model
from slots.errors import ModelError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(40) % 2
CONFIG = slots.TrainConfig(epochs=1, slots_per_class=2, device="cpu")


def fitted(name, **options):
    backbone = backbones.build(name, input_shape=(3, 16, 16), **options)
    model, _ = slots.fit(IMAGES, LABELS, backbone=backbone, config=CONFIG)
    return model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "model"
    fitted("pretrained", network="cifar_resnet20").save(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


def edited(folder, change):
    """Rewrite the current state as a stranger would: any header and tensors, and the right digests."""
    (state,) = (folder / "states").iterdir()
    document = json.loads((state / "model.json").read_bytes())
    tensors = {name: load_file(state / name) for name in document["files"]}
    change(document["header"], tensors)
    for name, named in tensors.items():
        data = save(named)
        (state / name).write_bytes(data)
        document["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    raw = json.dumps(document).encode()
    (state / "model.json").write_bytes(raw)
    named = f"000001-{hashlib.sha256(raw).hexdigest()[:8]}"
    state.rename(state.with_name(named))
    pointer = {"format": "neural-slots", "schema": 1, "current": named, "generations": [named]}
    (folder / "slots.json").write_text(json.dumps(pointer))
    return folder


def backbone_of(**changes):
    def change(header, _tensors):
        header["backbone"] = {**header["backbone"], **changes}

    return change


def refused(folder, match):
    with watched() as seen, pytest.raises(ModelError, match=match) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert seen.started == []
    return seen


def test_the_watch_sees_what_it_must(tmp_path):
    (tmp_path / "file").write_text("x")
    with watched() as seen:
        subprocess.run(["true"], check=True)
        with socket.socket() as it, pytest.raises(OSError, match="refused"):
            it.connect(("127.0.0.1", 9))
        (tmp_path / "file").read_text()
    assert {"subprocess.Popen", "socket.connect"} <= {event for event, _ in seen.started}
    assert seen.opened_outside() == [str((tmp_path / "file").resolve())]
    assert seen.opened_outside(tmp_path) == []


def test_an_honest_folder_opens_and_reads_only_itself(folder):
    with watched() as seen:
        model = load_model(folder, device="cpu")
        model.predict(IMAGES)
    assert seen.started == []
    assert seen.opened_outside(folder) == []


@pytest.mark.parametrize("network", ["torchvision:resnet18", "cifar_resnet20"])
def test_weights_are_not_downloaded(folder, network):
    edited(folder, backbone_of(options={"network": network, "weights": "default"}))
    refused(folder, r"weights must lie in its own folder, but its header names others: 'default'")


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_weights_of_another_place_are_not_opened(folder, tmp_path, ending):
    secret = tmp_path / f"secret{ending}"
    secret.write_bytes(b"x")
    edited(folder, backbone_of(options={"network": "cifar_resnet20", "weights": str(secret)}))
    seen = refused(folder, r"weights must lie in its own folder")
    assert seen.opened_outside(folder) == []


def test_only_known_networks_are_built(folder):
    for name in ("os", "backbones.text", "pretrained ", "", 7, None, ["cnn"]):
        edited(folder, backbone_of(name=name))
        refused(folder, "must be")


@pytest.mark.parametrize(
    "network", ["timm:hf-hub:someone/net", "torchvision:segmentation.fcn_resnet50", "own", "/x", 5]
)
def test_only_networks_of_the_libraries_lists_are_built(folder, network):
    edited(folder, backbone_of(options={"network": network}))
    refused(folder, "network|backbone")


def test_a_module_of_ones_own_opens_in_python_alone(tmp_path):
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU6())
    model = fitted("pretrained", network=body)
    model.save(tmp_path / "model")
    refused(tmp_path / "model", r"is a module of your own, .* SlotModel\.load\(folder, build=\.\.\.\), with a function")

    def build(name, *, input_shape, **options):
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU6())
        return backbones.build(name, input_shape=input_shape, **{**options, "network": net})

    again = slots.SlotModel.load(tmp_path / "model", build=build)
    assert np.array_equal(again.predict(IMAGES).margins, model.predict(IMAGES).margins)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn", {"width": 60_000, "hidden": 60_000}),
        ("cnn", {"width": 10**9}),
        ("explor", {"widths": [65_536] * 3}),
        ("positive", {"widths": [10**12]}),
        ("pretrained", {"network": "cifar_resnet20", "size": 10**6}),
        ("pretrained", {"network": "cifar_resnet20", "size": float("inf")}),
        ("explor", {"widths": [1] * 100_000}),
    ],
)
def test_a_record_cannot_take_more_memory_than_its_weights(folder, name, options):
    edited(folder, backbone_of(name=name, options=options))
    torch.empty(0)
    before = _peak()
    refused(folder, "must")
    assert _peak() - before < 300 << 20


def _peak():
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])


def test_an_input_shape_beyond_memory_is_refused(folder):
    def change(header, _tensors):
        header["preprocessing"]["shape"] = [3, 10**6, 10**6]

    refused(edited(folder, change), "at most 268435456 numbers")


def spoil_nan(weights, key):
    weights[key].view(-1)[3] = torch.nan


def spoil_shape(weights, key):
    weights[key] = weights[key][:1].clone()


def spoil_kind(weights, key):
    weights[key] = weights[key].long()


def spoil_name(weights, key):
    weights["other"] = weights.pop(key)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [(spoil_nan, "finite"), (spoil_shape, "shape"), (spoil_kind, r"torch\.int64"), (spoil_name, "only one of the two")],
)
def test_weights_must_be_those_of_the_network_and_finite(folder, spoil, match):
    def change(_header, tensors):
        weights = tensors["backbone.safetensors"]
        spoil(weights, next(key for key in weights if weights[key].ndim == 4))

    refused(edited(folder, change), match)


@pytest.mark.parametrize("name", [*BACKBONES])
def test_every_backbone_of_ours_opens_as_it_was(name, tmp_path):
    model = fitted(name)
    model.save(tmp_path / "m")
    with watched() as seen:
        twin = load_model(tmp_path / "m", device="cpu")
    assert seen.started == []
    assert seen.opened_outside(tmp_path / "m") == []
    assert np.array_equal(twin.predict(IMAGES).margins, model.predict(IMAGES).margins)


# Sentence encoders: named by a model, not held by it


SENTENCES = ["what is my balance", "play music", "rain today", "sun tomorrow"] * 10


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def text_model(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "_allowed", set())
    model, _ = slots.fit(SENTENCES, np.arange(40) % 2, backbone=backbones.build(f"text:{encoder}"), config=CONFIG)
    model.save(tmp_path / "m")
    monkeypatch.setattr(finding, "_allowed", set())  # as in another process
    return tmp_path / "m"


def test_an_encoder_that_only_the_model_names_is_not_read(text_model, encoder, monkeypatch):
    with watched() as seen:
        model = load_model(text_model, device="cpu")
        with pytest.raises(backbones.WeightsError, match=r"names the sentence encoder .* SLOTS_ENCODERS"):
            model.predict(["rain today"])
    assert (seen.started, seen.opened_outside(text_model)) == ([], [])
    monkeypatch.setenv("SLOTS_ENCODERS", f"/nowhere:{encoder}")
    assert len(load_model(text_model, device="cpu").predict(["rain today"])) == 1


def test_an_encoder_that_the_user_named_is_read(text_model, encoder):
    backbones.build(f"text:{encoder}")
    assert len(load_model(text_model, device="cpu").predict(["rain today"])) == 1


@pytest.mark.parametrize("missing", ["weights", "features", "model"])
def test_a_record_of_an_encoder_is_whole(text_model, missing):
    def change(header, _tensors):
        header["backbone"]["options"][missing] = None

    refused(edited(text_model, change), "must be recorded with digest and length")


def test_a_record_cannot_name_an_encoder_in_words(text_model, encoder):
    edited(text_model, backbone_of(name=f"text:{encoder}", options={}))
    refused(text_model, "must be recorded with digest and length")


@pytest.mark.parametrize("name", ["encoder", "./encoder", "../tiny/encoder"])
def test_a_folder_that_lies_about_is_not_taken_for_a_name(text_model, encoder, monkeypatch, name):
    monkeypatch.chdir(encoder.parent)

    def change(header, _tensors):
        header["backbone"]["options"]["model"] = name

    edited(text_model, change)
    with watched() as seen, pytest.raises(backbones.WeightsError, match="nothing is downloaded here"):
        load_model(text_model, device="cpu").predict(["rain"])
    assert seen.started == []
    assert not [path for path in seen.opened if path.startswith(str(encoder))]


def test_an_encoder_with_code_of_its_own_is_refused(tmp_path, encoder):
    shutil.copytree(encoder, tmp_path / "encoder")
    modules = json.loads((tmp_path / "encoder" / "modules.json").read_text())
    modules[0]["type"] = "theirs.Module"
    (tmp_path / "encoder" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "encoder" / "theirs.py").write_text("raise SystemExit('their code ran')")
    with pytest.raises(backbones.WeightsError, match=r"modules of sentence-transformers, got 'theirs\.Module'"):
        backbones.build(f"text:{tmp_path / 'encoder'}")
