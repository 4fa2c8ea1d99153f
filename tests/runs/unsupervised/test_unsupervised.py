import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering, Birch
from sklearn.datasets import make_blobs

from protocols.data.dataset import Dataset
from protocols.data.loading import load_data
from protocols.harness.outcome import SeedOutcome
from protocols.harness.protocol import Setting
from protocols.runs.unsupervised import peers
from protocols.runs.unsupervised.discovery import discovery_figures, split_classes
from protocols.runs.unsupervised.metrics import agreement_figures, contingency, matched_points
from protocols.runs.unsupervised.protocol import PROTOCOL
from slots.errors import UsageError

pytestmark = pytest.mark.slow


def run(data, *, seed=0, names=(), backbone="pixels", **options):
    told = []
    setting = Setting(data, backbone, peers=names, options=options)
    outcome = PROTOCOL.run_seed(setting, seed, lambda step, share: told.append((step, share)))
    return outcome, told


def rows_of(outcome, group=""):
    return {row.method: row for row in outcome.rows if row.group == group}


def some_digits(n=500):
    data = load_data("digits")
    return Dataset(
        "digits", data.x_train[:n], data.y_train[:n], data.x_test[:100], data.y_test[:100], data.class_names, "some"
    )


@pytest.fixture(scope="module")
def digits():
    outcome, told = run(load_data("digits"), names=PROTOCOL.peers, slow_examples=400, discovery_examples=600)
    return outcome, told


class TestMetrics:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=25))
    def test_accuracy_is_the_best_of_all_pairings(self, points):
        classes, clusters = map(np.array, zip(*points, strict=True))
        best = max(sum(pairing[mine] == its for mine, its in points) for pairing in itertools.permutations(range(4)))
        assert matched_points(classes, clusters).sum() == best
        assert agreement_figures(classes, clusters)["acc"] == pytest.approx(best / len(points))

    def test_clusters_and_classes_left_over_are_wrong(self):
        classes = np.array([0, 0, 0, 1, 1, 2])
        assert agreement_figures(classes, np.array([0, 0, 1, 2, 3, 4]))["acc"] == pytest.approx(4 / 6)
        assert agreement_figures(classes, np.zeros(6, int))["acc"] == pytest.approx(3 / 6)
        assert agreement_figures(classes, np.full(6, -1))["acc"] == 0.0

    def test_by_hand(self):
        classes, clusters = np.array([0, 0, 1, 1]), np.array([0, 0, 0, -1])
        found = agreement_figures(classes, clusters)
        assert contingency(classes, clusters).tolist() == [[2], [1]]
        assert found["purity"] == 0.5  # the noise counts as wrong
        assert found["clusters"] == 1
        # H(classes) = log 2, H(clusters) = 0.5623, I = log 2 - 3/4 H(1/3) = 0.2158
        assert found["nmi"] == pytest.approx(2 * 0.21576 / (0.69315 + 0.56234), abs=1e-4)
        assert found["ari"] == pytest.approx(0.0, abs=1e-9)  # 1 pair together, 6 * (2 * 3 / 36) = 1 expected

    def test_numbers_of_clusters_have_no_meaning(self):
        rng = np.random.default_rng(0)
        classes, clusters = rng.integers(0, 5, 100), rng.integers(0, 7, 100)
        assert agreement_figures(classes, clusters) == pytest.approx(
            agreement_figures(classes, rng.permutation(7)[clusters])
        )


class TestPeers:
    @pytest.fixture(scope="class")
    @staticmethod
    def blobs():
        x, y = make_blobs([150, 80, 60, 60], n_features=5, center_box=(-25, 25), random_state=3)
        return x.astype(np.float32), y.astype(np.int64)

    @pytest.mark.parametrize("cluster", [peers.kmeans, peers.faiss_kmeans, peers.minibatch_kmeans])
    def test_separate_blobs_are_found_and_assigned(self, blobs, cluster):
        x, y = blobs
        found = cluster(x, 4, 1)
        assert agreement_figures(y, found.labels)["purity"] > 0.7
        assert (found.assign(x) == found.labels).all()
        assert found.seconds > 0
        assert (cluster(x, 4, 1).labels == found.labels).all()

    def test_spherical_sees_directions(self, blobs):
        x, _ = blobs
        found = peers.faiss_kmeans(x, 4, 0, spherical=True)
        assert (found.assign(7 * x) == found.labels).all()

    def test_birch_is_scikit_learns_at_any_number(self, blobs):
        x, _ = blobs
        counts = [2, 4, 9]
        for k, found in zip(counts, peers.birch(x, counts, 1.5), strict=True):
            theirs = Birch(threshold=1.5, n_clusters=k).fit(x)
            assert agreement_figures(theirs.labels_.astype(np.int64), found.labels)["acc"] == 1.0
            assert (found.assign(x) == found.labels).all()
        assert AgglomerativeClustering().linkage == "ward"  # what `Birch` joins with

    def test_birch_with_one_subcluster(self):
        assert peers.birch(np.ones((5, 2), np.float32), [1, 3], 0.5)[1].labels.tolist() == [0] * 5
        assert peers.birch_thresholds(np.ones((5, 2), np.float32), 0, [0.6]) == [0.5]

    def test_birch_thresholds_are_shares_of_the_nearest_distance(self):
        x = np.arange(20, dtype=np.float32)[:, None] * 3
        assert peers.birch_thresholds(x, 0, [0.5, 1.0]) == pytest.approx([1.5, 3.0])

    def test_hdbscan_finds_blobs_and_noise(self, blobs):
        x, y = blobs
        far = np.full((1, 5), 500, np.float32)
        found = peers.hdbscan(np.concatenate([x, far]), 15)
        assert found.labels[-1] == -1
        assert agreement_figures(y, found.labels[:-1])["acc"] > 0.9
        assert found.assign(far).tolist() == [-1]

    def test_semi_supervised_kmeans_keeps_the_labelled(self, blobs):
        x, y = blobs
        given_labels = np.where((y < 2) & (np.arange(len(y)) % 2 == 0), y, -1)
        found = peers.semi_supervised_kmeans(x, given_labels, 4, 0)
        known = given_labels >= 0
        assert (found.labels[known] == given_labels[known]).all()
        assert agreement_figures(y, found.labels)["acc"] > 0.99
        # at rest: each unlabelled point is nearest to the mean of its own cluster
        means = np.array([x[found.labels == k].mean(0) for k in range(4)])
        distances = ((x[:, None] - means) ** 2).sum(2)
        assert (distances.argmin(1)[~known] == found.labels[~known]).all()
        assert (found.assign(x[:9]) == distances[:9].argmin(1)).all()

    def test_semi_supervised_kmeans_by_hand(self):
        x = np.array([[0.0], [4.0], [3.0], [10.0], [11.0]], np.float32)
        found = peers.semi_supervised_kmeans(x, np.array([0, 0, -1, -1, -1]), 2, 0, iterations=50)
        assert found.labels.tolist() == [0, 0, 0, 1, 1]
        forced = peers.semi_supervised_kmeans(x, np.array([0, 0, 1, 0, -1]), 2, 0)
        assert forced.labels.tolist() == [0, 0, 1, 0, 1 if abs(11 - 3) < abs(11 - 14 / 3) else 0]


class TestDiscovery:
    def test_half_of_the_known_classes_are_shown(self):
        y = np.repeat([3, 5, 7, 9], 20)
        given_labels, classes = split_classes(y, n_old=2, seed=0)
        assert sorted(np.unique(classes)) == [0, 1, 2, 3]
        assert [(given_labels == label).sum() for label in (-1, 0, 1, 2)] == [60, 10, 10, 0]
        assert (classes[given_labels >= 0] == given_labels[given_labels >= 0]).all()
        assert all(len(np.unique(classes[y == label])) == 1 for label in np.unique(y))

    def test_figures_by_hand(self):
        given_labels = np.array([0, -1, -1, -1, -1, -1])
        classes = np.array([0, 0, 0, 1, 1, 1])
        clusters = np.array([4, 0, 1, 1, 1, 2])
        found = discovery_figures(given_labels, classes, clusters, n_old=1)
        assert (found["acc"], found["acc_old"], found["acc_new"]) == pytest.approx((3 / 5, 1 / 2, 2 / 3))
        assert found["clusters"] == 3


class TestProtocol:
    def test_has_every_row(self, digits):
        outcome, _ = digits
        titles = [
            "k-means (scikit-learn)",
            "k-means (FAISS)",
            "k-means on unit rows (FAISS)",
            "mini-batch k-means (scikit-learn)",
        ]
        expected = ["one cluster", "random clusters", "slot graph", "slot graph, told the number"]
        expected += [row for title in titles for row in (title, f"{title}, best k")]
        assert list(rows_of(outcome)) == expected
        slow = rows_of(outcome, "400 points")
        assert {"slot graph", "k-means (scikit-learn), best k", "BIRCH (scikit-learn), best k"} <= set(slow)
        assert "HDBSCAN (scikit-learn)" in slow
        discovery = rows_of(outcome, "discovery: 5 of 10 classes have labels")
        assert {"slot graph", "slot model, update", "nearest labelled example", "semi-supervised k-means"} <= set(
            discovery
        )
        assert outcome.skipped == {}
        assert [row.ours for row in outcome.rows] == ["slot" in row.method for row in outcome.rows]

    def test_figures_are_known_columns_in_their_range(self, digits):
        outcome, _ = digits
        kinds = {column.key: column.kind for column in PROTOCOL.columns}
        for row in outcome.rows:
            assert set(row.figures) <= set(kinds)
            for key, value in row.figures.items():
                assert -1 <= value <= 1 if kinds[key] == "score" else value >= 0
                assert kinds[key] != "share" or value <= 1
        assert SeedOutcome.from_json(outcome.as_json()).as_json() == outcome.as_json()

    def test_slots_are_ahead_without_the_number(self, digits):
        rows = rows_of(digits[0])
        ours = rows["slot graph"].figures
        for method, row in rows.items():
            if "k-means" in method:
                assert ours["nmi"] > row.figures["nmi"]
                assert ours["acc"] > row.figures["acc"]
                assert ours["test_nmi"] > row.figures["test_nmi"]
        assert 8 <= ours["clusters"] <= 14

    def test_the_baselines_know_nothing(self, digits):
        rows = rows_of(digits[0])
        assert rows["one cluster"].figures["nmi"] == 0
        assert rows["one cluster"].figures["acc"] == pytest.approx(146 / 1437, abs=1e-6)  # the largest class
        assert rows["random clusters"].figures["ari"] == pytest.approx(0, abs=0.02)

    def test_the_best_k_is_no_worse(self, digits):
        rows = rows_of(digits[0])
        told, best = rows["k-means (scikit-learn)"], rows["k-means (scikit-learn), best k"]
        assert all(best.figures[key] >= told.figures[key] for key in ("nmi", "acc", "ari", "test_nmi", "test_acc"))
        assert "each figure at that k of 8, 10, 15, 20, 30, 50 which is best for it" in best.note

    def test_progress_rises(self, digits):
        shares = [share for _, share in digits[1]]
        assert shares == sorted(shares)
        assert shares[-1] <= 1

    def test_equal_seeds_give_equal_rows(self):
        one, two, other = (run(some_digits(250), seed=seed, discovery_examples=150)[0] for seed in (1, 1, 2))

        def figures(outcome):
            timeless = [{key: it for key, it in row.figures.items() if key != "seconds"} for row in outcome.rows]
            return [row.method for row in outcome.rows], timeless

        assert figures(one) == figures(two)
        assert figures(one) != figures(other)

    def test_options_choose_the_points(self):
        outcome, _ = run(some_digits(), examples=300, old_classes=3, discovery_examples=200, names=("hdbscan",))
        assert outcome.facts == {"points": 300, "points_of_slow_peers": 300, "classes": 10}
        assert "HDBSCAN (scikit-learn)" in rows_of(outcome)  # no group of its own: it sees all points
        assert {row.group for row in outcome.rows} == {"", "discovery: 3 of 10 classes have labels"}

    def test_feature_rows_without_a_test_part_and_unlabelled_ones(self):
        x, y = make_blobs(300, n_features=4, centers=3, cluster_std=0.3, random_state=0)
        x, y = x.astype(np.float32), y.astype(np.int64)
        y[::10] = -1
        data = Dataset("blobs", x, y, x[:0], y[:0], ("a", "b", "c"), "blobs")
        outcome, _ = run(data, backbone="none")
        assert outcome.facts["points"] == 270
        assert "test_acc" not in rows_of(outcome)["slot graph"].figures

    def test_a_missing_library_is_named(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "faiss", None)
        outcome, _ = run(some_digits(200), names=("faiss",), discovery_examples=100)
        assert outcome.skipped == {"faiss": "not installed: pip install 'neural-slots[peers]'"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"examples": -1}, r"`examples` must be >= 0, got -1. Leave it"),
            ({"slow_examples": 9}, r"`slow_examples` must be >= 50, got 9. Leave it"),
            ({"old_classes": -1}, r"`old_classes` must be >= 0, got -1. Leave it"),
            ({"discovery_examples": 0}, r"`discovery_examples` must be >= 50, got 0. Leave it"),
        ],
    )
    def test_bad_options_are_named(self, options, message):
        with pytest.raises(UsageError, match=message):
            run(some_digits(), **options)

    def test_data_without_classes_is_refused(self):
        data = Dataset(
            "x", np.ones((9, 2), np.float32), np.zeros(9, np.int64), np.ones((0, 2)), np.zeros(0), ("a",), "x"
        )
        with pytest.raises(UsageError, match=r"`data` must have training examples of two classes .* Add labels"):
            run(data, backbone="none")
