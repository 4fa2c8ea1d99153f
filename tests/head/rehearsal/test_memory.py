"""What is remembered of the training data, how it is kept within its bounds, stored, and thinned."""

import numpy as np
import pytest
import torch
from support.nets import TinyNet, strokes
from support.small_models import mixture, three_animals

import slots.rehearsal.memory
from slots.head.similarities import normalize
from slots.model.editing import merge, relabel
from slots.model.slot_model import SlotModel
from slots.rehearsal.memory import RehearsalMemory
from slots.training import TrainConfig, fit
from slots.training.fitting import hold_out


def fitted(**options):
    x, y = mixture(3, 60)
    config = TrainConfig(epochs=1, slots_per_class=2, held_out=0.2, **options)
    return x, y, fit(x, y, config=config)[0]


def test_held_out_examples_come_first_and_judge():
    x, y, model = fitted()
    memory, aside = model.rehearsal, hold_out(y, 0.2, 0)
    assert len(memory) == 180
    assert int(memory.held_out.sum()) == len(aside) == 36
    unit = normalize(torch.from_numpy(x)).half()
    assert torch.equal(memory.features[:36], unit[aside])
    assert memory.labels[:36].tolist() == y[aside].tolist()
    assert sorted(map(tuple, memory.features.tolist())) == sorted(map(tuple, unit.tolist()))
    judges, held = memory.judging()[1:]
    assert (len(judges), int(held.sum())) == (36 + 72, 36), "and every other one of those that trained"
    assert len(memory.taught()[1]) == 72


def test_the_memory_is_bounded_in_examples_and_bytes(monkeypatch):
    monkeypatch.setattr(slots.rehearsal.memory, "MOST_EXAMPLES", 50)
    memory = fitted()[2].rehearsal
    assert (len(memory), int(memory.held_out.sum())) == (50, 25)
    monkeypatch.setattr(slots.rehearsal.memory, "MOST_BYTES", 2 * 6 * 30)
    memory = fitted()[2].rehearsal
    assert (len(memory), int(memory.held_out.sum())) == (30, 15)
    more = memory.joined(memory.features[:20].float(), memory.labels[:20])
    assert len(more) == 30
    assert torch.equal(more.features, memory.joined(memory.features[:20].float(), memory.labels[:20]).features)


def test_images_are_remembered_by_the_view_nearest_to_a_slot():
    x, y = strokes(60)
    torch.manual_seed(0)
    config = TrainConfig(epochs=1, slots_per_class=2, held_out=0.2, views="shift1")
    model, _ = fit(x, y, backbone=TinyNet().requires_grad_(requires_grad=False), config=config)
    aside = hold_out(y, 0.2, 0)
    with torch.no_grad():
        views = normalize(model.features(x[aside]))
    scores = views @ model.head.weights.T
    nearest = views[torch.arange(len(aside)), scores.amax(2).argmax(1)]
    assert torch.allclose(model.rehearsal.features[: len(aside)].float(), nearest, atol=1e-3)
    assert not torch.allclose(model.rehearsal.features[: len(aside)].float(), views[:, 0], atol=1e-3)


def test_it_is_stored_with_the_model_and_folders_without_one_still_open(tmp_path):
    _, _, model = fitted()
    model.save(tmp_path / "with")
    again = SlotModel.load(tmp_path / "with").rehearsal
    for name, value in model.rehearsal.state().items():
        assert torch.equal(again.state()[name], value), name
    model.rehearsal = None
    model.save(tmp_path / "without")
    old = SlotModel.load(tmp_path / "without")
    assert old.rehearsal is None
    found = old.propose(mixture(4, 20, seed=3)[0])
    assert found.purity is None


def test_labels_of_the_memory_follow_labels_of_the_slots():
    model = three_animals()
    model.rehearsal = RehearsalMemory(torch.eye(8)[:6].half(), torch.tensor([0, 0, 1, 1, 2, 2]), torch.zeros(6) > 0)
    relabel(model, [0], "lion")
    assert model.rehearsal.labels.tolist() == [0, 0, 1, 1, 2, 2], "one cat slot is still there"
    merge(model, ["dog", "bird"], "bird")
    assert model.rehearsal.labels.tolist() == [0, 0, 2, 2, 2, 2]


def test_an_error_leaves_the_memory_as_it_was(monkeypatch):
    model = three_animals()
    model.rehearsal = RehearsalMemory(torch.eye(8)[:6].half(), torch.arange(6) // 2, torch.zeros(6) > 0)

    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr("slots.model.editing._let_vote", broken)
    before = model.rehearsal
    with pytest.raises(RuntimeError, match="no"):
        merge(model, ["dog"], "cat")
    assert model.rehearsal is before
    assert np.array_equal(model.head.labels.numpy(), [0, 0, 1, 1, 2, 2])
