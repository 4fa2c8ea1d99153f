"""The protocol slot-update: its splits, its peers against literal ones, its figures."""

from dataclasses import replace

import numpy as np
import pytest

from protocols.data.loading import load_data
from protocols.harness.outcome import SeedOutcome
from protocols.harness.protocol import Setting
from protocols.runs.slot_update import query_strategies
from protocols.runs.slot_update.protocol import OURS, PROTOCOL, fit_config, run_seed
from protocols.runs.slot_update.splits import make_split, new_classes
from slots.closing.config import ClosingConfig
from slots.errors import UsageError
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig

pytestmark = pytest.mark.slow


def quiet(_step, _share):
    """Report nothing."""


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Splits


def test_the_base_knows_no_new_class_and_no_example_is_in_two_parts(digits):
    tagged = replace(digits, x_train=np.arange(len(digits.x_train), dtype=np.float32)[:, None] + [[1, 2]])
    split = make_split(tagged, np.array([8, 9]), seed=1)
    assert set(split.base_y) == set(range(8))
    assert set(split.stream_y) == set(split.test_y) == set(range(10))
    assert not set(split.base[:, 0]) & set(split.stream[:, 0])
    n_base = round(len(digits.y_train) * 2 / 3)
    assert len(split.stream_y) == len(digits.y_train) - n_base
    assert len(split.base_y) < n_base
    rows = split.stream[:, 0].astype(int) - 1
    assert (digits.y_train[rows] == split.stream_y).all()
    assert split.is_new.sum() == np.isin(digits.y_test, [8, 9]).sum()


def test_the_seed_decides_the_stream_and_never_the_never_seen(digits):
    first, again, other = (make_split(digits, np.array([9]), seed) for seed in (0, 0, 1))
    assert np.array_equal(first.stream_y, again.stream_y)
    assert not np.array_equal(first.stream_y, other.stream_y)
    assert np.array_equal(first.test_y, other.test_y)


def test_without_a_test_part_a_sixth_is_never_seen_and_unlabelled_rows_are_left_out(digits):
    bare = replace(digits, x_test=digits.x_test[:0], y_test=digits.y_test[:0])
    split = make_split(bare, np.zeros(0, np.int64), 0)
    n = len(digits.y_train)
    assert len(split.test_y) == round(n / 6)
    assert len(split.base_y) + len(split.stream_y) + len(split.test_y) == n
    some = replace(bare, y_train=np.where(np.arange(n) % 2, -1, digits.y_train))
    split = make_split(some, np.zeros(0, np.int64), 0)
    assert len(split.base_y) + len(split.stream_y) + len(split.test_y) == (n + 1) // 2
    assert min(split.base_y.min(), split.stream_y.min(), split.test_y.min()) == 0


def test_new_classes_are_those_named_or_the_last_two(digits):
    assert new_classes(digits, [], wanted=True).tolist() == [8, 9]
    assert new_classes(digits, [5, 3, 5], wanted=True).tolist() == [3, 5]
    assert new_classes(digits, [5], wanted=False).tolist() == []
    with pytest.raises(UsageError, match=r"`held_out` must be classes of the data, got \[11\]"):
        new_classes(digits, [11], wanted=True)
    with pytest.raises(UsageError, match="`held_out` must leave at least two classes"):
        new_classes(digits, list(range(9)), wanted=True)
    few = replace(digits, y_train=np.full_like(digits.y_train, -1))
    with pytest.raises(UsageError, match="`data` must have labelled examples for three parts, got 0"):
        make_split(few, np.zeros(0, np.int64), 0)


# Peers against literal ones


@pytest.fixture(scope="module")
def small():
    """Prototypes of two classes and a stream of three, small enough to look at every pair."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(40, 5)).astype(np.float32) + np.repeat([[4, 0, 0, 0, 0], [0, 4, 0, 0, 0]], 20, 0)
    stream = rng.normal(size=(60, 5)).astype(np.float32) + np.repeat(4 * np.eye(5)[:3], 20, 0)
    y = np.repeat([0, 1, 2], 20)
    base, stream = base.astype(np.float32), stream.astype(np.float32)
    return query_strategies.Prototypes(base, np.repeat([0, 1], 20), stream, 0, count=12), base, stream, y


def test_prototypes_answer_with_the_nearest_and_labelled_examples_join(small):
    head, _, stream, y = small
    assert head.centres.shape == (12, 5)
    assert np.bincount(head.labels).tolist() == [6, 6]
    asked = np.array([45, 50])
    vectors = np.concatenate([head.centres.numpy(), unit(stream)[asked]])
    labels = [*head.labels, 2, 2]
    expected = [labels[int(np.argmax([float(v @ row) for v in vectors]))] for row in unit(stream)]
    assert head.answer(stream, asked, y[asked]).tolist() == expected
    assert 2 in expected
    assert 2 not in head.answer(stream, asked[:0], y[:0])


def test_a_class_with_few_examples_keeps_them_all(small):
    _, base, stream, _ = small
    head = query_strategies.Prototypes(base[:23], np.repeat([0, 1], [20, 3]), stream, 0, count=12)
    assert np.bincount(head.labels).tolist() == [6, 3]
    np.testing.assert_allclose(head.centres[6:].numpy(), unit(base[20:23]), atol=1e-6)


def literal_margins(head, stream, asked, y):
    vectors = np.concatenate([head.centres.numpy(), unit(stream)[asked]])
    labels = np.concatenate([head.labels, y[asked]])
    leads = []
    for row in unit(stream):
        best = sorted((max(float(v @ row) for v in vectors[labels == c]) for c in set(labels)), reverse=True)
        leads.append(best[0] - best[1])
    return np.array(leads)


def test_margin_asks_the_least_certain_and_rounds_learn(small):
    head, _, stream, y = small
    none = np.zeros(0, np.int64)
    expected = np.argsort(literal_margins(head, stream, none, y), kind="stable")
    assert query_strategies.by_margin(head, 10).tolist() == expected[:10].tolist()
    found = query_strategies.by_margin_in_rounds(head, y, 11, (4, 5))
    assert found[:4].tolist() == expected[:4].tolist()
    for start, stop in ((4, 9), (9, 11)):
        leads = literal_margins(head, stream, found[:start], y)
        leads[found[:start]] = np.inf
        assert found[start:stop].tolist() == np.argsort(leads, kind="stable")[: stop - start].tolist()
    assert len(set(found.tolist())) == 11


def test_k_center_is_farthest_first(small):
    head, _, stream, _ = small
    centres, rows, picked = list(head.centres.numpy()), unit(stream), []
    for _ in range(8):
        nearest = [max(float(c @ row) for c in centres) for row in rows]
        picked.append(int(np.argmin(nearest)))
        centres.append(rows[picked[-1]])
    assert query_strategies.k_center(head, 8).tolist() == picked
    assert len(set(query_strategies.k_center(head, 60).tolist())) == 60


def test_prob_cover_is_greedy_coverage_of_what_no_prototype_holds(small):
    head, _, stream, _ = small
    rows = unit(stream)
    for radius in (0.3, 0.6):
        near = rows @ rows.T >= 1 - radius**2 / 2
        left = {i for i in range(60) if float((head.centres.numpy() @ rows[i]).max()) < 1 - radius**2 / 2}
        picks = []
        while left and len(picks) < 12:
            gains = [len(left & set(np.flatnonzero(near[j]))) for j in range(60)]
            picks.append(int(np.argmax(gains)))
            left -= set(np.flatnonzero(near[picks[-1]]))
        found = query_strategies.prob_cover(head, [radius], 12)[0].tolist()
        assert found[: len(picks)] == picks
        assert len(set(found)) == 12


def test_the_pure_radius_leaves_five_balls_in_a_hundred_mixed(small):
    head, _, stream, _ = small
    radius = query_strategies.pure_radius(head, 3, 0)
    from sklearn.cluster import MiniBatchKMeans

    marks = MiniBatchKMeans(3, n_init=3, batch_size=4096, random_state=0).fit_predict(head.stream.numpy())
    rows = unit(stream).astype(np.float64)
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    mixed = [bool((marks[distance[i] < radius - 1e-5] != marks[i]).any()) for i in range(60)]
    assert np.mean(mixed) <= 0.05 + 1e-9
    wider = [bool((marks[distance[i] < radius + 0.2] != marks[i]).any()) for i in range(60)]
    assert np.mean(wider) > 0.05


# The whole


@pytest.fixture(scope="module")
def outcome(digits):
    told = []
    options = {"budgets": [50, 20], "wanted": 0.9}
    setting = Setting(digits, peers=PROTOCOL.peers, options=options)
    found = run_seed(setting, 0, lambda step, share: told.append((step, share)))
    shares = [share for _, share in told]
    assert min(shares) >= 0
    assert max(shares) <= 1
    return found


def test_every_method_has_a_row_and_a_curve(outcome):
    methods = [row.method for row in outcome.rows]
    assert methods[0] == OURS
    assert len(set(methods)) == len(methods) == 2 + len(PROTOCOL.peers)
    assert "prototypes: random" in methods
    assert [curve.method for curve in outcome.curves] == methods
    assert [row.ours for row in outcome.rows] == [True] + [False] * (len(methods) - 1)
    columns = {column.key for column in PROTOCOL.columns}
    for row, curve in zip(outcome.rows, outcome.curves, strict=True):
        assert set(row.figures) <= columns
        assert list(curve.x) == [0, 20, 50]
        assert list(curve.y) == [row.figures[key] for key in ("before", "held_out_20", "held_out_50")]
        assert row.figures["gain"] == pytest.approx(row.figures["held_out_50"] - row.figures["before"])
        assert row.figures["control"] == row.figures["before"]
    assert SeedOutcome.from_json(outcome.as_json()).as_json() == outcome.as_json()
    assert not outcome.skipped


def test_our_update_learns_the_new_classes_and_changes_no_matched_answer(outcome):
    ours = outcome.rows[0].figures
    assert ours["changed"] == 0
    assert ours["held_out_20"] > ours["before"] + 0.05
    assert ours["held_out_50"] > ours["held_out_20"] - 0.02
    assert ours["new_50"] > 0.5
    random = next(row for row in outcome.rows if row.method == "prototypes: random").figures
    assert ours["held_out_50"] > random["held_out_50"]
    assert random["changed"] is None
    assert outcome.facts["new_classes"] == [8, 9]
    assert outcome.facts["asked_of_new_classes"] > 10


def test_the_best_radius_is_never_worse_than_the_rule(outcome):
    by_name = {row.method: row.figures for row in outcome.rows}
    for key in ("held_out_20", "held_out_50"):
        assert by_name["prototypes: ProbCover, best radius"][key] >= by_name["prototypes: ProbCover"][key]


def test_without_new_classes_and_peers_two_rows_and_no_figure_of_new_classes(digits):
    options = {"budgets": [10], "new_classes": False, "wanted": 0.5}
    digits = replace(digits, x_train=digits.x_train[:700], y_train=digits.y_train[:700])
    found = run_seed(Setting(digits, options=options), 1, quiet)
    assert [row.method for row in found.rows] == [OURS, "prototypes: random"]
    for row in found.rows:
        assert row.figures["new_10"] is None
        assert row.figures["labels_wanted"] == 10
        assert row.figures["slots_wanted"] == row.figures["slots"]
    assert found.rows[0].figures["changed"] == 0
    again = run_seed(Setting(digits, options=options), 1, quiet)
    for one, other in zip(found.rows, again.rows, strict=True):
        assert {k: v for k, v in one.figures.items() if k != "seconds"} == {
            k: v for k, v in other.figures.items() if k != "seconds"
        }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budgets": [7]}, r"`budgets` must be some of 10, 20, .*, got \[7\]"),
        ({"budgets": []}, r"`budgets` must be some of .*, got \[\]"),
        ({"budgets": [500]}, "`budgets` must be below the 479 examples of the stream, got 500"),
        ({"budgets": [10], "wanted": 1.5}, r"`wanted` must lie in \(0, 1\) and `reach` in \(0, 1\], got 1.5 and 0.4"),
        ({"budgets": [10], "reach": 0.0}, "got 0.95 and 0.0"),
    ],
)
def test_messages(digits, options, says):
    with pytest.raises(UsageError, match=says):
        run_seed(Setting(digits, options=options), 0, quiet)


def test_large_data_are_fitted_by_the_general_recipe_and_small_data_by_a_look_without_views():
    large, small = (fit_config("pixels", n, reach=0.4, seed=3, device="cpu") for n in (30_000, 800))
    assert (large.views, large.seed, large.closing.reach, large.slots_per_class) == ("none", 3, 0.4, 30)
    assert isinstance(small, AutoConfig)
    assert small.base == replace(TrainConfig(), views="none", seed=3, closing=replace(ClosingConfig(), reach=0.4))
    assert fit_config("cnn", 30_000, reach=0.4, seed=0, device="cpu").scale != large.scale


def test_default_budgets_are_those_that_the_stream_can_answer(digits):
    found = run_seed(Setting(digits, peers=()), 0, quiet)
    assert found.facts["budgets"] == [50, 100, 200]
    ours = next(row for row in found.rows if row.ours)
    assert ours.figures["changed"] == 0
    assert ours.figures["held_out_200"] > ours.figures["before"]
