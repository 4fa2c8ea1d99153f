"""`diff` finds what changed, proves what cannot have changed, and never calls a change proven away."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import near, new_animals, three_animals, with_overlap
from torch import nn

from slots.errors import ModelError
from slots.features.preprocessing import Preprocessing
from slots.head.similarities import normalize
from slots.model.comparison import diff
from slots.model.editing import delete, merge, relabel
from slots.model.slot_model import SlotModel
from slots.update.config import UpdateConfig


def changed_by(change, model=None):
    old = three_animals() if model is None else model
    new = copy.deepcopy(old)
    change(new)
    return old, new


def test_a_model_and_itself():
    model = three_animals()
    found = diff(model, copy.deepcopy(model), model.exemplar_features.float().flatten(0, 1).numpy())
    assert (found.added, found.removed, found.relabelled, found.renamed) == ((), (), (), ())
    assert found.proven
    assert found.reasons == ()
    assert (found.n_compared, found.changed) == (48, ())


@pytest.mark.parametrize("disjoint", [False, True])
def test_an_update_is_proven_and_measured_to_change_no_matched_answer(disjoint):
    old, new = changed_by(
        lambda model: model.update(new_animals(), {0: "fish"}, config=UpdateConfig(disjoint=disjoint))
    )
    x = normalize(torch.randn(2000, 8, generator=torch.Generator().manual_seed(3))).numpy()
    found = diff(old, new, x)
    assert found.added == tuple(range(6, new.head.n_slots))
    assert found.removed == ()
    assert found.proven
    assert found.n_compared > 24
    assert found.changed == ()
    assert (found.old, found.new) == (0, 1)


def test_disjoint_caps_are_counted():
    old, new = changed_by(lambda model: None)
    far, close = torch.eye(8)[6:7], normalize(torch.eye(8)[:1] + torch.eye(8)[6:7])
    for centre, threshold in ((far, 0.9), (close, 0.9), (close, 0.999)):
        new.head.add_slots(
            centre, torch.tensor([1]), support_thresholds=torch.tensor([threshold]), generation=1, pooled=False
        )
    # The cap of 0.85 around the first axis is 32 degrees wide; 45 degrees away there is room for 13.
    assert np.degrees(np.arccos(0.9)) > 45 - np.degrees(np.arccos(0.85)) > np.degrees(np.arccos(0.999))
    found = diff(old, new)
    assert found.added == (6, 7, 8)
    assert found.n_disjoint == 2
    assert found.proven


def test_relabelled_slots_are_found_and_what_they_change():
    old, new = changed_by(lambda model: relabel(model, [3], "cat"))
    found = diff(old, new)
    assert found.relabelled == ((3, "dog", "cat"),)
    assert (found.added, found.removed) == ((), ())
    assert not found.proven
    assert found.reasons == ("old slots are not as they were (labels)",)
    assert [(it.source, it.example) for it in found.changed] == [("remembered", 12 + place) for place in range(4)]
    assert {(it.before, it.after, it.slot_before, it.slot_after) for it in found.changed} == {("dog", "cat", 3, 3)}


def test_an_answer_that_becomes_ambiguous_has_changed():
    old, new = changed_by(lambda model: relabel(model, [6], "dog"), with_overlap())
    assert any(it.after.endswith(", ambiguous") for it in diff(old, new).changed)


def test_deleted_slots_are_found_although_the_others_moved_up():
    old, new = changed_by(lambda model: delete(model, [1, 4]))
    found = diff(old, new, old.exemplar_features.float().flatten(0, 1).numpy())
    assert found.removed == (1, 4)
    assert found.added == ()
    assert found.reasons == ("slots are gone",)
    assert {it.slot_before for it in found.changed} == {1, 4}
    assert [it.source for it in found.changed] == ["remembered"] * 8 + ["data"] * 8
    back = diff(new, old)
    assert back.added == (1, 4)
    assert not back.proven


def test_another_name_is_another_answer():
    old, new = changed_by(lambda model: merge(model, ["bird"], "robin"))
    found = diff(old, new)
    assert found.renamed == ((2, "bird", "robin"),)
    assert found.relabelled == ()
    assert found.reasons == ("labels have other names",)
    assert len(found.changed) == 8


def test_names_that_no_slot_answers_with_do_not_count():
    old, new = changed_by(lambda model: None)
    old.class_names, new.class_names = (*old.class_names, "a"), (*new.class_names, "b", "c")
    assert diff(old, new).proven


@pytest.mark.parametrize("buffer", ["weights", "centres", "precision_thresholds", "support_thresholds"])
def test_the_smallest_move_of_a_slot_is_seen(buffer):
    def move(model):
        row = getattr(model.head, buffer).data[2]
        row.copy_(torch.nextafter(row, row + 1))

    old, new = changed_by(move)
    found = diff(old, new)
    assert (found.added, found.removed) == ((2,), (2,))
    assert found.reasons == (f"old slots are not as they were ({buffer})",)


def test_a_new_slot_of_an_old_generation_is_no_proof():
    old, new = changed_by(
        lambda model: model.head.add_slots(torch.eye(8)[6:7], torch.tensor([1]), generation=0, pooled=False)
    )
    assert diff(old, new).reasons == ("a new slot has no later generation than the old ones",)
    old, new = changed_by(lambda model: model.head.generations.fill_(1))
    assert diff(old, new).reasons == ("old slots are not as they were (generations)",)


def test_other_features_are_no_proof_and_remembered_examples_are_not_asked():
    def with_backbone(scale):
        model = three_animals()
        layer = nn.Linear(8, 8, bias=False)
        layer.weight.data = scale * torch.eye(8).flip(0)
        full = SlotModel(
            model.preprocessing, model.head, backbone=layer, class_names=model.class_names, backbone_spec=("l", {})
        )
        full.exemplar_features = model.exemplar_features
        return full

    assert diff(with_backbone(1.0), with_backbone(1.0)).proven
    found = diff(with_backbone(1.0), with_backbone(2.0))
    assert found.reasons == ("the backbone differs",)
    assert found.n_compared == 0
    old, new = changed_by(lambda model: setattr(model, "preprocessing", Preprocessing("features", (8,), mean=(1.0,))))
    assert diff(old, new).reasons == ("preprocessing or views differ",)


def test_models_of_other_inputs_cannot_be_compared():
    old, new = changed_by(lambda model: setattr(model, "preprocessing", Preprocessing("features", (9,))))
    with pytest.raises(ModelError, match=r"`new` must take the same inputs as `old`, got \(9,\) and \(8,\)"):
        diff(old, new)


def add_half_spheres(model):
    """New slots whose caps reach far into old ones."""
    model.head.add_slots(torch.randn(2, 8), torch.tensor([0, 1]), generation=model.generation + 1, pooled=False)
    model.exemplar_features = torch.cat([model.exemplar_features, torch.zeros(2, 4, 8).half()])


CHANGES = {
    "update": lambda model, seed: model.update(new_animals(seed=seed)),
    "named": lambda model, seed: model.update(new_animals(seed=seed), {0: "fish", 13: "cat"}),
    "wide": lambda model, seed: add_half_spheres(model),
    "relabel": lambda model, seed: relabel(model, [seed % model.head.n_slots], "dog"),
    "delete": lambda model, seed: delete(model, [seed % model.head.n_slots]),
    "merge": lambda model, seed: merge(model, ["bird"], "cat"),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 99)), min_size=1, max_size=3))
def test_what_is_called_proven_does_not_happen(changes):
    old = with_overlap()
    new = copy.deepcopy(old)
    for name, seed in changes:
        CHANGES[name](new, seed)
    found = diff(old, new)
    x = near(old.head.centres, count=150, spread=0.25).flatten(0, 1).numpy()
    before, after = old.predict(x), new.predict(x)
    names = [[model.class_name(int(label)) for label in it.labels] for model, it in ((old, before), (new, after))]
    same = (np.array(names[0]) == np.array(names[1])) & (before.answers == after.answers)
    assert len(diff(old, new, x).changed) - len(found.changed) == int((before.matched & ~same).sum())
    if found.proven:
        assert same[before.matched].all()
        assert np.array_equal(before.margins[before.matched], after.margins[before.matched])
    if {name for name, _ in changes} <= {"update", "named", "wide"}:
        assert found.proven


def test_the_old_names_of_a_models_parts_are_still_taken():
    model = three_animals()
    layer = torch.nn.Linear(8, 8)
    with pytest.warns(DeprecationWarning, match="`recipe` of SlotModel is called `backbone_spec` now"):
        same = SlotModel(model.preprocessing, model.head, backbone=layer, recipe=("l", {"width": 8}))
    assert same.recipe == same.backbone_spec == ("l", {"width": 8})
    assert model.support is model.exemplar_features
