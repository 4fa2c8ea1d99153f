"""What is kept of tensors is never out of date: a model that was changed answers and judges as a fresh one does."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import mixture, new_animals, three_animals

import slots
from slots.head.decision import decide
from slots.kept import Kept, digest
from slots.model.editing import delete, merge, relabel

CONFIG = slots.TrainConfig(epochs=2, slots_per_class=3, held_out=0.3, device="cpu")


def counted():
    """A function that makes the numbers of its tensors, and the calls that it has had."""
    calls = []

    def made(kept, *tensors, shares=False):
        def make():
            calls.append(1)
            return [it.clone() for it in tensors]

        return kept(*tensors, make=make, shares=shares)

    return made, calls


def test_the_same_tensors_are_made_once():
    (made, calls), kept, numbers = counted(), Kept(), torch.arange(7.0)
    first = made(kept, numbers)
    assert made(kept, numbers) is first
    assert made(kept, numbers.clone()) is first
    assert len(calls) == 1


def by_torch(values):
    values[3] += 1


def by_data(values):
    values.data[3] += 1


def by_numpy(values):
    values.detach().numpy()[3] += 1


def by_swap(values):
    values[[0, 1]] = values[[1, 0]]


@pytest.mark.parametrize("change", [by_torch, by_data, by_numpy, by_swap])
def test_any_change_in_place_is_seen(change):
    (made, calls), kept, numbers = counted(), Kept(), torch.arange(7.0)
    made(kept, numbers)
    change(numbers)
    assert torch.equal(made(kept, numbers)[0], numbers)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "other", [torch.zeros(4, 2), torch.zeros(8), torch.zeros(2, 4, dtype=torch.int32), torch.zeros(2, 5)]
)
def test_other_shapes_and_kinds_are_others(other):
    (made, _), kept = counted(), Kept()
    made(kept, torch.zeros(2, 4))
    found = made(kept, other)[0]
    assert (found.shape, found.dtype) == (other.shape, other.dtype)


def test_as_many_as_it_may_keep_are_kept_those_used_last():
    (made, calls), kept = counted(), Kept(most_values=2)
    a, b, c = (torch.full((3,), float(k)) for k in range(3))
    for numbers in (a, b, a, c, a):
        assert torch.equal(made(kept, numbers)[0], numbers)
    assert (len(kept), len(calls)) == (2, 3)
    made(kept, b)
    assert len(calls) == 4


def test_what_is_shared_is_not_given_for_another_tensor_of_the_same_content():
    (made, calls), kept, numbers = counted(), Kept(), torch.arange(7.0)
    made(kept, numbers, shares=True)
    made(kept, numbers, shares=True)
    assert len(calls) == 1
    made(kept, numbers.clone(), shares=True)
    assert len(calls) == 2


def test_of_more_numbers_nothing_is_kept():
    (made, calls), kept = counted(), Kept(most_numbers=7)
    for _ in range(2):
        made(kept, torch.zeros(7))
        made(kept, torch.zeros(5), torch.zeros(3))
    assert (len(kept), len(calls)) == (1, 3)


def test_copies_start_with_nothing():
    (made, _), kept = counted(), Kept(most_values=1, most_numbers=9)
    made(kept, torch.zeros(7))
    for twin in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert len(twin) == 0
        made(twin, torch.zeros(10))
        assert len(twin) == 0
        made(twin, torch.zeros(9))
        made(twin, torch.ones(9))
        assert len(twin) == 1
    assert len(kept) == 1


def test_numbers_of_two_bytes_have_a_digest():
    values = torch.arange(9.0).bfloat16()
    before = digest(values)
    values[8] = 1.0
    assert digest(values) != before


def assert_fresh(model, x):
    """The model answers and judges as one that was never asked before, for one row and for many."""
    twin = copy.deepcopy(model)
    twin.head.load_state_dict({name: value.clone() for name, value in model.head.state_dict().items()})
    for rows in (x[:1], x):
        asked, fresh = model.predict(rows), decide(twin.features(rows), replace(twin.head.caps(), kept=None))
        for name, values in vars(fresh).items():
            np.testing.assert_array_equal(getattr(asked, name), values, err_msg=name)
        if model.novelty is not None:
            known = copy.deepcopy(twin.novelty)
            twin.novelty = known
            asked, fresh = (
                model.assess_novelty(rows, false_alarm_rate=0.2),
                twin.assess_novelty(rows, false_alarm_rate=0.2),
            )
            for name, values in vars(fresh).items():
                np.testing.assert_array_equal(getattr(asked, name), values, err_msg=name)


@pytest.fixture(scope="module")
def fitted():
    x, y = mixture(3, 100, spread=0.3)
    model, _ = slots.fit(x, y, class_names=("cat", "dog", "bird"), config=CONFIG)
    return model


def rows(seed, n=40):
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


def turned(head):
    return torch.nn.functional.normalize(head.weights.detach().flip(0) + 0.1)


CHANGES = {
    "weights in place": lambda m: m.head.weights.data.copy_(turned(m.head)),
    "weights through numpy": lambda m: np.copyto(m.head.weights.detach().numpy(), turned(m.head).numpy()),
    "one number": lambda m: m.head.weights.detach()[0].mul_(-1),
    "other weights": lambda m: setattr(m.head, "weights", torch.nn.Parameter(turned(m.head))),
    "centres in place": lambda m: m.head.centres.copy_(turned(m.head)),
    "centres through numpy": lambda m: np.copyto(m.head.centres.numpy(), turned(m.head).numpy()),
    "labels": lambda m: m.head.labels.copy_(m.head.labels.flip(0)),
    "who votes": lambda m: m.head.pooled[: m.head.n_slots // 2].zero_(),
    "beta": lambda m: setattr(m.head, "beta", 1.0),
    "generations": lambda m: m.head.generations[::2].fill_(1),
    "slots added": lambda m: m.head.add_slots(-turned(m.head)[:2], torch.tensor([0, 2])),
    "slots dropped": lambda m: m.head.drop_slots(torch.arange(m.head.n_slots) % 2 == 0),
    "relabelled": lambda m: relabel(m, [0], "fish"),
    "merged": lambda m: merge(m, ["cat"], "dog"),
    "deleted": lambda m: delete(m, [1]),
    "updated": lambda m: m.update(np.float32([[0, 0, 0, 0, 0, 1]] * 6), {0: "mouse"}),
    "loaded": lambda m: m.head.load_state_dict(
        {**m.head.state_dict(), "weights": turned(m.head), "centres": turned(m.head)}
    ),
    "moved": lambda m: m.to("cpu"),
    "a step": lambda m: (m.head(torch.from_numpy(rows(3))).sum().backward(), m.head.step_(lr=0.3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_head_never_answers_from_what_was_kept(fitted, change):
    model, x = copy.deepcopy(fitted), rows(0)
    assert not model.predict(x[:1]).matched.all()
    model.predict(x)
    model.assess_novelty(x, false_alarm_rate=0.2)
    assert len(model.head._kept) > 0
    CHANGES[change](model)
    assert_fresh(model, x)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(CHANGES.keys() - {"merged", "relabelled"})), max_size=6))
def test_nor_after_any_row_of_changes(fitted, changes):
    model = copy.deepcopy(fitted)
    for k, change in enumerate(changes):
        if change in {"deleted", "slots dropped"} and model.head.n_slots < 4:
            continue
        if change in {"slots added", "slots dropped"}:  # by hand: nothing is remembered of them
            model.exemplar_features = None
        CHANGES[change](model)
        assert_fresh(model, rows(k, 8))


def test_caps_with_other_slots_are_answered_by_them():
    """`dataclasses.replace` hands what is kept on to caps of other slots."""
    model, x = three_animals(), torch.from_numpy(new_animals(6))
    caps = model.head.caps()
    decide(x[:, None], caps)
    other = replace(caps, labels=caps.labels.flip(0), weights=caps.weights.flip(0).contiguous())
    for asked in (other, caps, other):
        found, fresh = decide(x[:, None], asked), decide(x[:, None], replace(asked, kept=None))
        for name, values in vars(fresh).items():
            np.testing.assert_array_equal(getattr(found, name), values)
    assert len(model.head._kept) == 2


def test_a_model_that_was_pickled_or_copied_starts_with_nothing(fitted):
    model, x = copy.deepcopy(fitted), rows(1)
    model.examine(x, false_alarm_rate=0.2)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(twin.head._kept) == 0
        assert_fresh(twin, x)
