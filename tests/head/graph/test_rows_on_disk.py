"""Graphs of rows that stay on the disk: those of the same rows in memory, bit for bit, a block of them at a time."""

import functools
from dataclasses import fields

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, completeness_score

from slots.clustering import kmeans, neighbours
from slots.clustering.unit_rows import StoredRows, UnitRows
from slots.errors import DataError, UsageError
from slots.graph import levels
from slots.graph.config import GraphConfig
from slots.graph.discovery import discover
from slots.graph.learning import at_level, learn_graph, regroup
from slots.head.similarities import normalize

N, WIDTH, BLOCK = 1500, 12, 80


def rows(dtype=np.float32, noise=0.5):
    """Ten groups, and some rows without a direction."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 10, N)
    x = 2 * rng.normal(size=(10, WIDTH))[groups] + noise * rng.normal(size=(N, WIDTH))
    x[::211] = 0
    return x.astype(dtype), groups


@pytest.fixture
def small_blocks(monkeypatch):
    """All that looks at rows looks at few at a time, and by cells; the most that were read at once."""
    monkeypatch.setattr(kmeans, "SCORES_HELD", BLOCK * WIDTH)
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 500)
    monkeypatch.setattr(neighbours, "_CELL", 64)
    monkeypatch.setattr(neighbours, "_HELD", 400 * WIDTH)
    monkeypatch.setattr(neighbours, "_TILE", 4000)
    monkeypatch.setattr(neighbours, "_MOST_MEMBERS", 50)
    monkeypatch.setattr(neighbours, "_SAMPLE", 4)
    monkeypatch.setattr(levels, "_NODES", 200)
    monkeypatch.setattr(levels, "_JUDGED", 300)
    read, whole = [0], StoredRows.__getitem__

    def noted(self, wanted):
        found = whole(self, wanted)
        read.append(len(found))
        return found

    monkeypatch.setattr(StoredRows, "__getitem__", noted)
    return read


def on_disk(folder, x, *cuts):
    """The rows as one mapped file, or several."""
    for place, piece in enumerate(np.split(x, cuts)):
        np.save(folder / f"{place}.npy", piece)
    return [np.load(folder / f"{place}.npy", mmap_mode="r") for place in range(len(cuts) + 1)]


def same(one, other):
    """All of two graphs, to the last bit."""
    for it in fields(one):
        mine, its = getattr(one, it.name), getattr(other, it.name)
        if it.name == "placement":
            assert all(torch.equal(getattr(mine, name), getattr(its, name)) for name in ("communities", "slots"))
            assert torch.equal(mine.matched, its.matched)
        elif it.name == "levels":
            assert [(a.evidence, a.communities.tolist()) for a in mine] == [
                (b.evidence, b.communities.tolist()) for b in its
            ]
        elif isinstance(mine, torch.Tensor | np.ndarray):
            assert np.array_equal(np.asarray(mine), np.asarray(its)), it.name
        else:
            assert mine == its, it.name


@functools.cache
def in_memory(told):
    """The graph of the same rows in memory, once for all who compare with it; with `small_blocks`."""
    return learn_graph(torch.from_numpy(rows()[0]), GraphConfig(n_communities=told))


@pytest.mark.parametrize("cuts", [(), (3, 3, 1499)], ids=["a file", "uneven and empty ones"])
@pytest.mark.parametrize("told", [None, 4], ids=["round", "many slots"])
def test_a_graph_of_rows_on_disk_is_that_of_rows_in_memory(tmp_path, small_blocks, told, cuts):
    x, groups = rows()
    mapped, config = on_disk(tmp_path, x, *cuts), GraphConfig(n_communities=told)
    found = learn_graph(mapped if cuts else mapped[0], config)
    held = len(small_blocks)
    assert max(small_blocks) <= 400 < N
    same(found, in_memory(told))
    assert len(small_blocks) == held, "rows in memory are read as they are"
    used = x.any(1)
    if told is None:
        assert (found.n_communities, found.n_slots) == (10, 10)
        assert adjusted_rand_score(groups[used], found.placement.communities[used]) > 0.98
    else:
        assert found.n_communities == told < 50 < found.n_slots


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_kinds_of_floats_are_taken_as_in_memory(tmp_path, dtype):
    x = rows()[0][:300].astype(dtype)
    (mapped,) = on_disk(tmp_path, x)
    assert mapped.dtype == dtype
    native = np.dtype(dtype).newbyteorder("=")
    same(learn_graph(mapped), learn_graph(torch.from_numpy(x.astype(native))))


def test_placing_regrouping_and_discovery_read_the_disk_too(tmp_path, small_blocks):
    x, groups = rows()
    mapped, graph = on_disk(tmp_path, x, 500), in_memory(None)
    assert torch.equal(graph.place(mapped).communities, graph.placement.communities)
    assert torch.equal(graph.scores(mapped), graph.scores(x))
    same(regroup(graph, mapped, 4), regroup(graph, x, 4))
    same(at_level(graph, mapped, 0), at_level(graph, x, 0))
    labels = np.where((groups < 6) & (np.arange(N) < 400), groups, -1)
    same(discover(mapped, labels), discover(x, labels))
    assert max(small_blocks) <= 400


def test_of_more_rows_than_are_linked_all_still_count(tmp_path, small_blocks):
    x, groups = rows()
    config = GraphConfig(most_linked=500)
    graph, (mapped,) = learn_graph(torch.from_numpy(x), config), on_disk(tmp_path, x)
    same(learn_graph(mapped, config), graph)
    assert max(small_blocks) <= 500, "those that are linked are compared with each other"
    used = x.any(1)
    assert int(graph.wins.sum()) == used.sum()
    assert graph.n_communities == 10
    assert adjusted_rand_score(groups[used], graph.placement.communities[used]) > 0.99
    assert not bool(graph.placement.matched[~used].any())
    unit = normalize(torch.from_numpy(x[used])).numpy()
    middles = np.stack([unit[groups[used] == group].mean(0) for group in range(10)])
    cosines = normalize(torch.from_numpy(middles)) @ graph.weights.T
    assert float(cosines.max(1).values.min()) > 0.9999, "a slot lies in the middle of all inputs, not of the sample's"
    assert {it.n_communities for it in graph.levels} >= {10}
    same(learn_graph(torch.from_numpy(x), GraphConfig(most_linked=N)), in_memory(None))
    other = learn_graph(torch.from_numpy(x), GraphConfig(most_linked=500, seed=1))
    assert not torch.equal(graph.weights, other.weights)


def test_small_groups_of_all_inputs_are_dissolved_not_those_of_the_sample(small_blocks):
    x, _ = rows()
    assert learn_graph(torch.from_numpy(x), GraphConfig(most_linked=500, min_size=100)).n_communities == 10


def test_many_slots_are_placed_in_the_sample_and_moved_by_all(tmp_path, small_blocks):
    x, groups = rows()
    config = GraphConfig(most_linked=700, n_communities=4)
    graph, used = learn_graph(torch.from_numpy(x), config), x.any(1)
    assert graph.n_communities == 4 < 50 < graph.n_slots
    assert int(graph.wins.sum()) == used.sum()
    assert completeness_score(groups[used], graph.placement.communities[used]) > 0.9, "groups are joined whole"
    same(learn_graph(on_disk(tmp_path, x, 900), config), graph)


def test_progress_of_rows_on_disk_never_falls(tmp_path, small_blocks):
    told = []
    learn_graph(on_disk(tmp_path, rows()[0], 9), progress=lambda *what: told.append(what))
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert sum(step == "neighbours" for step, _ in told) > 20


def test_rows_that_cannot_be_taken_are_refused_in_words(tmp_path):
    x = rows()[0]
    x[1400, 3] = np.nan
    (mapped,) = on_disk(tmp_path, x)
    with pytest.raises(DataError, match=r"`features` must be a finite float matrix .* of shape \(1500, 12\). Flatten"):
        learn_graph(mapped)
    with pytest.raises(DataError, match=r"must have a row that is not zero, got 4 without"):
        learn_graph([np.zeros((4, 2))])
    with pytest.raises(DataError, match=r"of one width, got float64 of 2, float64 of 3 a row. Map files"):
        learn_graph([np.zeros((4, 2)), np.zeros((4, 3))])
    with pytest.raises(DataError, match=r"float matrices .*, got int64 of 2 a row"):
        learn_graph([np.zeros((4, 2), int)])
    with pytest.raises(UsageError, match=r"`most_linked` must be >= 1, got 0\. Leave it out"):
        GraphConfig(most_linked=0)


def test_directions_are_those_of_all_rows_together(tmp_path):
    x = rows()[0]
    unit, pieces = normalize(torch.from_numpy(x)), on_disk(tmp_path, x, 100, 1000)
    lazy = UnitRows(StoredRows(pieces))
    order = torch.from_numpy(np.random.default_rng(0).permutation(N))
    assert lazy.shape == (N, WIDTH)
    assert torch.equal(lazy[:], unit)
    assert torch.equal(lazy[90:1010], unit[90:1010])
    assert torch.equal(lazy[order], unit[order])
    assert torch.equal(lazy.take(order).take(order[:50])[3:9], unit[order][order[:50]][3:9])
    assert all(torch.equal(lazy[i : i + 1], unit[i : i + 1]) for i in range(50))
    assert lazy[5:5].shape == (0, WIDTH)
