"""Labels spread over new data, questions in rounds, and slots that stand on both."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import adversary
from support import reference_spreading as literal
from support.small_models import mixture, three_animals

from slots.clustering.neighbours import nearest_neighbours
from slots.errors import UsageError
from slots.head.similarities import normalize
from slots.training.config import TrainConfig
from slots.training.fitting import fit
from slots.update.config import UpdateConfig
from slots.update.inquiry import FIRST_ROUND, Inquiry, weighted_coverage
from slots.update.self_training import Pool, SpreadConfig, make_pool, self_train

SPREAD = UpdateConfig(spread=SpreadConfig(), epochs=2)


def quiet(_step, _share):
    """Report nothing."""


def seen(model, x):
    """What the model sees in new data."""
    return make_pool(model.snapshot(), model.snapshot().source(x), model.predict(x))


@pytest.fixture(scope="module")
def fitted():
    """A model of three of five directions, and new data of all five."""
    x, y = mixture(5, 90, seed=0)
    known = y < 3
    config = TrainConfig(epochs=3, slots_per_class=3, batch_size=50, held_out=0.25)
    model, _ = fit(x[known], y[known], config=config, class_names=("cat", "dog", "bird"))
    return model, *mixture(5, 60, seed=1)


@pytest.fixture(scope="module")
def pool(fitted):
    model, x, _ = fitted
    return seen(model, x)


def test_a_pool_holds_what_no_slot_matches(fitted, pool):
    model, x, _ = fitted
    unmatched = np.flatnonzero(~model.predict(x).matched)
    assert pool.open.tolist() == unmatched.tolist()
    np.testing.assert_array_equal(pool.familiar, model.assess_novelty(x[unmatched]).p_values)
    np.testing.assert_allclose(pool.unit.numpy(), normalize(torch.from_numpy(x[unmatched])).numpy(), atol=1e-6)
    assert pool.anchor_labels.tolist() == pool.prediction.labels[pool.prediction.matched].tolist()
    assert pool.known.tolist() == [0, 1, 2]


def test_zero_rows_are_not_open(fitted):
    model, x, _ = fitted
    rows = x.copy()
    rows[4] = 0
    found = seen(model, rows)
    assert 4 not in found.open
    assert len(found.open) == (~model.predict(rows).matched).sum() - 1
    nothing = seen(model, x[:0])
    assert (len(nothing.open), nothing.neighbours.shape) == (0, (0, 0))
    assert len(self_train(nothing, np.zeros(0, np.int64)).labels) == 0


def few_units(pool, count=30):
    """The same with few activations, for the slow twin."""
    cut = {name: getattr(pool, name)[:, -count:] for name in ("activations", "anchors")}
    return Pool(**{**vars(pool), **cut})


@pytest.mark.parametrize(
    "config",
    [
        SpreadConfig(n_iter=2),
        SpreadConfig(n_iter=3, n_neighbours=2, min_p_value=0.6, label_weight=3.0, class_balance=0.4),
    ],
)
@pytest.mark.parametrize("told", [0, 3, 30])
def test_spreading_is_the_literal_self_training(fitted, pool, config, told):
    _, _, y = fitted
    small = few_units(pool)
    given_labels = np.full(len(y), -1)
    rows = np.random.default_rng(told).permutation(pool.open)[:told]
    given_labels[rows] = y[rows]
    found = self_train(small, given_labels, config=config)
    labels, margins = literal.self_train(small, given_labels, config)
    sure = np.array(margins) > 1e-3  # a lead of nothing may fall either way in float32
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(found.labels[sure], np.array(labels)[sure])
    np.testing.assert_allclose(found.margins, margins, atol=5e-3)


def test_an_old_answer_outlives_a_given_label_that_replaces_it_at_first(pool):
    """One example alone has it, next to 20 matched ones; its far neighbour's label is its own in the first round."""
    small = Pool(
        prediction=replace(pool.prediction, labels=np.array([0, 2])),
        open=np.array([0, 1]),
        familiar=np.array([0.9, 0.0]),
        unit=torch.eye(2),
        neighbours=np.array([[1], [0]]),
        activations=torch.eye(2),
        anchors=torch.eye(2)[:1].repeat(20, 1),
        anchor_labels=np.full(20, 1),
        known=np.array([0, 1, 2]),
    )
    found = self_train(small, np.array([-1, 7]), config=SpreadConfig(n_iter=2))
    labels, margins = literal.self_train(small, np.array([-1, 7]), SpreadConfig(n_iter=2))
    assert found.labels.tolist() == labels == [0, 7]
    np.testing.assert_allclose(found.margins, margins, atol=1e-4)


def test_two_labels_reach_all_of_two_new_classes_and_no_old_answer_changes_to_an_old_label(fitted, pool):
    _, _, y = fitted
    given_labels = np.full(len(y), -1)
    for label in (3, 4):
        row = pool.open[y[pool.open] == label][0]
        given_labels[row] = label
    found = self_train(pool, given_labels)
    truth = y[pool.open]
    assert (found.labels == truth)[truth >= 3].mean() > 0.95
    old = found.labels < 3
    assert (found.labels[old] == pool.prediction.labels[pool.open][old]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 14))
def test_questions_are_literal_greedy_coverage_of_doubt(seed, n, count):
    rng = np.random.default_rng(seed)
    around = nearest_neighbours(normalize(torch.from_numpy(rng.normal(size=(n, 3)))), 3)
    doubt, told = rng.integers(0, 9, n).astype(float), rng.random(n) < 0.3
    doubt[told] = 0
    found = weighted_coverage(doubt, told, around, count)
    assert found.tolist() == literal.ask(doubt, told, around.tolist(), count)


def test_an_inquiry_asks_in_rounds_and_never_twice(fitted):
    model, x, y = fitted
    before = copy.deepcopy(model.state_dict())
    inquiry, asked = Inquiry(model, x), []
    first = inquiry.ask()
    assert len(first) == FIRST_ROUND
    assert (y[first] >= 3).mean() > 0.8, "what is novel comes first"
    assert inquiry.ask(4).tolist() == first[:4].tolist()
    while len(rows := inquiry.ask(15)):
        asked += rows.tolist()
        inquiry.tell({int(row): int(y[row]) for row in rows})
    assert sorted(asked) == inquiry.pool.open.tolist()
    assert (inquiry.given[inquiry.pool.open] >= 0).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_slots_stand_on_what_few_labels_reach_and_name_their_source(fitted):
    model, x, y = copy.deepcopy(fitted[0]), *fitted[1:]
    inquiry = Inquiry(model, x)
    rows = inquiry.ask(8)
    inquiry.tell({int(row): int(y[row]) for row in rows})
    before = model.predict(x)
    done = model.update(x, inquiry.given, proposal=inquiry.proposal, pool=inquiry.pool, config=SPREAD)
    after = model.predict(x)
    assert (before.labels == y).mean() < 0.65
    assert (after.labels == y).mean() > 0.95
    fresh, told = mixture(5, 40, seed=7)
    assert (model.predict(fresh).labels == told).mean() > 0.95
    assert done.slots_added == len(done.slots) == len(done.sources) > 0
    for slot, source in zip(done.slots, done.sources, strict=True):
        label = int(model.head.labels[slot])
        if source >= 0:
            assert source in rows
            assert y[source] == label
        else:
            assert label not in y[rows]
    assert {3, 4} <= set(model.head.labels[done.slots].tolist())
    for name in vars(before):
        assert np.array_equal(getattr(before, name)[before.matched], getattr(after, name)[before.matched]), name


def test_no_input_at_all_gets_another_matched_answer(fitted):
    model, x, y = copy.deepcopy(fitted[0]), *fitted[1:]
    inquiry = Inquiry(model, x)
    old = copy.deepcopy(model.head.caps())
    model.update(x, {int(row): int(y[row]) for row in inquiry.ask(10)}, config=SPREAD)
    found = adversary.sphere_search(old, model.head.caps(), 200, torch.Generator().manual_seed(0))
    assert found.changed == 0
    model.head.generations[len(old.labels) :] = -1
    assert adversary.sphere_search(old, model.head.caps(), 200, torch.Generator().manual_seed(0)).changed > 0


def test_where_nothing_is_familiar_and_nothing_told_the_old_answers_stand_with_no_lead(fitted, pool):
    empty = np.zeros(0, np.int64)
    blank = replace(
        pool,
        familiar=np.zeros(len(pool.open)),
        anchors=pool.anchors[:0],
        anchor_labels=empty,
    )
    found = self_train(blank, np.full(len(fitted[1]), -1))
    assert found.labels.tolist() == pool.prediction.labels[pool.open].tolist()
    assert (found.margins == 0).all()


def test_the_same_spread_update_gives_the_same_bits_with_and_without_a_pool(fitted):
    x, y = fitted[1:]
    models = [copy.deepcopy(fitted[0]) for _ in range(2)]
    inquiry = Inquiry(models[0], x)
    labels = {int(row): int(y[row]) for row in inquiry.ask(6)}
    models[0].update(x, labels, proposal=inquiry.proposal, pool=inquiry.pool, config=SPREAD)
    models[1].update(x, labels, config=SPREAD)
    states = [{name: value.numpy().tobytes() for name, value in model.state_dict().items()} for model in models]
    assert states[0] == states[1]


def test_a_label_that_the_others_contradict_is_remembered_by_a_slot_of_its_own(fitted):
    model, x, y = copy.deepcopy(fitted[0]), *fitted[1:]
    inquiry = Inquiry(model, x)
    rows = inquiry.ask(12)
    labels = {int(row): int(y[row]) for row in rows}
    odd = int(rows[y[rows] == 3][0])
    labels[odd] = 5
    done = model.update(x, labels, config=SPREAD)
    alone = done.slots[model.head.labels[done.slots].numpy() == 5]
    assert len(alone) >= 1
    assert (done.sources[alone - done.slots[0]] == odd).all()
    assert model.predict(x[[odd]]).labels.tolist() == [5]


def test_without_labels_a_spread_update_makes_clusters_as_ever(fitted):
    models = [copy.deepcopy(fitted[0]) for _ in range(2)]
    first, second = (model.update(fitted[1], config=it) for model, it in zip(models, (SPREAD, None), strict=True))
    assert first.clusters_added == second.clusters_added > 0
    assert (first.sources == -1).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_iter": 0}, "`n_iter` must be >= 1 and `n_neighbours` >= 0, got 0 and 10"),
        ({"n_neighbours": -1}, "got 4 and -1"),
        ({"min_p_value": 1.0}, r"`min_p_value` must lie in \(0, 1\) and `class_balance` in \[0, 1\], got 1.0 and 1.0"),
        ({"class_balance": 1.5}, "got 0.3 and 1.5"),
        ({"label_weight": 0.0}, "`label_weight` and `alpha` must be > 0, got 0.0 and 0.001"),
        ({"alpha": -1.0}, "got 10.0 and -1.0"),
    ],
)
def test_messages_of_the_options(options, says):
    with pytest.raises(UsageError, match=says):
        SpreadConfig(**options)


def test_the_old_names_are_still_taken(fitted):
    model, x, _ = fitted
    with pytest.warns(DeprecationWarning, match="`rounds` of SelfTrainingConfig is called `n_iter` now"):
        config = SpreadConfig(rounds=2)
    assert config == SpreadConfig(n_iter=2)
    old = (config.rounds, config.near, config.familiar, config.weight, config.balance, config.ridge)
    assert old == (2, 10, 0.3, 10.0, 1.0, 1e-3)
    with pytest.warns(DeprecationWarning, match="`moves` of UpdateConfig is called `kmeans_iterations` now"):
        assert UpdateConfig(moves=1).kmeans_iterations == 1
    inquiry = Inquiry(model, x)
    assert inquiry.outlook is inquiry.pool


def test_other_messages(fitted):
    with pytest.raises(UsageError, match="`slots_per_label` must be >= 1, got 0"):
        UpdateConfig(slots_per_label=0)
    with pytest.raises(UsageError, match="must have held-out scores to judge novelty by"):
        Inquiry(three_animals(), np.eye(8, dtype=np.float32)[6:])
