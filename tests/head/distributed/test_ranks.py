"""Groups of one to four gloo processes find what one process finds, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import nursery, rank_cases, rank_party
from support.reference_cover import greedy

from slots.cover import class_cover
from slots.distributed import ALONE, join
from slots.distributed.packing import pack, unpack
from slots.errors import UsageError

GROUPS = [(size, rank) for size in range(1, rank_party.MOST + 1) for rank in range(size)]


@pytest.fixture(scope="module")
def party(tmp_path_factory):
    folder = tmp_path_factory.mktemp("party")
    done = nursery.run(["rank_cases", folder], script=rank_party.__file__)
    assert done.returncode == 0, done.stderr
    return lambda name, size, rank: dict(np.load(folder / f"{name}-{size}-{rank}.npz"))


@pytest.mark.parametrize("seed", range(rank_cases.GREEDY))
def test_picks_of_examples_in_several_processes(party, seed):
    covers = rank_cases.pairs(seed)
    expected = greedy(covers, min_gain=1 + seed % 3, max_slots=None, coverage=1.0)
    left, gains = covers.copy(), []
    for pick in expected:
        gains.append(int(left[pick].sum()))
        left &= ~covers[pick]
    for size, rank in GROUPS:
        found = party(f"greedy{seed}", size, rank)
        assert (found["picks"].tolist(), found["gains"].tolist()) == (expected, gains)


@pytest.mark.parametrize("name", rank_cases.COVERS)
def test_cover_of_examples_in_several_processes(party, name):
    x, y = rank_cases.rows(name)
    whole = class_cover(x, y, min_gain=1 + (name == "even"))
    for size, rank in GROUPS:
        found = party(f"cover-{name}", size, rank)
        ends = rank_cases.shares(len(x), size, 0)
        assert found["picked"].tolist() == whole.picked.tolist()
        assert found["thresholds"].tobytes() == whole.thresholds.numpy().tobytes()
        assert found["contradictions"].tolist() == whole.contradictions.tolist()
        assert found["covered"].tolist() == whole.covered[ends[rank] : ends[rank + 1]].tolist()


def test_the_cases_hold_what_is_hard():
    assert len(class_cover(*rank_cases.rows("lattice")).contradictions) > 0
    drawn = [rank_cases.shares(len(rank_cases.pairs(seed)[0]), 4, seed) for seed in range(rank_cases.GREEDY)]
    assert any(0 in np.diff(ends) for ends in drawn)  # a process without examples


KINDS = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 3), max_size=3)), max_size=4))
def test_tensors_come_back_as_they_went(forms):
    tensors = [torch.arange(int(np.prod(shape))).reshape(shape).to(kind) for kind, shape in forms]
    found = unpack(torch.cat([pack(tensors), torch.zeros(5, dtype=torch.uint8)]))
    assert len(found) == len(tensors)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, tensors, strict=True))


def test_one_process_is_alone():
    assert join({}) is join({"WORLD_SIZE": "1"}) is ALONE


@pytest.mark.parametrize("gone", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_half_an_environment_is_refused(gone):
    whole = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with pytest.raises(UsageError, match=f"WORLD_SIZE=2 must come with .* else torchrun sets, and {gone} is missing"):
        join({name: value for name, value in whole.items() if name != gone})


def test_sums_of_floats_are_refused():
    with pytest.raises(TypeError, match=r"`counts` must be integers, got torch\.float32"):
        ALONE.total(torch.ones(2))


@pytest.mark.parametrize("name", rank_cases.FITS)
def test_fit_by_several_processes(party, name):
    whole = rank_cases.fitted(name)
    assert len(whole["labels"]) > 0
    for size, rank in GROUPS:
        found = party(f"fit-{name}", size, rank)
        assert found.keys() == whole.keys()
        different = [key for key in whole if found[key].tobytes() != whole[key].tobytes()]
        assert (size, rank, different) == (size, rank, [])


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="what other libraries of products do is not known")
def test_slots_are_divided_where_that_changes_no_bit(party):
    """Which of the fits above are: products with very few slots are made in another order."""
    found = {(size, rank): party("divided", size, rank) for size, rank in GROUPS}
    assert all(bool(it["16"]) for it in found.values())
    assert len({(size, bool(it["1"])) for (size, _), it in found.items()}) == rank_party.MOST  # all processes agree


def test_work_is_done_in_its_order_by_one_process():
    found = ALONE.each(range(7), lambda it: (torch.tensor(it),))
    assert [int(value) for (value,) in found] == list(range(7))


def test_work_of_several_processes_is_put_in_its_order(party):
    for size, rank in GROUPS:
        found = party("each", size, rank)
        assert found["values"].tolist() == [it * it for it in range(rank_cases.PIECES)]
        assert found["mine"].tolist() == [it for it in range(rank_cases.PIECES) if it % size == rank]
