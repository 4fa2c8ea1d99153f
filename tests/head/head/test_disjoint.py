"""Angles against exact fractions, free radii by hand, and no point in two balls, in the bits that are stored."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_update import clearance, exact_angle

import slots.head.caps
from slots.head.caps import SAFETY, SlotCaps, exact_angles, free_radius
from slots.head.decision import matching_pairs
from slots.head.similarities import normalize
from slots.rounding import strictly_above


def circle(*degrees):
    """Points of the unit circle."""
    turn = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([turn.cos(), turn.sin()], 1)


def caps_of(weights, centres, precision, support, labels, generations=None):
    labels = torch.tensor(labels)
    return SlotCaps(
        weights=weights.float(),
        centres=centres.float(),
        precision=torch.tensor(precision).float(),
        support=torch.tensor(support).float(),
        labels=labels,
        generations=torch.zeros_like(labels) if generations is None else torch.tensor(generations),
        pooled=torch.ones(len(labels), dtype=torch.bool),
        beta=20.0,
    )


def cosine(degrees):
    return math.cos(math.radians(degrees))


def test_angles_of_the_circle():
    found = exact_angles(circle(0, 90, 200), circle(0, 45, 180, 359))
    wanted = torch.tensor([[0.0, 45, 180, 1], [90, 45, 90, 91], [160, 155, 20, 159]], dtype=torch.float64).deg2rad()
    assert torch.allclose(found, wanted, atol=1e-15, rtol=0)
    assert exact_angles(circle(0)[:0], circle(1)).shape == (0, 1)


@pytest.mark.parametrize("tiny", [1e-3, 1e-5, 1e-7, 1e-9, 1e-12, 1e-15])
def test_angles_next_to_0_and_pi_keep_their_digits(tiny):
    a = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    b = torch.tensor([[math.cos(tiny), math.sin(tiny), 0]], dtype=torch.float64)
    assert float(exact_angles(a, b)) == pytest.approx(tiny, rel=1e-9, abs=1e-20)
    assert math.pi - float(exact_angles(a, -b)) == pytest.approx(tiny, abs=5e-16)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 9), st.sampled_from([1.0, 1e-2, 1e-4, 1e-6, 1e-8]))
def test_angles_are_those_of_exact_fractions(seed, feature, spread):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(1, feature, generator=generator)
    b = torch.cat([a + spread * torch.randn(1, feature, generator=generator), -a.double().mul(1 + 1e-9).float()])
    found = exact_angles(a, b)[0]
    for row in range(2):
        assert float(found[row]) == pytest.approx(exact_angle(a[0].tolist(), b[row].tolist()), rel=1e-7, abs=2e-15)


def test_a_free_radius_on_the_circle_by_hand():
    caps = caps_of(circle(50), circle(70), [cosine(20)], [cosine(30)], [0])
    # From 0 degrees: 50 - 20 = 30 to the precision ball, 70 - 30 = 40 to the support ball; one of them is enough.
    assert math.degrees(float(free_radius(circle(0), torch.tensor([1]), caps))) == pytest.approx(40, abs=1e-5)
    assert math.degrees(float(free_radius(circle(62), torch.tensor([1]), caps))) == pytest.approx(-8, abs=1e-5)
    assert float(free_radius(circle(62), torch.tensor([0]), caps)) == math.pi, "its own label does not limit it"


def test_a_free_radius_in_space_is_that_of_the_worst_slot():
    axes = torch.eye(3)
    caps = caps_of(axes, axes, [cosine(30), cosine(50), cosine(10)], [cosine(40), cosine(60), 2.0], [0, 1, 0])
    found = free_radius(normalize(torch.tensor([[1.0, 1, 1], [0, 0, 1]])), torch.tensor([5, 1]), caps)
    to_axis = math.degrees(math.acos(1 / math.sqrt(3)))
    assert math.degrees(float(found[0])) == pytest.approx(to_axis - 50, abs=1e-5)
    assert math.degrees(float(found[1])) == pytest.approx(90 - 30, abs=1e-5), "a slot that matches nothing limits none"


def test_nothing_around_leaves_the_whole_sphere():
    empty = caps_of(torch.zeros(0, 2), torch.zeros(0, 2), [], [], [])
    assert free_radius(circle(0, 10), torch.tensor([0, 1]), empty).tolist() == [math.pi, math.pi]


def random_disjoint(seed, feature, n_old=3, n_new=3, enlarge=0.0):
    """Old slots, and new ones as large as `free_radius` lets them be, with centres as a head stores them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return normalize(torch.randn(n, feature, generator=generator))

    weights = draw(n_old)
    centres = normalize(weights + 0.5 * draw(n_old))
    limits = [torch.rand(n_old, generator=generator) * 0.7 + 0.25 for _ in range(2)]
    labels = torch.randint(0, 2, (n_old,), generator=generator).tolist()
    old = caps_of(weights, centres, limits[0].tolist(), limits[1].tolist(), labels)
    fresh, names = draw(n_new), torch.randint(0, 3, (n_new,), generator=generator)
    room = free_radius(fresh, names, old)
    support = strictly_above((room.clamp_min(0) + enlarge).cos())
    every = caps_of(
        torch.cat([weights, fresh]),
        torch.cat([centres, fresh]),
        [*limits[0].tolist(), *[-1.0] * n_new],
        [*limits[1].tolist(), *support.tolist()],
        [*labels, *names.tolist()],
        [0] * n_old + [1] * n_new,
    )
    return every, n_old, generator


def towards_others(caps, n_old, generator):
    """Points of each new ball: its rim towards every old axis, and random ones, single views of float32."""
    found = []
    for j in range(n_old, len(caps.labels)):
        if caps.support[j] > 1:
            continue
        axis, radius = normalize(caps.centres[j].double()), float(caps.support[j].double().clamp(-1, 1).arccos())
        random = torch.randn(20, len(axis), generator=generator, dtype=torch.float64)
        targets = normalize(torch.cat([caps.weights[:n_old].double(), caps.centres[:n_old].double(), random]))
        away = normalize(targets - (targets @ axis)[:, None] * axis)
        for step in (-1e-3, -1e-5, -1e-7, -1e-8, 0.0):
            found.append(math.cos(radius + step) * axis + math.sin(radius + step) * away)
    return torch.cat(found) if found else torch.zeros(0, caps.weights.shape[1]).double()


def shared(caps, points, n_old):
    """How many points an old slot and a new one of another label both match."""
    example, slot = matching_pairs(points[:, None], caps)
    found = 0
    for i in example.unique():
        mine = slot[example == i]
        old, new = caps.labels[mine[mine < n_old]], caps.labels[mine[mine >= n_old]]
        found += bool((old[:, None] != new).any())
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([2, 3, 8]))
def test_no_point_lies_in_a_new_ball_and_in_an_old_slot_of_another_label(seed, feature):
    caps, n_old, generator = random_disjoint(seed, feature)
    points = towards_others(caps, n_old, generator)
    assert shared(caps, points, n_old) == 0
    assert shared(caps, points.float(), n_old) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([2, 3, 8, 40]))
def test_stored_thresholds_lie_on_the_safe_side(seed, feature):
    caps, n_old, _ = random_disjoint(seed, feature)
    for j in range(n_old, len(caps.labels)):
        for k in range(n_old):
            if caps.labels[k] != caps.labels[j]:
                assert clearance(caps, j, k) >= 0


def test_the_search_finds_balls_that_are_a_thousandth_too_large():
    found = [random_disjoint(seed, 2, enlarge=1e-3) for seed in range(20)]
    assert sum(shared(caps, towards_others(caps, n_old, generator), n_old) for caps, n_old, generator in found) > 0


def test_many_pairs_are_worked_through_in_steps(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(7, 4, generator=generator), torch.arange(7)
    caps = caps_of(centres[:3], centres[:3], [0.5] * 3, [0.5] * 3, [0, 1, 2])
    whole = free_radius(centres, labels, caps)
    monkeypatch.setattr(slots.head.caps, "_PAIRS", 4)
    # Products of other shapes are summed in another order on some processors.
    torch.testing.assert_close(free_radius(centres, labels, caps), whole, rtol=0, atol=1e-12)
    assert SAFETY > 1e-12
