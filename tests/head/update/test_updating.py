"""What an update adds, names, reports and leaves out; where new slots go and what their caps may not hold."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_head import cosine, slot_margin
from support.small_models import near, new_animals, three_animals

from slots.cover.greedy import greedy_set_cover
from slots.errors import DataError, UsageError
from slots.features.source import FeatureSource
from slots.head.decision import matching_pairs
from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.model.editing import delete
from slots.update.config import UpdateConfig
from slots.update.drafting.draft import Prototypes
from slots.update.drafting.seeded_slots import constrained_kmeans, cover_labelled, select_pooled
from slots.update.new_caps import make_caps
from slots.update.refining.refinement import refine
from slots.update.refining.rehearsal_batches import RefinementData
from slots.update.report import Contradiction


def quiet(_step, _share):
    pass


def quick(**options):
    return UpdateConfig(epochs=2, **options)


def mixed(seed=1):
    """Six rows of each known animal, then twelve around each of two new axes."""
    known = near(torch.eye(8)[:6:2], count=6, seed=seed).flatten(0, 1).numpy()
    return np.concatenate([known, new_animals(12, seed)])


def test_labels_make_slots_that_answer_with_them():
    model, x = three_animals(), mixed()
    done = model.update(x, {18: "fish", 30: "frog"}, config=quick())
    assert (done.generation, done.n_examples, done.n_unmatched) == (1, 42, 24)
    assert (done.labels_used, done.slots_added, done.clusters_added) == (2, 2, 0)
    assert done.slots.tolist() == [6, 7]
    assert model.class_names == ("cat", "dog", "bird", "fish", "frog")
    assert [model.class_name(int(i)) for i in model.predict(x[18:]).labels] == ["fish"] * 12 + ["frog"] * 12
    assert model.predict(new_animals(30, seed=9)).matched.mean() > 0.6
    assert not three_animals().predict(new_animals(30, seed=9)).matched.any()
    line = model.history[-1]
    assert (line.number, line.what, line.n_slots) == (1, "update", 8)
    assert line.figures["labels_used"] == 2
    assert model.exemplar_features.shape == (8, 4, 8)
    remembered = normalize(model.exemplar_features[6:].float())
    assert bool((remembered @ model.head.centres[6:, :, None] > 0.9)[torch.arange(2), :, 0].all())
    ids = model.head.exemplars[6:]
    assert ((ids >= 18) & (ids < 42)).all(), "ids count in the new data, not among the unmatched"


def test_no_data_and_all_matched_add_no_generation():
    model, x = three_animals(), mixed()
    for rows, labels in ((x[:0], None), (x[:0], np.zeros(0, int)), (x[:18], None), (x[:18], np.zeros(18, int))):
        done = model.update(rows, labels)
        assert (done.generation, done.slots_added, done.n_unmatched, len(model.history)) == (0, 0, 0, 1)
    assert model.class_names == ("cat", "dog", "bird")
    assert model.update(x, {0: "cat"}).slots_added == 0, "only labels make slots where there are any"


def test_labels_against_a_match_are_reported_and_change_nothing():
    model, x = three_animals(), mixed()
    before = model.predict(x[:18])
    labels = np.full(len(x), -1)
    labels[[0, 7, 20]] = [0, 0, 3]
    done = model.update(x, labels, config=quick())
    assert done.contradictions == (Contradiction(example=7, label=0, answer=1, slot=2),)
    assert model.history[-1].figures["contradictions"] == [[7, 0, 1, 2]]
    assert done.labels_used == 1
    after = model.predict(x[:18])
    assert all(np.array_equal(getattr(before, name), getattr(after, name)) for name in vars(before))
    only = three_animals()
    told = only.update(x[:18], np.full(18, 2))
    assert len(told.contradictions) == 12
    assert (told.slots_added, only.head.n_slots) == (0, 6)


def test_without_labels_proposals_become_clusters_whose_ids_are_never_used_again():
    model, x = three_animals(), mixed()
    done = model.update(x, config=quick())
    first = set(model.clusters)
    assert done.clusters_added == done.slots_added == len(first) > 0
    assert first == set(range(3, 3 + len(first)))
    assert model.class_names[3] == "cluster 3"
    delete(model, done.slots.tolist())
    assert model.head.labels.max() == 2
    again = model.update(x, config=quick())
    assert sorted(set(model.head.labels.tolist()) - {0, 1, 2}) == list(again.slots + len(first) - 3)
    top = int(model.head.labels.max())
    assert top == 2 + len(first) + again.clusters_added
    model.update(-mixed()[:18], {0: "fish"}, config=quick())
    assert model.class_names.index("fish") == top + 1


def test_numbers_beyond_the_known_labels_and_names_get_places():
    model, x = three_animals(), mixed()
    model.update(x, {18: 6, 30: "fish"}, config=quick())
    assert model.class_names == ("cat", "dog", "bird", "fish", "4", "5", "6")
    assert sorted(model.head.labels[6:].tolist()) == [3, 6]
    model = three_animals()
    model.update(x, np.where(np.arange(42) == 18, 5, -1), config=quick())
    assert model.class_names == ("cat", "dog", "bird", "3", "4", "5")


def test_queries_without_a_label_become_clusters_beside_the_labelled_ones():
    model, x = three_animals(), mixed()
    proposal = model.propose(x, budget=2)
    first, second = (int(i) for i in proposal.queries)
    done = model.update(x, {first: "fish"}, proposal=proposal, config=quick())
    assert (done.slots_added, done.clusters_added) == (2, 1)
    assert model.class_names[3:] == ("fish", "cluster 4")
    assert model.predict(x[[first, second]]).labels.tolist() == [3, 4]


def test_the_same_update_gives_the_same_bits():
    x, labels = new_animals(150), {0: "fish", 150: "frog"}  # more than one batch
    models = [three_animals() for _ in range(3)]
    for model in models:
        model.head.scale = 8.0  # at 60 the refinement has nothing to learn here
    for model in models[:2]:
        torch.rand(3)  # the caller's own chance does not matter
        model.update(x, labels, config=quick())
    models[2].update(x, labels, config=quick(seed=1))
    states = [{name: value.numpy().tobytes() for name, value in model.state_dict().items()} for model in models]
    assert states[0] == states[1]
    assert states[0] != states[2]
    assert torch.equal(models[0].exemplar_features, models[1].exemplar_features)


def test_an_update_works_where_gradients_are_off_and_turns_none_on():
    model = three_animals()
    with torch.no_grad():
        model.update(mixed(), {18: "fish", 30: "frog"}, config=quick())
        assert not torch.is_grad_enabled()
    twin = three_animals()
    twin.update(mixed(), {18: "fish", 30: "frog"}, config=quick())
    assert torch.equal(model.head.weights, twin.head.weights)
    assert model.head.weights.grad is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kmeans_iterations": -1}, "`kmeans_iterations` must be >= 0, got -1"),
        ({"epochs": -2}, "`epochs` must be >= 0, got -2"),
        ({"rehearsal": -1}, "`rehearsal` must be >= 0"),
        ({"precision": 0.0}, r"`precision` must lie in \(0, 1\]"),
        ({"slot_lr": 0.0}, "`slot_lr` be > 0"),
    ],
)
def test_messages_of_the_options(options, says):
    with pytest.raises(UsageError, match=says):
        UpdateConfig(**options)


def test_messages_of_the_data():
    model, x = three_animals(), mixed()
    with pytest.raises(DataError, match=r"must be for rows 0 to 41, got row 42"):
        model.update(x, {42: "fish"})
    with pytest.raises(DataError, match=r"must be names or numbers >= 0, got -3 for row 0"):
        model.update(x, {0: -3})
    with pytest.raises(DataError, match=r"must be whole numbers >= -1 of shape \(42,\), got float64"):
        model.update(x, np.zeros(42))
    with pytest.raises(DataError, match="must be for the same inputs, got one for 42 and 41 inputs"):
        model.update(x[:41], proposal=model.propose(x))


rows_of = settings(max_examples=40, deadline=None)


@rows_of
@given(st.integers(0, 100_000), st.integers(1, 40), st.floats(0.05, 1.5))
def test_thinned_seeds_hold_all_labelled_and_no_cap_holds_another_label(seed, n, radius):
    rng = np.random.default_rng(seed)
    unit = normalize(torch.from_numpy(rng.normal(size=(n, 3))).float())
    unit[rng.random(n) < 0.1] = 0
    labels = rng.integers(-1, 3, n)
    usable = [i for i in range(n) if labels[i] >= 0 and bool(unit[i].any())]
    picked = cover_labelled(unit, labels, radius)
    assert set(picked.tolist()) <= set(usable)
    assert len(set(picked.tolist())) == len(picked) <= len(usable)
    held = set()
    for j in picked:
        scores = {i: cosine(unit[i].numpy(), unit[j].numpy()) for i in usable}
        rival = max((scores[i] for i in usable if labels[i] != labels[j]), default=-2.0)
        held |= {j} | {i for i in usable if labels[i] == labels[j] and scores[i] > max(rival, np.cos(radius)) - 1e-6}
    assert held == set(usable)


def test_thinned_seeds_of_four_points_by_hand():
    turn = torch.tensor([0.0, 20, 40, 60]).deg2rad()
    unit = torch.stack([turn.cos(), turn.sin()], 1)
    assert cover_labelled(unit, np.array([0, 0, 0, 1]), np.radians(25)).tolist() == [1, 3], (
        "the cap at 40 ends before 60"
    )
    assert cover_labelled(unit, np.array([0, 0, 0, -1]), np.radians(45)).tolist() == [0]
    assert cover_labelled(unit, np.array([0, 1, 0, 1]), np.radians(45)).tolist() == [0, 2, 1, 3]
    assert len(cover_labelled(unit, np.array([-1, -1, -1, -1]), 1.0)) == 0


def source_of(rows):
    return FeatureSource(three_animals().featurizer, np.asarray(rows, np.float32))


def test_voters_are_the_seeds_that_hold_enough_and_the_best_of_each_label():
    x = np.concatenate([new_animals(12), np.eye(8)[:1] * -1.0]).astype(np.float32)
    source, unit = source_of(x), normalize(torch.from_numpy(x))
    known = torch.full((25,), -1)
    seeds, labels = torch.tensor([0, 12, 24, 1]), torch.tensor([3, 4, 5, 3])
    found = select_pooled(source, unit, known, seeds=seeds, labels=labels, radius=0.6)
    assert found.tolist() == [True, True, True, False], "24 stands alone, but its label has no other; 1 adds nothing"
    known[:] = 4  # every example is known to be of label 4
    known[seeds[[0, 2, 3]]] = torch.tensor([3, 5, 3])
    found = select_pooled(source, unit, known, seeds=seeds, labels=labels, radius=0.6)
    assert found.tolist() == [True, True, True, False], "a label speaks even where what it holds is another's"


def test_settled_slots_are_means_of_their_nearest_and_the_rest_stays():
    unit = normalize(torch.tensor([[1.0, 0.2, 0], [1, -0.2, 0], [0, 1, 0.3], [0, 1, -0.3], [0, 0, 1]]))
    prototypes = Prototypes(
        torch.tensor([0, 2, 4]), unit[[0, 2, 4]], torch.tensor([7, 8, 9]), torch.tensor([True, True, False])
    )
    moved = constrained_kmeans(unit, torch.full((5,), -1), prototypes, n_iter=4)
    # A seed counts twice. The fifth example lies nearest to the second slot, since the third does not take part.
    expected = normalize(torch.stack([2 * unit[0] + unit[1], 2 * unit[2] + unit[3] + unit[4]]))
    assert torch.allclose(moved.centres[:2], expected, atol=1e-6)
    assert torch.equal(moved.centres[2], unit[4])
    foreign = torch.tensor([-1, 8, -1, -1, 5])
    apart = constrained_kmeans(unit, foreign, prototypes, n_iter=1)
    assert torch.allclose(apart.centres[0], unit[0], atol=1e-6), "an example known to be another's does not pull"
    drawn = normalize(2 * unit[2] + unit[3] + unit[1])
    assert torch.allclose(apart.centres[1], drawn, atol=1e-6), "it pulls the nearest slot of its own label"
    assert torch.equal(constrained_kmeans(unit, foreign, prototypes, n_iter=0).centres, prototypes.centres)


@rows_of
@given(st.integers(0, 100_000), st.floats(0.5, 1.0), st.booleans())
def test_no_new_cap_holds_what_is_known_or_remembered_to_be_anothers(seed, precision, disjoint):
    rng, model = np.random.default_rng(seed), three_animals()
    x = (rng.normal(size=(40, 8)) * [[2, 1, 1, 1, 1, 1, 3, 3]]).astype(np.float32)
    old = model.head.n_slots
    labels = np.where(rng.random(40) < 0.6, rng.integers(0, 5, 40), -1)
    done = model.update(x, labels, config=quick(precision=precision, disjoint=disjoint))
    caps = model.head.caps()
    for k in range(old, model.head.n_slots):
        for i in done.proposal.unmatched:
            if labels[i] >= 0 and labels[i] != caps.labels[k]:
                assert not slot_margin([x[i]], caps, k)[1]
    remembered = model.exemplar_features[:old].flatten(0, 1).float()
    owner = caps.labels[:old].repeat_interleave(4)
    example, slot = matching_pairs(remembered[:, None], caps)
    assert not ((slot >= old) & (caps.labels[slot] != owner[example])).any()
    assert bool((model.head.support_thresholds[old:] >= np.cos(done.proposal.radius) - 1e-6).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(1, 130))
def test_voters_are_those_of_one_whole_matrix_in_any_blocks(seed, n, step):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    unit, source = normalize(torch.from_numpy(x)), source_of(x)
    seeds = torch.from_numpy(rng.permutation(n)[: max(1, n // 4)])
    labels = torch.from_numpy(rng.integers(0, 3, len(seeds)))
    known = torch.from_numpy(np.where(rng.random(n) < 0.3, rng.integers(0, 3, n), -1))
    covers = (np.cos(0.9) < unit[seeds] @ unit.T) & ((known < 0) | (known == labels[:, None]))
    covers[torch.arange(len(seeds)), seeds] = True
    wanted = torch.zeros(len(seeds), dtype=torch.bool)
    wanted[greedy_set_cover(covers, min_gain=2)] = True
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        if not wanted[mine].any():
            wanted[mine[covers.sum(1)[mine].argmax()]] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slots.features.featurizer._BLOCK_FLOATS", step * max(32, len(seeds)))
        found = select_pooled(source, unit, known, seeds=seeds, labels=labels, radius=0.9)
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("precision", [1.0, 0.8])
def test_caps_are_the_same_whatever_is_held_at_once(precision, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 8)).astype(np.float32)
    unit, seeds = normalize(torch.from_numpy(x)), torch.arange(0, 80, 5)
    marks = torch.from_numpy(rng.integers(0, 4, 80))
    prototypes = Prototypes(seeds, unit[seeds], marks[seeds], torch.ones(16, dtype=torch.bool))

    def caps():
        return make_caps(
            source_of(x),
            unit[seeds],
            prototypes,
            marks,
            known=torch.where(torch.arange(80) % 3 == 0, marks, -1),
            old=three_animals().head.caps(),
            memory=(unit[:10], marks[:10]),
            precision=precision,
            radius=0.5,
            disjoint=False,
        )

    whole = caps()
    assert (whole.members > 0).any()
    for at_once in (1, 3, 5):
        monkeypatch.setattr("slots.update.new_caps._HELD", at_once * 80)
        parted = caps()
        assert torch.allclose(parted.precision, whole.precision, atol=3e-7)
        assert torch.allclose(parted.support, whole.support, atol=3e-7)
        assert torch.equal(parted.exemplars, whole.exemplars)
        assert torch.equal(parted.members, whole.members)


def test_caps_of_two_slots_by_hand():
    turn = torch.tensor([0.0, 10, 20, 60, 70, 200]).deg2rad()
    unit = torch.stack([turn.cos(), turn.sin()] + [torch.zeros(6)] * 6, 1)
    prototypes = Prototypes(torch.tensor([0, 4]), unit[[0, 4]], torch.tensor([3, 4]), torch.tensor([True, True]))
    memory = normalize(torch.tensor([[0.0, -1.0, 0, 0, 0, 0, 0, 0]])), torch.tensor([0])
    caps = make_caps(
        source_of(unit),
        unit[[0, 4]],
        prototypes,
        torch.tensor([3, 3, 3, 4, 4, 0]),
        known=torch.tensor([3, -1, -1, -1, 4, 0]),
        old=three_animals().head.caps(),
        memory=memory,
        precision=1.0,
        radius=0.3,
        disjoint=False,
    )
    reach = caps.precision.double().arccos().rad2deg().tolist()
    assert reach == pytest.approx([60, 50], abs=0.01), "to the nearest example of another label, asked for or taken"
    assert caps.support.double().arccos().rad2deg().tolist() == pytest.approx([np.degrees(0.3), 10], abs=0.01)
    assert caps.exemplars.tolist() == [[0, 1, 2, -1], [4, 3, -1, -1]]
    assert caps.members.tolist() == [3, 2]


def lesson(seed=0):
    x = mixed(seed)
    labels = torch.tensor([0] * 6 + [1] * 6 + [2] * 6 + [3] * 12 + [4] * 12)
    model = three_animals()
    memory = normalize(model.exemplar_features.float()).flatten(0, 1)
    return model, RefinementData(
        FeatureSource(model.featurizer, x), labels, memory, model.head.labels.repeat_interleave(4)
    )


def loss(model, weights, labels, taught):
    """Cross-entropy of the pooled scores of old and new slots on the lesson, in one pass."""
    head, unit = model.head, normalize(torch.from_numpy(taught.source.x))
    every = torch.cat([head.labels, labels])
    scores = torch.cat([unit @ head.weights.detach().T, unit @ normalize(weights).T], 1)
    pooled = softmax_pool(scores, class_groups(every, every.unique()), beta=head.beta)
    return float(torch.nn.functional.cross_entropy(head.scale * pooled, taught.labels))


def test_refinement_lowers_the_loss_and_moves_new_slots_only():
    model, taught = lesson()
    model.head.scale = 8.0  # at 60 the start has nothing to learn
    before = copy.deepcopy(model.state_dict())
    start = normalize(torch.eye(8)[6:] + 0.8 * torch.eye(8)[[0, 2]])
    labels, kept = torch.tensor([3, 4]), start.clone()
    found = refine(model.head, start, labels, taught, epochs=10, lr=1e-2, progress=quiet)
    assert loss(model, found, labels, taught) < 0.8 * loss(model, start, labels, taught)
    assert torch.equal(start, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    assert torch.equal(found, refine(model.head, start, labels, taught, epochs=10, lr=1e-2, progress=quiet))


def test_only_what_is_remembered_has_the_margin_of_the_memory():
    model, taught = lesson()
    start, labels = normalize(torch.eye(8)[6:] + 0.8 * torch.eye(8)[[0, 2]]), torch.tensor([3, 4])
    alone = RefinementData(taught.source, taught.labels, taught.memory[:0], taught.memory_labels[:0])

    def refined(data, wide):
        return refine(model.head, start, labels, data, epochs=3, margin=0.01, memory_margin=wide, progress=quiet)

    assert torch.equal(refined(alone, 0.4), refined(alone, 0.01))
    assert not torch.allclose(refined(taught, 0.4), refined(taught, 0.01))


def test_refinement_has_nothing_to_do():
    model, taught = lesson()
    start, labels = 2 * torch.eye(8)[6:], torch.tensor([3, 4])
    assert torch.equal(refine(model.head, start, labels, taught, epochs=0, progress=quiet), torch.eye(8)[6:])
    stranger = RefinementData(
        taught.source.take(np.arange(0)), taught.labels[:0], taught.memory[:0], taught.memory_labels[:0]
    )
    assert torch.equal(refine(model.head, start, labels, stranger, progress=quiet), torch.eye(8)[6:])


def test_slots_that_stand_for_too_little_do_not_vote():
    model, x = three_animals(), mixed()
    done = model.update(x, {18: "fish", 19: "fish", 30: "frog"}, config=quick())
    assert done.slots_added == 3
    trained = model.head.pooled[6:]
    assert int(trained.sum()) == 2, "two fish of one place need one vote"
    silent = int((~trained).nonzero()[0, 0])
    assert torch.allclose(model.head.centres[6 + silent], normalize(torch.from_numpy(x[18 + silent])), atol=1e-6)
    assert model.predict(x[[18, 19]]).labels.tolist() == [3, 3]


def test_the_report_is_told_steps_and_shares():
    seen = SimpleNamespace(steps=[], shares=[])

    def report(step, share):
        seen.steps.append(step)
        seen.shares.append(share)

    three_animals().update(mixed(), {18: "fish", 30: "frog"}, config=quick(), progress=report)
    assert {"matching", "features", "refining"} <= set(seen.steps)
    assert min(seen.shares) >= 0
    assert max(seen.shares) <= 1
