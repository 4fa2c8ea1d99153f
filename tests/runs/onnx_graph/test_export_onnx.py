"""A model as an ONNX graph: onnxruntime answers as the model does, and a graph that would not is not written."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.service import rows, small_model
from torch import nn
from typer.testing import CliRunner

import backbones
from protocols.app.onnx_graph import checking, export
from protocols.app.onnx_graph.checking import check_graph
from protocols.app.onnx_graph.export import FILE, export_onnx, make_graph
from protocols.commands.app import app
from protocols.data.loading import load_data
from protocols.recipes.building import load_model
from slots.errors import DataError, MissingExtraError, ModelError, StorageError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.head.decision import decide
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel
from slots.storage.generations import Generation
from slots.training import TrainConfig, fit
from slots.update.config import UpdateConfig

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

X, Y = rows(300, 3, classes=4)


def run(file, x):
    """What onnxruntime answers, without anything of ours."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [it.name for it in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": x}), strict=True)), session


def same(told, found):
    """The labels, kinds and slots of a prediction."""
    np.testing.assert_array_equal(found["label"], told.labels)
    np.testing.assert_array_equal(found["answer"], told.answers)
    np.testing.assert_array_equal(found["matched"], told.matched)
    np.testing.assert_array_equal(found["slot"], told.slots)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "small"
    small_model(folder)
    return folder


def test_a_graph_answers_as_its_model(small, tmp_path):
    done = CliRunner().invoke(app, ["export", str(small), str(tmp_path / "a" / "out"), "--to", "onnx", "--json"])
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    assert told["checked"]["n_near_ties"] == 0
    assert told["checked"]["n"] > 500
    assert sorted(it.name for it in (tmp_path / "a" / "out").iterdir()) == [FILE]
    model = load_model(small)
    for x in (X, X[:1], X[:0], np.zeros((2, 6), np.float32), X * np.float32(1e30), X * np.float32(1e-30)):
        found, session = run(told["file"], x)
        same(model.predict(x), found)
    assert 0 < found["matched"].mean() < 1
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["slots.class_names"]) == ["red", "green", "blue"]
    assert meta["slots.generation"] == "0"
    state = json.loads((small / "slots.json").read_text())
    assert meta["slots.model_sha256"][:8] in json.dumps(state), "a state is named by its header's digest"
    assert str(tmp_path) not in str(meta)
    assert json.loads(meta["slots.checked"])["runtime"] == runtime.__version__


def test_what_was_learned_later_answers_last(tmp_path):
    """Several generations, ambiguous answers, slots that share a region, and an update that guesses by recall."""
    x, y = rows(400, 0, spread=1.0)
    model, _ = fit(x, y, config=TrainConfig(epochs=2, slots_per_class=3, held_out=0.2), class_names=("a", "b", "c"))
    model.head.support_thresholds.fill_(-2)
    model.head.precision_thresholds -= 0.25  # so that slots of several classes fire
    new, labels = rows(300, 1, classes=4, spread=1.0)
    config = UpdateConfig(recall=True)
    assert model.update(new * 3, np.where(labels == 3, 3, -1), config=config).slots_added
    assert model.head.recall is not None
    assert len(model.head.generations.unique()) == 2
    test = np.concatenate([rows(500, 2, classes=4, spread=1.5)[0], -X])
    for recall in (model.head.recall, None):
        model.head.recall = recall
        told = model.predict(test)
        assert len(np.unique(told.answers)) == 3
        _, found = checking._run(runtime, make_graph(model), test)
        same(told, found)
    guessed = ~told.matched
    np.testing.assert_array_equal(found["pooled_label"][guessed], told.labels[guessed])


@pytest.mark.parametrize(("shrinkage", "lift"), [(0.1, 0.0), (1.0, 1.0)])
def test_whitening_is_part_of_the_graph_and_kept_rows_come_back_from_it(tmp_path, shrinkage, lift):
    x = X + 50 * np.arange(6, dtype=np.float32)
    config = TrainConfig(epochs=1, slots_per_class=2, whitening=shrinkage, lift=lift, held_out=0.2)
    model, _ = fit(x, Y, config=config)
    model.save(tmp_path / "m")
    file, checked = export_onnx(tmp_path / "m", tmp_path / "out", given=x)
    same(model.predict(x), run(file, x)[0])
    assert checked.n == len(x) + 64
    kept, memory = checking._kept(model), model.rehearsal
    seen = memory.features.double() * memory.lengths[:, None]
    np.testing.assert_allclose(model.features(kept)[:, 0], seen, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "views"),
    [
        ("pixels", {}, "none"),
        ("pixels", {}, "flip,shift1,rotate10*zoom10"),
        ("cnn", {}, "none"),
        ("positive", {}, "none"),
        ("explor", {}, "flip"),
        ("unfolding", {}, "none"),
        ("disjunction", {}, "none"),
        ("directional", {}, "none"),
        ("gumbel", {}, "none"),
        ("lipschitz", {}, "none"),
        ("parts", {}, "none"),
        ("parts", {"where": "anywhere", "first": "pooled", "step": 2, "receptive_field": 9, "threshold": 0.5}, "none"),
        ("pretrained", {"network": "cifar_resnet20"}, "none"),
    ],
)
def test_every_backbone_of_pictures_becomes_a_graph(name, options, views, tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    x = np.clip(rng.integers(0, 256, (2, 12, 12, 3))[y] + rng.normal(0, 40, (24, 12, 12, 3)), 0, 255).astype(np.uint8)
    net = backbones.build(name, input_shape=(3, 12, 12), **options).eval()
    shape = Preprocessing.of(x, standardize=name == "cnn")
    with torch.no_grad():
        features = net(shape(x)).double()
    unit = nn.functional.normalize(features).float()
    head = IncrementalNeuralHashing(unit.shape[1])
    own = (unit[:6] @ unit[6:].T)[torch.from_numpy(y[:6, None] == y[None, 6:])].view(6, -1)
    head.add_slots(unit[:6], torch.from_numpy(y[:6]), precision_thresholds=own.quantile(0.8, dim=1))
    model = SlotModel(shape, head, backbone=net, views=views).eval()
    checked = check_graph(make_graph(model), model, x)
    assert checked.distance < 1e-5
    assert checked.n == 24 + 64
    assert checked.n_near_ties <= 1
    told = model.predict(x)
    assert 0 < told.matched.mean() < 1


def test_digits_with_all_their_views(tmp_path):
    data = load_data("digits")
    net = backbones.build("pixels", input_shape=(1, 8, 8))
    config = TrainConfig(epochs=1, slots_per_class=4, views="rotate10*shift1", sampled_views=2)
    model, _ = fit(data.x_train[:300], data.y_train[:300], backbone=net, config=config)
    model.history.append(Generation(0, "fit", model.head.n_slots, {"data": "digits", "data_digest": data.digest}))
    model.save(tmp_path / "m")
    words = ["export", str(tmp_path / "m"), str(tmp_path / "out"), "--to", "onnx", "--data", "digits"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    assert "the same answers to 360 given inputs and 64 of noise" in done.output
    same(model.predict(data.x_test), run(tmp_path / "out" / FILE, data.x_test)[0])


class TestRefused:
    def test_another_rule_than_the_models(self, small, tmp_path, monkeypatch):
        """A graph whose thresholds are those of other slots answers otherwise, and is not written."""
        made = export.add_decision

        def other(add, features, caps):
            return made(add, features, replace(caps, support=caps.support + 0.02))

        monkeypatch.setattr(export, "add_decision", other)
        with pytest.raises(
            ModelError, match=r"must answer as the model, got label \d instead of .* nothing was written"
        ):
            export_onnx(small, tmp_path / "out", given=X)
        assert list(tmp_path.iterdir()) == []

    def test_other_features_than_the_models(self, small, monkeypatch):
        model = load_model(small)
        made = make_graph(model)
        features = model.featurizer.features
        monkeypatch.setattr(type(model), "features", lambda _self, x: features(x) + 0.1)
        with pytest.raises(ModelError, match=r"must have the model's features, got some that differ by 0\.\d+"):
            check_graph(made, model, X)

    def test_a_backbone_that_torch_cannot_translate(self, monkeypatch):
        """Its newer exporter would take seconds, and needs a package that is not here as a rule."""
        monkeypatch.setitem(sys.modules, "onnxscript", None)

        class Odd(nn.Module):
            def forward(self, x):
                return torch.linalg.svdvals(x[:, 0]) if len(x) else x.flatten(1)

        x = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
        model, _ = fit(x, np.arange(20) % 2, backbone=Odd(), config=TrainConfig(epochs=0, slots_per_class=1))
        with pytest.raises(ModelError, match=r"torch cannot translate the backbone into ONNX: .* package onnxscript"):
            make_graph(model)

    def test_text_and_places_and_options(self, small, tmp_path):
        model = load_model(small)
        model.featurizer.preprocessing = Preprocessing("text", ())
        with pytest.raises(UsageError, match="A model of text cannot become an ONNX graph"):
            make_graph(model)
        os.symlink(tmp_path / "nowhere", tmp_path / "link")
        with pytest.raises(StorageError, match="must not be there yet"):
            export_onnx(small, tmp_path / "link")
        with pytest.raises(DataError):
            export_onnx(small, tmp_path / "out", given=X[:, :3])
        for words in (["--to", "pickle"], ["--data", "digits"]):
            done = CliRunner().invoke(app, ["export", str(small), str(tmp_path / "out"), *words])
            assert isinstance(done.exception, UsageError)
        assert [it.name for it in tmp_path.iterdir()] == ["link"]

    def test_a_missing_package_is_named(self, small, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'neural-slots\[onnx\]'"):
            export_onnx(small, tmp_path / "out")
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        file, checked = export_onnx(small, tmp_path / "out")
        assert checked is None
        assert {it.key: it.value for it in onnx.load(file).metadata_props}["slots.checked"] == "null"


def test_answers_on_the_other_side_of_a_border_are_counted(small, monkeypatch):
    """Features that differ in their last digits, as another library's would: the model's rule still holds on them."""
    model = load_model(small)
    x = X[model.predict(X).matched][:1]
    slot = int(model.predict(x).slots[0])
    centre = nn.functional.normalize(model.head.centres[slot].double(), dim=0)
    cosine = float(nn.functional.normalize(torch.from_numpy(x).double()) @ centre)
    model.head.support_thresholds.fill_(2.0)
    model.head.support_thresholds[slot] = cosine - 1e-7
    assert model.predict(x).matched.all()
    near = torch.from_numpy(x).double() - 1e-5 * centre
    assert not decide(near[:, None], model.head.caps()).matched.any()
    real = checking._run

    def rounded(onnxruntime, made, inputs):
        features, answers = real(onnxruntime, made, inputs)
        features = features.double()
        features[0, 0] = near[0]
        told = decide(features, model.head.caps())
        return features, {**answers, "label": told.labels, "answer": told.answers}

    made = make_graph(model)
    assert check_graph(made, model, x).n_near_ties == 0
    monkeypatch.setattr(checking, "_run", rounded)
    found = check_graph(made, model, x)
    assert found.n_near_ties == 1
    assert 0 < found.distance < 1e-5
