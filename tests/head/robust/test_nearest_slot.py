"""Radii of the nearest slot: as the definitions read, never more than the truth, and reached by what the dual says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.reference_robust import exact_radius, nearest_slot, radius

from slots.errors import UsageError
from slots.head.pooling import class_groups, softmax_pool
from slots.robust import LabelledSlots, nearest_slot_radii

BOX = (0.0, 1.0)


def case(seed, n_slots=7, features=5, rows=3):
    """Rows in the box, and slots of three labels."""
    rng = np.random.default_rng(seed)
    x = rng.random((rows, features)) * rng.integers(0, 2, (rows, features))
    x[:, 0] += 0.1
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, n_slots - 3)])
    weights = rng.normal(size=(n_slots, features)) + rng.normal(size=(3, features))[labels]
    return x.clip(0, 1), LabelledSlots.of(torch.from_numpy(weights), torch.from_numpy(labels))


@given(st.integers(0, 10**6), st.sampled_from(["l2", "linf"]), st.sampled_from(["pair", "box"]))
@settings(max_examples=20)
def test_radii_are_the_definition(seed, norm, method):
    x, slots = case(seed)
    found = nearest_slot_radii(x, slots, norm=norm, box=BOX if method == "box" else None, method=method)
    box = BOX if method == "box" else None
    for row, label, size in zip(x, found.labels, found.radii, strict=True):
        assert label == nearest_slot(row, slots.weights, slots.labels.tolist())
        assert size == pytest.approx(radius(row, slots.weights, slots.labels.tolist(), norm, box), rel=1e-6, abs=1e-9)


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=15)
def test_the_dual_is_the_programme_of_others(seed, boxed):
    x, slots = case(seed, rows=1)
    box = BOX if boxed else None
    found = nearest_slot_radii(x, slots, box=box, method="dual")
    expected = exact_radius(x[0], slots.weights, slots.labels.tolist(), box)
    if math.isinf(expected):
        assert found.radii[0] > 0
    else:
        assert found.radii[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(st.integers(0, 10**6), st.booleans())
@example(995500, True)  # the border is met where nearly all entries have stopped at the box
@example(525, True)  # two slopes are nearly parallel in the entries that have not
@settings(max_examples=30)
def test_the_change_of_the_dual_reaches_the_border_and_no_less_does(seed, boxed):
    x, slots = case(seed)
    box = BOX if boxed else None
    found = nearest_slot_radii(x, slots, box=box, method="dual")
    for row, label, size, rival, change in zip(x, found.labels, found.radii, found.rivals, found.changes, strict=True):
        if not np.isfinite(size):
            continue
        scores = slots.weights @ (row + change)
        assert scores[rival] == pytest.approx(scores[slots.labels == label].max(), abs=1e-5)
        assert np.linalg.norm(change) == pytest.approx(size, rel=1e-5, abs=1e-6)
        assert not boxed or ((row + change >= -1e-12) & (row + change <= 1 + 1e-12)).all()


@given(st.integers(0, 10**6), st.sampled_from([("l2", "dual"), ("l2", "box"), ("linf", "box"), ("linf", "pair")]))
@settings(max_examples=40)
def test_no_change_inside_the_radius_changes_the_label(seed, how):
    norm, method = how
    x, slots = case(seed)
    box = None if method == "pair" else BOX
    found = nearest_slot_radii(x, slots, norm=norm, box=box, method=method)
    rng = np.random.default_rng(seed)
    towards = (slots.weights[:, None] - slots.weights[None]).reshape(-1, x.shape[1])
    moves = np.concatenate([towards, rng.normal(size=(200, x.shape[1]))])
    moves = np.sign(moves) if norm == "linf" else moves / np.linalg.norm(moves, axis=1, keepdims=True).clip(1e-12)
    for row, label, size in zip(x, found.labels, found.radii.clip(0, 100), strict=True):
        moved = row + 0.999999 * size * moves
        if box is not None:  # the nearest point of the box: no farther than what was asked for, and often nearer
            moved = moved.clip(*BOX)
        if size > 0:
            assert set(slots.labels[(moved @ slots.weights.T).argmax(1)]) == {label}


def test_each_method_is_a_bound_of_the_next():
    x, slots = case(3, n_slots=20, rows=50)
    pair, box, dual = (
        nearest_slot_radii(x, slots, box=None if method == "pair" else BOX, method=method).radii
        for method in ("pair", "box", "dual")
    )
    assert (pair <= box * (1 + 1e-9)).all()
    assert (box <= dual * (1 + 1e-9)).all()
    assert (pair < box - 1e-3).any()
    assert (box < dual - 1e-6).any()


def test_two_slots_by_hand():
    slots = LabelledSlots(np.eye(2), np.array([4, 9]))
    found = nearest_slot_radii(np.array([[3.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), slots)
    assert found.labels[0] == 4
    assert found.radii[0] == pytest.approx(math.sqrt(2), rel=1e-8)  # to (2, 2)
    assert found.radii[1:].tolist() == [0, 0]  # a tie, and no direction
    assert nearest_slot_radii(np.array([[3.0, 1.0]]), slots, norm="linf").radii[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("norm", "free", "boxed"), [("l2", 0.1 / math.sqrt(1.04), 0.1 / math.sqrt(0.68)), ("linf", 0.1 / 1.6, 0.1 / 1.0)]
)
def test_black_pixels_get_no_darker(norm, free, boxed):
    """The lead is 0.1 and the slope (-0.6, -0.2, 0.8), of which the first entry cannot be followed from 0."""
    slots = LabelledSlots(np.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]]), np.array([0, 1]))
    x = np.array([[0.0, 0.5, 0.0]])
    assert nearest_slot_radii(x, slots, norm=norm).radii[0] == pytest.approx(free, rel=1e-8)
    assert nearest_slot_radii(x, slots, norm=norm, box=BOX, method="box").radii[0] == pytest.approx(boxed, rel=1e-8)


@given(st.integers(0, 10**6), st.sampled_from([3.0, 30.0]))
@settings(max_examples=30)
def test_pooled_scores_keep_the_label_inside_the_radius(seed, beta):
    x, plain = case(seed)
    slots = LabelledSlots(plain.weights, plain.labels, beta)
    found = nearest_slot_radii(x, slots, box=BOX, method="box")
    classes = torch.tensor([0, 1, 2])
    groups = class_groups(torch.from_numpy(slots.labels), classes)
    moves = np.concatenate([(slots.weights[:, None] - slots.weights[None]).reshape(-1, 5)])
    for row, label, size in zip(x, found.labels, found.radii, strict=True):
        if size == 0 or not np.isfinite(size):
            continue
        moved = (row + size * moves / np.linalg.norm(moves, axis=1, keepdims=True).clip(1e-12)).clip(*BOX)
        cosines = moved @ slots.weights.T / np.linalg.norm(moved, axis=1, keepdims=True)
        pools = softmax_pool(torch.from_numpy(cosines), groups, beta=beta)
        assert set(pools.argmax(1).tolist()) == {label}


def test_one_label_cannot_be_mistaken():
    found = nearest_slot_radii(np.ones((1, 2)), LabelledSlots(np.eye(2), np.zeros(2, np.int64)))
    assert found.radii[0] == math.inf
    assert found.rivals[0] == -1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "dual", "norm": "linf"}, "`method` must be pair, box or, for l2, dual, got 'dual' for linf"),
        ({"method": "near"}, "`method` must be pair, box or, for l2, dual, got 'near'"),
        ({"method": "box"}, "`box` must be given for the method box"),
        ({"box": (0.0, 0.5), "method": "box"}, "`x` must lie in the box"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        nearest_slot_radii(np.ones((1, 2)), LabelledSlots(np.eye(2), np.arange(2)), **options)


def test_more_slots_than_memory_holds_are_refused():
    many = LabelledSlots(np.ones((16385, 1)), np.arange(16385))
    with pytest.raises(UsageError, match="`slots` must be at most 16,384 to be certified, got 16,385"):
        nearest_slot_radii(np.ones((1, 1)), many)
