"""Radii of matches: no search finds a change inside that breaks what they promise, and for one cap they are exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.similarities import normalize
from slots.robust.matched_slots import matched_radii

BOX = (0.0, 1.0)


def caps_of(weights, labels, radii, *, centres=None, reach=None, generations=None):
    """Caps of given radii, in radians."""
    weights = normalize(torch.as_tensor(weights, dtype=torch.float64))
    radii = torch.as_tensor(radii, dtype=torch.float64)
    labels = torch.as_tensor(labels)
    return SlotCaps(
        weights=weights.float(),
        centres=(weights if centres is None else normalize(centres)).float(),
        precision=radii.cos().float(),
        support=(radii if reach is None else reach).cos().float(),
        labels=labels,
        generations=torch.zeros_like(labels) if generations is None else torch.as_tensor(generations),
        pooled=torch.ones_like(labels, dtype=torch.bool),
        beta=1e4,
    )


def drawn(seed, n_slots=8, features=4):
    """Rows in the box, and caps of three labels and two generations."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(n_slots, features, generator=generator, dtype=torch.float64)
    centres = weights + 0.1 * torch.randn(n_slots, features, generator=generator, dtype=torch.float64)
    radii = 0.2 + 0.5 * torch.rand(n_slots, generator=generator, dtype=torch.float64)
    reach = 0.2 + 0.5 * torch.rand(n_slots, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (n_slots,), generator=generator)
    born = torch.randint(0, 2, (n_slots,), generator=generator)
    rows = torch.rand(4, features, generator=generator, dtype=torch.float64) + 0.05
    return rows.clamp(0, 1), caps_of(weights, labels, radii, centres=centres, reach=reach, generations=born)


def moves(rows, caps, size, norm, box, seed):
    """Changes shorter than a size: by chance, towards and away from every axis, and those cut to the box."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.cat([caps.weights, caps.centres]).double()
    ways = torch.cat(
        [axes, -axes, axes - normalize(rows), torch.randn(300, axes.shape[1], generator=generator).double()]
    )
    ways = ways.sign() if norm == "linf" else normalize(ways)
    moved = torch.cat([rows + share * size * ways for share in (0.5, 0.9999)])
    return moved if box is None else moved.clamp(*box)


@given(st.integers(0, 10**6), st.sampled_from(["l2", "linf"]), st.sampled_from([None, BOX]))
@settings(max_examples=40)
def test_no_change_inside_breaks_a_promise(seed, norm, box):
    rows, caps = drawn(seed)
    labels = torch.from_numpy(decide(rows[:, None], caps).labels)
    found = matched_radii(rows, labels, caps, norm=norm, box=box)
    for row, label, stays, apart in zip(rows, labels.tolist(), found.stays.tolist(), found.apart.tolist(), strict=True):
        if stays > 0:
            answers = decide(moves(row, caps, stays, norm, box, seed)[:, None], caps)
            assert answers.matched.all()
            assert set(answers.labels.tolist()) == {label}
        size = min(apart, 2.0)
        if size > 0:
            answers = decide(moves(row, caps, size, norm, box, seed)[:, None], caps)
            assert set(answers.labels[answers.matched].tolist()) <= {label}


@given(st.floats(0.05, 1.2), st.floats(0.0, 1.5), st.floats(0.1, 5.0))
@settings(max_examples=30)
def test_one_cap_is_exact(radius, angle, length):
    row = length * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    mine, other = (matched_radii(row, torch.tensor([label]), caps_of([[1.0, 0.0]], [4], [radius])) for label in (4, 5))
    inside, outside = max(0.0, radius - angle), max(0.0, angle - radius)
    assert mine.stays[0] == pytest.approx(length * math.sin(min(inside, math.pi / 2)), abs=1e-5)
    assert mine.apart[0] == math.inf
    assert other.stays[0] == 0
    assert other.apart[0] == pytest.approx(length * math.sin(min(outside, math.pi / 2)), abs=1e-5)


def test_the_box_keeps_a_cap_out():
    """The cap lies where the second entry would have to be negative."""
    caps = caps_of([[1.0, -1.0]], [0], [math.pi / 8])
    row, labels = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([1])
    free = matched_radii(row, labels, caps).apart[0]
    assert free == pytest.approx(math.sqrt(0.5) * math.sin(3 * math.pi / 8), abs=1e-6)
    assert matched_radii(row, labels, caps, box=BOX).apart[0] == pytest.approx(math.sqrt(0.5))  # black has no direction


def test_a_cap_in_the_box_is_as_near_as_a_search_finds_it():
    caps = caps_of([[0.2, 1.0, 0.0]], [0], [0.3])
    row = torch.tensor([[0.7, 0.2, 0.0]], dtype=torch.float64)
    for norm in ("l2", "linf"):
        found = float(matched_radii(row, torch.tensor([1]), caps, norm=norm, box=BOX).apart[0])
        steps = torch.linspace(-0.7, 0.8, 301, dtype=torch.float64)
        change = torch.cartesian_prod(steps, steps, torch.linspace(0, 0.2, 3, dtype=torch.float64))
        points = row + change
        legal = ((points >= 0) & (points <= 1)).all(1).numpy() & decide(points[:, None], caps).matched
        size = (change.norm(dim=1) if norm == "l2" else change.abs().amax(1)).numpy()
        assert found <= size[legal].min() <= found + 0.02


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_a_later_generation_changes_no_certificate_of_a_match(seed):
    rows, caps = drawn(seed)
    old = SlotCaps(**{**vars(caps), "generations": torch.zeros_like(caps.labels)})
    matched = decide(rows[:, None], old)
    generator = torch.Generator().manual_seed(seed + 1)
    more = caps_of(torch.rand(3, 4, generator=generator), [0, 1, 2], [0.6] * 3, generations=[1, 1, 1])
    joined = {
        name: torch.cat([getattr(old, name), getattr(more, name)])
        for name in ("weights", "centres", "precision", "support", "labels", "generations", "pooled")
    }
    labels = torch.from_numpy(matched.labels)
    before, after = (matched_radii(rows, labels, it) for it in (old, SlotCaps(**joined, beta=1.0)))
    kept = torch.from_numpy(matched.matched)
    assert (after.stays[kept] >= before.stays[kept] * (1 - 1e-12)).all()


@given(st.integers(0, 10**6), st.sampled_from([None, BOX]))
@settings(max_examples=25)
def test_one_cap_is_kept_entry_by_entry_as_far_as_its_corners(seed, box):
    """``<z, w> - t |z|`` is concave, so the worst point of a cube is a corner: all sixteen are looked at."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.rand(1, 4, generator=generator, dtype=torch.float64)
    caps = caps_of(row + 0.2 * torch.randn(1, 4, generator=generator, dtype=torch.float64), [0], [0.5])
    [found] = matched_radii(row, torch.tensor([0]), caps, norm="linf", box=box).stays.tolist()
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)

    def kept(size):
        cube = row + size * corners
        cube = cube if box is None else cube.clamp(*box)
        return bool(decide(cube[:, None], caps).matched.all())

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    assert low - 1e-6 <= found <= low + 1e-9
