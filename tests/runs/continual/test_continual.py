"""The protocol `continual`: streams, what is forgotten, the peers, and a whole run on the digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from support.reference_continual import streaming_lda

from protocols.data.dataset import Dataset
from protocols.data.loading import load_data
from protocols.harness.outcome import SeedOutcome
from protocols.harness.protocol import Setting
from protocols.runs.continual.avalanche import AvalancheLearner, NearestNeighbour
from protocols.runs.continual.metrics import retention
from protocols.runs.continual.peers import CONTINUAL_PEERS, StreamFacts, find_peers
from protocols.runs.continual.protocol import PROTOCOL, run_seed
from protocols.runs.continual.replay import DarkReplay, GDumb, Memory, Replay, network_bytes
from protocols.runs.continual.streaming_statistics import NearestMean, RandomRidge, StreamingLDA
from protocols.runs.continual.streams import KINDS, make_stream
from slots.errors import UsageError

pytestmark = pytest.mark.slow

Y = np.repeat(np.arange(6), 30)


def silent(_step: str, _share: float) -> None:
    """Report nothing."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_comes_once(kind: str) -> None:
    y = np.where(np.arange(180) % 9 == 0, -1, Y)
    stream = make_stream(kind, y, y, n_tasks=3, seed=0)
    assert sorted(np.concatenate(stream.parts).tolist()) == np.flatnonzero(y >= 0).tolist()
    assert sorted(np.concatenate(stream.tests).tolist()) == np.flatnonzero(y >= 0).tolist()
    assert sum(len(rows) for part in range(3) for rows in stream.batches(part, 7)) == (y >= 0).sum()
    again = make_stream(kind, y, y, n_tasks=3, seed=0)
    assert all((one == other).all() for one, other in zip(stream.parts, again.parts, strict=True))
    assert any((one != other).any() for one, other in zip(*_same_length(kind, y), strict=True))


def _same_length(kind: str, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    parts = [make_stream(kind, y, y, n_tasks=3, seed=seed).parts for seed in (0, 1)]
    return [it[:20] for it in parts[0]], [it[:20] for it in parts[1]]


def test_new_classes_come_in_their_part_only() -> None:
    stream = make_stream("class", Y, Y, n_tasks=3, seed=0)
    assert [set(Y[part].tolist()) for part in stream.parts] == [{0, 1}, {2, 3}, {4, 5}]
    assert [stream.known(part) for part in range(3)] == [1, 2, 3]
    assert (stream.targets == Y).all()


def test_new_domains_have_the_same_labels() -> None:
    stream = make_stream("domain", Y, Y, n_tasks=2, seed=0)
    assert stream.groups == ((0, 1, 2), (3, 4, 5))
    assert (stream.targets == Y % 3).all()
    assert (stream.test_targets == Y % 3).all()


def test_a_blurred_stream_has_all_classes_at_any_time_but_most_in_their_part() -> None:
    y = Y.repeat(20)
    stream = make_stream("blurry", y, y, n_tasks=3, seed=0, blur=0.3)
    for part, group in zip(stream.parts, stream.groups, strict=True):
        own = np.isin(y[part], group).mean()
        assert set(y[part].tolist()) == set(range(6))
        assert 0.75 < own < 0.85  # 0.7 of it, and a third of what moved
    assert stream.known(0) == 3


def test_fewer_examples_of_a_stream() -> None:
    stream = make_stream("class", Y, Y, n_tasks=3, seed=0, n_examples=50)
    assert sum(map(len, stream.parts)) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "odd"}, "`streams` must name some of class, blurry, domain, got 'odd'. Leave it out"),
        ({"n_tasks": 4}, r"`tasks` must lie between 2 and half the number of classes \(6\), got 4. Every task"),
        ({"n_tasks": 1}, "`tasks` must lie between 2 and half"),
        ({"blur": 1.0}, r"`blur` must lie in \[0, 1\), got 1.0. 0.1 lets"),
    ],
)
def test_streams_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_stream(**{"kind": "class", "y": Y, "y_test": Y, "n_tasks": 3, "seed": 0} | arguments)


def test_forgetting_by_hand() -> None:
    tests = [np.array([0, 1]), np.array([2, 3])]
    targets = np.array([0, 0, 1, 1])
    answers = [np.array([0, 0, 0, 0]), np.array([0, 1, 1, 0])]
    matched = [np.array([True, False, False, True]), np.array([True, True, False, False])]
    found = retention(answers, matched, targets, tests, known=[1, 2])
    assert found.final == 0.5
    assert found.average == 0.75  # (1 + 1/2) / 2
    assert found.forgetting == 0.5  # task one: 1, then 1/2
    assert found.backward == -0.5
    assert found.lost == 0.5
    assert found.matched_lost == 0.0  # answers 0 and 3 were matched, and both stand
    assert found.matched_share == 0.5
    assert found.matched_right == 0.5


def test_a_matched_answer_that_changes_is_counted_even_if_it_comes_back() -> None:
    tests, targets = [np.array([0]), np.array([1])], np.array([0, 1])
    answers = [np.array([0, 1]), np.array([1, 1]), np.array([0, 1])]
    matched = [np.array([True, True]), np.array([False, True]), np.array([True, True])]
    found = retention(answers, matched, targets, tests, known=[1, 2, 2])
    assert found.matched_lost == pytest.approx(1 / 3)
    nothing = retention(answers, [], targets, tests, known=[1, 2, 2])
    assert math.isnan(nothing.matched_lost)
    assert math.isnan(nothing.matched_share)


def test_forgetting_counts_from_the_best_that_a_task_ever_was() -> None:
    tests, targets = [np.array([0, 1]), np.array([2, 3]), np.array([4])], np.zeros(5, np.int64)
    answers = [np.array([0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 1]), np.array([1, 1, 0, 1, 0])]
    found = retention(answers, [], targets, tests, known=[1, 2, 3])
    assert found.forgetting == pytest.approx((1.0 + 0.5) / 2)
    assert found.backward == pytest.approx((-0.5 - 0.5) / 2)


@given(seed=st.integers(0, 100), cut=st.integers(1, 39))
@settings(max_examples=10, deadline=None)
def test_streaming_lda_is_the_papers_whatever_the_batches(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(3, size=40)
    learner = StreamingLDA(5)
    for part in (slice(0, cut), slice(cut, None)):
        learner.learn(rows[part], labels[part])
    means, covariance, weights = streaming_lda(rows, labels, 1e-4)
    present = np.unique(labels)
    np.testing.assert_allclose(learner.means[present], means[present], atol=1e-6)
    np.testing.assert_allclose(learner.covariance, covariance, atol=1e-5)
    scores = rows @ weights - 0.5 * (means.T * weights).sum(0)
    scores[:, np.setdiff1d(np.arange(3), present)] = -np.inf
    assert (learner.predict(rows) == scores.argmax(1)).mean() > 0.97


def test_nearest_mean_by_hand() -> None:
    learner = NearestMean(1)
    learner.learn(np.float32([[0], [2]]), np.array([0, 0]))
    learner.learn(np.float32([[10]]), np.array([3]))
    assert learner.predict(np.float32([[5.4], [5.6]])).tolist() == [0, 3]


def test_random_ridge_is_ridge_regression_of_the_classes() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(80, 6)).astype(np.float32), rng.integers(4, size=80)
    learner = RandomRidge(6, 30, seed=0)
    for part in np.array_split(np.arange(80), 5):
        learner.learn(rows[part], labels[part])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    projected = np.maximum(unit @ learner.projection, 0)
    oracle = Ridge(1.0, fit_intercept=False).fit(projected, np.eye(4)[labels])
    assert (learner.predict(rows) == oracle.predict(projected).argmax(1)).all()


@pytest.mark.parametrize("in_bytes", [True, False])
def test_a_memory_gives_back_what_was_put(in_bytes: bool) -> None:
    rows = np.random.default_rng(0).integers(256, size=(3, 5)).astype(np.float32) / np.float32(255)
    memory = Memory(4, 5, in_bytes=in_bytes)
    for place, row in enumerate(rows):
        memory.put(place, row, place + 7)
    back, labels = memory.get(np.array([2, 0]))
    np.testing.assert_array_equal(back, rows[[2, 0]])
    assert labels.tolist() == [9, 7]
    assert memory.nbytes == 4 * (5 if in_bytes else 20) + 4


def test_a_reservoir_holds_a_fair_sample() -> None:
    held = np.zeros(40)
    rows = np.zeros((40, 1), np.float32)
    for seed in range(60):
        learner = Replay(1, 40, 10, in_bytes=False, seed=seed)
        learner._keep(rows, np.arange(40))
        held[learner.memory.labels] += 1
    assert held.sum() == 600
    assert 0.15 < held[:20].mean() / 60 < 0.35
    assert 0.15 < held[20:].mean() / 60 < 0.35


def test_gdumb_keeps_its_memory_even() -> None:
    learner = GDumb(1, 5, 20, in_bytes=False, seed=0)
    for label in range(5):
        learner.learn(np.zeros((50, 1), np.float32), np.full(50, label))
        assert np.ptp(learner.counts[: label + 1]) <= 1
        assert learner.counts.sum() == 20
        assert (np.bincount(learner.memory.labels, minlength=5) == learner.counts).all()


def test_der_remembers_what_the_network_said() -> None:
    rng = np.random.default_rng(0)
    learner = DarkReplay(4, 3, 30, in_bytes=False, seed=0)
    rows = rng.normal(size=(10, 4)).astype(np.float32)
    with torch.no_grad():
        said = learner.network(torch.from_numpy(rows)).numpy()
    learner.learn(rows, np.arange(10) % 3)
    np.testing.assert_allclose(learner.outputs[:10], said, atol=1e-6)
    assert learner.nbytes == learner.memory.nbytes + 30 * 3 * 4 + network_bytes(learner.network)


def test_the_nearest_of_all_answers() -> None:
    rng = np.random.default_rng(0)
    rows, asked = (rng.normal(size=(n, 6)).astype(np.float32) for n in (50, 9))
    learner = NearestNeighbour(6, in_bytes=False)
    learner.learn(rows[:30], np.arange(30))
    learner.learn(rows[30:], np.arange(30, 50))
    cosine = asked @ rows.T / np.linalg.norm(rows, axis=1)
    assert (learner.predict(asked) == cosine.argmax(1)).all()
    assert abs(learner.nbytes - 50 * (24 + 1)) < 50


@pytest.mark.parametrize("name", ["Naive", "Replay"])
def test_avalanche_learns(name: str) -> None:
    pytest.importorskip("avalanche")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 4)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(np.int64)
    learner = AvalancheLearner(name, 4, 2, seed=0)
    learner.learn(rows, labels)
    assert (learner.predict(rows) == labels).mean() > 0.8


def _digits(**options: Any) -> Setting:
    return Setting(load_data("digits"), options=options, peers=options.pop("peers", ()))


@pytest.fixture(scope="module")
def outcome() -> SeedOutcome:
    return run_seed(_digits(peers=PROTOCOL.peers, more_examples=500), 0, silent)


def test_a_run_has_a_row_for_every_method_on_every_stream(outcome: SeedOutcome) -> None:
    methods = {peer.method for name in PROTOCOL.peers if name not in outcome.skipped for peer in find_peers(name)}
    for group in ("new classes", "blurred, no borders", "new domains"):
        rows = [row for row in outcome.rows if row.group == group]
        assert {row.method for row in rows if not row.ours} == methods
        assert [row.ours for row in rows].count(True) == 1
    keys = {column.key for column in PROTOCOL.columns}
    assert all(set(row.figures) == keys for row in outcome.rows)
    assert len(outcome.curves) == len(outcome.rows)
    assert all(len(curve.x) == len(curve.y) == 5 for curve in outcome.curves)


def test_what_is_matched_is_never_lost_and_nearly_always_right(outcome: SeedOutcome) -> None:
    for row in outcome.rows:
        if row.ours:
            assert row.figures["final"] > 0.93
            assert row.figures["matched_lost"] == 0.0
            if row.group == "new classes":  # of the others there are too few examples for a promise
                assert row.figures["matched_share"] > 0.02
                assert row.figures["matched_right"] > 0.98
        else:
            assert math.isnan(row.figures["matched_lost"])


def test_plain_fine_tuning_forgets_everything(outcome: SeedOutcome) -> None:
    naive = next(row for row in outcome.rows if row.group == "new classes" and row.method.startswith("fine-tuning"))
    assert naive.figures["forgetting"] > 0.9
    assert naive.figures["final"] < 0.25


def test_a_run_is_plain_json_and_repeatable(outcome: SeedOutcome) -> None:
    back = SeedOutcome.from_json(outcome.as_json())
    assert len(back.rows) == len(outcome.rows)
    setting = _digits(streams="blurry", peers=("ncm", "derpp"))
    first, second = (run_seed(setting, 3, silent) for _ in range(2))
    for one, other in zip(first.rows, second.rows, strict=True):
        assert one.method == other.method
        for key in ("final", "average", "forgetting", "lost", "memory"):
            assert one.figures[key] == other.figures[key]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "avalanche.training.supervised", None)
    found = run_seed(_digits(streams="class", examples=300, peers=("avalanche", "ncm")), 0, silent)
    assert found.skipped == {"avalanche": "not installed: pip install 'neural-slots[avalanche]'"}
    assert len(found.rows) == 2


@pytest.mark.usefixtures("brief_training")
def test_features_of_a_network_that_saw_the_first_part_only() -> None:
    data = load_data("digits")
    few = Dataset(**{**vars(data), "x_train": data.x_train[:400], "y_train": data.y_train[:400]})
    found = run_seed(Setting(few, backbone="cnn", options={"streams": "class"}, peers=("slda",)), 0, silent)
    assert found.rows[0].figures["final"] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": -1}, "`examples` must be >= 0, got -1. 0 takes all examples"),
        ({"more_examples": -5}, "`more_examples` must be >= 0, got -5"),
        ({"streams": "class,odd"}, "`streams` must name some of"),
        ({"peers": ("odd",)}, f"`peers` must be some of {', '.join(CONTINUAL_PEERS)}, got 'odd'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_seed(_digits(**options), 0, silent)


def test_data_without_labels() -> None:
    data = load_data("digits")
    bare = Dataset(**{**vars(data), "y_test": np.full(len(data.y_test), -1)})
    with pytest.raises(UsageError, match="`data` must have labelled examples to learn from and to test on, got none"):
        run_seed(Setting(bare), 0, silent)


def test_what_peers_are_told_is_enough_for_each() -> None:
    facts = StreamFacts(n_features=6, n_classes=3, n_examples=30, images_in_bytes=False, seed=0)
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 3
    for name in set(CONTINUAL_PEERS) - {"avalanche"}:
        for peer in find_peers(name):
            learner = peer.make(facts)
            learner.learn(rows[labels < 2], labels[labels < 2])
            assert set(learner.predict(rows).tolist()) <= {0, 1}, peer.method
            assert learner.nbytes > 0
