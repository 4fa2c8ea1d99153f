"""What each question asks: splits, domains, groups of queries, and peers against slow or known answers."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from protocols.data.loading import load_data
from protocols.harness.detection_metrics import quality
from protocols.harness.outcome import Row
from protocols.runs.transfer.attempts import attempt
from protocols.runs.transfer.clusters import CLUSTERINGS, cluster_rows, discovery_rows, leiden
from protocols.runs.transfer.domains import IMAGE_DOMAINS, moved
from protocols.runs.transfer.novelty import FAR, NEAR, hold_out, logistic_layer, novelty_rows
from protocols.runs.transfer.sources import Source
from protocols.runs.transfer.streams import stream_rows
from protocols.runs.transfer.updates import SCENARIOS, other_domain, query_groups, scenarios, update_rows
from protocols.runs.transfer.variants import Task, make_task, rows_of
from protocols.runs.unsupervised.metrics import agreement_figures
from slots.head.similarities import normalize
from slots.training.config import TrainConfig
from slots.training.fitting import fit


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits")
    rng = np.random.default_rng(0)
    foreign = {"noise": rng.integers(0, 256, (90, 8, 8, 1), dtype=np.uint8), "x_out": 255 - data.x_test[:80]}
    return make_task(Source(data), "as it is", 0, examples=400, tests=160, foreign=foreign)


@pytest.fixture(scope="module")
def blobs():
    x, y = make_blobs([60] * 6, n_features=8, center_box=(-10, 10), cluster_std=0.6, random_state=1)
    x, y = x.astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(0).permutation(360)
    x, y = x[order], y[order]
    return Task("blobs", x[:240], y[:240], x[240:], y[240:])


class TestForeignRows:
    def test_they_are_made_like_the_test_part(self, digits):
        assert {name: x.shape for name, x in digits.foreign.items()} == {"noise": (80, 64), "x_out": (80, 64)}
        assert digits.x_test.shape == (160, 64)
        inverted = rows_of(255 - load_data("digits").x_test[:80])
        assert {row.tobytes() for row in digits.foreign["x_out"]} <= {row.tobytes() for row in inverted}

    @pytest.mark.parametrize("variant", ["classes merged", "turned classes", "16 directions", "mixed domains"])
    def test_no_variant_gives_them_a_class(self, variant):
        source = Source(load_data("digits"))
        images = source.data.x_test[:40]
        task = make_task(source, variant, 0, examples=400, tests=80, foreign={"a": images, "b": 255 - images})
        assert {name: len(x) for name, x in task.foreign.items()} == {"a": 40, "b": 40}
        assert task.foreign["b"].shape[1] == task.x.shape[1]
        assert len(task.y_test) == 80


class TestNovelty:
    def test_classes_are_held_out(self, digits):
        held, foreign = hold_out(digits, 3)
        assert held.n_classes == 7
        assert set(held.y_test) <= set(range(7))
        assert len(held.y_test) + len(foreign) == len(digits.y_test)
        assert {row.tobytes() for row in foreign}.isdisjoint(row.tobytes() for row in held.x_test)
        few = Task("few", digits.x, digits.y % 3, digits.x_test, digits.y_test % 3)
        assert hold_out(few, 0)[0] is None

    def test_near_and_far(self, digits):
        rows = novelty_rows(digits, 0, ["knn", "energy"])
        near = [row for row in rows if row.group == NEAR]
        assert {row.task for row in near} == {"digits, held-out classes", "digits, x_out"}
        assert {row.task for row in rows if row.group == FAR} == {"digits"}
        assert all(0 <= row.figures["auroc"] <= 1 for row in rows)
        assert all((row.figures["alarms"] is not None) <= row.ours for row in rows)
        nearest = next(r for r in rows if r.method.startswith("1 nearest, raw") and r.task == "digits, x_out")

        def score(x):
            return ((x[:, None] - digits.x) ** 2).sum(2).min(1)

        assert nearest.figures["auroc"] == pytest.approx(
            quality(score(digits.x_test), score(digits.foreign["x_out"])).auroc
        )

    @pytest.mark.parametrize("n_classes", [2, 5])
    def test_the_layer_is_scikit_learns(self, blobs, n_classes):
        some = blobs.y < n_classes
        x, y = blobs.x[some], blobs.y[some]
        layer, size = logistic_layer(x, y), np.linalg.norm(x, axis=1).mean()
        theirs = LogisticRegression(C=10.0, tol=1e-3).fit(x / size, y).predict_log_proba(blobs.x_test / size)
        ours = torch.log_softmax(layer(torch.from_numpy(blobs.x_test)), 1).numpy()
        assert ours == pytest.approx(theirs, abs=1e-2)


class TestClusters:
    @pytest.mark.parametrize("name", CLUSTERINGS)
    def test_every_peer_finds_blobs(self, blobs, name):
        found = CLUSTERINGS[name][1](blobs.x, 6, 0)
        assert agreement_figures(blobs.y, found)["nmi"] > 0.9

    def test_leiden_repeats(self, blobs):
        assert (leiden(blobs.x, 0, 1) == leiden(blobs.x, 0, 1)).all()

    def test_found_is_a_multiple_of_the_classes(self, blobs):
        rows = {row.method: row for row in cluster_rows(blobs, 0, ["kmeans"])}
        assert rows["k-means"].figures["found"] == 1
        assert rows["k-means"].figures["clusters"] == 6
        assert {row.ours for name, row in rows.items() if name != "k-means"} == {True}

    def test_discovery_names_some_classes(self, blobs):
        rows = {row.method: row for row in discovery_rows(blobs, 0, ["kmeans"])}
        assert list(rows) == ["discover", "k-means", "semi-supervised k-means"]
        assert rows["semi-supervised k-means"].figures["acc_old"] > 0.7
        few = Task("few", blobs.x, blobs.y % 3, blobs.x_test, blobs.y_test % 3)
        assert discovery_rows(few, 0, ["kmeans"]) == []


class TestUpdates:
    def test_scenarios(self, digits):
        found = {it.name: it for it in scenarios(digits, 0)}
        assert tuple(found) == SCENARIOS
        classes, domain, both, nothing = found.values()
        assert len(np.unique(classes.base_y)) == 7
        assert set(classes.new_y).isdisjoint(classes.base_y)
        assert set(classes.old_y) == set(classes.base_y)
        assert len(classes.old_y) + len(classes.new_y) == len(digits.y_test)
        assert (domain.old == digits.x_test).all()
        assert (domain.new != digits.x_test).any()
        assert (domain.new_y == digits.y_test).all()
        assert (both.base == classes.base).all()
        assert (both.new == domain.new).all()
        assert (nothing.old == nothing.new).all()
        assert {row.tobytes() for row in nothing.base}.isdisjoint(row.tobytes() for row in nothing.stream)
        assert len(nothing.base_y) + len(nothing.stream_y) == len(digits.y)

    def test_domains_of_pictures_and_rows(self, digits, blobs):
        train, test = other_domain(digits, 1)
        made = [rows_of(change(digits.pictures[1])) for change in IMAGE_DOMAINS.values()]
        assert sum((test == it).all() for it in made) == 1
        assert train.shape == digits.x.shape
        assert (other_domain(blobs, 2)[1] == moved(blobs.x_test, seed=2)).all()

    def test_groups_of_queries_by_hand(self, blobs):
        model, _ = fit(blobs.x[blobs.y < 3], blobs.y[blobs.y < 3], config=TrainConfig(epochs=2, slots_per_class=2))
        proposal = model.propose(blobs.x, budget=5)
        unit = normalize(model.features(blobs.x)[:, 0].float()).detach().numpy()
        left, slow = set(proposal.unmatched.tolist()), []
        for query in proposal.queries:
            close = unit[sorted(left)] @ unit[query] >= np.cos(proposal.radius) - 1e-7
            slow.append([row for row, near in zip(sorted(left), close, strict=True) if near])
            left -= set(slow[-1])
        found = query_groups(proposal)
        assert [it.tolist() for it in found] == slow
        assert [len(it) for it in found] == proposal.gains.tolist()

    def test_rows(self, blobs):
        rows = update_rows(blobs, 0, ["nearest", "refitted"])
        place = "blobs, new classes, 20 labels"
        mine = {row.method: row.figures for row in rows if row.task == place}
        assert list(mine) == ["SlotModel.update", "left alone", "1-NN, all data", "logistic regression, all data again"]
        assert mine["left alone"]["new_after"] == 0  # classes it has never seen
        assert mine["1-NN, all data"]["new_after"] > 0.9
        for figures in mine.values():
            assert figures["drop"] == pytest.approx(figures["old_before"] - figures["old_after"])
            assert figures["behind"] == pytest.approx(figures["new_before"] - figures["new_after"])
        assert {row.task for row in rows if row.group.startswith("groups")} <= {f"blobs, {it}" for it in SCENARIOS}


class TestStream:
    def test_one_pass(self, blobs, digits):
        rows = {row.method: row for row in stream_rows(digits, 0, ["ncm", "slda", "rp_ridge"])}
        assert len(rows) == 4
        assert all(row.figures["final"] > 0.85 for row in rows.values())
        assert rows["nearest class mean"].figures["bytes"] == 10 * 64 * 4 + 10 * 8
        few = Task("few", blobs.x, blobs.y % 3, blobs.x_test, blobs.y_test % 3)
        assert stream_rows(few, 0, ["ncm"]) == []


class TestAttempts:
    def test_a_failure_is_named(self):
        def fails():
            raise ValueError("too few rows")

        row = attempt(fails, "m", ours=False, group="g", task="t", note="n")
        assert row == Row("m", {}, False, "g", "Failed on t: too few rows", "t")
        assert attempt(lambda: {"a": 1.0}, "m", ours=True, group="g", task="t", note="n").figures == {"a": 1.0}

    def test_a_missing_library_is_no_failure(self):
        def fails():
            raise ImportError("igraph")

        with pytest.raises(ImportError):
            attempt(fails, "m", ours=False, group="g", task="t")
