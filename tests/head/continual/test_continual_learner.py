"""`ContinualSlots`: learning in one pass, and answers that stand."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid
from sklearn.utils.estimator_checks import check_estimator

from slots.continual.learner import ContinualSlots
from slots.continual.pca_slots import OPEN
from slots.continual.sealed_match import match
from slots.errors import DataError, UsageError

X, Y = load_digits(return_X_y=True)


def small(**options: object) -> ContinualSlots:
    return ContinualSlots(
        **{"pending": 40, "held_out": 0, "probation": 150, "reach": 1.0, "lead": 0.8, "random_state": 0} | options
    )


def by_class(learner: ContinualSlots, labels: range, n: int = 120) -> ContinualSlots:
    for label in labels:
        mine = np.flatnonzero(label == Y)[:n]
        learner.partial_fit(X[mine], Y[mine])
    return learner


def test_classes_one_after_the_other_are_all_remembered() -> None:
    learner = by_class(small(reach=-0.5, lead=0.6), range(10), n=1000)
    assert learner.score(X, Y) > 0.96
    assert learner.decide(X).matched.mean() > 0.1
    assert (learner.decide(X).labels == Y)[learner.decide(X).matched].mean() > 0.99


@functools.cache
def learned_at_once() -> ContinualSlots:
    """A learner of 300 rows that came together; nobody changes it."""
    return small(held_out=20).partial_fit(X[:300], Y[:300])


@given(cuts=st.lists(st.integers(1, 299), max_size=6))
@settings(max_examples=10, deadline=None)
def test_the_state_does_not_depend_on_how_the_stream_is_cut(cuts: list[int]) -> None:
    whole, parts = learned_at_once(), small(held_out=20)
    for rows in np.split(np.arange(300), sorted(set(cuts))):
        parts.partial_fit(X[rows], Y[rows])
    for name in (
        "codes",
        "scales",
        "variances",
        "residual",
        "labels",
        "generations",
        "limits",
        "nearest_foreign_energy",
        "moments",
    ):
        assert np.array_equal(getattr(whole.slots_, name), getattr(parts.slots_, name)), name
    assert np.array_equal(whole.evidence(X[300:320]), parts.evidence(X[300:320]))


def border_rows(learner: ContinualSlots, rng: np.random.Generator) -> np.ndarray:
    """Rows on both sides of the borders of matching, as near as floats go.

    Whether a slot matches is asked of the slots themselves: where none does, a whole decision makes the linear
    classifier anew each time, unless the learner was settled.
    """
    inside = X[learner.decide(X).matched][:12]
    outside = rng.normal(size=inside.shape)
    for _ in range(55):
        middle = (inside + outside) / 2
        matched = match(learner.slots_, learner._rows(middle), lead=learner.lead)[:, None] >= 0
        inside, outside = np.where(matched, middle, inside), np.where(matched, outside, middle)
    return np.concatenate([inside, outside])


@given(seed=st.integers(0, 10_000), again=st.booleans())
@settings(max_examples=6, deadline=None)
def test_matched_answers_never_change_for_any_row(seed: int, again: bool) -> None:
    rng = np.random.default_rng(seed)
    learner = by_class(small(), range(5))
    rows = [X, rng.normal(size=(100, 64)), X[rng.integers(len(X), size=100)] + rng.normal(size=(100, 64))]
    asked = np.concatenate([*rows, border_rows(learner, rng)])
    before, sealed = learner.decide(asked), learner.slots_.generations != OPEN
    assert before.matched.sum() > 50
    kept = learner.slots_.take(sealed)
    if again:  # the same rows under any labels are the hardest stream there is
        learner.partial_fit(asked[:700], rng.integers(12, size=700))
    else:
        by_class(learner, range(5, 10))
    after = learner.decide(asked)
    assert len(learner.slots_) > len(kept)
    for name in ("codes", "scales", "variances", "residual", "labels", "limits"):
        assert np.array_equal(getattr(kept, name), getattr(learner.slots_, name)[np.flatnonzero(sealed)]), name
    was = before.matched
    assert after.matched[was].all()
    assert (after.labels[was] == before.labels[was]).all()
    assert (after.slots[was] == before.slots[was]).all()


def test_a_row_is_answered_alike_alone_and_among_others() -> None:
    rng = np.random.default_rng(0)
    learner = by_class(small(), range(6)).settle()
    rows = np.concatenate([border_rows(learner, rng), X[:50]])
    together = learner.decide(rows)
    alone = [learner.decide(row[None]) for row in rows]
    assert together.matched.tolist() == [bool(it.matched[0]) for it in alone]
    assert together.slots.tolist() == [int(it.slots[0]) for it in alone]


def test_settling_changes_no_answer_of_the_moment() -> None:
    learner = small(probation=100_000, held_out=20).partial_fit(X[:300], Y[:300])
    waiting = learner.predict(X[300:500])
    assert (learner.settle().predict(X[300:500]) == waiting).all()
    assert len(learner._waiting) == 0


def test_a_class_that_returns_in_another_form_gets_new_slots() -> None:
    learner = by_class(small(), range(4))
    first = len(learner.slots_)
    mine = Y == 7
    learner.partial_fit(X[mine], np.zeros(mine.sum(), int))
    assert len(learner.slots_) > first
    assert (learner.predict(X[mine]) == 0).mean() > 0.9
    assert (learner.predict(X[Y == 0]) == 0).mean() > 0.9


def test_memory_is_all_that_is_kept_and_stays_far_below_the_stream() -> None:
    learner = by_class(small(n_directions=4, first_share=50, slot_share=60), range(10), n=1000)
    kept = sum(it.nbytes for it in vars(learner.slots_).values()) + learner.evidence_.means.nbytes
    waiting = learner._waiting.codes.nbytes + learner._waiting.scales.nbytes
    assert learner.nbytes >= kept + waiting
    assert learner.nbytes < X.astype(np.uint8).nbytes


def test_weights_come_from_examples_that_nothing_has_learned() -> None:
    learner = small(held_out=20).partial_fit(X[:400], Y[:400])
    start = learner.evidence_.weights.copy()
    assert (start == start[0]).all()
    held = learner._held_out()
    assert 0 < held.sum() <= 20
    settled = learner._settled()
    assert np.ptp(settled.evidence_.weights) > 0.1
    assert settled._learned.sum() == 400
    assert (learner.evidence_.weights == start).all()
    assert np.ptp(small().partial_fit(X[:400], Y[:400])._settled().evidence_.weights) == 0


def test_what_answers_need_is_kept_by_settling_and_counted() -> None:
    learner = small(held_out=20).partial_fit(X[:300], Y[:300])
    light = learner._settled().nbytes
    heavy = learner.settle().nbytes
    assert heavy == light + learner._experts.nbytes > light
    again = learner.evidence(X[300:310])
    learner._experts = None
    assert np.array_equal(learner.evidence(X[300:310]), again)
    assert learner.settle().partial_fit(X[300:302], Y[300:302]).nbytes < heavy


def test_a_learner_pickled_before_examples_were_held_out_goes_on() -> None:
    learner = small().partial_fit(X[:500], Y[:500])
    state = copy.deepcopy(learner.__getstate__())
    del state["held_out"], state["_draws"], state["_experts"], state["_waiting"].ranks
    del state["evidence_"].weights
    state["evidence_"].squares = np.ones(2)
    old = ContinualSlots.__new__(ContinualSlots)
    old.__setstate__(state)
    assert (old.predict(X[:500]) == learner.predict(X[:500])).mean() > 0.98
    assert np.array_equal(old.slots_.codes, learner.slots_.codes)
    assert old.partial_fit(X[500:], Y[500:]).score(X, Y) > 0.95
    assert pickle.loads(pickle.dumps(old)).nbytes == old.nbytes


def test_classes_of_few_examples_and_weak_features_are_told_apart_as_well_as_by_lda() -> None:
    rng = np.random.default_rng(0)
    spread = np.diag(10.0 ** -np.linspace(0, 1.5, 30))
    centres = rng.normal(size=(40, 30)) @ spread**0.75
    labels = np.repeat(np.arange(40), 15)
    rows = centres[labels] + rng.normal(size=(600, 30)) @ spread
    asked = centres[labels] + rng.normal(size=(600, 30)) @ spread
    found = ContinualSlots(random_state=0).fit(rows, labels).score(asked, labels)
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(rows, labels).score(asked, labels)
    means = NearestCentroid().fit(rows, labels).score(asked, labels)
    assert found > peer - 0.03 > means


def test_names_are_answered_and_columns_are_sorted() -> None:
    names = np.array(["two", "one"])
    learner = small().partial_fit(X[Y < 2], names[Y[Y < 2]])
    assert learner.classes_.tolist() == ["one", "two"]
    rows = X[Y < 2][:20]
    assert (learner.predict(rows) == learner.classes_[learner.evidence(rows).argmax(1)]).all()
    learner.partial_fit(X[Y == 2], np.array(["a third"] * int((Y == 2).sum())))
    assert learner.evidence(rows).shape == (20, 3)
    assert (learner.predict(X[Y == 2]) == "a third").mean() > 0.9


def test_it_is_a_classifier_of_scikit_learn() -> None:
    found = check_estimator(small(pending=30, held_out=15), on_skip=None, on_fail=None)
    assert [(it["check_name"], str(it["exception"])) for it in found if it["status"] == "failed"] == []
    assert len(found) > 40


def test_one_class_and_one_row() -> None:
    learner = small().partial_fit(X[:1], ["only"])
    assert learner.predict(X[:5]).tolist() == ["only"] * 5


def test_a_second_fit_forgets_and_a_clone_is_equal() -> None:
    learner = small().fit(X[:200], Y[:200])
    twin = clone(learner).fit(X[:200], Y[:200])
    assert np.array_equal(learner.evidence(X[:9]), twin.evidence(X[:9]))
    assert small().fit(X, Y).fit(X[:200], Y[:200]).nbytes == learner.nbytes


def test_other_seeds_give_other_slots() -> None:
    first, second = (small(random_state=seed, first_share=3).fit(X[:300], Y[:300]) for seed in (0, 1))
    assert not np.array_equal(first.slots_.codes, second.slots_.codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pending": 0}, "`pending` must be >= 1, got 0. Leave it out"),
        ({"held_out": -1}, "`held_out` must be >= 0, got -1. 0 weighs all evidence alike"),
        ({"n_directions": 0}, "`n_directions` must be >= 1, got 0"),
        ({"probation": -1}, "`probation` must be >= 0, got -1. 0 seals"),
        ({"lead": 1.0}, r"`lead` must lie in \(0, 1\), got 1.0. 0.6 is a good start"),
    ],
)
def test_parameters_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small(**options).fit(X[:50], Y[:50])


def test_labels_of_another_kind() -> None:
    learner = small().fit(X[:50], Y[:50])
    with pytest.raises(DataError, match="`y` must hold labels of the same kind as before, got <U1 after int64"):
        learner.partial_fit(X[:2], ["a", "b"])
