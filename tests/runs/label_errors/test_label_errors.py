"""The protocol label-errors: its noise, its peers, its figures."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocols.data.dataset import Dataset
from protocols.data.loading import load_data
from protocols.harness.outcome import SeedOutcome
from protocols.harness.protocol import Setting
from protocols.runs.label_errors import methods as label_errors_methods
from protocols.runs.label_errors import peers
from protocols.runs.label_errors.noise import PAIRS, add_noise, partners_of
from protocols.runs.label_errors.protocol import PROTOCOL, run_seed
from slots.errors import UsageError

pytestmark = pytest.mark.slow


def quiet(_step, _share):
    """Report nothing."""


@pytest.fixture(scope="module")
def rows():
    """Digits as feature rows: quick, and every method works on them."""
    digits = load_data("digits")
    flat = digits.x_train.reshape(len(digits.x_train), -1).astype(np.float32)
    return replace(digits, name="rows", x_train=flat[:600], y_train=digits.y_train[:600])


@pytest.fixture(scope="module")
def outcome(rows):
    told = []
    setting = Setting(rows, backbone="none", peers=PROTOCOL.peers, options={"folds": 2})
    found = run_seed(setting, 0, lambda step, share: told.append((step, share)))
    assert all(0 <= share <= 1 for _, share in told)
    assert {step.split(":")[0] for step, _ in told} == {"uniform", "pairs"}
    return found


# Noise


def test_uniform_noise_is_the_recipe_to_the_letter():
    y = np.random.default_rng(5).integers(0, 10, 60_000)
    found = add_noise(y, "uniform", 2, share=0.05, partners=np.arange(10), n_classes=10)
    rng = np.random.default_rng(1002)
    idx = np.sort(rng.choice(60000, 3000, replace=False))
    expected = y.copy()
    expected[idx] = (y[idx] + rng.integers(1, 10, 3000)) % 10
    np.testing.assert_array_equal(found.y, expected)
    assert np.flatnonzero(found.wrong).tolist() == idx.tolist()
    assert (found.y != y).sum() == 3000


def test_pairs_change_the_same_examples_to_their_partners():
    y = np.arange(200) % 10
    partners = partners_of("fashion_mnist", np.zeros((1, 1), np.float32), y, 10)
    assert partners.tolist() == [6, 3, 4, 1, 2, 8, 0, 9, 5, 7]
    pairs = add_noise(y, "pairs", 0, share=0.1, partners=partners, n_classes=10)
    uniform = add_noise(y, "uniform", 0, share=0.1, partners=partners, n_classes=10)
    assert np.flatnonzero(pairs.wrong).tolist() == np.flatnonzero(uniform.wrong).tolist()
    np.testing.assert_array_equal(pairs.y[pairs.wrong], partners[y[pairs.wrong]])
    assert all(sorted(sum(of, ())) == list(range(10)) for of in PAIRS.values())
    with pytest.raises(ValueError, match=r"`kind` must be one of uniform, pairs, got 'odd'. Choose one"):
        add_noise(y, "odd", 0, share=0.1, partners=partners, n_classes=10)


def test_elsewhere_the_nearest_class_means_are_partners():
    angles = np.radians([0, 4, 50, 58, 110])
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * 7
    assert partners_of("other", x, np.arange(5), 5).tolist() == [1, 0, 3, 2, 4]  # the odd one is its own
    y = np.arange(5).repeat(20)
    found = add_noise(y, "pairs", 0, share=0.5, partners=np.array([1, 0, 3, 2, 4]), n_classes=5)
    assert not found.wrong[y == 4].any()


# Peers


def test_neighbours_vote_as_by_hand():
    x = np.array([[1, 0], [2, 0.1], [3, -0.1], [0, 1], [0.1, 5]], np.float32)
    y = np.array([0, 0, 1, 1, 1])
    near = peers.neighbours(x, 2)
    assert [set(row) for row in near.tolist()] == [{1, 2}, {0, 2}, {0, 1}, {4, 1}, {3, 1}]
    assert near[3:, 0].tolist() == [4, 3]
    np.testing.assert_allclose(
        peers.neighbour_shares(near, y), [[0.5, 0.5], [0.5, 0.5], [1, 0], [0.5, 0.5], [0.5, 0.5]]
    )
    found = peers.disagreement(near, y)
    np.testing.assert_allclose(found.suspicion, [0.5, 0.5, 1, 0.5, 0.5])
    assert found.listed.tolist() == [2]
    nearest = peers.other_is_nearest(near, y)
    assert nearest.suspicion[2:].tolist() == [1, 0, 0]
    assert nearest.listed.tolist() == np.flatnonzero(nearest.suspicion).tolist()


def test_cleanlab_ranks_by_its_published_scores():
    pytest.importorskip("cleanlab")
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.05, 0.05, 0.9]] * 10)
    y = np.array([1, 1, 0, 2] * 10)
    confidence = peers.cleanlab(p, y, method="self_confidence")
    np.testing.assert_allclose(confidence.suspicion[:4], 1 - np.array([0.2, 0.8, 0.3, 0.9]))
    margin = peers.cleanlab(p, y, method="normalized_margin")
    # (p_given - largest other + 1) / 2 is the quality
    np.testing.assert_allclose(margin.suspicion[:4], 1 - np.array([0.25, 0.85, 0.45, 0.925]), atol=1e-6)
    assert set(margin.listed.tolist()) <= {4 * i for i in range(10)} | {4 * i + 2 for i in range(10)}
    assert len(margin.listed)


def test_out_of_sample_never_fits_what_it_predicts():
    y = np.arange(60) % 3
    seen = np.zeros(60, int)

    def fit_predict(fitted, held_out):
        assert not set(fitted) & set(held_out)
        assert np.bincount(y[held_out]).tolist() == [5, 5, 5, 5][:3]
        seen[held_out] += 1
        return np.tile(np.eye(3)[0], (len(held_out), 1)) * len(fitted)

    shares = []
    found = peers.out_of_sample(fit_predict, y, folds=4, seed=0, progress=shares.append)
    assert seen.tolist() == [1] * 60
    assert found[:, 0].tolist() == [45.0] * 60
    assert shares == [0.25, 0.5, 0.75, 1]


def test_logistic_regression_learns_and_does_not_warn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = peers.logistic_regression(x, y)(np.arange(200), np.arange(200, 300))
    assert (p.argmax(1) == y[200:]).mean() > 0.9


# The protocol


def test_every_method_has_its_row_under_each_noise_and_ours_is_ahead(outcome):
    methods = [row.method for row in outcome.rows if row.group == "uniform noise"]
    assert methods == [row.method for row in outcome.rows if row.group == "pairs noise"]
    assert len(set(methods)) == len(methods) == 11
    assert methods[-1] == "random"
    by_name = {(row.group, row.method): row.figures for row in outcome.rows}
    for group in ("uniform noise", "pairs noise"):
        ours, chance = (by_name[group, name] for name in ("slots: watched training", "random"))
        assert ours["ap"] > 0.8
        assert chance["ap"] < 0.15
        assert ours["listed_precision"] > 0.6
        assert by_name[group, "slots: examples shut out of slots"]["ap"] > 2 * chance["ap"]
    assert {row.method for row in outcome.rows if row.ours} == set(methods[:2])
    assert outcome.skipped == {}
    known = {column.key for column in PROTOCOL.columns}
    assert all(set(row.figures) <= known for row in outcome.rows)
    assert outcome.facts["uniform"]["errors"] == 30
    assert outcome.facts["uniform"]["right_suggestions"] > 0.8
    assert sorted(outcome.facts["partners"].tolist()) == list(range(10))
    document = outcome.as_json()
    assert SeedOutcome.from_json(document).as_json() == document


def test_figures_and_curves_are_those_of_the_ranking(outcome):
    for curve in outcome.curves:
        assert curve.x[-1] == 1.0
        assert all(0 < y <= 1 for y in curve.y)
    names = {(curve.chart, curve.method) for curve in outcome.curves}
    assert len(names) == len(outcome.curves) == 20  # all but the yes-or-no rule
    ours = next(c for c in outcome.curves if c.method == "slots: watched training")
    assert ours.chart == "rows, uniform noise"
    assert ours.y[0] == 1.0
    random = next(c for c in outcome.curves if c.method == "random")
    assert random.y[-1] < 0.1


def test_equal_arguments_give_equal_rows_and_peers_are_chosen(rows, outcome):
    setting = Setting(rows, backbone="none", peers=("nearest",), options={"kinds": "pairs"})
    found = run_seed(setting, 0, quiet)
    assert [row.method for row in found.rows] == [
        "slots: watched training",
        "slots: examples shut out of slots",
        "nearest has another label",
        "random",
    ]
    before = {row.method: row.figures for row in outcome.rows if row.group == "pairs noise"}
    for row in found.rows:
        kept = {key: value for key, value in row.figures.items() if key != "seconds"}
        assert kept == {key: value for key, value in before[row.method].items() if key != "seconds"}
    assert {row.group for row in found.rows} == {"pairs noise"}


@pytest.mark.usefixtures("brief_training")
def test_a_network_is_trained_on_images_and_folds_follow_the_option(monkeypatch):
    made = []
    original = label_errors_methods.make_encoder
    monkeypatch.setattr(
        label_errors_methods, "make_encoder", lambda *given, **named: made.append(1) or original(*given, **named)
    )
    digits = load_data("digits")
    options = {"kinds": "uniform", "examples": 300, "folds": 2}
    setting = Setting(digits, backbone="cnn", peers=("cleanlab-folds",), options=options)
    rows = run_seed(setting, 1, quiet).rows
    assert rows[0].figures["ap"] > 0.8
    assert rows[2].method == "cleanlab, 2-fold cnn, self-confidence"
    assert "3 epochs, without shifts" in rows[2].note
    assert len(made) == 2  # one a fold, and none for features that nobody asked for
    long = run_seed(replace(setting, options={**options, "long_folds": True}), 1, quiet).rows
    assert "in the way of ours" in long[2].note
    assert len(made) == 2
    assert long[2].figures["ap"] != rows[2].figures["ap"]
    assert long[0].figures["ap"] == rows[0].figures["ap"]


def test_pixels_and_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(label_errors_methods, "_installed", lambda _name: False)
    options = {"kinds": "uniform", "examples": 300}
    setting = Setting(load_data("digits"), backbone="pixels", peers=("cleanlab-watched", "neighbours"), options=options)
    found = run_seed(setting, 0, quiet)
    assert found.skipped == {"cleanlab-watched": "not installed: pip install 'neural-slots[peers]'"}
    assert [row.method for row in found.rows][2:] == ["disagreement of 20 neighbours", "random"]


def small(n, labels):
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return Dataset("small", x, labels, x[:0], labels[:0], ("a", "b"), "")


def test_misuse_is_named(rows):
    def run(data=rows, backbone="none", **options):
        return run_seed(Setting(data, backbone=backbone, options=options), 0, quiet)

    with pytest.raises(UsageError, match=r"`kinds` must be names of uniform, pairs, got 'odd'. Leave it out for both."):
        run(kinds="odd")
    with pytest.raises(UsageError, match=r"`share` must lie in \(0, 1\), got 1.5. 0.05 changes one label in twenty."):
        run(share=1.5)
    with pytest.raises(UsageError, match=r"`share` must change some labels and not all, got 0.0001. 0.05 changes"):
        run(share=0.0001)
    with pytest.raises(UsageError, match=r"`data` must have at least 100 labelled training examples, got 50. Name"):
        run(small(50, np.arange(50) % 2))
    with pytest.raises(UsageError, match=r"`data` must have at least two classes, got one. Name another data set."):
        run(small(200, np.ones(200, np.int64)))
    with pytest.raises(UsageError, match=r"`name` must be one of pixels, cnn, .*, got 'other'"):
        run(load_data("digits"), backbone="other")


def test_a_fitted_model_lends_its_features(rows, tmp_path):
    from slots.training.config import TrainConfig
    from slots.training.fitting import fit

    model, _ = fit(rows.x_train, rows.y_train, config=TrainConfig(epochs=1, slots_per_class=2))
    folder = Path(model.save(tmp_path / "m"))
    setting = Setting(rows, model=folder, peers=("neighbours",), options={"kinds": "uniform"})
    assert run_seed(setting, 0, quiet).rows[0].figures["ap"] > 0.8
