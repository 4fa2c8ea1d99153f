"""The measurement of other networks of parts: what is counted, what is trained, and what is left alone."""

import importlib
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_models import three_animals

import backbones
from backbones.layers.whitening_stem import WhiteningStem
from protocols.data.dataset import make_dataset
from slots.features.preprocessing import Preprocessing

SCRIPTS = Path(__file__).parents[3] / "benchmarks"
NO_PEERS = importlib.util.find_spec("cabrnet") is None


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("part_networks")


@pytest.fixture
def kinds(script):
    return importlib.import_module("part_network_kinds")


@pytest.fixture
def data():
    """Squares of three colours at random places."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.integers(0, 60, (90, 16, 16, 3), dtype=np.uint8)
    for image, label, (top, left) in zip(x, y, rng.integers(0, 8, (90, 2)), strict=True):
        image[top : top + 8, left : left + 8, label] += 180
    return make_dataset("squares", (x[:60], y[:60]), (x[60:], y[60:]), ("red", "green", "blue"))


@pytest.fixture
def model(data):
    """What the script reads of a model: an encoder with a stem that is looked up."""
    torch.manual_seed(0)
    net = backbones.build(
        "parts", input_shape=(3, 16, 16), channels=10, width=16, receptive_field=9, where="anywhere", first="pooled"
    )
    preprocessing = Preprocessing.of(data.x_train, standardize=True)
    net.prepare_(preprocessing(data.x_train))
    return types.SimpleNamespace(backbone=net.eval().requires_grad_(False), preprocessing=preprocessing)


def arguments(**changed):
    return types.SimpleNamespace(**{"seed": 0, "epochs": 4, "rate": 3e-3, "batch": 10, "plain_views": False} | changed)


def images(n):
    """Flat images, whose first pixel of each row is bright."""
    x = np.full((n, 8, 8, 1), 100, np.uint8)
    x[:, :, 0] = 250
    return x


def test_prototypes_of_a_decision_by_hand(script):
    evidence = torch.tensor([[1.0, 0.5, 0.0, 2.0], [1.0, 0.0009, 3.0, 0.0]])
    weights = torch.tensor([[1.0, 0.001, 5.0, -1.0], [-0.5, 1.0, 0.2, 9.0]])
    answers = torch.tensor([0, 1])
    found = script.deciding(evidence, weights, answers)
    assert [it.tolist() for it in found] == [[1, 1], [1, 1]]  # 1, 0.0005, 0, -2; and -0.5, 0.0009, 0.6, 0


def test_prototypes_of_a_decision_of_pip_net_by_hand(script):
    """A weight below 0 counts as none, as in its layer; presence below a tenth is counted apart."""
    presence = torch.tensor([[0.9, 0.05, 0.5]])
    weights = torch.tensor([[1.0, 1.0, -1.0], [0.1, 0.0, 0.0]])
    last = types.SimpleNamespace(weight=weights)
    net = types.SimpleNamespace(classifier=types.SimpleNamespace(last_layer=last), eval=lambda: None)

    class Model:
        classifier = net.classifier

        def eval(self):
            """Nothing changes."""

        def __call__(self, x):
            return None, presence, presence @ weights.relu().T

    found = script.measured("pipnet", Model(), [(None, torch.tensor([0]))])
    assert found == {"accuracy": 1.0, "prototypes": 2, "prototypes_a_decision": 2.0, "of_presence": 1.0}


def test_the_linear_row_learns_and_leaves_the_model_alone(script, model, data):
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    row = script.peer("linear", model, data, arguments(epochs=20))
    assert row["accuracy"] > 0.8
    assert "prototypes" not in row
    after = model.backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_encoder_is_trained_but_for_its_stem(script, kinds, model, data):
    encoder, width = script.encoder_of(model)
    assert width == 16
    before = {name: value.clone() for name, value in encoder.named_parameters()}

    def batches(**options):
        return kinds.Batches(data.x_train, data.y_train, model.preprocessing, size=20, **options)

    ((_, trained),) = kinds.linear(encoder, width, 3, batches, kinds.Plan(1, 1e-3))
    changed = {name for name, value in trained[0].named_parameters() if not torch.equal(value, before[name])}
    assert isinstance(encoder[0], WhiteningStem)
    assert changed == before.keys() - {"0.weight"}
    assert kinds.fixed(encoder) == ["extractor.convnet.0.weight"]


def test_batches_hold_every_image_once_in_order(kinds):
    x, y = images(25), np.arange(25)
    batches = kinds.Batches(x, y, Preprocessing("images", (1, 8, 8)), size=10)
    found = list(batches)
    assert len(batches) == len(found) == 3
    assert torch.cat([labels for _, labels in found]).tolist() == list(range(25))
    torch.testing.assert_close(torch.cat([it for it, _ in found]), torch.from_numpy(x).permute(0, 3, 1, 2) / 255)


def test_training_batches_are_shuffled_and_whole(kinds):
    batches = kinds.Batches(images(25), np.arange(25), Preprocessing("images", (1, 8, 8)), size=10, augment="flip")
    (first, second), again = [labels.tolist() for _, labels in batches], [labels.tolist() for _, labels in batches]
    assert len(batches) == 2
    assert len({*first, *second}) == 20
    assert [first, second] != again


def test_two_views_are_flipped_alike_and_moved_apart(kinds):
    batches = kinds.Batches(images(200), np.arange(200), Preprocessing("images", (1, 8, 8)), size=200, pairs=True)
    ((x, labels),) = batches
    one, other = x.chunk(2)
    assert len(labels) == 200
    sides = [(view[..., 3:5, :3].amax((1, 2, 3)) < view[..., 3:5, 5:].amax((1, 2, 3))) for view in (one, other)]
    seen = [view.amax((1, 2, 3)) > 0.9 for view in (one, other)]  # the bright column may be moved out
    both = seen[0] & seen[1]
    assert torch.equal(sides[0][both], sides[1][both])
    assert 0.2 < sides[0][both].float().mean() < 0.8
    assert 0.3 < (one != other).flatten(1).any(1).float().mean() < 1


def test_colours_change_each_view_by_itself(kinds):
    drawn = iter(range(20))

    def colours(image):
        assert image.shape == (1, 8, 8)
        assert image.dtype == torch.uint8
        return torch.full_like(image, 10 * next(drawn))

    batches = kinds.Batches(
        images(4), np.arange(4), Preprocessing("images", (1, 8, 8)), size=4, pairs=True, colours=colours
    )
    ((x, _),) = batches
    assert (x[:, 0, 4, 4] * 25.5).round().tolist() == list(range(8))


def test_a_row_takes_the_place_of_its_kind(script, tmp_path):
    file = tmp_path / "results" / "rows.json"
    for row in ({"kind": "ours", "a": 1}, {"kind": "linear"}, {"kind": "ours", "a": 2}):
        script.keep(row, file)
    assert json.loads(file.read_text()) == [{"kind": "linear"}, {"kind": "ours", "a": 2}]
    script.keep({"kind": "ours"}, None)


def test_a_model_without_parts_is_named(script):
    with pytest.raises(SystemExit, match="must have parts"):
        script.encoder_of(three_animals())


def test_a_missing_library_is_named_before_anything_is_read(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "cabrnet", None)
    with pytest.raises(SystemExit, match="need cabrnet") as error:
        script.main(["--model", "none", "--kinds", "linear", "pipnet"])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(NO_PEERS, reason="needs cabrnet, see benchmarks/part_networks.py")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["protopnet", "pipnet"])
def test_a_peer_goes_through_all_its_phases(script, kinds, kind, model, data, capsys):
    row = script.peer(kind, model, data, arguments(epochs=20))
    said = capsys.readouterr().err
    if kind == "protopnet":
        assert row["accuracy"] > 0.5
        assert all(f"ProtoPNet ({phase})" in said for phase in ("warmup", "joint", "last"))
        assert row["prototypes"] == 30
        assert 1 <= row["prototypes_a_decision"] <= 30
        assert {"accuracy", "prototypes"} <= row["before_projection"].keys() & row["after_projection"].keys()
    else:
        assert all(f"PIPNet ({phase})" in said for phase in ("pretrain", "fine_tuning", "main"))
        apart = [float(it) for it in re.findall(r"alignment_loss ([\d.]+)", said)]
        assert apart[-1] < 0.95 * apart[0]  # sixty images are too few for its classes
        assert row["of_presence"] <= row["prototypes_a_decision"] <= row["prototypes"] <= 200


@pytest.mark.skipif(NO_PEERS, reason="needs cabrnet, see benchmarks/part_networks.py")
@pytest.mark.filterwarnings("ignore")
def test_projected_prototypes_are_patches_of_their_class(script, kinds, model, data):
    encoder, width = script.encoder_of(model)

    def batches(**options):
        return kinds.Batches(data.x_train, data.y_train, model.preprocessing, size=20, **options)

    for stage, net in kinds.protopnet(encoder, width, 3, batches, kinds.Plan(1, 1e-3)):
        assert torch.equal(net.extractor.convnet[0].weight, model.backbone.encoder[0][0].weight)
        if stage == "before_projection":
            continue
        net.eval()
        with torch.no_grad():
            maps = net.features(model.preprocessing(data.x_train)).flatten(2)
        for at, prototype in enumerate(net.classifier.prototypes.detach().flatten(1)):
            own = maps[torch.from_numpy(data.y_train == at // 10)]
            assert (own - prototype[None, :, None]).abs().amax(1).min() < 1e-5
