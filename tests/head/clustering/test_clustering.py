import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_clustering as reference

from slots.clustering.competitive import learn_slots, learning_step, share_thresholds, takes_part
from slots.clustering.slot_clusters import ClusterConfig
from slots.errors import DataError, UsageError
from slots.head.similarities import normalize


def blobs(n_blobs=6, each=80, width=8, noise=0.1, seed=0):
    """Well separated groups of inputs, and the group of each."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(n_blobs, width, generator=generator) * 2
    groups = torch.arange(n_blobs).repeat(each)
    return middles[groups] + noise * torch.randn(len(groups), width, generator=generator), groups


class TestThresholds:
    @given(st.integers(1, 40), st.floats(0.001, 0.999), st.integers(0, 9))
    def test_are_the_reference_s(self, n, share, seed):
        scores = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
        expected = [reference.threshold(column, share) for column in scores.T.tolist()]
        assert share_thresholds(scores, share).tolist() == pytest.approx(expected)

    def test_a_share_that_floats_cannot_write_is_meant_as_written(self):
        scores = torch.arange(100.0)[:, None]
        assert int((scores >= share_thresholds(scores, 0.07)).sum()) == 7


class TestStep:
    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(["cosine", "l2"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([0.08, 0.2, 0.4]),
        st.integers(0, 5),
        st.sampled_from([None, 4, 7]),
        st.integers(0, 10_000),
    )
    def test_is_the_literal_one(self, metric, normalized, grow, share, present, max_slots, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(25, 4, generator=generator, dtype=torch.float64)
        weights = torch.randn(min(present, max_slots or present), 4, generator=generator, dtype=torch.float64)
        if metric == "cosine":
            x, weights = normalize(x), normalize(weights)
        if not grow and len(weights) == 0:
            grow = True
        config = ClusterConfig(share=share, metric=metric, normalized=normalized, max_slots=max_slots)
        got = learning_step(x, weights, config, lr=0.3, grow=grow)
        expected, wins, loss = reference.step(
            x.numpy(),
            weights.numpy(),
            share=share,
            metric=metric,
            normalized=normalized,
            lr=0.3,
            grow=grow,
            max_slots=max_slots or 10**6,
        )
        assert got.n_added == len(expected) - len(weights)
        assert got.wins.tolist() == wins
        assert got.loss == pytest.approx(loss)
        np.testing.assert_allclose(got.weights.numpy(), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize("normalized", [False, True])
    def test_a_small_step_lowers_the_loss(self, metric, normalized):
        x = torch.randn(200, 6)
        x = normalize(x) if metric == "cosine" else x
        config = ClusterConfig(metric=metric, normalized=normalized)
        first = learning_step(x, x[:5], config, lr=1e-2, grow=False)
        second = learning_step(x, first.weights, config, lr=1e-2, grow=False)
        assert second.loss < first.loss

    def test_every_input_is_matched_after_growing(self):
        x = normalize(torch.randn(300, 5))
        config = ClusterConfig(share=0.03)
        grown = learning_step(x, x[:0], config, lr=0.0, grow=True)
        scores = x @ grown.weights.T
        assert bool((scores >= share_thresholds(scores, 0.03)).any(1).all())
        assert grown.n_added >= 300 / 9  # each matches 9


class TestLearning:
    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize("normalized", [False, True])
    def test_finds_separate_groups(self, metric, normalized):
        x, groups = blobs()
        config = ClusterConfig(share=1 / 6, metric=metric, normalized=normalized, batch_size=240, lr=0.3)
        found = learn_slots(x, config)
        for slot in range(found.n_slots):
            assert len(groups[found.owners == slot].unique()) == 1
        assert 6 <= found.n_slots <= 18  # a group that stands out in a batch may take more than one

    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize("normalized", [False, True])
    def test_what_is_returned_is_true_of_the_inputs(self, metric, normalized, monkeypatch):
        monkeypatch.setattr("slots.clustering.competitive._SCORES_HELD", 1000)  # so that slots come in several parts
        x = torch.randn(300, 7) * 3
        config = ClusterConfig(share=0.05, metric=metric, normalized=normalized, batch_size=100, min_wins=2)
        found = learn_slots(x, config)
        if metric == "cosine":
            torch.testing.assert_close(found.weights.norm(dim=1), torch.ones(found.n_slots))
            raw = normalize(x) @ found.weights.T
        else:
            raw = -torch.cdist(x.double(), found.weights.double()).square().float()
        torch.testing.assert_close(found.mean, raw.mean(0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.deviation, raw.std(0, correction=0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.thresholds, raw.topk(15, 0).values[-1], atol=1e-4, rtol=1e-4)
        assert found.owners.tolist() == found.assign(x).tolist()
        assert found.wins.tolist() == torch.bincount(found.owners, minlength=found.n_slots).tolist()
        expected = (raw - raw.mean(0)) / raw.std(0, correction=0) if normalized else raw
        torch.testing.assert_close(found.scores(x), expected, atol=1e-3, rtol=1e-3)
        assert len(found.losses) == 4

    def test_a_larger_share_means_fewer_slots(self):
        x = torch.randn(1000, 10)
        counts = [learn_slots(x, ClusterConfig(share=share, batch_size=250)).n_slots for share in (0.02, 0.1)]
        assert counts[0] > 1.5 * counts[1]

    def test_no_slots_are_added_in_the_last_epoch(self, monkeypatch):
        grown = []

        def watched(*args, grow, **kwargs):
            grown.append(grow)
            return learning_step(*args, grow=grow, **kwargs)

        monkeypatch.setattr("slots.clustering.competitive.learning_step", watched)
        learn_slots(torch.randn(100, 4), ClusterConfig(share=0.1, batch_size=50, epochs=3))
        assert grown == [True] * 4 + [False] * 2

    def test_slots_that_win_too_little_are_dropped(self):
        x = torch.cat([blobs(noise=0.01)[0], torch.full((1, 8), -50.0)])  # an outlier wins itself alone
        options = {"share": 1 / 6, "metric": "l2", "batch_size": len(x), "epochs": 2, "lr": 0.1}
        kept = learn_slots(x, ClusterConfig(**options, min_wins=1))
        assert 1 in kept.wins.tolist()
        dropped = learn_slots(x, ClusterConfig(**options))
        assert int(dropped.wins.min()) >= 5
        assert dropped.n_slots < kept.n_slots

    def test_the_number_of_slots_can_be_capped(self):
        x = torch.randn(500, 6)
        assert learn_slots(x, ClusterConfig(share=0.01)).n_slots > 7
        assert learn_slots(x, ClusterConfig(share=0.01, max_slots=7)).n_slots == 7

    def test_normalised_slots_are_less_alike(self):
        x = torch.randn(2000, 20) * torch.logspace(0, -1.5, 20)

        def nearest(normalized):
            found = learn_slots(x, ClusterConfig(share=0.02, max_slots=40, normalized=normalized))
            cosines = normalize(found.weights) @ normalize(found.weights).T - 2 * torch.eye(found.n_slots)
            return float(cosines.amax(1).mean())

        assert nearest(normalized=True) < nearest(normalized=False) - 0.05

    def test_flat_and_zero_inputs_take_no_part(self):
        x = torch.cat([torch.randn(50, 6), torch.full((3, 6), 7.0), torch.zeros(2, 6)])
        found = learn_slots(x, ClusterConfig(share=0.1, min_deviation=0.01))
        assert found.owners[50:].tolist() == [-1] * 5
        assert int(found.owners[:50].min()) >= 0
        assert takes_part(x, ClusterConfig()).tolist() == [True] * 53 + [False] * 2
        assert takes_part(x, ClusterConfig(metric="l2")).all()

    def test_equal_seeds_give_equal_slots(self):
        x = torch.randn(300, 5)
        one, two, other = (learn_slots(x, ClusterConfig(share=0.05, batch_size=64, seed=s)) for s in (1, 1, 2))
        assert torch.equal(one.weights, two.weights)
        assert one.weights.shape != other.weights.shape or not torch.equal(one.weights, other.weights)

    def test_progress_is_told(self):
        told = []
        learn_slots(torch.randn(40, 3), ClusterConfig(share=0.2, epochs=2), progress=lambda *what: told.append(what))
        assert [share for _, share in told] == [0.0, 0.5]
        assert told[1][0].startswith("epoch 2/2  ")


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"share": 1.0}, r"`share` must lie in \(0, 1\), got 1.0. 0.01 lets"),
            ({"metric": "dot"}, r"`metric` must be 'cosine' or 'l2', got 'dot'. Choose"),
            ({"epochs": 0}, r"`epochs` must be >= 1, got 0. Pass a larger"),
            ({"batch_size": 1}, r"`batch_size` must be >= 2, got 1. Pass a larger"),
            ({"min_wins": -1}, r"`min_wins` must be >= 0, got -1. Pass a larger"),
            ({"max_slots": 0}, r"`max_slots` must be >= 1, got 0. Leave it out"),
            ({"lr": 0.0}, r"`lr` must be > 0 and `min_deviation` >= 0, got 0.0 and 0.0. Change"),
            ({"min_deviation": -1.0}, r"`lr` must be > 0 and `min_deviation` >= 0, got 0.5 and -1.0. Change"),
        ],
    )
    def test_of_numbers_out_of_range(self, options, message):
        with pytest.raises(UsageError, match=message):
            ClusterConfig(**options)

    @pytest.mark.parametrize(
        "x", [torch.zeros(3), torch.zeros(3, 2, dtype=torch.long), torch.full((3, 2), float("nan"))]
    )
    def test_of_inputs_of_another_form(self, x):
        with pytest.raises(DataError, match=r"`features` must be a finite float matrix .* got .* of shape .*Flatten"):
            learn_slots(x)

    def test_of_too_few_inputs(self):
        with pytest.raises(DataError, match=r"`features` must have two rows that take part, got 1. Lower"):
            learn_slots(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))


def test_arrays_are_taken_as_tensors_are():
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    found, expected = learn_slots(x), learn_slots(torch.from_numpy(x))
    assert torch.equal(found.weights, expected.weights)
    assert torch.equal(found.owners, expected.owners)
