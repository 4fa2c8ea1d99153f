"""Edits do what they say, list all they change, leave every other answer alone, and are made whole or not at all."""

import re

import numpy as np
import pytest
import torch
from support.small_models import new_animals, three_animals, with_overlap

import slots.model.editing
from slots.errors import UsageError
from slots.head.prediction import Answer
from slots.model.editing import delete, merge, relabel


def everything(model):
    """All that an edit may change, in a form that can be compared."""
    state = {name: value.numpy().tobytes() for name, value in model.head.state_dict().items()}
    pictures = None if model.thumbnails is None else model.thumbnails.tobytes()
    return (
        state,
        model.class_names,
        model.clusters,
        model.exemplar_features.numpy().tobytes(),
        pictures,
        list(model.history),
    )


def answers(model, slot):
    """Names of the answers to the examples that a slot remembers (read before an edit)."""
    prediction = model.predict(model.exemplar_features[slot].float().numpy())
    return [model.class_name(int(label)) for label in prediction.labels], prediction.answers.tolist()


def literal_changes(before_model, after_model, support):
    """Every remembered example, asked alone before and after."""
    changed = []
    for slot in range(len(support)):
        for place in range(support.shape[1]):
            if not bool((support[slot, place] != 0).any()):
                continue
            row = support[slot, place].float().numpy()[None]
            old, new = before_model.predict(row), after_model.predict(row)
            names = before_model.class_name(int(old.labels[0])), after_model.class_name(int(new.labels[0]))
            if names[0] != names[1] or old.answers[0] != new.answers[0]:
                changed.append((slot, place))
    return changed


def test_a_relabelled_slot_answers_with_its_new_label():
    model = three_animals()
    model.head.held_out += 5
    done = relabel(model, [3, 3], "cat")
    assert (done.what, done.generation, done.slots) == ("relabel", 1, (3,))
    assert (done.labels_before, done.label_after) == (("dog",), "cat")
    assert model.head.labels.tolist() == [0, 0, 1, 0, 2, 2]
    assert answers(model, 3) == (["cat"] * 4, [Answer.MATCHED] * 4)
    assert [(it.slot, it.place, it.before, it.after) for it in done.changed] == [(3, i, "dog", "cat") for i in range(4)]
    assert done.n_in_passing == 0
    assert done.n_remembered == 24
    assert model.head.held_out.tolist() == [[0, 0] if slot == 3 else [5, 5] for slot in range(6)]
    line = model.history[-1]
    assert (line.number, line.what, line.n_slots) == (1, "relabel", 6)
    assert line.figures["slots"] == [3]
    assert line.figures["label_after"] == "cat"


def test_a_new_name_gets_the_next_id_and_a_column():
    model = three_animals()
    relabel(model, [0], "lynx")
    assert model.class_names == ("cat", "dog", "bird", "lynx")
    assert model.head.labels.tolist() == [3, 0, 1, 1, 2, 2]
    assert model.head.classes.tolist() == [0, 1, 2, 3]
    assert model.head(model.exemplar_features[0].float()).argmax(1).tolist() == [3] * 4


def test_the_label_it_has_already_changes_no_answer():
    model = three_animals()
    done = relabel(model, [2], "dog")
    assert done.changed == ()
    assert model.generation == 1


def test_what_an_edit_changes_in_passing_is_listed_and_told_apart():
    model, before = with_overlap(), with_overlap()
    done = relabel(model, [6], "dog")
    assert 0 < done.n_in_passing < len(done.changed)
    in_passing = [it for it in done.changed if not it.edited]
    assert {it.slot for it in in_passing} <= {0, 1}
    assert all("ambiguous" in it.after or it.after == "dog" for it in in_passing)
    assert [(it.slot, it.place) for it in done.changed] == literal_changes(before, model, before.exemplar_features)


@pytest.mark.parametrize(
    "edit",
    [
        lambda model: relabel(model, [0, 4], "dog"),
        lambda model: merge(model, ["cat", "bird"], "pet"),
        lambda model: delete(model, [0, 6]),
        lambda model: delete(model, [0, 1, 5]),
    ],
)
def test_the_list_of_changes_is_what_asking_one_by_one_finds(edit):
    model, before = with_overlap(), with_overlap()
    done = edit(model)
    assert [(it.slot, it.place) for it in done.changed] == literal_changes(before, model, before.exemplar_features)
    assert done.changed


def test_a_cluster_is_named_under_its_own_id():
    model = three_animals()
    update = model.update(new_animals(), budget=2)
    label, other = sorted(model.clusters)
    name = model.class_name(label)
    assert name == f"cluster {label}"
    done = merge(model, [name], "fish")
    assert model.class_name(label) == "fish"
    assert model.clusters == {other}
    assert done.slots == tuple(update.slots[:1].tolist())
    assert model.head.labels[update.slots].tolist() == [label, other]
    assert all((it.before, it.after, it.edited) == (name, "fish", True) for it in done.changed)
    assert done.changed


def test_a_cluster_votes_where_nothing_matches_once_it_has_a_name():
    model = three_animals()
    first, second = model.update(new_animals(), budget=2).slots.tolist()
    assert not model.head.pooled[[first, second]].any()
    merge(model, ["cluster 3"], "cluster 4")
    assert not model.head.pooled[[first, second]].any()
    relabel(model, [first], "fish")
    assert model.head.pooled[[first, second]].tolist() == [True, False]
    merge(model, ["cluster 4"], "bird")
    assert model.head.pooled.all()


def test_clusters_merge_into_one_that_stays_a_cluster_and_then_into_a_class():
    model = three_animals()
    model.update(new_animals())
    first, second, *_ = sorted(model.clusters)
    merge(model, [f"cluster {first}", f"cluster {second}"], f"cluster {second}")
    assert second in model.clusters
    assert first not in model.clusters
    assert model.class_name(first) == f"cluster {first}"  # the id stays taken
    merge(model, [f"cluster {second}"], "bird")
    assert second not in model.clusters
    assert second not in model.head.labels.tolist()
    fresh = model.update(new_animals(seed=9) * np.float32(-1)).slots
    assert model.head.labels[fresh].min() > second


def test_merging_gives_all_slots_one_label():
    model = three_animals()
    done = merge(model, ["cat", "dog"], "pet")
    assert model.class_names == ("pet", "dog", "bird")
    assert model.head.labels.tolist() == [0, 0, 0, 0, 2, 2]
    assert done.slots == (0, 1, 2, 3)
    assert done.labels_before == ("cat", "cat", "dog", "dog")
    done = merge(model, ["bird"], "pet")
    assert model.head.labels.tolist() == [0] * 6
    assert {it.after for it in done.changed} == {"pet"}


def test_deleted_slots_answer_no_more_and_the_others_move_up():
    model = three_animals()
    model.thumbnails = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4, 1, 1, 1)
    kept = model.exemplar_features[[0, 2, 4, 5]]
    done = delete(model, [1, 3])
    assert model.head.n_slots == 4
    assert model.head.labels.tolist() == [0, 1, 2, 2]
    assert torch.equal(model.exemplar_features, kept)
    assert model.thumbnails[:, 0, 0, 0, 0].tolist() == [0, 8, 16, 20]
    assert {it.slot for it in done.changed} == {1, 3}
    assert all(it.after.endswith(", unmatched") for it in done.changed)
    assert done.label_after is None
    for slot, name in enumerate(["cat", "dog", "bird", "bird"]):
        assert answers(model, slot) == ([name] * 4, [Answer.MATCHED] * 4)


def test_a_cluster_whose_last_slot_is_deleted_is_gone_and_its_id_stays_taken():
    model = three_animals()
    done = model.update(new_animals(), budget=1)
    (label,) = model.clusters
    delete(model, done.slots.tolist())
    assert model.clusters == frozenset()
    assert model.n_labels == label + 1


def test_a_model_without_remembered_examples_can_be_edited():
    model = three_animals()
    model.exemplar_features = None
    done = relabel(model, [0], "dog")
    assert (done.n_remembered, done.changed) == (0, ())
    assert delete(model, [0]).n_remembered == 0
    assert model.head.n_slots == 5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda model: relabel(model, [6], "cat"), "`slots` must be numbers from 0 to 5, got [6]."),
        (lambda model: relabel(model, [-1], "cat"), "`slots` must be numbers from 0 to 5, got [-1]."),
        (lambda model: delete(model, []), "`slots` must be numbers from 0 to 5, got []."),
        (lambda model: relabel(model, [0], " "), "`name` must not be empty"),
        (lambda model: merge(model, [], "cat"), "`names` must hold at least one label, got none."),
        (lambda model: merge(model, ["cat"], ""), "`into` must not be empty"),
        (lambda model: merge(model, ["cat", "cow"], "dog"), "`name` must be a label of the model, got 'cow'."),
        (lambda model: delete(model, range(6)), "`slots` must leave at least one slot, got all 6."),
    ],
)
def test_a_wrong_edit_changes_nothing(edit, message):
    model = three_animals()
    before = everything(model)
    with pytest.raises(UsageError, match=re.escape(message)):
        edit(model)
    assert everything(model) == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda model: relabel(model, [0], "lynx"),
        lambda model: merge(model, ["cat", "dog"], "pet"),
        lambda model: delete(model, [2, 3]),
    ],
)
def test_an_edit_that_breaks_off_leaves_the_model_as_it_was(edit, monkeypatch):
    model = three_animals()
    model.thumbnails = np.zeros((6, 4, 1, 1, 1), np.uint8)
    before, asked = everything(model), []
    whole = slots.model.editing.decide

    def break_off(*arguments):
        asked.append(arguments)
        if len(asked) == 2:
            raise MemoryError
        return whole(*arguments)

    monkeypatch.setattr(slots.model.editing, "decide", break_off)
    with pytest.raises(MemoryError):
        edit(model)
    assert everything(model) == before
    monkeypatch.undo()
    assert edit(model).generation == 1
