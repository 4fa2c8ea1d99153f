"""Whitening before the sphere: what it does to the spread within classes, and that a row alone gets the same bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from slots.features.whitening import ClassSums, Whitening
from slots.training import TrainConfig


def rows_of(seed: int, n: int = 200, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    mixing = rng.normal(size=(d, d)) * np.geomspace(0.1, 10, d)
    x = rng.normal(size=(4, d))[y] * 3 + rng.normal(size=(n, d)) @ mixing
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_sums_are_those_of_a_loop_over_rows(seed):
    x, y = rows_of(seed, 50)
    sums = ClassSums.of(x, y)
    wide = x.double().numpy()
    means = {int(c): wide[y.numpy() == c].mean(0) for c in y.unique()}
    scatter = sum(np.outer(row - means[int(c)], row - means[int(c)]) for row, c in zip(wide, y, strict=True))
    np.testing.assert_allclose(sums.scatter.numpy(), scatter, rtol=1e-9, atol=1e-9)
    assert (sums.n, sums.n_classes) == (50, len(means))


def test_little_shrinkage_makes_the_spread_within_classes_round():
    x, y = rows_of(0, 5000)
    white = Whitening.of(ClassSums.of(x, y), shrinkage=1e-9)(x)
    covariance = ClassSums.of(white, y).scatter / (len(x) - 4)
    spread = covariance.diagonal().mean()
    assert torch.allclose(covariance / spread, torch.eye(6, dtype=torch.float64), atol=1e-2)


def test_full_shrinkage_only_centres_and_scales():
    x, y = rows_of(1)
    white = Whitening.of(ClassSums.of(x, y), shrinkage=1.0)(x)
    centred = x - x.mean(0)
    ratio = white[0] / centred[0]
    assert torch.allclose(ratio, ratio[:1].expand(6), rtol=1e-4)


@given(seed=st.integers(0, 100), shrinkage=st.floats(0.01, 1), units=st.lists(st.floats(-5, 5), min_size=6, max_size=6))
@settings(max_examples=20, deadline=None)
def test_units_do_not_matter_to_the_correlation(seed, shrinkage, units):
    x, y = rows_of(seed)
    other = x.double() * 10.0 ** torch.tensor(units, dtype=torch.float64)
    white, same = (
        Whitening.of(ClassSums.of(it, y), shrinkage=shrinkage, by="correlation")(it) for it in (x.double(), other)
    )
    assert torch.allclose(white, same, rtol=1e-6, atol=1e-6)


def test_a_correlation_that_is_shrunk_away_leaves_each_feature_over_its_spread():
    x, y = rows_of(3)
    x[:, 2] = y.float()  # one value a class: kept as it is
    white = Whitening.of(ClassSums.of(x, y), shrinkage=1.0, by="correlation")(x)
    spread = (ClassSums.of(white, y).scatter.diagonal() / (len(x) - 4)).sqrt()
    assert torch.allclose(spread, torch.tensor([1.0, 1, 0, 1, 1, 1], dtype=torch.float64), atol=1e-5)
    assert torch.allclose(white[:, 2], (y - y.double().mean()).float())


def test_little_shrinkage_of_the_correlation_makes_the_spread_within_classes_round():
    x, y = rows_of(0, 5000)
    white = Whitening.of(ClassSums.of(x, y), shrinkage=1e-9, by="correlation")(x)
    assert torch.allclose(ClassSums.of(white, y).scatter / (len(x) - 4), torch.eye(6, dtype=torch.float64), atol=1e-4)


@given(seed=st.integers(0, 100), by=st.sampled_from(["covariance", "correlation"]), lift=st.floats(0.1, 3))
@settings(max_examples=20, deadline=None)
def test_a_lift_is_a_constant_as_long_as_the_rows_are(seed, by, lift):
    x, y = rows_of(seed)
    sums = ClassSums.of(x, y)
    plain, lifted = (Whitening.of(sums, shrinkage=0.3, by=by, lift=it)(x).double() for it in (0.0, lift))
    assert torch.equal(lifted[:, :-1], plain)
    assert lifted.shape == (200, 7)
    length = plain.square().sum(1).mean().sqrt()
    assert torch.allclose(lifted[:, -1], lift * length, rtol=1e-5)


def test_an_offset_is_kept_and_compared():
    x, y = rows_of(4)
    white = Whitening.of(ClassSums.of(x, y), shrinkage=0.3, lift=1.0)
    again = Whitening(**white.state_dict())
    assert torch.equal(again(x), white(x))
    assert Whitening(white.mean, white.matrix).state_dict().keys() == {"mean", "matrix"}
    with pytest.raises(ValueError, match="offset"):
        Whitening(white.mean, white.matrix, white.offset[:-1])
    with pytest.raises(ValueError, match="lift"):
        Whitening.of(ClassSums.of(x, y), shrinkage=0.3, lift=-1.0)


@given(seed=st.integers(0, 100), shrinkage=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_a_row_has_the_same_bits_alone_and_in_a_batch(seed, shrinkage):
    x, y = rows_of(seed)
    white = Whitening.of(ClassSums.of(x, y), shrinkage=shrinkage)
    together = white(x)
    assert all(torch.equal(white(x[i : i + 1])[0], together[i]) for i in range(0, 200, 17))


def test_directions_give_the_same_scores_up_to_a_constant():
    x, y = rows_of(2)
    white = Whitening.of(ClassSums.of(x, y), shrinkage=0.2)
    weights = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    difference = white(x) @ weights.T - x @ white.directions(weights).T
    assert torch.allclose(difference, difference[:1].expand_as(difference), atol=1e-3)


def test_classes_of_one_point_are_left_as_they_are():
    x = torch.eye(3).repeat(2, 1)
    white = Whitening.of(ClassSums.of(x, torch.arange(3).repeat(2)), shrinkage=0.1)
    assert torch.equal(white.matrix, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("shrinkage", [0.5, 0.03, 1.0])
def test_the_map_is_the_inverse_root_of_the_shrunk_covariance(shrinkage):
    rows, labels = rows_of(4)
    sums = ClassSums.of(rows, labels)
    covariance = sums.scatter / (sums.n - sums.n_classes)
    identity = torch.eye(len(covariance), dtype=torch.float64)
    shrunk = (1 - shrinkage) * covariance + shrinkage * covariance.trace() / len(covariance) * identity
    matrix = Whitening.of(sums, shrinkage=shrinkage).matrix
    root = (matrix @ shrunk @ matrix) / (covariance.trace() / len(covariance))
    assert torch.allclose(root, identity, atol=1e-10)
    assert torch.allclose(matrix, matrix.T)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 12),
    shrinkage=st.floats(0.001, 1),
    by=st.sampled_from(["covariance", "correlation"]),
    twins=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_few_rows_have_the_map_of_their_whole_covariance(seed, n, shrinkage, by, twins):
    x, y = rows_of(seed, n, 24)
    if twins:  # fewer directions than rows, and a feature that does not vary
        x, y = torch.cat([x, x])[:12], torch.cat([y, y])[:12]
        x[:, 3] = 7
    sums = ClassSums.of(x, y)
    assert sums.within is not None
    quick, whole = (Whitening.of(it, shrinkage=shrinkage, by=by).matrix for it in (sums, replace(sums, within=None)))
    torch.testing.assert_close(quick, whole, rtol=1e-7, atol=1e-7 * float(whole.abs().max()))


def test_more_rows_are_not_kept():
    assert ClassSums.of(*rows_of(0, 13, 24)).within is None


@pytest.mark.parametrize("shrinkage", [0, -1, 1.5])
def test_shrinkage_out_of_range_is_refused(shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        Whitening.of(ClassSums.of(*rows_of(0)), shrinkage=shrinkage)


def test_a_whitened_model_is_stored_and_read_with_the_same_answers(tmp_path):
    x, y = rows_of(3, 400)
    config = TrainConfig(epochs=3, slots_per_class=2, whitening=0.1)
    model, _ = slots.fit(x.numpy(), y.numpy(), config=config)
    model.save(tmp_path / "model")
    again = slots.SlotModel.load(tmp_path / "model")
    before, after = model.predict(x.numpy()), again.predict(x.numpy())
    assert all(np.array_equal(getattr(before, name), getattr(after, name)) for name in vars(before))
    assert torch.equal(again.featurizer.whitening.matrix, model.featurizer.whitening.matrix)


def test_an_update_never_moves_the_whitening():
    x, y = rows_of(4, 400)
    known = (y < 3).numpy()
    config = TrainConfig(epochs=3, slots_per_class=2, whitening=0.1)
    model, _ = slots.fit(x.numpy()[known], y.numpy()[known], config=config)
    matrix, before = model.featurizer.whitening.matrix.clone(), model.predict(x.numpy())
    model.update(x.numpy(), {int(i): 3 for i in np.flatnonzero(~known)[:20]})
    after = model.predict(x.numpy())
    assert torch.equal(model.featurizer.whitening.matrix, matrix)
    assert np.array_equal(after.labels[before.matched], before.labels[before.matched])
