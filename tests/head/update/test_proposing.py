"""Proposals against literal greedy coverage and every subset; what is asked, in which order, and what is not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_update as literal
from support.nets import TinyNet, strokes
from support.small_models import new_animals, three_animals

import slots.features.featurizer
import slots.features.source
import slots.update.queries
from slots.cover.bits import unpack_bits
from slots.errors import DataError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.update.queries import USUAL_RADIUS, cap_words, median_radius


def picky(feature=3):
    """A model of feature rows that matches next to nothing."""
    head = IncrementalNeuralHashing(feature)
    head.add_slots(torch.eye(feature)[:1], torch.tensor([0]), precision_thresholds=torch.tensor([0.97]))
    return SlotModel(Preprocessing("features", (feature,)), head)


def picky_images():
    """The same with a network and nine views."""
    torch.manual_seed(0)
    head = IncrementalNeuralHashing(6)
    head.add_slots(-torch.ones(1, 6), torch.tensor([0]), precision_thresholds=torch.tensor([0.5]))
    return SlotModel(Preprocessing("images", (1, 8, 8)), head, backbone=TinyNet().eval(), views="shift1")


def literal_sets(model, x, proposal, max_candidates):
    """Examples under each candidate's cap, by their row in ``x``."""
    rows = proposal.unmatched
    with torch.no_grad():
        features = model.features(x[rows]).numpy()
    unusable = {i for i in range(len(rows)) if not features[i, 0].any()}
    stride = max(1, math.ceil((len(rows) - len(unusable)) / max_candidates))
    sets = literal.covers(features, unusable, proposal.radius, stride)
    return {int(rows[j]): {int(rows[i]) for i in held} for j, held in sets.items()}


def literal_groups(sets, picks):
    """What each pick holds that none before it does: the pick itself, if it is left, then the others ascending."""
    groups, taken = [], set()
    for pick in picks:
        left = sorted(sets[pick] - taken)
        groups.append([i for i in left if i == pick] + [i for i in left if i != pick])
        taken |= sets[pick]
    return groups


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    n=st.integers(0, 30),
    budget=st.one_of(st.none(), st.integers(0, 6)),
    stop_below=st.one_of(st.none(), st.integers(1, 4)),
    radius=st.one_of(st.floats(0.05, 1.6), st.just(1e-5)),  # so small that a cap may miss its own middle
    max_candidates=st.sampled_from([3, 7, 2000]),
)
def test_a_proposal_is_literal_greedy_coverage(seed, n, budget, stop_below, radius, max_candidates):
    rng, model = np.random.default_rng(seed), picky()
    x = (rng.normal(size=(n, 3)) * rng.uniform(0.1, 9, (n, 1))).astype(np.float32)
    x[rng.random(n) < 0.1] = 0
    found = model.propose(x, budget=budget, stop_below=stop_below, radius=radius, max_candidates=max_candidates)
    assert found.unmatched.tolist() == np.flatnonzero(~model.predict(x).matched).tolist()
    sets = literal_sets(model, x, found, max_candidates)
    least = stop_below or (1 if budget is not None else max(2, len(found.unmatched) // 500))
    picks, gains, next_gain = literal.greedy(sets, budget=budget, least=least)
    assert (found.queries.tolist(), found.gains.tolist(), found.next_gain) == (picks, gains, next_gain)
    assert found.covered == len(set().union(*(sets[j] for j in picks))) <= found.bound <= len(found.unmatched)
    assert sorted(found.gains, reverse=True) == found.gains.tolist()
    assert [group.tolist() for group in found.groups] == literal_groups(sets, picks)
    assert [len(group) for group in found.groups] == gains
    assert all(group.dtype == np.int64 for group in found.groups)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 11), st.integers(0, 4), st.floats(0.2, 1.2))
def test_no_choice_of_as_many_covers_more_than_the_bound(seed, n, budget, radius):
    rng, model = np.random.default_rng(seed), picky()
    x = rng.normal(size=(n, 3)).astype(np.float32)
    found = model.propose(x, budget=budget, radius=radius)
    sets = literal_sets(model, x, found, 2000)
    best = literal.best_coverage(sets, len(found.queries))
    assert best <= found.bound
    assert found.covered >= (1 - 1 / math.e) * best


def test_the_bound_is_tighter_than_everything():
    x = np.concatenate([new_animals(10), -new_animals(3)])
    found = three_animals().propose(x, budget=1, radius=0.5)
    assert (found.covered, found.bound, found.next_gain) == (10, 10, 10)
    assert len(found.unmatched) == 26
    assert str(found) == (
        "26 of 26 inputs are unmatched. These 1 labels cover 38.5 % of them; no 1 could cover more than 38.5 %. "
        "The next label would cover 10 more."
    )


def test_a_query_that_an_earlier_group_holds_is_not_in_its_own():
    angles = np.radians(np.array([40, 0, -40, -30, -20, 80, 82]) + 120.0)
    x = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1).astype(np.float32)
    found = picky().propose(x, radius=math.radians(45))
    assert found.queries.tolist() == [
        1,
        0,
    ]  # the first cap holds 40 degrees, too; that one's own holds 80 and 82 beside
    assert [group.tolist() for group in found.groups] == [[1, 0, 2, 3, 4], [5, 6]]


def test_images_are_covered_by_their_best_view():
    model, (x, _) = picky_images(), strokes(40)
    found = model.propose(x, budget=5, radius=0.05)
    sets = literal_sets(model, x, found, 2000)
    picks, gains, next_gain = literal.greedy(sets, budget=5, least=1)
    assert (found.queries.tolist(), found.gains.tolist(), found.next_gain) == (picks, gains, next_gain)
    assert 1 < gains[0] < 40
    assert [group.tolist() for group in found.groups] == literal_groups(sets, picks)
    first_views = {j: {i for i in held if i == j} for j, held in sets.items()}
    assert first_views != sets


@pytest.mark.parametrize("kind", ["features", "images"])
def test_blocks_of_any_size_give_the_same_proposal(monkeypatch, kind):
    if kind == "features":
        model, x = three_animals(), np.concatenate([new_animals(80), -new_animals(40, seed=3)])
    else:
        model, x = picky_images(), strokes(150)[0]
    whole = model.propose(x, radius=0.2)
    assert len(whole.queries) > 1
    for floats in (1, 3000, 30_000):
        monkeypatch.setattr(slots.features.featurizer, "_BLOCK_FLOATS", floats)
        monkeypatch.setattr(slots.update.queries, "_TILE", floats)
        for kept in (0, 1 << 30):
            monkeypatch.setattr(slots.features.source, "KEPT_BYTES", kept)
            parts = model.propose(x, radius=0.2)
            for name in ("unmatched", "queries", "gains"):
                assert np.array_equal(getattr(parts, name), getattr(whole, name)), name
            assert (parts.next_gain, parts.bound) == (whole.next_gain, whole.bound)


def test_what_is_matched_is_neither_asked_nor_counted():
    model = three_animals()
    known, fresh = model.exemplar_features[:, 0].float().numpy(), new_animals(12)
    found = model.propose(np.concatenate([known, fresh]))
    assert found.unmatched.tolist() == list(range(6, 30))
    assert set(found.queries.tolist()) <= set(range(6, 30))
    assert found.prediction.matched.tolist() == [True] * 6 + [False] * 24
    assert found.gains.sum() <= 24


def test_nothing_to_ask():
    model = three_animals()
    for x in (np.zeros((0, 8), np.float32), model.exemplar_features[:, 0].float().numpy()):
        found = model.propose(x)
        assert (len(found.queries), found.next_gain, found.bound, found.covered) == (0, 0, 0, 0)
        assert str(found) == "Every input is matched; there is nothing to ask."
    zeros = model.propose(np.zeros((5, 8), np.float32), stop_below=1)
    assert len(zeros.unmatched) == 5, "no direction, no match"
    assert len(zeros.queries) == 0, "and no cap"


def test_a_budget_of_none_stops_where_a_label_earns_too_little():
    x = np.concatenate([new_animals(12), -np.eye(8, dtype=np.float32)[:3]])
    found = three_animals().propose(x, radius=0.6)
    assert found.gains.tolist() == [12, 12], "three that stand alone are not worth a label"
    assert found.next_gain == 1
    assert three_animals().propose(x, radius=0.6, stop_below=1).gains.tolist() == [12, 12, 1, 1, 1]
    assert three_animals().propose(x, radius=0.6, budget=4).gains.tolist() == [12, 12, 1, 1]
    assert three_animals().propose(x, radius=0.6, budget=0).next_gain == 12


def test_the_radius_is_the_median_of_the_present_caps():
    model = three_animals()
    assert median_radius(model.head, fallback=USUAL_RADIUS) == pytest.approx(math.acos(0.85), abs=1e-6)
    model.head.support_thresholds[:] = torch.tensor([0.9, 0.8, 2.0, -2.0, 0.5, -1.0])
    assert median_radius(model.head, fallback=USUAL_RADIUS) == pytest.approx(math.acos(0.8), abs=1e-6), (
        "those without a limit teach nothing"
    )
    small = {"fallback": 0.1, "smallest": 0.7}
    assert median_radius(model.head, **small) == pytest.approx(math.acos(0.5), abs=1e-6), "smaller caps do not count"
    assert median_radius(model.head, fallback=0.1, smallest=3.2) == 0.1
    model.head.support_thresholds[:] = -2.0
    assert median_radius(model.head, fallback=USUAL_RADIUS) == 0.5
    assert model.propose(new_animals(3)).radius == 0.5
    assert model.propose(new_animals(3), radius=0.1).radius == 0.1


def test_candidates_are_thinned_evenly_when_there_are_too_many():
    x = new_animals(12)
    found = three_animals().propose(x, radius=1e-3, stop_below=1, max_candidates=6)
    assert found.queries.tolist() == [0, 4, 8, 12, 16, 20]
    unit = normalize(torch.from_numpy(x))
    assert float((unit @ unit.T - torch.eye(24)).max()) < math.cos(1e-3), "no two lie that close"


@pytest.mark.parametrize(
    ("options", "says"),
    [({"budget": -1}, "`budget` must be >= 0, got -1"), ({"stop_below": 0}, "`stop_below` must be >= 1, got 0")],
)
def test_messages(options, says):
    with pytest.raises(UsageError, match=says):
        three_animals().propose(new_animals(2), **options)
    with pytest.raises(DataError, match="must be float features of shape"):
        three_animals().propose(np.zeros((2, 3), np.float32))


def test_which_rows_a_cap_holds_does_not_depend_on_what_they_come_with():
    """Not even where the edge of a cap goes through them, as it does for many here."""
    x = np.random.default_rng(0).integers(-3, 4, (200, 4)).astype(np.float32)
    x, model = x[x.any(1)], picky(4)
    caps, nowhere, radius = torch.from_numpy(x[:50]), np.full(50, -1), math.acos(0.5)
    together = cap_words(model.snapshot().source(x), caps, radius, places=nowhere)
    alone = [cap_words(model.snapshot().source(row[None]), caps, radius, places=nowhere) for row in x]
    held = unpack_bits(together, len(x))
    assert torch.equal(held, torch.cat([unpack_bits(it, 1) for it in alone], 1))
    whole = x.astype(int)
    doubled, lengths = 2 * whole[:50] @ whole.T, (whole[:50] ** 2).sum(1)[:, None] * (whole**2).sum(1)
    assert np.array_equal(held.numpy(), (doubled > 0) & (doubled**2 > lengths))
    assert ((doubled > 0) & (doubled**2 == lengths)).sum() > 40
    own = unpack_bits(cap_words(model.snapshot().source(x), caps, 0.0, places=np.arange(50)), len(x))
    assert own.nonzero().tolist() == [[i, i] for i in range(50)]
