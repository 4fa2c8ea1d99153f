"""Which labels are wrong: noise matrix, suspicion, watched training and evidence."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_label_errors as reference
from support.nets import blobs
from torch import nn

from slots.errors import DataError, UsageError
from slots.head.hashing import IncrementalNeuralHashing
from slots.label_errors import noise_matrix as label_errors_noise
from slots.label_errors.detection import find_label_errors, score_labels
from slots.label_errors.evidence import DAMAGES, gather_evidence, n_displaced
from slots.label_errors.explanations import explain_label_errors
from slots.label_errors.linear_verdicts import linear_log_probabilities
from slots.label_errors.noise_matrix import confident_joint, noise_matrix, posterior
from slots.label_errors.training_dynamics import TrainingDynamicsConfig, record_training_dynamics, small_network


def counts_of(n, draw):
    return np.array([[draw(i, j) for j in range(n)] for i in range(n)], np.int64)


# The noise matrix


def test_the_surest_of_each_predicted_class_are_counted():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    y = np.array([0, 1, 0, 1, 1])
    assert confident_joint(p, y, share=0.5).tolist() == [[2, 2], [0, 1]]  # at least 100 where there are so many
    many, given_labels = np.tile(p[:4], (100, 1)), np.tile(y[:4], 100)
    assert confident_joint(many, given_labels, share=0.5).tolist() == [[100, 100], [0, 0]]
    assert confident_joint(many, given_labels, share=0.01).tolist() == [[100, 0], [0, 0]]


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_anchors_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\], got .*0.1 takes the surest tenth"):
        confident_joint(np.eye(2), np.array([0, 1]), share=share)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 10_000))
def test_the_matrix_is_the_literal_one(n, seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 4, size=(n, n))) + 50 * np.eye(n, dtype=np.int64)
    found = noise_matrix(counts)
    np.testing.assert_allclose(found, reference.noise_matrix(counts, label_errors_noise._STRENGTHS), rtol=1e-9)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    assert found.min() > 0


def test_pairs_stay_pairs_and_chance_is_no_structure():
    rng = np.random.default_rng(0)
    pairs = counts_of(6, lambda i, j: 285 if i == j else 15 * (j == i ^ 1))
    found = noise_matrix(pairs)
    assert found[0, 1] == pytest.approx(0.05, abs=0.003)
    assert found[0, 2] < 0.0005
    even = counts_of(6, lambda i, j: 285 if i == j else rng.poisson(3))
    off = noise_matrix(even)[~np.eye(6, dtype=bool)]
    assert off.max() < 1.2 * off.min()  # counts from 0 to 7 or so


def test_a_class_nobody_predicts_and_clean_labels_still_give_rows_that_sum_to_one():
    found = noise_matrix(np.array([[50, 0, 0], [0, 0, 0], [0, 0, 50]]))
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found > 0).all()
    assert found[0, 0] > 0.98
    mostly_wrong = noise_matrix(np.array([[1, 99], [0, 100]]))
    assert mostly_wrong[0, 0] == pytest.approx(0.1)  # a class keeps some of its own


# Suspicion


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_suspicion_is_bayes_rule(n, seed):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.ones(n), size=30), rng.integers(0, n, 30)
    found = score_labels(p, y)
    np.testing.assert_allclose(found.suspicion, reference.suspicion(p, y, found.noise), rtol=1e-9)
    assert (found.suggested != y).all()
    chances = posterior(p, y, found.noise)
    np.testing.assert_allclose(chances.sum(1), 1)
    shuffled = rng.permutation(30)
    np.testing.assert_allclose(score_labels(p[shuffled], y[shuffled]).suspicion, found.suspicion[shuffled])


def test_what_the_noise_never_does_is_not_suspected():
    """A shirt that looks like a coat is no error where only coats and pullovers were confused."""
    y = np.repeat([0, 1, 2], 200)
    y_given = y.copy()
    y_given[:20] = 1  # class 0 is called 1
    sure = np.random.default_rng(0).uniform(0.9, 0.99, 600)
    p = np.repeat((1 - sure)[:, None] / 2, 3, axis=1)
    p[np.arange(600), y] = sure
    p[-1] = [0.59, 0.01, 0.4]  # an odd 2 that looks like a 0
    found = score_labels(p, y_given, np.array([3, 5, 9]))
    assert set(found.ranked()[:20]) == set(range(20))
    assert found.suspicion[-1] < found.suspicion[0]
    assert found.suggested[0] == 3
    assert found.labels.tolist() == [3, 5, 9]
    assert found.n_errors == pytest.approx(20, abs=3)
    assert found.listed().tolist() == found.ranked()[: found.n_errors].tolist()
    assert 1 - p[-1, 2] > 0.5  # by confidence alone it would be among the first


# The watched training


def test_answers_are_noted_before_the_step_that_uses_the_label():
    x, y = blobs(60, spread=0.5)
    torch.manual_seed(5)
    network = nn.Linear(x.shape[1], 7)
    twin = nn.Linear(x.shape[1], 7)
    twin.load_state_dict(network.state_dict())
    config = TrainingDynamicsConfig(epochs=3, batch_size=20, learning_rate=0.1, seed=3)
    found = record_training_dynamics(network, x, y, config=config)
    expected = reference.watched(twin, x, y, epochs=3, batches=3, rate=0.1, seed=3)
    np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(found.log_probabilities).sum(1), 1)
    assert not found.classifier.training
    assert torch.allclose(twin.weight, network.weight, atol=1e-4)


def test_wrong_labels_are_found_in_one_run_and_again():
    x, y = blobs(600, spread=0.35)
    rng = np.random.default_rng(0)
    wrong = rng.choice(600, 30, replace=False)
    given_labels = y.copy()
    given_labels[wrong] = (y[wrong] + 1) % (y.max() + 1)
    labels = np.array([2, 3, 7, 11])[given_labels]  # gaps are allowed

    def run():
        torch.manual_seed(1)
        return find_label_errors(small_network(x.shape[1]), x, labels)

    found = run()
    assert len(set(found.ranked()[:30]) & set(wrong)) >= 27
    assert found.n_errors == pytest.approx(30, abs=10)
    assert (found.suggested[wrong] == np.array([2, 3, 7, 11])[y[wrong]]).mean() > 0.9
    assert found.labels.tolist() == [2, 3, 7, 11]
    again = run()
    np.testing.assert_array_equal(found.suspicion, again.suspicion)


def test_images_are_shifted_by_their_size_and_progress_is_told():
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1)).astype(np.uint8)
    y = np.arange(40) % 2
    told = []
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    torch.manual_seed(0)
    state = {name: it.clone() for name, it in flat.state_dict().items()}
    config = TrainingDynamicsConfig(epochs=2)
    moved = record_training_dynamics(
        flat, images, y, config=config, progress=lambda step, share: told.append((step, share))
    )
    flat.load_state_dict(state)
    still = record_training_dynamics(flat, images, y, config=TrainingDynamicsConfig(epochs=2, augment="none"))
    assert not np.allclose(moved.log_probabilities, still.log_probabilities)
    assert told[0] == ("watching the training", 0.0)
    assert 0 < told[-1][1] < 1


def test_small_data_gets_more_epochs_and_smaller_batches():
    assert TrainingDynamicsConfig().sizes(60_000) == (6, 468)
    assert TrainingDynamicsConfig().sizes(1437) == (17, 89)
    assert TrainingDynamicsConfig().sizes(30) == (20, 1)
    assert TrainingDynamicsConfig(epochs=4, batch_size=10).sizes(100) == (4, 10)


def test_misuse_is_named():
    x, y = blobs(40)
    with pytest.raises(UsageError, match=r"`epochs` must be >= 2, got 1. The first half is not watched."):
        TrainingDynamicsConfig(epochs=1)
    with pytest.raises(UsageError, match=r"`batch_size` must be >= 2, got 1. Try 128."):
        TrainingDynamicsConfig(batch_size=1)
    with pytest.raises(DataError, match=r"`y` must hold at least two labels, got only 4. A single label cannot"):
        find_label_errors(small_network(x.shape[1]), x, np.full(40, 4))
    with pytest.raises(DataError, match=r"`x` must hold at least 20 examples, got 10. Fewer say nothing"):
        find_label_errors(small_network(x.shape[1]), x[:10], y[:10])


# Evidence


def random_case(seed, n=40, slots=6, width=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)).astype(np.float32)
    y = rng.integers(0, 3, n)
    head = IncrementalNeuralHashing(width)
    head.add_slots(
        torch.from_numpy(rng.normal(size=(slots, width)).astype(np.float32)),
        torch.from_numpy(np.arange(slots) % 3),
        centres=torch.from_numpy(rng.normal(size=(slots, width)).astype(np.float32)),
        support_thresholds=torch.from_numpy(rng.uniform(-0.9, 0, slots).astype(np.float32)),
    )
    return x, y, head, rng.choice(n, 15, replace=False)


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_the_literal_one(seed):
    x, y, head, listed = random_case(seed)
    found = gather_evidence(torch.from_numpy(x), y, head, listed)
    assert [it.example for it in found] == listed.tolist()
    some = 0
    for it in found:
        expected = reference.damages(x, y, head, set(listed.tolist()), it.example)
        assert it.n_damaged == len(expected)
        assert it.matches == sum(matches for _, _, matches in expected)
        got = [(d.slot, d.matches) for d in it.damages]
        assert got == [(k, m) for k, _, m in expected[:DAMAGES]]
        assert [d.radians for d in it.damages] == pytest.approx([r for _, r, _ in expected[:DAMAGES]], abs=1e-3)
        for same, example, angle in ((True, it.same, it.same_angle), (False, it.other, it.other_angle)):
            row, radians = reference.nearest(x, y, set(listed.tolist()), it.example, same=same)
            assert (example, angle) == (row, pytest.approx(radians, abs=1e-3))
        some += len(expected)
    assert some


def test_a_wrong_label_holds_back_the_slot_it_lies_in():
    angles = np.radians([0.0, 5, 10, 20, 12, 80, 85, 90])
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])  # the fifth lies among the first four
    head = IncrementalNeuralHashing(2)
    head.add_slots(torch.eye(2), torch.tensor([0, 1]))
    (it,) = gather_evidence(torch.from_numpy(x), y, head, np.array([4]))
    assert [(d.slot, d.matches) for d in it.damages] == [(0, 1)]  # the example at 20 degrees
    assert it.damages[0].radians == pytest.approx(math.radians(80 - 12), abs=1e-3)
    assert (it.same, it.other) == (5, 2)
    assert math.degrees(it.other_angle) == pytest.approx(2, abs=0.05)
    assert gather_evidence(torch.from_numpy(x), y, head, np.zeros(0, np.int64)) == []


def test_without_a_trusted_neighbour_there_is_none():
    x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    head = IncrementalNeuralHashing(2)
    head.add_slots(torch.eye(2), torch.tensor([0, 1]))
    for listed in ([0], [0, 1]):
        it = gather_evidence(torch.from_numpy(x), y, head, np.array(listed))[0]
        assert it.same == -1
        assert math.isnan(it.same_angle)
        assert it.other == (1 if listed == [0] else -1)


@pytest.mark.parametrize("limit", [None, 3])
def test_errors_are_explained_by_slots_of_the_examples_that_are_not_listed(limit):
    x, y = blobs(400, classes=3, feature=16, spread=0.3)
    given = y.copy()
    given[:20] = (y[:20] + 1) % 3
    errors = find_label_errors(small_network(16), x, given, config=TrainingDynamicsConfig(seed=1))
    steps = []
    found = explain_label_errors(x, given, errors, limit=limit, progress=lambda *it: steps.append(it))
    listed = errors.ranked()[: limit or errors.n_errors]
    assert [it.example for it in found.evidence] == listed.tolist()
    assert set(found.slot_labels.tolist()) == {0, 1, 2}
    known = found.exemplars >= 0
    assert known.any()
    assert np.array_equal(given[found.exemplars[known]], found.slot_labels[known])
    assert not np.isin(found.exemplars[known], listed).any()
    assert [share for _, share in steps] == sorted(share for _, share in steps)


def test_features_of_another_width_are_refused():
    x, y, head, listed = random_case(0)
    with pytest.raises(ValueError, match="head was built for another backbone"):
        gather_evidence(torch.from_numpy(x[:, :3]), y, head, listed)


@pytest.mark.parametrize("seed", range(4))
def test_shut_out_is_the_literal_count(seed):
    x, y, head, _ = random_case(seed)
    weights = head.weights.detach()
    found = n_displaced(torch.from_numpy(x), y, weights, head.labels)
    assert found.tolist() == reference.n_displaced(x, y, weights.numpy(), head.labels.tolist()).tolist()
    assert found.sum()


# Feature rows without a network


def curved(n, *, seed, classes=4, dim=40):
    """Embedding-like rows: classes about means, in strong noise of some directions, with one class on both sides."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    means = np.random.default_rng(5).normal(0, 1.2, (classes, dim))
    side = np.where((y == 0) & (rng.random(n) < 0.5), -1, 1)
    noise = rng.normal(size=(n, dim)) * np.r_[np.full(dim // 2, 3.0), np.ones(dim - dim // 2)]
    return (side[:, None] * means[y] + noise).astype(np.float32), y


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_two_verdicts_on_feature_rows_are_better_than_one(share):
    from sklearn.metrics import average_precision_score

    alone, both = [], []
    for seed in range(2):
        x, y = curved(600, seed=seed)
        rng = np.random.default_rng(seed)
        wrong = rng.permutation(600)[: int(share * 600)]
        given = y.copy()
        given[wrong] = (y[wrong] + rng.integers(1, 4, len(wrong))) % 4
        truth = np.isin(np.arange(600), wrong)
        torch.manual_seed(0)
        alone.append(average_precision_score(truth, find_label_errors(small_network(40), x, given).suspicion))
        both.append(average_precision_score(truth, find_label_errors(None, x, given).suspicion))
    assert np.mean(both) > np.mean(alone) + 0.01


def test_the_linear_verdict_knows_no_label_by_heart():
    """With more features than examples, random labels are guessed at random; and rare classes are not impossible."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 300)), rng.integers(0, 4, 100)
    found = linear_log_probabilities(x, y, seed=0)
    assert (found.argmax(1) == y).mean() < 0.45
    y[0] = 4
    found = linear_log_probabilities(x, y, seed=0)
    assert found.shape == (100, 5)
    assert np.isfinite(found).all()
    assert found[0].argmax() != 4
    assert (linear_log_probabilities(x[:6], np.arange(6), seed=0) == 0).all()


def test_images_without_a_network_are_refused():
    with pytest.raises(DataError, match=r"`network` must be given for inputs of shape \(30, 8, 8, 1\)\. Without"):
        find_label_errors(None, np.zeros((30, 8, 8, 1), np.uint8), np.arange(30) % 2)
