"""Guessing by what is remembered: against a literal regression, before the whitening, stored, and beside the slots."""

import json

import numpy as np
import pytest
import torch
from support.small_models import mixture, three_animals

import slots.rehearsal.memory
from slots.errors import ModelError
from slots.head.prediction import changed_matched
from slots.model.editing import merge
from slots.model.slot_model import SlotModel
from slots.model.soundness import check_recall
from slots.rehearsal.memory import RehearsalMemory
from slots.rehearsal.recollection import RIDGE, TRUSTS, learn_recall, raw_memory
from slots.training import TrainConfig, fit
from slots.update.config import UpdateConfig


def fitted(**options):
    x, y = mixture(3, 60)
    config = TrainConfig(epochs=1, slots_per_class=2, held_out=0.2, **options)
    return x, y, fit(x, y, config=config)[0]


def weights_without(kernel, labels, penalty, left_out=None):
    """Kernel ridge regression of one-hot labels as the book has it, with one example left out."""
    kept = np.array([it for it in range(len(kernel)) if it != left_out])
    wanted = (labels[kept, None] == np.unique(labels)).astype(float)
    solved = np.linalg.solve(kernel[np.ix_(kept, kept)] + np.diag(penalty[kept]), wanted)
    return kept, solved


def test_it_is_kernel_ridge_regression_and_leaving_out_is_literal():
    _, _, model = fitted()
    memory = model.rehearsal
    found = learn_recall(memory, None, model.head.caps())
    rows, labels = memory.features.double().numpy(), memory.labels.numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    kernel = np.exp(-found.recall.gamma * ((rows[:, None] - rows[None]) ** 2).sum(-1))
    weight = 1 / np.bincount(labels)[labels]
    penalty = RIDGE * weight.mean() / weight
    _, solved = weights_without(kernel, labels, penalty)
    assert np.allclose(found.recall.coefficients.numpy(), solved, atol=1e-4)
    x = mixture(3, 20, seed=5)[0]
    near = x / np.linalg.norm(x, axis=1, keepdims=True)
    literal = np.exp(-found.recall.gamma * ((near[:, None] - rows[None]) ** 2).sum(-1)) @ solved
    assert np.allclose(found.recall.scores(torch.from_numpy(x)[:, None]).numpy(), literal, atol=1e-4)
    assert found.recall.trust in TRUSTS
    assert found.n_checked == int(memory.held_out.sum())
    right = 0
    for place in np.flatnonzero(memory.held_out.numpy()):
        kept, alone = weights_without(kernel, labels, penalty, place)
        scores = kernel[place, kept] @ alone
        said = model.head.predict(torch.from_numpy(rows[place][None]).float())
        scores[said.labels[0]] += found.recall.trust
        right += int(scores.argmax() == labels[place])
    assert right == found.n_right


def test_what_is_remembered_is_compared_as_it_was_before_the_whitening():
    x, _, model = fitted(whitening=0.3)
    assert model.featurizer.whitening is not None
    examples, back = raw_memory(model.rehearsal, model.featurizer.whitening)
    unit = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).double()
    nearest = (examples @ unit.T).amax(1)
    assert float(nearest.min()) > 0.9999, "each is one of the examples that the model was fitted on, raw"
    assert back is not None
    old = RehearsalMemory(model.rehearsal.features, model.rehearsal.labels, model.rehearsal.held_out)
    assert raw_memory(old, model.featurizer.whitening)[1] is None, "without lengths there is no way back"


def test_it_answers_what_is_unmatched_and_nothing_else():
    _, _, model = fitted()
    x = mixture(3, 200, seed=9)[0] + np.random.default_rng(0).normal(0, 0.6, (600, 6)).astype(np.float32)
    before = model.predict(x)
    assert 20 < (~before.matched).sum() < 580
    model.head.recall = learn_recall(model.rehearsal, None, model.head.caps()).recall
    after = model.predict(x)
    assert len(changed_matched(before, after)) == 0
    assert (before.matched == after.matched).all()
    alone = [model.predict(x[place : place + 1]) for place in range(60)]
    for name in vars(after):
        assert np.array_equal(np.concatenate([getattr(it, name) for it in alone]), getattr(after, name)[:60]), name
    open_ones = ~after.matched
    scores = model.head.recall.scores(torch.from_numpy(x[open_ones])[:, None], before.labels[open_ones])
    assert (model.head.recall.labels[scores.argmax(1)].numpy() == after.labels[open_ones]).all()
    assert (model.head.labels.numpy()[after.slots] == after.labels)[open_ones].all()
    assert (model.head.labels.numpy()[after.runner_up_slots] != after.labels)[open_ones].all()


def test_it_is_stored_with_the_model_and_goes_with_an_undone_update(tmp_path):
    x, y, model = fitted()
    assert model.head.recall is None
    model.save(tmp_path / "model", keep_history=True)
    new = mixture(4, 30, seed=7)
    model.update(new[0], {int(it): 3 for it in np.flatnonzero(new[1] == 3)[:6]}, config=UpdateConfig(recall=True))
    model.save(tmp_path / "model", keep_history=True)
    again = SlotModel.load(tmp_path / "model")
    for name, value in vars(model.predict(new[0])).items():
        assert np.array_equal(getattr(again.predict(new[0]), name), value), name
    assert SlotModel.load(tmp_path / "model", generation=0).head.recall is None
    model.rehearsal = None
    model.save(tmp_path / "without")
    assert SlotModel.load(tmp_path / "without").head.recall is None
    assert len(x) == len(y)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"coefficients": torch.zeros(4, 2)}, "remembered"),
        ({"coefficients": torch.full((5, 2), torch.nan)}, "finite"),
        ({"labels": torch.tensor([1, 0])}, "ascend"),
        ({"labels": torch.tensor([-1, 0])}, "labels of recall"),
        ({"values": {"gamma": float("nan"), "trust": 0.0}}, "gamma"),
        ({"values": {"gamma": 1.0}}, "trust"),
        ({"values": []}, "by name"),
    ],
)
def test_a_forged_one_is_refused(change, sentence):
    sound = {
        "coefficients": torch.zeros(5, 2),
        "labels": torch.tensor([0, 1]),
        "values": {"gamma": 1.0, "trust": 0.0},
    }
    check_recall(**sound, n_remembered=5)
    with pytest.raises(ModelError, match=sentence):
        check_recall(**{**sound, **change}, n_remembered=5)


def test_labels_of_the_guess_follow_labels_of_the_slots():
    model = three_animals()
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(8)[:3], 10, 0) + rng.normal(0, 0.1, (30, 8))
    features = torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).half()
    model.rehearsal = RehearsalMemory(features, torch.arange(30) // 10, torch.zeros(30) > 0)
    model.head.recall = learn_recall(model.rehearsal, None, model.head.caps()).recall
    before = model.head.recall.scores(features.float()[:, None])
    merge(model, ["dog", "bird"], "bird")
    assert model.head.recall.labels.tolist() == [0, 2]
    after = model.head.recall.scores(features.float()[:, None])
    assert torch.allclose(after[:, 1], before[:, 1] + before[:, 2], atol=1e-6)


def test_what_is_told_is_thinned_last(monkeypatch):
    monkeypatch.setattr(slots.rehearsal.memory, "MOST_EXAMPLES", 40)
    memory = fitted()[2].rehearsal
    assert (len(memory), memory.n_told) == (40, 0)
    for told, kept in ((12, 12), (24, 20), (30, 20)):
        rows = torch.nn.functional.normalize(torch.rand(12, 6), dim=1)
        memory = memory.joined(rows, torch.full((12,), told), torch.ones(12))
        assert (len(memory), memory.n_told, len(memory.lengths)) == (40, kept, 40)
        assert (memory.labels >= 12).sum() == kept
    assert json.dumps(memory.state()["n_told"].tolist()) == "[20]"
