"""Matching and deciding against literal loops, by hand on a few points, and on what must not matter."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_head as literal

from slots.head.caps import SlotCaps, margins
from slots.head.decision import TOLERANCE, candidate_pairs, decide, matching_pairs
from slots.head.pooling import class_groups, max_pool, softmax_pool
from slots.head.prediction import Answer, Prediction
from slots.head.similarities import best_view, normalize, similarity
from slots.head.thresholds import precision_thresholds, support_thresholds

few = settings(max_examples=60, deadline=None)


@few
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([1.0, 0.9, 0.75, 0.5]))
def test_precision_threshold_is_the_literal_rule(seed, n, precision):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.uniform(-1, 1, (n, 3)), 1)  # rounded, so that there are ties
    labels, slot_labels = rng.integers(0, 3, n), np.array([0, 1, 2])
    found = precision_thresholds(
        torch.from_numpy(scores), torch.from_numpy(slot_labels), torch.from_numpy(labels), precision=precision
    )
    for k in range(3):
        own = list(labels == slot_labels[k])
        assert float(found[k]) == literal.precision_threshold(list(scores[:, k]), own, precision)


@few
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([0.0, 0.01, 0.3, 0.9]))
def test_support_threshold_is_the_literal_rule(seed, n, quantile):
    rng = np.random.default_rng(seed)
    scores, owners = rng.uniform(-1, 1, n), rng.integers(0, 4, n)
    found = support_thresholds(torch.from_numpy(scores), torch.from_numpy(owners), 5, quantile=quantile)
    for k in range(5):
        assert float(found[k]) == pytest.approx(literal.support_threshold(list(scores[owners == k]), quantile))


def test_slack_widens_the_radius_by_that_angle():
    scores, owners = torch.tensor([0.5, 0.9], dtype=torch.float64), torch.tensor([0, 1])
    wider = support_thresholds(scores, owners, 2, quantile=0.0, slack=0.1)
    assert wider.arccos().tolist() == pytest.approx([math.acos(0.5) + 0.1, math.acos(0.9) + 0.1])


def test_similarities_and_pools_on_four_points():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    w = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(similarity(x, w), torch.tensor([[0.6, 0.8], [0, 0], [-1, 0], [0, 1]]))
    assert torch.allclose(similarity(x, w, metric="l2"), -torch.tensor([[20.0, 18], [1, 1], [4, 2], [5, 1]]))
    scores = torch.tensor([[0.2, 0.8, 0.5]])
    groups = torch.tensor([[0, 1], [2, -1]])
    expected = [literal.pooled([0.2, 0.8], 5.0), 0.5]
    assert softmax_pool(scores, groups, beta=5.0)[0].tolist() == pytest.approx(expected)
    assert max_pool(scores, groups)[0].tolist() == pytest.approx([0.8, 0.5])
    assert softmax_pool(scores, groups, beta=0.0)[0, 0] == pytest.approx(0.5)
    assert softmax_pool(scores, groups, beta=1e4)[0, 0] == pytest.approx(0.8)
    values, views = best_view(torch.tensor([[[0.1, 0.9], [0.4, 0.2], [0.4, 0.9]]]))
    assert values.tolist() == [[pytest.approx(0.4), pytest.approx(0.9)]]
    assert views.tolist() == [[1, 0]]


def test_pooling_has_the_derivative_that_makes_slots_specialise():
    scores = torch.tensor([[0.1, 0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    beta = 7.0
    z = softmax_pool(scores, torch.tensor([[0, 1, 2]]), beta=beta)
    (grad,) = torch.autograd.grad(z.sum(), scores)
    attention = (beta * scores.detach()).softmax(1)
    assert torch.allclose(grad, attention * (1 + beta * (scores.detach() - z.detach())))
    assert bool(((grad < 0) == (scores.detach() < z.detach() - 1 / beta)).all())


def test_margin_is_the_smaller_depth_of_the_two_caps():
    t = torch.tensor([math.cos(0.5)], dtype=torch.float64)
    s, c = torch.tensor([math.cos(0.2)], dtype=torch.float64), torch.tensor([math.cos(0.4)], dtype=torch.float64)
    assert margins(s, c, t, t).item() == pytest.approx(0.1)
    assert margins(s, c, t, torch.tensor([2.0], dtype=torch.float64)).item() == -math.inf
    assert margins(s, s, torch.tensor([-math.inf]).double(), t).item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: similarity(torch.ones(2, 3), torch.ones(2, 4)), r"must have 4 features, got \(2, 3\)"),
        (lambda: similarity(torch.ones(2, 3), torch.ones(2, 3), metric="dot"), "must be 'cosine' or 'l2', got 'dot'"),
        (lambda: precision_thresholds(torch.ones(2, 1), torch.ones(1), torch.ones(2), precision=0), r"lie in \(0, 1\]"),
        (lambda: precision_thresholds(torch.ones(3, 1), torch.ones(1), torch.ones(2)), r"must have shape \(2, 1\)"),
        (lambda: support_thresholds(torch.ones(1), torch.zeros(1).long(), 1, quantile=1.0), r"must lie in \[0, 1\)"),
    ],
)
def test_messages(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def tiny_head(rng, n_slots, feature, n_views, n, *, exact=False):
    """Random slots of two generations, and inputs, some of which lie within 1e-6 of a threshold."""
    weights, centres = (normalize(torch.from_numpy(rng.normal(size=(n_slots, feature))).float()) for _ in range(2))
    centres = normalize(weights + 0.3 * centres)
    caps = SlotCaps(
        weights=weights,
        centres=centres,
        precision=torch.from_numpy(rng.uniform(0.2, 0.9, n_slots)).float(),
        support=torch.from_numpy(rng.uniform(0.0, 0.8, n_slots)).float(),
        labels=torch.from_numpy(rng.integers(0, 3, n_slots)),
        generations=torch.from_numpy(rng.integers(0, 2, n_slots)),
        pooled=torch.from_numpy(rng.integers(0, 2, n_slots) > 0),
        beta=20.0,
    )
    near = weights[rng.integers(0, n_slots, n * n_views)] + 0.5 * torch.from_numpy(
        rng.normal(size=(n * n_views, feature))
    )
    views = (near * torch.from_numpy(rng.uniform(0.1, 30, (n * n_views, 1)))).float().view(n, n_views, feature)
    views[0, 0] = 0
    if exact:  # a threshold that equals the score of an input, up or down a few float32 steps
        score = literal.cosine(views[-1, 0].numpy(), weights[0].numpy())
        caps.precision[0] = score + rng.integers(-3, 4) * 6e-8
        caps.support[0] = -1
    return caps, views


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 6), st.integers(1, 3), st.booleans())
def test_decisions_are_the_literal_rule(seed, n_slots, feature, n_views, exact):
    caps, views = tiny_head(np.random.default_rng(seed), n_slots, feature, n_views, 6, exact=exact)
    found = decide(views, caps)
    pooled = SlotCaps(**{**vars(caps), "pooled": caps.pooled if caps.pooled.any() else ~caps.pooled})
    for i in range(len(views)):
        label, kind, slot = literal.decide_one(views[i].numpy(), pooled)
        assert (found.labels[i], found.answers[i]) == (label, kind)
        if slot is not None:
            assert found.slots[i] == slot
        depth, _ = literal.slot_margin(views[i].numpy(), caps, int(found.slots[i]))
        if kind:
            assert found.margins[i] == pytest.approx(max(depth, 0), abs=1e-7)
    pairs = {(int(e), int(k)) for e, k in zip(*matching_pairs(views, caps), strict=True)}
    assert pairs == {
        (i, k) for i in range(len(views)) for k in range(n_slots) if literal.slot_margin(views[i].numpy(), caps, k)[1]
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 257])
def test_an_answer_is_the_same_in_any_batch(size, threads):
    torch.set_num_threads(threads)
    caps, views = tiny_head(np.random.default_rng(3), 40, 33, 3, 300)
    whole = decide(views, caps)
    parts = Prediction.concatenate([decide(views[i : i + size], caps) for i in range(0, 300, size)])
    for name in vars(whole):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert {int(Answer.MATCHED), int(Answer.UNMATCHED), int(Answer.AMBIGUOUS)} == set(whole.answers.tolist())


def test_permuting_the_slots_changes_only_their_numbers():
    rng = np.random.default_rng(5)
    caps, views = tiny_head(rng, 20, 9, 2, 100)
    order = torch.from_numpy(rng.permutation(20))
    moved = SlotCaps(**{k: v[order] if isinstance(v, torch.Tensor) else v for k, v in vars(caps).items()})
    before, after = decide(views, caps), decide(views, moved)
    assert np.array_equal(before.labels, after.labels)
    assert np.array_equal(before.answers, after.answers)
    assert np.array_equal(before.slots, order.numpy()[after.slots])
    assert np.array_equal(before.margins, after.margins)


def test_an_older_generation_wins_over_a_deeper_match():
    caps = SlotCaps(
        weights=torch.eye(2),
        centres=torch.eye(2),
        precision=torch.tensor([0.5, 0.1]),
        support=torch.tensor([0.0, 0.0]),
        labels=torch.tensor([4, 9]),
        generations=torch.tensor([0, 1]),
        pooled=torch.tensor([True, True]),
        beta=20.0,
    )
    answer = decide(torch.tensor([[[0.6, 0.8]]]), caps)
    assert answer.labels.tolist() == [4]
    assert answer.answers.tolist() == [Answer.MATCHED], "a later generation is not asked"
    assert answer.runner_up_slots.tolist() == [-1]
    same = decide(torch.tensor([[[0.6, 0.8]]]), replace(caps, generations=torch.tensor([1, 1])))
    assert same.labels.tolist() == [9]
    assert same.answers.tolist() == [Answer.AMBIGUOUS]
    assert same.runner_up_slots.tolist() == [0]
    assert same.margins[0] > same.runner_up_margins[0] > 0


def test_nothing_in_nothing_out():
    caps, _ = tiny_head(np.random.default_rng(0), 3, 4, 1, 2)
    assert len(decide(torch.zeros(0, 1, 4), caps)) == 0
    assert len(Prediction.concatenate([])) == 0


def test_class_groups_list_each_class_in_order():
    groups = class_groups(torch.tensor([2, 0, 2, 2]), torch.tensor([0, 1, 2]))
    assert groups.tolist() == [[1, -1, -1], [-1, -1, -1], [0, 2, 3]]


@pytest.mark.parametrize("precision", [0.9, -1.0], ids=["seldom", "always"])
def test_candidates_are_all_that_may_match_however_often_slots_fire(precision):
    generator = torch.Generator().manual_seed(0)
    weights = normalize(torch.randn(200, 12, generator=generator))
    near = weights[torch.randint(200, (300, 3), generator=generator)]
    features = near + 0.1 * torch.randn(near.shape, generator=generator)
    centres = normalize(weights + 0.1 * torch.randn(200, 12, generator=generator))
    caps = SlotCaps(
        weights, centres, torch.full((200,), precision), torch.full((200,), 0.93), torch.zeros(200, dtype=torch.long),
        torch.zeros(200, dtype=torch.long), torch.ones(200, dtype=torch.bool), 20.0,
    )  # fmt: skip
    found = candidate_pairs(features, caps)
    unit = normalize(features.double())
    by_weight, by_centre = unit @ normalize(weights.double()).T, unit @ normalize(centres.double()).T
    places = set(zip(found.examples.tolist(), found.views.tolist(), found.slots.tolist(), strict=True))
    surely = ((by_weight > precision) & (by_centre > 0.93)).nonzero().tolist()
    assert {tuple(it) for it in surely} <= places
    at = (found.examples, found.views, found.slots)
    assert float((by_weight[at] - found.weight_scores).abs().max()) < TOLERANCE
    assert float((by_centre[at] - found.centre_scores).abs().max()) < TOLERANCE
    assert float(by_centre[at].min()) > 0.93 - 2 * TOLERANCE
    assert float(by_weight[at].min()) > precision - 2 * TOLERANCE
    seldom = float((by_weight > precision).double().mean()) < 1 / 64
    assert seldom == (precision > 0)  # both ways were taken
