"""The log tells what a folder holds, and undo goes anywhere and back without losing a generation or a number."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import support.kill_update
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nursery import run

from slots.errors import ModelError, StorageError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel
from slots.storage.generations import Generation, log, undo
from slots.storage.store import read_state, write_state

pytestmark = pytest.mark.slow


def small_model():
    head = IncrementalNeuralHashing(feature_dim=4)
    head.add_slots(torch.eye(4)[:2], torch.arange(2), support_thresholds=torch.full((2,), 0.9))
    model = SlotModel(Preprocessing("features", (4,)), head, class_names=["cat", "dog"])
    model.history.append(Generation(0, "fit", 2, {}))
    return model


def add_cluster(model):
    """What an update does, without its search for slots."""
    label, number = model.n_labels, model.generation + 1
    model.head.add_slots(torch.randn(1, 4), torch.tensor([label]), generation=number, pooled=False)
    model.class_names = (*model.class_names, f"cluster {label}")
    model.clusters |= {label}
    model.history.append(Generation(number, "update", model.head.n_slots, {"when": "2026-11-21T09:00:00+00:00"}))
    return label


@pytest.fixture
def folder(tmp_path):
    """Generations 0 to 3, with 2 to 5 slots."""
    model = small_model()
    model.save(tmp_path / "m")
    for _ in range(3):
        add_cluster(model)
        model.save(tmp_path / "m", keep_history=True)
    return tmp_path / "m"


def content(folder, generation=None):
    """Everything that decides an answer, as bytes."""
    head = SlotModel.load(folder, generation=generation).head
    return {name: value.numpy().tobytes() for name, value in head.state_dict().items()}


def test_the_log_lists_what_the_folder_holds(folder):
    lines = log(folder)
    assert [line.number for line in lines] == [0, 1, 2, 3]
    assert [line.what for line in lines] == ["fit", "update", "update", "update"]
    assert [line.n_slots for line in lines] == [2, 3, 4, 5]
    assert [line.slots_gained for line in lines] == [2, 1, 1, 1]
    assert [(line.n_labels, line.n_clusters) for line in lines] == [(2, 0), (3, 1), (4, 2), (5, 3)]
    assert [line.when for line in lines] == [None, *["2026-11-21T09:00:00+00:00"] * 3]
    assert [line.current for line in lines] == [False, False, False, True]
    assert all(line.kept and line.content == line.number for line in lines)
    json.dumps([asdict(line) for line in lines])


def test_a_generation_that_is_not_kept_is_told_from_one_that_is(folder):
    SlotModel.load(folder).save(folder)
    lines = log(folder)
    assert [line.kept for line in lines] == [False, False, False, True]
    assert lines[0].n_labels is None
    assert lines[0].n_clusters is None
    with pytest.raises(UsageError, match="must keep a generation before 3, and keeps none"):
        undo(folder)
    with pytest.raises(UsageError, match=r"`to` must be a generation that the folder keeps, got 1\. It keeps 3\."):
        undo(folder, to=1)


def test_the_log_reads_no_tensor(folder):
    for path in (folder / "states").glob("*/head.safetensors"):
        path.unlink()
    assert len(log(folder)) == 4


def test_undo_goes_one_step_back_each_time_and_may_go_anywhere(folder):
    before = [content(folder, number) for number in range(4)]
    entry = undo(folder)
    assert (entry.number, entry.what, entry.content, entry.n_slots, entry.slots_gained) == (4, "undo", 2, 4, -1)
    assert entry.current
    assert entry.when is not None
    assert content(folder) == before[2]
    assert undo(folder).content == 1
    assert content(folder) == before[1]
    assert undo(folder, to=3).content == 3  # the undo is undone
    assert content(folder) == before[3]
    assert undo(folder, to=4).content == 2  # to an undo is to what it went back to
    assert content(folder) == before[2]
    assert [content(folder, number) for number in range(4)] == before
    assert [line.number for line in log(folder)] == list(range(8))
    assert all(line.kept for line in log(folder))


def test_an_undo_that_changes_nothing_or_has_nowhere_to_go_is_refused(folder):
    undo(folder, to=0)
    states = read_state(folder).n_generations
    with pytest.raises(UsageError, match="must keep a generation before 0, and keeps none"):
        undo(folder)
    with pytest.raises(UsageError, match=r"`to` must be another generation than the current one, got 0"):
        undo(folder, to=0)
    with pytest.raises(UsageError, match=r"keeps, got 9\. It keeps 0, 1, 2, 3, 4\."):
        undo(folder, to=9)
    assert read_state(folder).n_generations == states


def test_a_model_that_was_first_saved_without_history_can_be_gone_back_to(tmp_path):
    model = small_model()
    model.history.clear()
    model.save(tmp_path / "m")
    only = log(tmp_path / "m")
    assert [(it.number, it.what, it.n_slots, it.current) for it in only] == [(0, "start", 2, True)]
    with pytest.raises(UsageError, match="must keep a generation before 0, and keeps none"):
        undo(tmp_path / "m")
    before = content(tmp_path / "m")
    add_cluster(model)
    model.save(tmp_path / "m", keep_history=True)
    entry = undo(tmp_path / "m")
    assert (entry.number, entry.content, entry.n_slots, entry.detail) == (2, 0, 2, "to generation 0")
    assert content(tmp_path / "m") == before
    assert [it.what for it in log(tmp_path / "m")] == ["start", "update", "undo"]
    write_state(tmp_path / "bare", header={}, tensors={})
    assert log(tmp_path / "bare")[0].n_slots == 0


def test_what_is_no_model_has_no_log(tmp_path):
    with pytest.raises(ModelError, match=r"must be a model folder, got one without slots\.json"):
        log(tmp_path / "nowhere")


def test_no_number_and_no_label_is_given_out_twice(folder):
    undo(folder, to=1)
    model = SlotModel.load(folder)
    assert model.class_names == ("cat", "dog", "cluster 2", "undone label 3", "undone label 4")
    assert model.clusters == {2}
    assert add_cluster(model) == 5
    assert model.head.generations.tolist() == [0, 0, 1, 5]
    model.save(folder, keep_history=True)
    undo(folder, to=3)
    restored = SlotModel.load(folder)
    assert restored.class_names == ("cat", "dog", "cluster 2", "cluster 3", "cluster 4", "undone label 5")
    assert restored.clusters == {2, 3, 4}
    assert restored.n_labels == 6


def test_an_undo_costs_a_header(folder):
    before = {path.stat().st_ino for path in folder.glob("states/*/*.safetensors")}
    undo(folder)
    assert {path.stat().st_ino for path in folder.glob("states/*/*.safetensors")} == before


def test_a_damaged_generation_is_not_gone_back_to(folder):
    file = read_state(folder, 2).path / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    now = content(folder)
    with pytest.raises(ModelError, match="the model is damaged"):
        undo(folder)
    assert content(folder) == now
    assert undo(folder, to=1).content == 1


def test_two_who_loaded_the_same_generation_cannot_both_go_on_from_it(folder):
    one, other = SlotModel.load(folder), SlotModel.load(folder)
    for model, when in ((one, "a"), (other, "b")):
        add_cluster(model)
        model.history[-1].figures["when"] = when
    one.save(folder, keep_history=True)
    acknowledged = content(folder)
    with pytest.raises(StorageError, match="another generation was written since"):
        other.save(folder, keep_history=True)
    assert content(folder) == acknowledged
    undo(folder)
    with pytest.raises(StorageError, match="another generation was written since"):
        one.save(folder, keep_history=True)


def test_the_newest_of_two_states_of_a_generation_counts(folder):
    model = SlotModel.load(folder)
    with torch.no_grad():
        model.head.hits += 7
    model.save(folder, keep_history=True)
    assert read_state(folder).n_generations == 5
    assert SlotModel.load(folder, generation=3).head.hits.tolist() == [7] * 5
    undo(folder)
    undo(folder, to=3)
    assert SlotModel.load(folder).head.hits.tolist() == [7] * 5
    with pytest.raises(
        ModelError, match=r"`generation` must be one that .* keeps, got 7\. It keeps 0, 1, 2, 3, 4, 5\."
    ):
        SlotModel.load(folder, generation=7)


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.sampled_from(["update", "undo", 0, 1, 2, 3]), max_size=8))
def test_any_mixture_of_updates_and_undos_keeps_every_generation(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("g") / "m"
    small_model().save(folder)
    seen = [content(folder)]
    for step in steps:
        if step == "update":
            model = SlotModel.load(folder)
            add_cluster(model)
            model.save(folder, keep_history=True)
        else:
            try:
                entry = undo(folder, None if step == "undo" else step)
            except UsageError:
                continue
            assert content(folder) == seen[entry.content]
        seen.append(content(folder))
    assert [line.number for line in log(folder)] == list(range(len(seen)))
    assert [content(folder, number) for number in range(len(seen))] == seen
    labels = [SlotModel.load(folder, generation=number).n_labels for number in range(len(seen))]
    assert labels == sorted(labels)
    assert all(np.diff(SlotModel.load(folder).head.generations.numpy()) >= 0)


def test_killed_updates_edits_and_undos_lose_nothing(tmp_path):
    done = run([tmp_path / "model", 60, 7], script=support.kill_update.__file__, timeout=300)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert sum(count for name, count in counts.items() if name.startswith("killed_")) == 60
    # Otherwise the kills came at moments that prove nothing. On a busy machine few writers get far before the kill.
    assert sum(count for name, count in counts.items() if name.startswith("killed_saving")) >= 3
    assert counts["killed_saving_update"] + counts["killed_before_saving_update"] >= 5
    assert counts["generations_checked"] >= 1
