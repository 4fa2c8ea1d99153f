"""Which planned slots may guess: against a literal count, and down the ladder; harm is not done."""

import copy

import numpy as np
import pytest
import torch
from support.small_models import mixture

from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.rehearsal.judgement import TOLERANCE, Judged, Trial, decide_scope, harmless, join, right_answers
from slots.rehearsal.memory import RehearsalMemory
from slots.training import TrainConfig, fit
from slots.update.config import UpdateConfig


def silent_caps(vectors, labels, *, generation, precision=2.0):
    """Slots that guess, and match only above the given precision."""
    n = len(vectors)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return SlotCaps(
        unit,
        unit.clone(),
        torch.full((n,), precision),
        torch.full((n,), -1.0),
        torch.as_tensor(labels),
        torch.full((n,), generation),
        torch.ones(n, dtype=torch.bool),
        20.0,
    )


def two_classes(n=150):
    """Memory of two classes around the first two axes of four, and slots in their middles."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    rows = np.eye(4)[labels] + 0.3 * rng.normal(size=(n, 4))
    features = torch.nn.functional.normalize(torch.from_numpy(rows).float(), dim=1)
    memory = RehearsalMemory(features.half(), torch.from_numpy(labels), torch.ones(n, dtype=torch.bool))
    return memory, silent_caps(torch.eye(4)[:2], [0, 1], generation=0)


def test_slots_that_take_old_answers_leave_and_the_others_stay():
    memory, before = two_classes()
    thief, stranger = torch.eye(4)[0] + 0.1 * torch.eye(4)[2], torch.eye(4)[3] - torch.eye(4)[0] - torch.eye(4)[1]
    joined = join(before, silent_caps(torch.stack([thief, stranger]), [2, 3], generation=1))
    found = harmless(before, joined, memory)
    assert found.pooled.tolist() == [False, True]
    assert found.lost <= TOLERANCE
    assert joined.pooled.tolist() == [True] * 4, "the caps that were given stay as they are"


def test_the_loss_is_a_literal_count_of_changed_answers():
    memory, before = two_classes()
    joined = join(before, silent_caps(torch.eye(4)[:1] + 0.1 * torch.eye(4)[2:3], [2], generation=1, precision=0.97))
    found = harmless(before, joined, memory, tolerance=0.999)
    assert found.pooled.tolist() == [True], "anything is allowed"
    net, changed = 0, 0
    for row, label in zip(torch.nn.functional.normalize(memory.features.float()), memory.labels.tolist(), strict=True):
        was, now = (int(decide(row[None, None], caps).labels[0]) == label for caps in (before, joined))
        net, changed = net + was - now, changed + (was != now)
    assert net > 10
    assert found.lost == pytest.approx((net + changed**0.5) / len(memory))


def test_matches_that_do_harm_are_not_hidden_by_slots_that_leave():
    memory, before = two_classes()
    swallows = silent_caps(torch.eye(4)[:1], [2], generation=1, precision=0.5)
    found = harmless(before, join(before, swallows), memory)
    assert found.lost > 0.3


def trial(before, matching, guessing, n=16):
    return Trial(*(np.arange(n) < right for right in (before, matching, guessing)))


TWO = torch.tensor([True, True])


@pytest.mark.parametrize(
    ("judged", "tried", "new", "scope"),
    [
        (Judged(TWO, 0.0), trial(8, 9, 14), False, "as planned"),
        (Judged(TWO, 0.0), trial(8, 9, 9), False, "matches only"),  # one more may be luck
        (Judged(TWO, 0.0), trial(8, 8, 8), True, "as planned"),  # a new label: the doubt is the update's
        (Judged(TWO, 0.0), trial(8, 8, 7), True, "matches only"),
        (Judged(TWO, 0.0), trial(8, 7, 7), True, "nothing"),
        (Judged(TWO, 0.0), trial(8, 7, 6), False, "nothing"),
        (Judged(torch.tensor([True, False]), 0.0), trial(8, 9, 14), False, "fewer guess"),
        (Judged(~TWO, 0.0), trial(8, 9, 14), False, "matches only"),
        (Judged(TWO, 0.01), trial(8, 9, 14), False, "matches only"),
        (Judged(TWO, 0.01), trial(8, 9, 14), True, "as planned"),  # a new label has its price, which is said
        (Judged(TWO, 0.0), None, True, "as planned"),
        (Judged(TWO, 0.0), None, False, "matches only"),
    ],
)
def test_the_ladder(judged, tried, new, scope):
    found = decide_scope(TWO, judged, tried, has_new_labels=new)
    assert found.scope == scope
    guessing = {"as planned": 2, "fewer guess": 1}.get(scope, 0)
    assert int(found.pooled.sum()) == guessing
    assert found.verdict.startswith("Of 16 labels" if tried else "Fewer than 8 labels could not be tried out.")


def world(classes, *, shift=0.0, seed=0, count=80):
    x, y = mixture(8, count, seed=seed, feature=12, spread=0.25)
    keep = y < classes
    return x[keep] + shift * np.eye(12, dtype=np.float32)[10], y[keep]


@pytest.fixture(scope="module")
def fitted():
    x, y = world(6)
    model, _ = fit(x, y, config=TrainConfig(epochs=3, slots_per_class=3, held_out=0.3))
    return model


def updated(model, x, labels, **options):
    after = copy.deepcopy(model)
    return after, after.update(x, labels, config=UpdateConfig(epochs=3, **options))


def test_new_classes_are_learned_and_the_old_keep_their_answers(fitted):
    x, y = world(8, seed=1)
    open_ones = np.flatnonzero(~fitted.predict(x).matched)
    after, done = updated(fitted, x, {int(i): int(y[i]) for i in open_ones[:40]})
    assert done.scope in ("as planned", "fewer guess")
    assert done.verdict in str(after.history[-1].figures["verdict"])
    (fresh, truth), (old, old_truth) = world(8, seed=2), world(6, seed=3)
    new = truth >= 6
    assert (after.predict(fresh).labels[new] == truth[new]).mean() > 0.8
    lost = (fitted.predict(old).labels == old_truth).mean() - (after.predict(old).labels == old_truth).mean()
    assert lost <= 0.01


def test_wrong_labels_do_not_make_old_answers_worse(fitted):
    x, y = world(6, seed=1)
    open_ones = np.flatnonzero(~fitted.predict(x).matched)
    wrong = {int(i): int((y[i] + 1 + place % 4) % 6) for place, i in enumerate(open_ones[:60])}
    after, done = updated(fitted, x, wrong)
    assert done.scope in ("matches only", "nothing")
    assert not after.head.pooled[fitted.head.n_slots :].any()
    spoiled, as_planned = updated(fitted, x, wrong, judge=False)
    assert (as_planned.scope, as_planned.verdict) == ("as planned", "")
    old, truth = world(6, seed=3)
    accuracy = [(model.predict(old).labels == truth).mean() for model in (fitted, after, spoiled)]
    assert accuracy[1] >= accuracy[0] - 0.01
    assert accuracy[2] < accuracy[1]


def test_labels_join_the_memory_and_limit_the_next_update(fitted):
    x, y = world(8, seed=1)
    open_ones = np.flatnonzero(~fitted.predict(x).matched & (y >= 6))[:12]
    after, _ = updated(fitted, x, {int(i): int(y[i]) for i in open_ones})
    assert len(after.rehearsal) == len(fitted.rehearsal) + 12
    assert after.rehearsal.labels[-12:].tolist() == y[open_ones].tolist()
    assert not after.rehearsal.held_out[-12:].any()


def test_right_answers_are_those_of_the_decision():
    memory, before = two_classes()
    views = memory.features.float()[:, None]
    assert right_answers(views, memory.labels, before).mean() > 0.9
    assert right_answers(views, 1 - memory.labels, before).mean() < 0.1
