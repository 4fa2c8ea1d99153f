"""Defaults that read the data: the quick training against autograd, and what a look chooses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_wine, make_circles
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

import slots
from slots.errors import UsageError
from slots.head.similarities import normalize
from slots.training import AutoConfig, TrainConfig
from slots.training.defaults import is_ahead, look_at
from slots.training.fixed_features import first_slots, train_fixed
from slots.training.steps.adam import loss_slope


def unit_rows(seed: int, n: int = 120, d: int = 8, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))
    return normalize(torch.from_numpy(x.astype(np.float32))), torch.from_numpy(y)


@given(
    seed=st.integers(0, 1000),
    per_class=st.integers(1, 5),
    beta=st.floats(0, 30),
    margin=st.sampled_from([0.0, 0.1]),
    smooth=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=30, deadline=None)
def test_the_slope_is_autograds_through_the_head(seed, per_class, beta, margin, smooth):
    x, y = unit_rows(seed)
    config = TrainConfig(scale=10.0, beta=beta, margin=margin, label_smoothing=smooth, slots_per_class=per_class)
    grid = first_slots(x, y, per_class=per_class, seed=0)
    flat = grid.weights.flatten(0, 1)
    slope, loss = loss_slope(x @ flat.T, y, grid.there, config)
    slope = slope.T @ x
    head = slots.IncrementalNeuralHashing(8, scale=10.0, beta=beta)
    order = torch.arange(len(flat)).reshape(grid.there.shape)
    label = torch.arange(4).expand(grid.there.shape)
    keep = grid.there.flatten()
    head.add_slots(flat[keep], label.flatten()[keep])
    logits = head(x) - 10.0 * margin * functional.one_hot(y, 4)
    wanted = functional.cross_entropy(logits, y, label_smoothing=smooth)
    wanted.backward()
    assert float(loss) == pytest.approx(wanted.item(), rel=1e-4)
    assert torch.allclose(slope[order.flatten()[keep]], head.weights.grad, atol=1e-5)


def test_the_first_slot_of_a_class_is_its_mean_direction():
    x, y = unit_rows(0)
    grid = first_slots(x, y, per_class=1, seed=0)
    for label in range(4):
        assert torch.allclose(grid.weights[0, label], normalize(x[y == label].mean(0)), atol=1e-6)


def test_quick_training_is_deterministic_and_lowers_the_loss():
    x, y = unit_rows(1)
    config = TrainConfig(epochs=10, batch_size=30, slots_per_class=2, scale=10.0)
    grid = first_slots(x, y, per_class=2, seed=0)
    first, second = (train_fixed(x, y, grid, config).head(config) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    start = TrainConfig(epochs=0, batch_size=30, slots_per_class=2, scale=10.0)
    untrained = train_fixed(x, y, grid, start).head(start)
    assert functional.cross_entropy(first(x), y) < functional.cross_entropy(untrained(x), y)


def test_classes_that_need_whitening_get_it():
    rng = np.random.default_rng(0)
    y = np.arange(900) % 6
    shared = rng.normal(size=(900, 2)) * 20  # what all classes share, and nothing tells
    x = np.concatenate([np.eye(6)[y] + rng.normal(size=(900, 6)) * 0.3, shared], 1).astype(np.float32)
    found = look_at(torch.from_numpy(x), y, AutoConfig())
    assert found.config.whitening is not None
    assert found.config.whitening < 1
    assert found.chosen.accuracy > found.tries[0].accuracy + 0.1


def test_columns_with_units_of_their_own_are_brought_to_one_scale():
    wine = load_wine()
    rows = torch.from_numpy(wine.data.astype(np.float32))
    found = look_at(rows, wine.target, AutoConfig())
    assert found.chosen.whitening_by == found.config.whitening_by == "correlation"
    assert found.chosen.accuracy > max(it.accuracy for it in found.tries if it.whitening_by == "covariance") + 0.02
    alike = look_at((rows - rows.mean(0)) / rows.std(0), wine.target, AutoConfig())
    assert {it.whitening_by for it in alike.tries} == {"covariance"}  # there is nothing to bring to one scale


def test_a_fit_of_a_table_is_a_fit_of_its_columns_over_their_spread():
    wine = load_wine()
    config = TrainConfig(epochs=2, slots_per_class=2, whitening=0.3, whitening_by="correlation")
    units = np.geomspace(1e-3, 1e3, 13).astype(np.float32)
    x = wine.data.astype(np.float32)
    one, other = (slots.fit(rows, wine.target, config=config)[0] for rows in (x, x * units))
    assert (one.predict(x).labels == wine.target).mean() > 0.9
    assert (one.predict(x).labels == other.predict(x * units).labels).all()


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_few_features_are_told_apart_by_length_too(factor, tmp_path):
    """One ring inside another: every direction has both."""
    rows, labels = make_circles(1200, noise=0.1, factor=0.5, random_state=0)
    x = (rows * [1, factor]).astype(np.float32)
    model, result = slots.fit(x[:600], labels[:600])
    assert result.config.lift > 0
    assert (model.featurizer.given_dim, model.head.feature_dim) == (2, 3)  # what pages say, and what slots compare
    answers = model.predict(x[600:])
    assert (answers.labels == labels[600:]).mean() > 0.97
    assert answers.matched.mean() > 0.5
    model.save(tmp_path / "rings")
    again = slots.SlotModel.load(tmp_path / "rings")
    assert (again.predict(x[600:]).labels == answers.labels).all()
    proposal = model.propose(x[600:], budget=5)
    before = model.predict(x)
    model.update(x[600:], {int(i): int(labels[600 + i]) for i in proposal.queries}, proposal=proposal)
    assert (model.predict(x).labels[before.matched] == before.labels[before.matched]).all()


def test_many_features_are_not_lifted():
    x, y = load_digits(return_X_y=True)
    found = look_at(torch.from_numpy(x[:400].astype(np.float32)), y[:400], AutoConfig())
    assert {it.lift for it in found.tries} == {0.0}


def test_thousands_of_features_are_centred_at_most():
    """Their covariance would take minutes."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 2049)) + y[:, None]
    x[:, 0] *= 100
    found = look_at(torch.from_numpy(x.astype(np.float32)), y, AutoConfig())
    assert {(it.whitening, it.whitening_by) for it in found.tries[:3]} == {
        (None, "covariance"), (1.0, "covariance"), (1.0, "correlation")
    }  # fmt: skip
    assert {it.whitening for it in found.tries} == {None, 1.0}


def test_a_lift_wants_a_whitening():
    with pytest.raises(UsageError, match="lift"):
        TrainConfig(lift=1.0)


def test_classes_of_several_parts_get_several_slots():
    rng = np.random.default_rng(0)
    part = np.arange(1200) % 12
    angles = part * np.pi / 6
    x = np.stack([np.cos(angles), np.sin(angles)], 1) + rng.normal(size=(1200, 2)) * 0.03
    found = look_at(
        torch.from_numpy(x.astype(np.float32)), part % 2, AutoConfig()
    )  # every other of twelve is one class
    assert found.config.slots_per_class >= 4
    assert found.chosen.accuracy > 0.95


def test_what_is_given_stays():
    x, y = unit_rows(2)
    base = TrainConfig(slots_per_class=3, scale=33.0, epochs=2)
    found = look_at(x, y.numpy(), AutoConfig(base, frozenset({"slots_per_class", "scale", "epochs"})))
    assert (found.config.slots_per_class, found.config.scale, found.config.epochs) == (3, 33.0, 2)
    assert all(tried.slots_per_class == 3 and tried.scale == 33.0 for tried in found.tries)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 1, 3), (2, 2), (1, 50), (3, 400, 2)])
def test_few_examples_a_class_are_welcome(sizes):
    y = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    x = (np.eye(len(sizes), 5)[y] * 4 + rng.normal(size=(len(y), 5)) * 0.2).astype(np.float32)
    model, _ = slots.fit(x, y)
    assert (model.predict(x).labels == y).mean() > 0.95
    assert set(model.head.labels.tolist()) == set(range(len(sizes)))


@pytest.mark.parametrize("n", [20, 5000])
def test_equal_rows_under_two_labels_are_answered_and_matched_by_no_slot(n):
    model, result = slots.fit(np.ones((n, 4), np.float32), np.arange(n) % 2)
    answers = model.predict(np.ones((3, 4), np.float32))
    assert not answers.matched.any()
    assert result.config.whitening is None


def test_rows_that_are_all_alike_can_be_looked_at():
    """Less the mean of their class they are zero, so whitened there is nothing to train on."""
    found = look_at(torch.ones(6, 2), np.array([0, 0, 0, 0, 1, 1]), AutoConfig())
    assert found is not None
    assert found.chosen.whitening is None
    assert found.right.sum() == round(found.chosen.accuracy * found.n_checked)


def test_ahead_means_half_a_standard_error_of_the_difference():
    right = np.ones(100, bool)
    other = right.copy()
    other[:9] = False  # 9 answers differ, all to the better: 9 > 0.5 * 3
    assert is_ahead(right, other)
    assert not is_ahead(other, right)
    mixed = ~other
    mixed[9:60], mixed[60:] = True, False  # better in 9, worse in 40
    assert not is_ahead(mixed, other)
    assert not is_ahead(right, right)
    swapped = right.copy()
    swapped[0] = False
    worse = right.copy()
    worse[1:3] = False  # 3 differ, one more is right: 1 > 0.5 * sqrt(3)
    assert is_ahead(swapped, worse)
    worse[3:6], swapped[3:6] = False, True
    swapped[6:9] = False  # 9 differ, 5 against 4: 1 < 0.5 * 3
    assert not is_ahead(swapped, worse)


def test_the_default_fit_is_no_worse_than_logistic_regression_on_digits():
    data = load_digits()
    x, y = data.data.astype(np.float32), data.target
    model, result = slots.fit(x[:1200], y[:1200])
    reference = LogisticRegression(max_iter=1000).fit(x[:1200] / 16, y[:1200]).score(x[1200:] / 16, y[1200:])
    assert (model.predict(x[1200:]).labels == y[1200:]).mean() >= reference
    assert result.look is not None
    assert result.config == result.look.config
