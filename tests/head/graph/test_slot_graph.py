import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, homogeneity_score, normalized_mutual_info_score
from support import reference_slot_graph as reference

from slots.clustering.kmeans import nearest_slots, spherical_means
from slots.clustering.neighbours import nearest_neighbours
from slots.errors import DataError, UsageError
from slots.estimators.clusterer import SlotClusterer
from slots.graph.bridges import count_bridges
from slots.graph.communities import find_communities, weighted_nmi
from slots.graph.config import GraphConfig
from slots.graph.discovery import discover
from slots.graph.learning import at_level, learn_graph, regroup
from slots.graph.levels import Grouping, groupings, peaks, silhouette
from slots.graph.louvain import louvain, modularity
from slots.graph.neighbour_graph import shared_neighbours
from slots.head.similarities import normalize


def silent(_step, _share):
    pass


def random_graph(n, seed, density=0.5):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    return upper + upper.T


def planted(groups=5, each=12, seed=0):
    """Strong edges within groups, weak ones between, and the group of each node."""
    rng = np.random.default_rng(seed)
    of_node = rng.permutation(np.repeat(np.arange(groups), each))
    strength = np.where(of_node[:, None] == of_node, 1.0, 0.03)
    upper = np.triu(strength * rng.random((len(of_node), len(of_node))), 1)
    return upper + upper.T, of_node


def blobs(n_blobs=6, each=150, width=12, noise=0.5, seed=0):
    """Groups of different spread and the group of each row."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(n_blobs, width, generator=generator) * 2
    groups = torch.arange(n_blobs).repeat(each)
    return middles[groups] + noise * torch.randn(len(groups), width, generator=generator), groups


class TestCommunities:
    @given(st.integers(2, 9), st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 1.7]))
    def test_modularity_is_the_sum_over_pairs(self, n, seed, resolution):
        weights = random_graph(n, seed)
        weights[0, 1] = weights[1, 0] = 1.0
        communities = np.random.default_rng(seed).integers(0, 3, n)
        expected = reference.modularity(weights, communities, resolution)
        assert modularity(weights, communities, resolution=resolution) == pytest.approx(expected, abs=1e-12)

    def test_modularity_is_that_of_networkx(self):
        weights, groups = planted()
        sets = [set(np.flatnonzero(groups == group)) for group in range(5)]
        expected = nx.community.modularity(nx.from_numpy_array(weights), sets, resolution=1.3)
        assert modularity(weights, groups, resolution=1.3) == pytest.approx(expected)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(2, 12), st.integers(0, 10_000), st.sampled_from([0.6, 1.0, 1.5]))
    def test_no_move_to_a_neighbour_is_better(self, n, seed, resolution):
        weights = random_graph(n, seed)
        found = louvain(weights, resolution=resolution, seed=seed)
        best = modularity(weights, found, resolution=resolution)
        for node in range(n):
            for community in np.unique(found[weights[node] > 0]):
                moved = found.copy()
                moved[node] = community
                assert modularity(weights, moved, resolution=resolution) <= best + 1e-9

    @pytest.mark.parametrize("seed", range(6))
    def test_the_best_run_is_the_best_of_all_partitions(self, seed):
        weights, _ = planted(groups=3, each=2, seed=seed)
        weights = weights + 0.3 * random_graph(6, seed)
        optimum = max(modularity(weights, np.array(it)) for it in reference.partitions(6))
        best = max(modularity(weights, louvain(weights, seed=run)) for run in range(20))
        assert best == pytest.approx(optimum)

    def test_is_as_good_as_networkx(self):
        weights = random_graph(60, 0, density=0.1)
        ours = max(modularity(weights, louvain(weights, seed=run)) for run in range(10))
        graph = nx.from_numpy_array(weights)
        theirs = max(
            nx.community.modularity(graph, nx.community.louvain_communities(graph, seed=run)) for run in range(10)
        )
        assert ours >= theirs - 0.002

    def test_planted_groups_are_found_without_their_number(self):
        weights, groups = planted()
        found = find_communities(weights, np.ones(len(groups)))
        assert adjusted_rand_score(groups, found) == 1.0
        assert found[0] == 0  # numbered by the first node
        assert find_communities(weights, np.ones(len(groups)), seed=1).max() == 4

    @pytest.mark.parametrize("k", [1, 2, 5, 8, 60, 99])
    def test_as_many_as_are_asked_for(self, k):
        weights, groups = planted()
        found = find_communities(weights, np.ones(60), k=k)
        assert len(np.unique(found)) == found.max() + 1 == min(k, 60)
        if k < 5:  # groups are joined whole
            assert all(len(np.unique(found[groups == group])) == 1 for group in range(5))

    def test_nodes_without_edges_are_alone(self):
        weights = np.zeros((4, 4))
        weights[1, 2] = weights[2, 1] = 1.0
        assert louvain(weights).tolist() == [0, 1, 1, 2]
        assert find_communities(np.zeros((3, 3)), np.ones(3)).tolist() == [0, 1, 2]
        assert modularity(np.zeros((3, 3)), np.zeros(3, np.int64)) == 0.0

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=2, max_size=12))
    def test_agreement_counts_each_slot_by_its_size(self, nodes):
        one, other, sizes = map(np.array, zip(*nodes, strict=True))
        if sizes.sum() == 0:
            return
        expected = normalized_mutual_info_score(one.repeat(sizes), other.repeat(sizes))
        assert weighted_nmi(one, other, sizes.astype(float)) == pytest.approx(expected, abs=1e-9)


class TestBridges:
    @given(st.integers(1, 20), st.integers(2, 5), st.sampled_from([0.0, 1.0, 4.0]), st.integers(0, 1000))
    def test_are_the_literal_ones(self, n, n_slots, sharpness, seed):
        rng = np.random.default_rng(seed)
        angles = np.sort(rng.uniform(0.01, 3, (n, 2)), 1)
        near = np.array([rng.choice(n_slots, 2, replace=False) for _ in range(n)])
        got = count_bridges(torch.from_numpy(angles).cos(), torch.from_numpy(near), n_slots, sharpness=sharpness)
        np.testing.assert_allclose(got, reference.bridges(angles, near, n_slots, sharpness), rtol=1e-6)
        assert (got == got.T).all()

    def test_an_input_on_a_slot_is_none_and_one_slot_has_none(self):
        cosines, near = torch.tensor([[1.0, 0.2]]), torch.tensor([[0, 1]])
        assert count_bridges(cosines, near, 2).sum() == 0
        assert count_bridges(cosines, near, 2, sharpness=0).sum() == 2
        assert count_bridges(cosines[:, :1], near[:, :1], 1).tolist() == [[0.0]]

    def test_an_input_on_both_slots_is_no_bridge(self):
        assert np.isfinite(count_bridges(torch.ones(1, 2), torch.tensor([[0, 1]]), 2)).all()


class TestSlots:
    @given(st.integers(1, 6), st.integers(0, 1000))
    def test_one_pass_is_the_literal_one(self, n_slots, seed):
        unit = normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
        order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
        expected = reference.one_pass(unit.tolist(), unit[order[:n_slots]].tolist())
        got = spherical_means(unit, n_slots, passes=1, seed=seed, progress=silent)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-9)

    def test_more_passes_bring_slots_nearer(self):
        unit = normalize(blobs()[0])

        def mean_cosine(passes):
            return float(
                nearest_slots(unit, spherical_means(unit, 30, passes=passes, seed=0, progress=silent), 1)[0].mean()
            )

        assert mean_cosine(8) > mean_cosine(1) + 0.0005

    def test_equal_inputs_make_one_slot(self):
        unit = normalize(torch.ones(30, 4))
        assert len(spherical_means(unit, 5, passes=3, seed=0, progress=silent)) == 1

    def test_the_nearest_come_first_in_any_block(self, monkeypatch):
        monkeypatch.setattr("slots.clustering.kmeans.SCORES_HELD", 35)
        unit, weights = normalize(torch.randn(23, 4)), normalize(torch.randn(7, 4))
        scores, slots = nearest_slots(unit, weights, 2)
        expected = (unit @ weights.T).topk(2, dim=1)
        torch.testing.assert_close(scores, expected.values)
        assert torch.equal(slots, expected.indices)


class TestGraph:
    @pytest.fixture(scope="class")
    @staticmethod
    def found():
        x, groups = blobs()
        return x, groups, learn_graph(x)

    def test_groups_are_found_without_their_number(self, found):
        _, groups, graph = found
        assert graph.n_communities == 6
        assert adjusted_rand_score(groups, graph.placement.communities) > 0.99
        assert bool(graph.placement.matched.float().mean() > 0.9)

    @pytest.mark.parametrize("n_blobs", [2, 3, 15])
    def test_few_groups_and_many_are_counted(self, n_blobs):
        x, groups = blobs(n_blobs, each=1500 // n_blobs)
        graph = learn_graph(x)
        assert graph.n_communities == n_blobs
        assert adjusted_rand_score(groups, graph.placement.communities) > 0.98

    def test_placement_is_the_literal_pool(self, found, monkeypatch):
        x, _, graph = found
        monkeypatch.setattr("slots.clustering.kmeans.SCORES_HELD", 4000)
        probes = torch.cat([x[::60], torch.randn(10, 12), torch.zeros(1, 12)])
        placed, weights, communities = graph.place(probes), graph.weights.tolist(), graph.communities.tolist()
        for row, community, slot, matched, scores in zip(
            probes.tolist(), placed.communities, placed.slots, placed.matched, graph.scores(probes), strict=True
        ):
            expected = reference.pooled(row, weights, communities, graph.beta)
            assert scores.tolist() == pytest.approx(expected, abs=1e-5)
            assert expected[community] == pytest.approx(max(expected), abs=1e-6)
            cosines = np.array([reference.cosine(row, w) for w in weights])
            own = np.array(communities) == int(community)
            assert cosines[slot] == pytest.approx(cosines[own].max(), abs=1e-6)
            assert bool(matched) == bool(any(row) and cosines.max() >= float(graph.thresholds[cosines.argmax()]) - 1e-6)

    def test_placement_of_the_inputs_is_that_of_new_ones(self, found):
        x, _, graph = found
        assert torch.equal(graph.placement.communities, graph.place(x).communities)
        assert torch.equal(graph.placement.slots, graph.place(x).slots)
        empty = graph.place(x[:0])
        assert len(empty.communities) == len(empty.slots) == len(empty.matched) == len(graph.scores(x[:0])) == 0

    def test_what_is_kept_of_slots_is_true(self, found):
        x, _, _ = found
        graph = learn_graph(x, GraphConfig(min_size=1))
        cosines = normalize(x) @ graph.weights.T
        owners = cosines.argmax(1)
        assert torch.equal(graph.wins, torch.bincount(owners, minlength=graph.n_slots))
        for slot in range(graph.n_slots):
            mine = (owners == slot).nonzero()[:, 0]
            if len(mine):
                assert int(graph.exemplars[slot]) in mine.tolist()
                assert float(cosines[graph.exemplars[slot], slot]) == pytest.approx(float(cosines[mine, slot].max()))
            else:
                assert int(graph.exemplars[slot]) == -1
        sizes = torch.bincount(graph.communities, graph.wins.double())
        assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)
        assert graph.modularity == pytest.approx(
            reference.modularity(graph.bridges.tolist(), graph.communities.tolist())
        )

    def test_a_far_input_is_not_matched(self, found):
        x, _, graph = found
        assert not bool(graph.place(-x).matched.any())

    def test_the_card_says_what_holds_a_community_together(self, found):
        _, _, graph = found
        card = graph.explain(2, most=4)
        of_slot = graph.communities.numpy()
        mine = np.flatnonzero(of_slot == 2)
        assert sorted(card.slots) == mine.tolist()
        assert graph.wins[card.slots].tolist() == sorted(graph.wins[card.slots].tolist(), reverse=True)
        assert card.exemplars.tolist() == graph.exemplars[card.slots].tolist()
        assert card.size == int((graph.placement.communities == 2).sum())
        inside = sorted((graph.bridges[a, b] for a in mine for b in mine if a < b), reverse=True)
        assert [weight for _, _, weight in card.bridges] == pytest.approx(inside[:4])
        assert all(graph.bridges[a, b] == weight for a, b, weight in card.bridges)
        total = graph.bridges[mine].sum()
        assert card.inner_share == pytest.approx(graph.bridges[np.ix_(mine, mine)].sum() / total)
        assert card.inner_share + sum(share for _, share in card.neighbours) == pytest.approx(1.0)
        assert 2 not in [community for community, _ in card.neighbours]
        with pytest.raises(UsageError, match=r"`community` must lie in \[0, 6\), got 6. Choose"):
            graph.explain(6)

    def test_outliers_are_unmatched_and_zeros_take_no_part(self):
        x, groups = blobs()
        far = -x[groups == 0].mean(0) * torch.ones(5, 1) + 0.05 * torch.randn(5, 12)
        x = torch.cat([torch.zeros(2, 12), x, far])
        graph = learn_graph(x)
        assert graph.n_communities == 6
        assert not bool(graph.placement.matched[:2].any())
        assert not bool(graph.placement.matched[-5:].any())
        assert bool((graph.exemplars >= 2).all())

    def test_small_groups_are_dissolved(self):
        x, groups = blobs()
        x = x[(groups > 0) | (torch.arange(len(x)) < 240)]  # 40 of the first group, 150 of each other
        kept, graph = (learn_graph(x, GraphConfig(min_size=size)) for size in (1, 41))
        assert (kept.n_communities, kept.dissolved) == (6, 0)
        assert graph.n_communities == 5
        assert graph.dissolved > 0

    def test_of_few_inputs_nothing_is_dissolved(self):
        x = torch.cat([torch.eye(3).repeat_interleave(3, 0), torch.eye(3)])
        graph = learn_graph(x, GraphConfig(n_slots=12))
        assert graph.n_slots == graph.n_communities == 3
        assert graph.dissolved == 0
        assert adjusted_rand_score(x.argmax(1), graph.placement.communities) == 1.0
        assert learn_graph(x[:1]).placement.communities.tolist() == [0]

    @pytest.mark.parametrize("k", [2, 6, 9])
    def test_the_number_can_be_told(self, found, k):
        x, _, graph = found
        again = learn_graph(x, GraphConfig(n_communities=k))
        assert again.n_communities == k
        regrouped = regroup(graph, x, k)
        assert regrouped.n_communities == min(k, graph.n_slots)
        assert torch.equal(regrouped.weights, graph.weights)
        assert torch.equal(regrouped.placement.communities, regrouped.place(x).communities)
        if k == 6:  # the number that was found: the same answer
            assert torch.equal(again.placement.communities, graph.placement.communities)
            assert torch.equal(regrouped.placement.communities, graph.placement.communities)

    def test_equal_seeds_give_equal_graphs(self):
        x, _ = blobs(noise=1.0)
        one, two, other = (learn_graph(x, GraphConfig(n_slots=60, seed=seed)) for seed in (1, 1, 2))
        assert torch.equal(one.weights, two.weights)
        assert torch.equal(one.placement.communities, two.placement.communities)
        assert not torch.equal(one.weights, other.weights)

    def test_progress_is_told(self):
        told = []
        learn_graph(blobs()[0], GraphConfig(passes=2), progress=lambda *what: told.append(what))
        steps = list(dict.fromkeys(step for step, _ in told))
        assert steps == ["neighbours", "communities", "slots", "bridges", "assignment"]
        assert [share for _, share in told] == sorted(share for _, share in told)


class TestLevels:
    @pytest.fixture(scope="class")
    @staticmethod
    def nested():
        """Four far groups of five near ones of 30 inputs each."""
        rng = torch.Generator().manual_seed(0)
        coarse = torch.randn(4, 1, 1, 24, generator=rng)
        fine = coarse + 0.3 * torch.randn(4, 5, 1, 24, generator=rng)
        x = (fine + 0.2 * torch.randn(4, 5, 30, 24, generator=rng)).reshape(-1, 24)
        return x, torch.arange(len(x)) // 30

    def test_coarse_and_fine_groups_are_offered(self, nested):
        x, fine = nested
        graph = learn_graph(x)
        assert graph.n_communities == 20
        assert adjusted_rand_score(fine, graph.placement.communities) > 0.97
        counts = [it.n_communities for it in graph.levels]
        assert counts == sorted(counts)
        assert len(counts) == 2
        assert 4 <= counts[0] < counts[1] == 20
        assert graph.levels[1].evidence == max(it.evidence for it in graph.levels)
        above = at_level(graph, x, 0)
        assert above.n_communities == counts[0]
        assert homogeneity_score(above.placement.communities, fine) > 0.95  # a fine group lies in one coarse group
        assert torch.equal(above.weights, graph.weights)
        assert torch.equal(at_level(graph, x, -1).placement.communities, graph.placement.communities)
        assert torch.equal(regroup(graph, x, counts[0]).placement.communities, above.placement.communities)
        with pytest.raises(UsageError, match=r"`level` must lie in \[0, 2\), got 2. See `graph.levels`"):
            at_level(graph, x, 2)

    @pytest.mark.parametrize("n_groups", [2, 40, 300])
    def test_small_groups_are_counted(self, n_groups):
        x, groups = blobs(n_groups, each=15, noise=0.4, width=32)
        graph = learn_graph(x)
        assert abs(graph.n_communities - n_groups) <= 0.02 * n_groups
        assert adjusted_rand_score(groups, graph.placement.communities) > 0.97

    @given(st.integers(2, 4), st.integers(0, 1000))
    def test_the_silhouette_is_the_literal_one(self, n, seed):
        rng = np.random.default_rng(seed)
        unit = normalize(torch.from_numpy(rng.normal(size=(12, 3))))
        groups = np.concatenate([np.arange(n), rng.integers(0, n, 12 - n)])
        expected = reference.silhouette(unit.numpy(), groups)
        assert silhouette(unit, groups) == pytest.approx(float(np.mean(expected)), abs=1e-6)
        assert silhouette(unit, groups, np.array([3, 5])) == pytest.approx((expected[3] + expected[5]) / 2, abs=1e-6)

    @pytest.mark.parametrize("far", [1e2, 1e3, 1e4, 1e6])
    def test_rounding_of_rows_in_one_direction_is_no_evidence(self, far):
        rows = far + np.random.default_rng(0).normal(size=(600, 2))
        groups = np.argsort(np.argsort(rows[:, 0] - rows[:, 1])) // 20  # along the arc, 30 narrow groups
        found = silhouette(normalize(torch.from_numpy(rows.astype(np.float32))), groups)
        assert -1 <= found <= 1
        assert far < 1e3 or abs(found) < 0.1

    @given(st.integers(2, 12), st.integers(0, 1000))
    def test_shared_neighbours_are_the_literal_ones(self, n, seed):
        near = nearest_neighbours(torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3))), 3)
        np.testing.assert_allclose(shared_neighbours(near).dense(), reference.shared_neighbours(near), atol=1e-6)

    def test_many_inputs_go_through_small_groups(self, monkeypatch):
        x, groups = blobs(each=100)
        monkeypatch.setattr("slots.graph.levels._NODES", 200)
        assert adjusted_rand_score(groups, learn_graph(x).placement.communities) > 0.99

    def test_small_groups_do_not_make_chance_look_stable(self, monkeypatch):
        unit = normalize(torch.randn(1500, 8, generator=torch.Generator().manual_seed(0)))
        edges = shared_neighbours(nearest_neighbours(unit, 15))
        honest = groupings(unit, edges)
        monkeypatch.setattr("slots.graph.levels._NODES", 200)
        joined = {it.resolution: it.stability for it in groupings(unit, edges)}
        both = [(it.stability, joined[it.resolution]) for it in honest if it.resolution in joined]
        assert len(both) >= 5
        assert np.mean([after - before for before, after in both]) <= 0.02

    def test_peaks_have_no_better_neighbour(self):
        levels = [
            Grouping(np.arange(n), 1.0, 0.5, 1.0, evidence)
            for n, evidence in [(2, 0.3), (3, 0.2), (10, 0.5), (12, 0.4), (40, 0.1), (60, 0.0)]
        ]
        assert [it.n_groups for it in peaks(levels)] == [2, 10, 40]


class TestDiscovery:
    def test_a_tenth_of_the_labels_is_enough(self):
        x, groups = blobs(n_blobs=20, each=40, noise=0.4)
        labels = torch.where((groups < 15) & (torch.arange(len(groups)) < 80), groups, -1)
        graph = discover(x, labels)
        found = graph.placement.communities
        assert graph.n_communities == 20
        assert bool((found[groups < 15] == groups[groups < 15]).float().mean() > 0.98)
        assert adjusted_rand_score(groups[groups >= 15], found[groups >= 15]) > 0.98

    def test_new_classes_come_after_the_known(self):
        x, groups = blobs(each=200)
        labels = torch.where((groups < 3) & (torch.arange(len(groups)) < 600), 2 - groups, -1)
        graph = discover(x, labels)
        found = graph.placement.communities
        assert graph.n_communities == 6
        for group in range(3):
            assert bool((found[groups == group] == 2 - group).float().mean() > 0.98)
        assert adjusted_rand_score(groups[groups >= 3], found[groups >= 3]) > 0.98
        assert int(found[groups >= 3].min()) >= 3

    def test_without_new_classes_there_are_none(self):
        x, groups = blobs(n_blobs=3)
        graph = discover(x, groups)
        assert graph.n_communities == 3
        assert bool((graph.placement.communities == groups).float().mean() > 0.98)

    def test_the_number_of_new_classes_can_be_told(self):
        x, groups = blobs()
        labels = torch.where(groups == 0, 0, -1)
        assert discover(x, labels, GraphConfig(n_communities=2)).n_communities == 3

    @pytest.mark.parametrize(
        "labels",
        [
            torch.full((900,), -1),
            torch.full((900,), -2),
            torch.full((899,), 0),
            torch.full((900,), 1),
            torch.zeros(900),
        ],
    )
    def test_bad_labels_are_named(self, labels):
        with pytest.raises(
            DataError, match=r"`labels` must be whole numbers >= -1 of shape \(900,\) .* Number the known"
        ):
            discover(blobs()[0], labels)


class TestEstimator:
    def test_clusters_are_communities(self):
        x, groups = blobs(each=100)
        clusterer = SlotClusterer(merge="graph", random_state=0).fit(x.numpy())
        assert clusterer.n_clusters_ == clusterer.graph_.n_communities == 6
        kept = clusterer.labels_ >= 0
        assert kept.mean() > 0.8
        assert adjusted_rand_score(groups.numpy()[kept], clusterer.labels_[kept]) > 0.98
        assert SlotClusterer(4, merge="graph", random_state=0).fit(x.numpy()).n_clusters_ == 4

    def test_another_way_to_merge_is_named(self):
        with pytest.raises(UsageError, match=r"`merge` must be 'auto', 'none' or 'graph', got 'ward'. Choose"):
            SlotClusterer(merge="ward").fit(np.eye(3))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_slots": 0}, r"`n_slots` must be >= 1, got 0. Leave it"),
            ({"n_communities": 0}, r"`n_communities` must be >= 1, got 0. Leave it"),
            ({"min_size": 0}, r"`min_size` must be >= 1, got 0. Leave it"),
            ({"passes": 0}, r"`passes` must be >= 1, got 0. Leave it"),
            ({"runs": 0}, r"`runs` must be >= 1, got 0. Leave it"),
            ({"n_neighbours": (15, 0)}, r"`n_neighbours` must be numbers >= 1, got \(15, 0\). Leave it"),
            ({"n_neighbours": ()}, r"`n_neighbours` must be numbers >= 1, got \(\). Leave it"),
            ({"resolutions": (1.0, 0.0)}, r"`resolutions` must be numbers > 0, got \(1.0, 0.0\). 1 is"),
            ({"resolutions": ()}, r"`resolutions` must be numbers > 0, got \(\). 1 is"),
            ({"sharpness": -1.0}, r"`sharpness` and `beta` must be >= 0, got -1.0 and 20.0. Leave"),
            ({"beta": -1.0}, r"`sharpness` and `beta` must be >= 0, got 4.0 and -1.0. Leave"),
        ],
    )
    def test_of_numbers_out_of_range(self, options, message):
        with pytest.raises(UsageError, match=message):
            GraphConfig(**options)

    @pytest.mark.parametrize(
        "x", [torch.zeros(3), torch.zeros(3, 2, dtype=torch.long), torch.full((3, 2), float("nan"))]
    )
    def test_of_inputs_of_another_form(self, x):
        with pytest.raises(DataError, match=r"`features` must be a finite float matrix .* got .* of shape .*Flatten"):
            learn_graph(x)

    def test_of_inputs_without_a_direction(self):
        with pytest.raises(DataError, match=r"`features` must have a row that is not zero, got 3 without. Check"):
            learn_graph(torch.zeros(3, 2))

    @pytest.mark.parametrize(
        "weights", [np.ones((2, 3)), np.array([[0, 1], [0, 0.0]]), -np.ones((2, 2)), np.full((2, 2), np.nan)]
    )
    def test_of_weights_that_are_no_graph(self, weights):
        with pytest.raises(DataError, match=r"`weights` must be a symmetric matrix .* got shape .* Add its transpose"):
            find_communities(weights, np.ones(2))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"resolutions": (0.0,)}, r"`resolutions` must be numbers > 0, got \(0.0,\). 1 is"),
            ({"runs": 0}, r"`runs` and `k` must be >= 1, got 0 and None. Leave"),
            ({"k": 0}, r"`runs` and `k` must be >= 1, got 4 and 0. Leave"),
        ],
    )
    def test_of_numbers_of_communities(self, options, message):
        with pytest.raises(UsageError, match=message):
            find_communities(np.zeros((2, 2)), np.ones(2), **options)


def test_numpy_rows_do_as_well():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(middle, 0.1, (200, 2)) for middle in ([3, 0], [0, 3])]).astype(np.float32)
    graph, same = (
        learn_graph(x, GraphConfig(n_communities=2)),
        learn_graph(torch.from_numpy(x), GraphConfig(n_communities=2)),
    )
    assert torch.equal(graph.communities, same.communities)
    assert torch.equal(graph.place(x).communities, same.place(torch.from_numpy(x)).communities)
    assert torch.equal(graph.scores(x), same.scores(torch.from_numpy(x)))
    assert regroup(graph, x, 1).n_communities == 1
    y = np.where(np.arange(400) < 100, 0, -1)
    assert discover(x, y, GraphConfig(n_communities=1)).n_communities == 2
