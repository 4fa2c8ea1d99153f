"""The parts of a model under the names that users, checkpoints and stored models know them by."""

import copy

import numpy as np
import pytest
import torch
from support.nets import TinyNet, strokes
from torch import nn

from slots.features.preprocessing import Preprocessing
from slots.features.views import parse_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    head = IncrementalNeuralHashing(6)
    head.add_slots(torch.eye(6)[:2], torch.tensor([0, 1]))
    return SlotModel(Preprocessing("images", (1, 8, 8)), head, backbone=TinyNet().eval(), views="flip")


def test_weights_are_named_as_in_the_checkpoints_of_earlier_versions(model):
    state = model.state_dict()
    names = {f"backbone.{name}" for name in model.backbone.state_dict()}
    assert {name for name in state if not name.startswith("head.")} == names
    twin = copy.deepcopy(model)
    changed = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    twin.load_state_dict(changed)
    assert torch.equal(twin.backbone.convolution.weight, model.backbone.convolution.weight + 1)
    holder = nn.ModuleDict({"it": copy.deepcopy(model)})
    assert {name for name in holder.state_dict() if "backbone" in name} == {f"it.{name}" for name in names}
    holder.load_state_dict({f"it.{name}": value for name, value in changed.items()})
    assert torch.equal(holder["it"].backbone.convolution.weight, twin.backbone.convolution.weight)
    with pytest.raises(RuntimeError, match=r"convolution\.weight"):
        twin.load_state_dict({name: value for name, value in state.items() if "convolution" not in name})


def test_parts_can_be_replaced(model):
    x, net = strokes(5)[0], TinyNet().eval()
    model.backbone = net
    assert model.backbone is model.featurizer.backbone is net
    assert {name for name, _ in model.named_children()} == {"head", "featurizer"}
    model.views = parse_views("none")
    model.preprocessing = Preprocessing("images", (1, 8, 8), (0.5,), (0.25,))
    wanted = net((torch.from_numpy(x)[:, None].float() / 255 - 0.5) / 0.25)
    with torch.no_grad():
        torch.testing.assert_close(model.features(x)[:, 0], wanted)
    assert model.features(x).shape == (5, 1, 6)


def test_a_model_without_weights_knows_where_it_is():
    model = SlotModel(Preprocessing("features", (3,)), IncrementalNeuralHashing(3))
    assert model.device == model.featurizer.device == torch.device("cpu")
    assert model.to("meta").featurizer.device == torch.device("meta")


def test_blocks_grow_smaller_with_slots_and_columns(model, monkeypatch):
    monkeypatch.setattr("slots.features.featurizer._BLOCK_FLOATS", 1024)
    monkeypatch.setattr("slots.features.featurizer._BLOCK_FLOATS_OF_VIEWS", 4096)
    assert [rows.stop - rows.start for rows in model.blocks(20)] == [8, 8, 4], "4 x 64 floats a view, two views"
    assert [rows.stop for rows in model.blocks(3, columns=2048)] == [1, 2, 3]
    assert list(model.featurizer.blocks(0)) == []
    assert np.concatenate([np.arange(20)[rows] for rows in model.blocks(20)]).tolist() == list(range(20))
    model.views = parse_views("none")
    assert [rows.stop - rows.start for rows in model.blocks(8)] == [4, 4], "nothing is shared by the views of one"
    model.views = parse_views("flip")
    assert [rows.stop - rows.start for rows in model.to("meta").blocks(4)] == [2, 2], "there is no cache to stay in"
