"""Updates that remember, and questions where answers are in doubt."""

import numpy as np
import pytest
import torch
from support.small_models import mixture

from slots.closing import ClosingConfig
from slots.head.prediction import changed_matched
from slots.head.similarities import normalize
from slots.training import TrainConfig, fit
from slots.update.config import UpdateConfig
from slots.update.doubts import recall_of, weighted_groups
from slots.update.recalled_update import REACH

RECALL = UpdateConfig(recall=True)


@pytest.fixture
def model():
    x, y = mixture(3, 80)
    config = TrainConfig(epochs=1, slots_per_class=2, held_out=0.2, closing=ClosingConfig(reach=0.8))
    return fit(x, y, config=config)[0]


def test_a_new_class_is_known_from_few_labels_and_no_matched_answer_changes(model):
    x, y = mixture(5, 60, seed=3)
    points = np.random.default_rng(0).normal(size=(3000, x.shape[1])).astype(np.float32)
    before, right = model.predict(points), (model.predict(x).labels == y).mean()
    for day in range(3):
        rows = np.flatnonzero(y >= 3)[day::40]
        done = model.update(x, {int(it): f"class {y[it]}" for it in rows}, config=RECALL)
        assert (done.generation, done.labels_used) == (day + 1, len(rows))
        assert len(changed_matched(before, model.predict(points))) == 0
    names = np.array([model.class_name(it) for it in model.predict(x).labels])
    wanted = np.array([str(it) if it < 3 else f"class {it}" for it in y])
    assert (names == wanted).mean() > max(0.9, right)


def test_new_slots_hold_nothing_that_is_of_another_label_or_in_doubt(model):
    x, y = mixture(5, 60, seed=3)
    told = {int(it): int(y[it]) for it in range(0, 300, 17)}
    unmatched = ~model.predict(x).matched
    first = model.head.n_slots
    done = model.update(x, told, config=RECALL)
    assert done.slots_added == model.head.n_slots - first > 3
    unit = normalize(torch.from_numpy(x).double())
    guess, lead = model.head.recall.ranked(
        torch.from_numpy(x)[:, None], model.predict(x).labels, model.head.recall.labels
    )
    memory = normalize(model.rehearsal.features.double())
    for slot in range(first, model.head.n_slots):
        label, axis = int(model.head.labels[slot]), normalize(model.head.weights[slot].detach().double())
        sure = np.array([told.get(it, int(guess[it, 0]) if lead[it] >= 0.5 else -1) for it in range(len(x))]) == label
        foreign = [unit[torch.from_numpy(unmatched & ~sure)], memory[model.rehearsal.labels != label]]
        nearest = min(float((rows @ axis).clamp(-1, 1).arccos().min()) for rows in foreign)
        radius = float(model.head.support_thresholds[slot].double().clamp(-1, 1).arccos())
        assert radius <= REACH * nearest + 1e-3
        assert radius >= REACH * nearest - 1e-2
    for row, label in told.items():
        if unmatched[row]:
            found = model.predict(x[row : row + 1])
            assert found.matched[0]
            assert found.labels[0] == label


def test_labels_of_what_is_matched_are_remembered_and_the_slot_stands(model):
    x, y = mixture(3, 60, seed=3)
    matched = np.flatnonzero(model.predict(x).matched)[:5]
    n = len(model.rehearsal)
    done = model.update(x, {int(it): int((y[it] + 1) % 3) for it in matched}, config=RECALL)
    assert len(done.contradictions) == 5
    assert (done.slots_added, done.generation, model.generation) == (0, 1, 1)
    assert len(model.rehearsal) == n + 5
    assert (model.predict(x[matched]).labels == y[matched]).all()


def test_an_error_leaves_the_guess_as_it_was(model, monkeypatch):
    x, y = mixture(4, 40, seed=3)
    model.update(x, {int(np.flatnonzero(y == 3)[0]): 3}, config=RECALL)
    before, n = model.head.recall, len(model.rehearsal)

    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr("slots.rehearsal.memory.RehearsalMemory.joined", broken)
    with pytest.raises(RuntimeError, match="no"):
        model.update(x, {int(np.flatnonzero(y == 3)[1]): 3}, config=RECALL)
    assert model.head.recall is before
    assert len(model.rehearsal) == n


def test_labels_of_matched_examples_alone_are_remembered(model):
    x, y = mixture(3, 60, seed=3)
    matched = np.flatnonzero(model.predict(x).matched)
    before, n = model.predict(x[matched]), len(model.rehearsal)
    report = model.update(x[matched], {0: int(y[matched[0]])}, config=RECALL)
    assert (report.slots_added, report.labels_used, len(model.rehearsal)) == (0, 1, n + 1)
    assert len(model.head.recall.examples) == n + 1
    assert (model.predict(x[matched]).slots == before.slots).all()


def test_another_kind_of_update_keeps_the_guess_up_to_date(model):
    x, y = mixture(5, 60, seed=3)
    model.update(x, {int(it): 3 for it in np.flatnonzero(y == 3)[:2]}, config=RECALL)
    model.update(x, {int(it): 4 for it in np.flatnonzero(y == 4)[:6]}, config=UpdateConfig(epochs=0))
    assert len(model.head.recall.examples) == len(model.rehearsal)


def test_doubt_is_asked_about_first(model):
    x, y = mixture(5, 60, seed=3)
    found = model.propose(x, budget=12, by="doubt")
    everything = np.concatenate(found.groups)
    assert len(found.queries) == len(found.groups) == 12
    assert len(set(everything.tolist())) == len(everything)
    assert all(group[0] == query for query, group in zip(found.queries, found.groups, strict=True))
    assert (found.gains == [int((~found.prediction.matched[group]).sum()) for group in found.groups]).all()
    assert set(y[found.queries].tolist()) >= {3, 4}
    _, lead = recall_of(model.snapshot()).ranked(torch.from_numpy(x)[:, None], found.prediction.labels, torch.arange(3))
    settled = [float((1 - lead)[torch.from_numpy(group)].sum()) for group in found.groups]
    assert settled == sorted(settled, reverse=True), "each query settles less doubt than those before it"
    again = model.propose(x, budget=12, by="doubt")
    assert (again.queries == found.queries).all()


def test_a_matched_answer_that_all_that_is_told_contradicts_is_asked_about(model):
    x, y = mixture(3, 60, seed=3)
    assert not model.propose(x, budget=40, by="doubt").doubtful.any()
    matched = np.flatnonzero(model.predict(x).matched & (y == 0))
    model.update(x, {int(it): 1 for it in matched[::2]}, config=RECALL)
    for _ in range(3):
        model.update(x, {int(it): 1 for it in matched[::2]}, config=RECALL)
    found = model.propose(x, budget=40, by="doubt")
    assert found.doubtful.any()
    assert (y[found.queries[found.doubtful]] == 0).all()


def test_groups_are_those_of_a_literal_greedy_choice():
    rng = np.random.default_rng(0)
    for _ in range(20):
        inside = rng.random((9, 30)) < 0.3
        tried = np.sort(rng.permutation(30)[:9])
        inside[np.arange(9), tried] = True
        doubt = rng.random(30) + 0.01
        places, groups, _ = weighted_groups(doubt, tried, inside, count=4)
        left = doubt.copy()
        for place, group in zip(places, groups, strict=True):
            best = int(np.where(left[tried] > 0, inside @ left, 0).argmax())
            assert tried[best] == place
            assert sorted(group.tolist()) == np.flatnonzero(inside[best] & (left > 0)).tolist()
            left[inside[best]] = 0
