"""Attacks against what can be computed by hand, certificates against attacks, and the adversarial protocol's table."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from protocols.data.dataset import Dataset
from protocols.data.loading import load_data
from protocols.harness.outcome import SeedOutcome
from protocols.harness.protocol import Setting
from protocols.runs.adversarial.certificates import (
    linear_radius,
    matched_radius,
    nearest_prototype_radius,
    slot_margins,
)
from protocols.runs.adversarial.peers import all_neighbours, class_k_means, energy, max_softmax, nearest_distance
from protocols.runs.adversarial.pgd import margin, pgd, selective_pgd, sign_noise
from protocols.runs.adversarial.protocol import PROTOCOL
from protocols.runs.adversarial.surrogates import (
    centre_scores,
    class_margins,
    disagreement,
    novelty_score,
    pooled_scores,
    soft_slot_margins,
    wrongly_matched,
)
from slots.errors import UsageError
from slots.head.deciding.exact import exact_margins
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.novelty.detector import NoveltyDetector

pytestmark = pytest.mark.slow

DIGITS = load_data("digits")


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def linear_model(seed, n_classes=4, shape=(1, 4, 4)):
    generator = drawn(seed)
    weight = torch.randn(n_classes, math.prod(shape), generator=generator)
    bias = torch.randn(n_classes, generator=generator)
    return weight, bias, lambda x: x.flatten(1) @ weight.T + bias


# --- attacks


def test_the_margin_by_hand():
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert margin(scores, torch.tensor([0, 2])).tolist() == [-1.0, 4.0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_reaches_the_worst_case_of_a_linear_model(norm):
    """Closed form: the margin against class ``j`` rises by eps times the dual norm of the difference of the weights."""
    weight, _bias, scores = linear_model(0)
    images = torch.full((30, 1, 4, 4), 0.5) + 0.1 * torch.rand(30, 1, 4, 4, generator=drawn(1))
    labels = torch.arange(30) % 4
    eps = 0.1
    found = pgd(images, lambda x: margin(scores(x), labels), eps=eps, steps=40, generator=drawn(2), norm=norm)
    apart = weight[None] - weight[labels][:, None]
    dual = apart.abs().sum(2) if norm == "linf" else apart.norm(dim=2)
    clean = scores(images)
    worst = clean - clean.gather(1, labels[:, None]) + eps * dual
    worst = worst.scatter(1, labels[:, None], -math.inf).amax(1)
    reached = margin(scores(found), labels)
    assert (reached <= worst + 1e-4).all()
    assert torch.allclose(reached, worst, atol=4e-2)  # the steps end within a step of the edge
    change = (found - images).flatten(1)
    assert ((change.abs().amax(1) if norm == "linf" else change.norm(dim=1)) <= eps + 1e-5).all()


@given(st.integers(0, 1000), st.sampled_from(["linf", "l2"]), st.floats(0.0, 0.8))
@settings(max_examples=25, deadline=None)
def test_pgd_stays_where_it_may_and_never_loses_ground(seed, norm, eps):
    _, _, scores = linear_model(seed)
    images, labels = torch.rand(5, 1, 4, 4, generator=drawn(seed)), torch.arange(5) % 4
    found = pgd(images, lambda x: margin(scores(x), labels), eps=eps, steps=3, generator=drawn(0), norm=norm)
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - images).flatten(1)
    assert ((change.abs().amax(1) if norm == "linf" else change.norm(dim=1)) <= eps + 1e-5).all()
    assert (margin(scores(found), labels) >= margin(scores(images), labels)).all()


def test_radii_may_differ_between_images():
    _, _, scores = linear_model(0)
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
    eps = torch.tensor([0.0, 0.1, 0.3])
    found = pgd(images, lambda x: margin(scores(x), labels), eps=eps, steps=10, generator=drawn(0), norm="l2")
    assert (found - images).flatten(1).norm(dim=1) == pytest.approx(eps, abs=1e-4)


def test_a_selective_attack_fools_both():
    """The detector sees the mean grey; the classifier can be fooled at any grey."""
    weight, bias, _ = linear_model(3)
    weight = weight - weight.mean(1, keepdim=True)  # grey says nothing about the class

    def scores(x):
        return x.flatten(1) @ weight.T + bias

    def grey(x):
        return (x.flatten(1).mean(1) - 0.5).abs()

    images, labels = 0.4 + 0.2 * torch.rand(40, 1, 4, 4, generator=drawn(4)), torch.arange(40) % 4
    images = images - images.flatten(1).mean(1).reshape(-1, 1, 1, 1) + 0.5

    def fool(x):
        return margin(scores(x), labels)

    plain = pgd(images, fool, eps=0.3, steps=20, generator=drawn(5))
    both = selective_pgd(images, fool, grey, eps=0.3, steps=20, generator=drawn(5))
    fooled = fool(plain) > 0
    assert fooled.float().mean() > 0.9
    assert (fool(both)[fooled] > 0).float().mean() > 0.9
    wrong = fooled & (fool(both) > 0)
    assert grey(both)[wrong].mean() < 0.3 * grey(plain)[wrong].mean()


def test_noise_is_as_large_as_an_attack():
    images = torch.full((10, 1, 20, 20), 0.5)
    change = sign_noise(images, 0.1, drawn(0)) - images
    assert torch.allclose(change.abs(), torch.tensor(0.1))
    assert abs(float(change.sign().mean())) < 0.1
    assert sign_noise(torch.zeros(1, 1, 2, 2), 0.3, drawn(1)).min() == 0


# --- what attacks follow is what decides


@pytest.fixture(scope="module")
def head():
    """Slots of three classes with caps of several sizes, some firing for many inputs."""
    generator = drawn(0)
    found = IncrementalNeuralHashing(6)
    weights = torch.randn(9, 6, generator=generator)
    centres = weights + 0.3 * torch.randn(9, 6, generator=generator)
    thresholds = torch.rand(2, 9, generator=generator) * 0.6
    found.add_slots(
        weights, torch.arange(9) % 3, centres=centres, precision_thresholds=thresholds[0],
        support_thresholds=thresholds[1],
    )  # fmt: skip
    return found.requires_grad_(False)


def test_margins_are_the_exact_ones(head):
    rows = torch.randn(50, 6, generator=drawn(1))
    pairs = torch.arange(50).repeat_interleave(9), torch.zeros(450, dtype=torch.long), torch.arange(9).repeat(50)
    exact = exact_margins(rows[:, None], head.caps(), pairs).reshape(50, 9)
    assert torch.allclose(slot_margins(rows, head.caps()), exact, atol=1e-9)
    assert torch.allclose(soft_slot_margins(head)(rows).double(), exact, atol=2e-3)
    best = class_margins(head, 3)(rows)
    assert torch.allclose(best[:, 1].double(), exact[:, [1, 4, 7]].amax(1), atol=2e-3)


def test_a_wrong_match_is_one_that_the_head_gives(head):
    rows, labels = torch.randn(300, 6, generator=drawn(2)), torch.arange(300) % 3
    told = wrongly_matched(class_margins(head, 3)(rows), labels)
    found = head.predict(rows)
    wrong = found.matched & (found.labels != labels.numpy())
    sure = told.abs().numpy() > 1e-3
    assert sure.mean() > 0.9
    assert np.array_equal((told > 0).numpy()[sure], wrong[sure])
    assert 0 < wrong.mean() < 1


def test_pooled_scores_are_the_unmatched_answers(head):
    rows = torch.randn(300, 6, generator=drawn(3))
    found = head.predict(rows)
    assert (~found.matched).any()
    assert np.array_equal(pooled_scores(head, 3)(rows).argmax(1).numpy()[~found.matched], found.labels[~found.matched])
    assert pooled_scores(head, 5)(rows).shape == (300, 5)
    assert (pooled_scores(head, 5)(rows)[:, 3:] < -100).all()


def test_the_nearest_centre_by_hand():
    head = IncrementalNeuralHashing(2)
    head.add_slots(torch.eye(2).flip(0), torch.tensor([2, 0]), centres=torch.eye(2))
    scores = centre_scores(head.requires_grad_(False), 3)(torch.tensor([[3.0, 4.0]]))
    assert scores[0].tolist() == pytest.approx([0.8, -2.0, 0.6])


def test_disagreement_by_hand():
    first, second = torch.tensor([[1.0, 0, 0], [1, 0, 0]]), torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.7, 0.2]])
    score = disagreement(lambda _: first, lambda _: second)(torch.zeros(2, 1))
    assert score.tolist() == pytest.approx([-0.3, 0.6])


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.4, 0.2, 0.05, 0.35)])
def test_the_novelty_that_attacks_follow_is_the_detectors(shares):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 6)) @ rng.normal(size=(6, 24)) + 0.1 * rng.normal(size=(2000, 24))).astype(np.float32)
    detector = NoveltyDetector(200, shares=shares).fit(x[:1800])
    rows = np.concatenate([x[1800:], 3 * rng.normal(size=(50, 24)).astype(np.float32)])
    score = novelty_score(detector)
    assert score(torch.from_numpy(rows)).numpy() == pytest.approx(detector.predict(rows), rel=2e-3, abs=2e-3)
    inputs = torch.from_numpy(rows[-50:]).requires_grad_()
    gradient = torch.autograd.grad(score(inputs).sum(), inputs)[0]
    assert (gradient.norm(dim=1) > 0).all()


def test_prototypes_answer_as_the_nearest_does():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(40, 5)).astype(np.float32), np.arange(40) % 4
    found = all_neighbours(rows, labels, most=100, seed=0)
    x = torch.randn(30, 5, generator=drawn(0))
    gap = ((x.numpy()[:, None] - rows) ** 2).sum(2)
    assert np.array_equal(found(x).argmax(1).numpy(), labels[gap.argmin(1)])
    assert nearest_distance(found)(x).numpy() == pytest.approx(np.sqrt(gap.min(1)), rel=1e-4)
    assert len(all_neighbours(rows, labels, most=7, seed=0).rows) == 7
    some = x.clone().requires_grad_()
    gradient = torch.autograd.grad(found(some)[:, 0].sum(), some)[0]
    nearest = torch.from_numpy(rows[labels == 0])[torch.from_numpy(gap[:, labels == 0].argmin(1))]
    assert torch.allclose(gradient, -functional.normalize(x - nearest), atol=1e-5)
    centres = class_k_means(rows, labels, count=8, seed=0)
    assert centres.labels.bincount().tolist() == [2, 2, 2, 2]


def test_scores_of_logits_by_hand():
    linear = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
    rows = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert max_softmax(linear)(rows).tolist() == pytest.approx([-0.5, -0.75])
    assert energy(linear)(rows).tolist() == pytest.approx([-math.log(2), -math.log(4)])


# --- certificates


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_move_inside_the_radius_changes_a_matched_answer(head, seed):
    """Random moves, and moves straight towards the worst: up to the certified radius the label stays."""
    generator = drawn(seed)
    rows = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    found = head.predict(rows)
    labels = torch.from_numpy(found.labels)
    radius = matched_radius(rows, labels, head.caps())
    assert torch.equal(radius > 0, torch.from_numpy(found.matched))
    moves = [torch.randn(20, 6, generator=generator, dtype=torch.float64) for _ in range(4)]
    moves += [head.weights.detach()[k].double() * (head.labels[k] != labels).double()[:, None] for k in range(9)]
    moves += [-rows + 0 * rows] + [-head.centres[k].double().expand(20, 6) for k in range(9)]
    for move in moves:
        step = 0.999 * radius[:, None] * functional.normalize(move)
        after = head.predict(rows + step)
        kept = (radius > 0).numpy()
        assert after.matched[kept].all()
        assert np.array_equal(after.labels[kept], found.labels[kept])


def test_the_radius_of_one_cap_is_exact():
    """A cap of 0.5 rad about the first axis, the input on it, twice as long as a unit: 2 sin 0.5, and no more."""
    head = IncrementalNeuralHashing(3)
    threshold = torch.tensor([math.cos(0.5)])
    head.add_slots(torch.eye(3)[:1], torch.tensor([0]), precision_thresholds=threshold, support_thresholds=threshold)
    row = torch.tensor([[2.0, 0, 0]])
    radius = float(matched_radius(row, torch.tensor([0]), head.caps()))
    assert radius == pytest.approx(2 * math.sin(0.5), rel=1e-5)
    tangent = torch.tensor([[-math.sin(0.5), math.cos(0.5), 0]])  # at right angles to the edge of the cone
    assert head.predict(row + 0.999 * radius * tangent).matched.all()
    assert not head.predict(row + 1.001 * radius * tangent).matched.any()


def test_a_wrong_or_missing_match_has_no_radius(head):
    rows = torch.randn(40, 6, generator=drawn(8))
    found = head.predict(rows)
    wrong = torch.from_numpy((found.labels + 1) % 3)
    assert (matched_radius(rows, wrong, head.caps()) == 0).all()


def test_one_generation_is_certified(head):
    caps = dataclasses.replace(head.caps(), generations=torch.arange(9))
    with pytest.raises(ValueError, match="`caps` must be of one generation, got 9"):
        matched_radius(torch.ones(1, 6), torch.zeros(1, dtype=torch.long), caps)


def test_the_radius_between_two_prototypes_is_exact():
    prototypes, labels = torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1])
    rows = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    radius = nearest_prototype_radius(rows, torch.tensor([0, 0]), prototypes, labels)
    assert radius.tolist() == pytest.approx([1.0, 0.0])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_no_move_inside_the_radius_changes_the_nearest(seed):
    generator = drawn(seed)
    prototypes, labels = torch.randn(12, 4, generator=generator), torch.arange(12) % 3
    rows = torch.randn(20, 4, generator=generator)
    answers = labels[torch.cdist(rows, prototypes).argmin(1)]
    radius = nearest_prototype_radius(rows, answers, prototypes, labels).float()
    assert (radius >= 0).all()
    others = [prototypes[k] - rows for k in range(12)]
    for move in [torch.randn(20, 4, generator=generator), *others]:
        after = rows + 0.999 * radius[:, None] * functional.normalize(move)
        assert torch.equal(labels[torch.cdist(after, prototypes).argmin(1)], answers)
    directions = normalize(prototypes)
    nearest = labels[(rows @ directions.T).argmax(1)]
    radius = nearest_prototype_radius(rows, nearest, directions, labels).float()
    move = functional.normalize(torch.randn(20, 4, generator=generator))
    after = rows + 0.999 * radius[:, None] * move
    assert torch.equal(labels[(after @ directions.T).argmax(1)], nearest)


def test_a_class_without_prototypes_has_no_radius():
    found = nearest_prototype_radius(torch.ones(1, 2), torch.tensor([3]), torch.eye(2), torch.tensor([0, 1]))
    assert found.tolist() == [0.0]


def test_the_radius_of_a_linear_layer_is_exact():
    weight, bias, scores = linear_model(1)
    rows = torch.randn(20, 1, 4, 4, generator=drawn(2))
    labels = scores(rows).argmax(1)
    radius = linear_radius(rows.flatten(1), labels, weight, bias)
    lead = scores(rows).gather(1, labels[:, None]) - scores(rows)
    apart = (weight[labels][:, None] - weight[None]).norm(dim=2)
    rival = torch.where(apart > 0, lead / apart.clamp_min(1e-9), math.inf).argmin(1)
    away = functional.normalize(weight[rival] - weight[labels]).reshape(-1, 1, 4, 4)
    size = radius.float().reshape(-1, 1, 1, 1)
    assert torch.equal(scores(rows + 0.999 * size * away).argmax(1), labels)
    assert torch.equal(scores(rows + 1.001 * size * away).argmax(1), rival)
    assert (linear_radius(rows.flatten(1), (labels + 1) % 4, weight, bias) == 0).all()


# --- the run

SMALL = {"examples": 30, "steps": 7, "eps": [0.1, 0.3], "train": 600, "slots": 60, "neighbours": 200, "epochs": 1}


@pytest.fixture(scope="module")
def outcome(brief_training):
    told = []
    chosen = Setting(DIGITS, "cnn", peers=PROTOCOL.peers, options=SMALL)
    return chosen, PROTOCOL.run_seed(chosen, 0, lambda _, share: told.append(share)), told


def of(outcome, group):
    return {row.method: row.figures for row in outcome.rows if row.group == group}


def test_the_table(outcome):
    _, found, told = outcome
    assert list(dict.fromkeys(row.group for row in found.rows)) == [
        "answers, eps 0.1", "answers, eps 0.3", "detection, eps 0.1", "detection, eps 0.3", "certified, L2 on pixels",
    ]  # fmt: skip
    keys = {column.key for column in PROTOCOL.columns}
    assert all(set(row.figures) <= keys for row in found.rows)
    answers = of(found, "answers, eps 0.1")
    assert len(answers) == 1 + 2 * (3 + 2)
    assert len(of(found, "detection, eps 0.1")) == 2 + 4 + 3
    assert min(told) >= 0
    assert max(told) <= 1
    assert SeedOutcome.from_json(found.as_json()).facts == found.facts


def test_attacks_harm_more_than_noise_and_more_where_they_may_do_more(outcome):
    _, found, _ = outcome
    small, large = of(found, "answers, eps 0.1"), of(found, "answers, eps 0.3")
    for method, figures in small.items():
        assert figures["attacked"] <= figures["noise"] + 0.05, method
        assert large[method]["attacked"] <= figures["attacked"], method
        assert figures["clean"] > 0.8, method
        # gradients are not masked: images made on another model do not harm more than those made on this one
        assert figures["transfer"] is None or figures["attacked"] <= figures["transfer"] + 0.05, method
        assert figures["wrong"] <= 1 - figures["attacked"] + 1e-9
    beyond = found.facts["right answers at eps 0.5"]
    assert max(beyond.values()) <= 0.1, beyond


def test_an_adaptive_attack_is_never_noticed_more(outcome):
    _, found, _ = outcome
    for row in found.rows:
        if row.group.startswith("detection") and "yes or no" not in row.method:
            assert row.figures["evades_adaptive"] >= row.figures["evades"] - 1e-9, row


def test_certified_images_stay_as_they_are(outcome):
    _, found, _ = outcome
    assert found.facts["certified images attacked inside their radius"] > 15
    assert found.facts["of these, answers changed"] == 0
    for curve in (it for it in found.curves if it.chart == "Certified accuracy"):
        assert all(a >= b for a, b in zip(curve.y, curve.y[1:], strict=False))
    for figures in of(found, "certified, L2 on pixels").values():
        assert figures["certified_05"] >= figures["certified_10"] >= figures["certified_20"]


def test_a_run_can_be_repeated_and_works_on_pixels():
    chosen = Setting(DIGITS, "pixels", options=SMALL | {"eps": [0.1], "examples": 20, "steps": 2})
    first, second = (PROTOCOL.run_seed(chosen, 1, lambda _s, _d: None) for _ in range(2))
    assert first.as_json() == second.as_json()
    assert "linear layer, undefended" in of(first, "certified, L2 on pixels")
    assert len(of(first, "answers, eps 0.1")) == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eps": []}, r"`eps` must be a list of numbers in \(0, 1\], got \[\]\. Try"),
        ({"eps": [0, 0.1]}, r"`eps` must be a list of numbers in \(0, 1\], got \[0, 0.1\]"),
        ({"examples": 3}, r"`examples` must be >= 10, got 3\. Leave it out for 200"),
        ({"steps": 0}, "`steps` must be >= 1, got 0"),
    ],
)
def test_messages_on_options(options, says):
    with pytest.raises(UsageError, match=says):
        PROTOCOL.run_seed(Setting(DIGITS, "cnn", options=options), 0, lambda _s, _d: None)


def test_messages_on_data():
    rows = Dataset("rows", np.ones((40, 3), np.float32), np.arange(40) % 2, np.ones((30, 3), np.float32),
                   np.arange(30) % 2, ("a", "b"), "")  # fmt: skip
    with pytest.raises(UsageError, match="`data` must be labelled images with at least 20 to test on, got features"):
        PROTOCOL.run_seed(Setting(rows, "none"), 0, lambda _s, _d: None)
