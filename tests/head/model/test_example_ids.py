"""Ids of the caller's own store: each slot has those of the very examples that it remembers, whatever follows."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import mixture, new_animals, three_animals

import slots
import slots.model.transaction
from slots.errors import DataError, ModelError
from slots.features.example_ids import LONGEST_ID, is_example_id
from slots.model.editing import delete, merge, relabel
from slots.storage.generations import undo
from slots.storage.store import read_state, write_state

CONFIG = slots.TrainConfig(epochs=2, slots_per_class=3, held_out=0.2, device="cpu")
NEW = new_animals(12)
NAMES = [f"items/ö {row}" for row in range(len(NEW))]


@pytest.fixture(scope="module")
def fitted():
    """A model of three classes whose fit was told ids, the rows, and the ids."""
    x, y = mixture(3, 80)
    ids = [f"row-{row:03d}" for row in range(len(x))]
    model, _ = slots.fit(x, y, class_names=("cat", "dog", "bird"), config=CONFIG, ids=ids)
    return model, x, ids


def copy_of(model, folder):
    model.save(folder)
    return type(model).load(folder)


def assert_named(found, exemplars, ids):
    """Slot by slot, place by place: the id of the row, or nothing."""
    assert found.shape == exemplars.shape
    for slot, place in np.ndindex(*exemplars.shape):
        row = int(exemplars[slot, place])
        assert found[slot, place] == (ids[row] if row >= 0 else "")


def test_a_fit_keeps_the_ids_of_the_examples_that_its_slots_remember(fitted):
    model, x, ids = fitted
    assert_named(model.exemplar_ids, model.head.exemplars.numpy(), ids)
    for slot in range(model.head.n_slots):
        for place, name in enumerate(model.exemplar_ids[slot]):
            if name:
                row = torch.from_numpy(x[ids.index(name)])
                remembered = model.exemplar_features[slot, place].float()
                assert torch.cosine_similarity(row, remembered, dim=0) > 0.999
    assert (model.exemplar_ids != "").any(1).all()


def test_ids_change_nothing_else(fitted):
    model, x, _ = fitted
    plain, _ = slots.fit(x, mixture(3, 80)[1], class_names=("cat", "dog", "bird"), config=CONFIG)
    assert plain.exemplar_ids is None
    for name, value in plain.head.state_dict().items():
        assert torch.equal(value, model.head.state_dict()[name]), name


def test_an_update_adds_its_own_behind_the_old_ones(fitted, tmp_path):
    model, _, _ = fitted
    model = copy_of(model, tmp_path / "model")
    before = model.exemplar_ids.copy()
    new = np.float32([[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0.1, 1], [0, 0, 0, 0.1, 0, 1]])
    done = model.update(new, {0: "mouse"}, ids=np.array(["a", "b", "c"]))
    assert done.slots_added == 1
    np.testing.assert_array_equal(model.exemplar_ids[:-1], before)
    assert_named(model.exemplar_ids[-1:], model.head.exemplars[-1:].numpy(), ["a", "b", "c"])
    assert all(type(name) is str for name in model.exemplar_ids.ravel())
    assert "a" in model.exemplar_ids[model.predict(new[:1]).slots[0]]


def test_slots_that_came_without_ids_have_empty_ones():
    model = three_animals()
    model.update(NEW, {0: "mouse"}, ids=NAMES)
    assert (model.exemplar_ids[:6] == "").all()
    assert_named(model.exemplar_ids[6:], model.head.exemplars[6:].numpy(), NAMES)
    later = model.update(-NEW, {0: "fish"})
    assert later.slots_added == 1
    assert (model.exemplar_ids[-1] == "").all()
    assert len(model.exemplar_ids) == model.head.n_slots


def test_without_ids_there_are_none():
    model = three_animals()
    model.update(NEW, {0: "mouse"})
    assert model.exemplar_ids is None


def test_edits_leave_each_slot_its_ids():
    model = three_animals()
    model.update(NEW, {0: "mouse", 12: "horse"}, ids=NAMES)
    before = model.exemplar_ids.copy()
    assert model.head.n_slots == 8
    relabel(model, [7], "zebra")
    merge(model, ["mouse"], "vole")
    np.testing.assert_array_equal(model.exemplar_ids, before)
    delete(model, [2, 6])
    np.testing.assert_array_equal(model.exemplar_ids, before[[0, 1, 3, 4, 5, 7]])


def test_they_are_saved_and_undone_and_read_again_under_any_generation(tmp_path):
    folder, model = tmp_path / "model", three_animals()
    model.save(folder)
    model.update(NEW, {0: "mouse", 12: "horse"}, ids=NAMES)
    model.save(folder, keep_history=True)
    whole = model.exemplar_ids.copy()
    delete(model, [6])
    model.save(folder, keep_history=True)
    np.testing.assert_array_equal(slots.SlotModel.load(folder).exemplar_ids, whole[[0, 1, 2, 3, 4, 5, 7]])
    np.testing.assert_array_equal(slots.SlotModel.load(folder, generation=1).exemplar_ids, whole)
    undo(folder)
    np.testing.assert_array_equal(slots.SlotModel.load(folder).exemplar_ids, whole)
    undo(folder, to=0)
    assert slots.SlotModel.load(folder).exemplar_ids is None


def test_an_update_that_breaks_off_leaves_them_as_they_were(monkeypatch):
    model = three_animals()
    model.update(NEW, {0: "mouse"}, ids=NAMES)
    before = model.exemplar_ids

    def interrupted(*_args):
        raise KeyboardInterrupt

    whole = slots.model.transaction.remembered_ids
    monkeypatch.setattr(slots.model.transaction, "remembered_ids", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.update(-NEW, {0: "fish"}, ids=NAMES)
    assert model.exemplar_ids is before
    assert model.head.n_slots == len(before)
    monkeypatch.setattr(slots.model.transaction, "remembered_ids", whole)
    model.update(-NEW, {0: "fish"}, ids=NAMES)
    assert len(model.exemplar_ids) == model.head.n_slots == 1 + len(before)


WRONG = {
    "too few": (NAMES[:-1], "one id for each of the 24 examples, got 23"),
    "one text": ("abc", "one id for each of the 24 examples, got one text"),
    "numbers": (list(range(24)), "got 0 at row 0"),
    "empty": ([*NAMES[:-1], ""], "got '' at row 23"),
    "blank": ([*NAMES[:-1], " "], "got ' ' at row 23"),
    "long": ([*NAMES[:-1], "x" * 257], "at row 23"),
    "a line more": ([*NAMES[:-1], "a\nb"], "at row 23"),
    "a control": ([*NAMES[:-1], "a\x1b[2Jb"], "at row 23"),
    "half of a character": ([*NAMES[:-1], "a\udc80"], "at row 23"),
    "none": ([*NAMES[:-1], None], "got None at row 23"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_id_is_refused_in_one_line_before_anything_is_done(wrong):
    ids, said = WRONG[wrong]
    model = three_animals()
    with pytest.raises(DataError, match=said) as caught:
        model.update(NEW, {0: "mouse"}, ids=ids)
    assert "\n" not in str(caught.value)
    assert model.head.n_slots == 6
    assert model.exemplar_ids is None
    with pytest.raises(DataError, match=said):
        slots.fit(NEW, np.zeros(24, np.int64), config=CONFIG, ids=ids)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=LONGEST_ID + 2))
def test_any_text_without_controls_is_an_id(text):
    unfit = any(ord(it) < 32 or 127 <= ord(it) < 160 or it in "\u2028\u2029" for it in text)
    assert is_example_id(text) == (1 <= len(text) <= 256 and bool(text.strip()) and not unfit)


def test_texts_of_any_alphabet_come_back_to_the_letter(tmp_path):
    model = three_animals()
    odd = ['"', "\\", "a/b?c=d&e", "日本語", "🙂" * 256, "ends in \\ud800"]
    names = [f"{odd[row % 6]}{row}"[-256:] for row in range(24)]
    model.update(NEW, {0: "mouse", 12: "horse"}, ids=names)
    loaded = copy_of(model, tmp_path / "model")
    np.testing.assert_array_equal(loaded.exemplar_ids, model.exemplar_ids)
    assert_named(loaded.exemplar_ids[6:], loaded.head.exemplars[6:].numpy(), names)


def as_lists(value):
    return torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy())


FORGED = {
    "fewer slots": as_lists([["a"] * 4] * 6),
    "fewer a slot": as_lists([["a"] * 3] * 7),
    "ragged": as_lists([["a"] * 4] * 6 + [["a"] * 5]),
    "numbers": as_lists([[1] * 4] * 7),
    "nothing": as_lists([[None] * 4] * 7),
    "lists": as_lists([[["a"]] * 4] * 7),
    "no lists": as_lists({"a": 1}),
    "a control": as_lists([["a", "b", "c", "d\x07"]] * 7),
    "long": as_lists([["a" * 257] * 4] * 7),
    "half of a character": as_lists([["a\ud800"] * 4] * 7),
    "no JSON": torch.zeros(40, dtype=torch.uint8),
    "deep": torch.from_numpy(np.frombuffer(b"[" * 100_000, np.uint8).copy()),
    "floats": torch.ones(7, 4),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_strangers_ids_are_refused_when_the_folder_is_opened(tmp_path, forged):
    model = three_animals()
    model.update(NEW, {0: "mouse"}, ids=NAMES)
    model.save(tmp_path / "model")
    state = read_state(tmp_path / "model")
    tensors = {**state.tensors, "exemplar_ids": {"lists": FORGED[forged]}}
    write_state(tmp_path / "model", header=state.header, tensors=tensors)
    with pytest.raises(ModelError, match=r"damaged or was edited|cannot be rebuilt") as caught:
        slots.SlotModel.load(tmp_path / "model")
    assert "\n" not in str(caught.value)
