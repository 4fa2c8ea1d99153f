"""The index against literal loops and against the exact rule, at thresholds, in any batch, on any thread count."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_index as literal

from slots.errors import MissingExtraError, UsageError
from slots.head.caps import SlotCaps
from slots.head.decision import best_pairs, decide, matching_pairs
from slots.head.prediction import Answer, Prediction
from slots.head.similarities import normalize
from slots.index import faiss_proposer, pair_search
from slots.index.cap_bound import CapBound, enclosing_caps
from slots.index.slot_index import SlotIndex

faiss = pytest.importorskip("faiss")

BACKENDS = [{"backend": "torch"}, {"backend": "torch", "leading_dims": 2}, {"backend": "faiss"}]


def same(a, b):
    """Two predictions, to the last bit."""
    for name in vars(a):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def parted(caps, rows):
    """Some of the slots."""
    return SlotCaps(**{k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in vars(caps).items()})


def varied(seed, n_slots=150, feature=24, n=257, n_views=2):
    """A head and inputs, from one seed."""
    rng = np.random.default_rng(seed)
    caps = literal.random_caps(rng, n_slots, feature, loose=0.5)
    return caps, literal.inputs_near(rng, caps, n, n_views)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 7), st.integers(1, 3), st.sampled_from([*BACKENDS, {}])
)
def test_pairs_are_those_of_the_literal_rule(seed, n_slots, feature, n_views, options):
    rng = np.random.default_rng(seed)
    caps = literal.random_caps(rng, n_slots, feature)
    views = literal.inputs_near(rng, caps, 8, n_views)
    index = SlotIndex(caps, **options)
    assert literal.listed(index.matching_pairs(views)) == literal.matching(views, caps)
    same(index.predict(views), decide(views, caps))


@pytest.mark.parametrize("options", BACKENDS)
def test_threshold_within_some_float32_steps_of_a_score(options):
    rng = np.random.default_rng(7)
    caps = literal.random_caps(rng, 40, 50)
    views = literal.inputs_near(rng, caps, 40, 1)
    for slot in range(40):  # a threshold that equals a score as float32 rounds it, or a few steps beside
        limits, vectors = [(caps.precision, caps.weights), (caps.support, caps.centres)][slot % 2]
        u, axis = literal.literal.unit(views[slot, 0].numpy()), literal.literal.unit(vectors[slot].numpy())
        limits[slot] = float(u @ axis) + int(rng.integers(-2, 3)) * 6e-8
        [caps.support, caps.precision][slot % 2][slot] = -1
    found = literal.listed(SlotIndex(caps, **options).matching_pairs(views))
    assert found == literal.matching(views, caps)
    own = {pair for pair in found if pair[0] == pair[1]}
    assert 0 < len(own) < 40  # some scores fall on either side


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 256, 257])
@pytest.mark.parametrize("options", BACKENDS)
def test_any_batch_and_any_number_of_threads(size, threads, options):
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    caps, views = varied(3)
    index = SlotIndex(caps, **options)
    n = 257 if size >= 64 else 20 * size
    whole = decide(views[:n], caps)
    parts = Prediction.concatenate([index.predict(views[i : min(n, i + size)]) for i in range(0, n, size)])
    same(whole, parts)
    assert {int(Answer.MATCHED), int(Answer.UNMATCHED), int(Answer.AMBIGUOUS)} <= set(
        decide(views, caps).answers.tolist()
    )
    faiss.omp_set_num_threads(1)


@pytest.mark.parametrize("options", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_best_pairs_and_pairs_are_those_of_the_rule(options, dtype):
    caps, views = varied(11)
    views = views.to(dtype)
    index = SlotIndex(caps, **options)
    wide = views if dtype == torch.float64 else views.float()
    for mine, theirs in zip(index.matching_pairs(views), matching_pairs(wide, caps), strict=True):
        assert torch.equal(mine, theirs)
    mine, theirs = index.best_pairs(views), best_pairs(wide, caps)
    deepest = {}
    for pairs in (mine, theirs):
        for example, slot, margin in zip(
            pairs.examples.tolist(), pairs.slots.tolist(), pairs.margins.tolist(), strict=True
        ):
            key = (id(pairs), example, int(caps.generations[slot]), int(caps.labels[slot]))
            deepest[key] = max(deepest.get(key, (-math.inf, 0)), (margin, -slot))
    assert {k[1:]: v for k, v in deepest.items() if k[0] == id(mine)} == {
        k[1:]: v for k, v in deepest.items() if k[0] == id(theirs)
    }


@pytest.mark.parametrize("options", BACKENDS)
@pytest.mark.parametrize("sizes", [(3, 5, 142), (100, 49, 1), (149, 1)])
def test_slots_added_are_found_like_those_built_in(options, sizes):
    caps, views = varied(5)
    rows = torch.arange(150).split(sizes)
    index = SlotIndex(parted(caps, rows[0]), **options)
    for more in rows[1:]:
        index.add(parted(caps, more))
    assert index.n_slots == 150
    same(index.predict(views), decide(views, caps))


def test_many_slots_and_many_matches_fill_more_than_one_buffer():
    rng = np.random.default_rng(2)
    caps = literal.random_caps(rng, 2500, 8)
    caps.precision[:], caps.support[:] = -1.5, -1.5  # everything matches
    views = torch.from_numpy(rng.normal(size=(1100, 1, 8))).float()
    examples, slots = SlotIndex(caps, backend="torch").matching_pairs(views)
    assert len(examples) == 1100 * 2500
    assert torch.equal(examples * 2500 + slots, torch.arange(1100 * 2500))


def test_long_rows_are_tested_one_cap_after_the_other():
    caps, views = varied(9, n_slots=120, feature=300, n=64)
    for options in BACKENDS:
        same(SlotIndex(caps, **options).predict(views), decide(views, caps))


def test_pairs_are_the_same_where_slots_are_too_many_to_keep_their_axes(monkeypatch):
    caps, views = varied(5)
    wanted = SlotIndex(caps).matching_pairs(views)
    monkeypatch.setattr("slots.index.pair_search._AXES", 0)
    index = SlotIndex(caps)
    assert len(index._search._exact_slots.axes) == 0
    assert all(torch.equal(a, b) for a, b in zip(index.matching_pairs(views), wanted, strict=True))


def test_other_devices_find_the_same():
    caps, views = varied(8)
    for options in BACKENDS:
        index = SlotIndex(caps, **options)
        before = index.matching_pairs(views)
        index._search._exact_slots = None  # as on a device where the compiled loops cannot go
        for a, b in zip(before, index.matching_pairs(views), strict=True):
            assert torch.equal(a, b)
        same(index.predict(views), decide(views, caps))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 6))
def test_one_cap_holds_what_two_caps_share(seed, feature):
    rng = np.random.default_rng(seed)
    caps = literal.random_caps(rng, 6, feature, apart=rng.uniform(0, 3))
    axes, thresholds = enclosing_caps(caps, slice(None))
    w, c = normalize(caps.weights.double()), normalize(caps.centres.double())
    u = normalize(torch.cat([torch.from_numpy(rng.normal(size=(200, feature))), w, c, w + c]))
    inside = (u @ w.T > caps.precision.double()) & (u @ c.T > caps.support.double())
    assert bool(((u @ axes.T > thresholds - 1e-12) | ~inside).all())


def test_one_cap_is_the_smallest_by_hand():
    one = torch.ones(1)
    caps = SlotCaps(
        torch.tensor([[1.0, 0]]),
        torch.tensor([[0, 1.0]]),
        0.6 * one,
        0.7 * one,
        one.long(),
        one.long(),
        one.bool(),
        20.0,
    )
    axes, thresholds = enclosing_caps(caps, slice(None))
    assert thresholds.tolist() == pytest.approx([math.sqrt(0.36 + 0.49)])
    assert axes[0].tolist() == pytest.approx([0.6 / math.sqrt(0.85), 0.7 / math.sqrt(0.85)])
    caps.precision[0] = -0.5  # says nothing that the other does not
    assert enclosing_caps(caps, slice(None))[1].tolist() == pytest.approx([0.7])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("head", [1, 3, 8, 16, 40])
def test_a_bound_is_never_below_the_score(head, half):
    rng = np.random.default_rng(head)
    mixing = torch.from_numpy(rng.normal(size=(16, 16)) * np.linspace(2, 0.01, 16))
    caps = literal.random_caps(rng, 60, 16)
    caps = SlotCaps(**{**vars(caps), "weights": normalize(caps.weights.double() @ mixing).float()})
    unit = normalize(torch.from_numpy(rng.normal(size=(300, 16))) @ mixing)
    bound = CapBound(caps, leading_dims=head, half=half)
    assert bound.leading_dims == min(head, 16)
    axes, thresholds = enclosing_caps(caps, slice(None))
    slack = bound.input_rows(unit.float()).double() @ bound.slots.double().T - (unit @ axes.T - thresholds)
    assert float(slack.min()) > 1e-5
    if head >= 16:
        assert float(slack.max()) < (2e-2 if half else 3e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("feature", [2, 24, 150])
def test_rows_in_bfloat16_find_what_float32_finds(feature, half, monkeypatch):
    """Both, whatever the processor of the tests takes by itself."""
    monkeypatch.setattr(pair_search, "has_half_products", lambda: half)
    caps, views = varied(feature, n_slots=1100, feature=feature)
    index = SlotIndex(caps)
    assert literal.listed(index.matching_pairs(views)) == literal.listed(matching_pairs(views, caps))
    same(index.predict(views), decide(views, caps))


def test_few_leading_dimensions_are_chosen_where_few_axes_hold_the_energy():
    rng = np.random.default_rng(0)
    mixing = torch.from_numpy(rng.normal(size=(96, 96)) * 0.7 ** np.arange(96)).float()
    caps = literal.random_caps(rng, 400, 96, tight=0.99)
    axes = normalize(caps.weights @ mixing)
    caps = SlotCaps(**{**vars(caps), "weights": axes, "centres": axes, "precision": caps.precision * 0 + 0.9})
    assert CapBound(caps).leading_dims < 48


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_is_measured_and_finds_more_with_more_effort(kind):
    caps, views = varied(4, n_slots=1200, feature=8, n=120, n_views=1)
    every = set(literal.listed(matching_pairs(views, caps)))
    shares = []
    for effort in (1, 1000):
        index = SlotIndex(caps, approximate=kind, effort=effort)
        found = set(literal.listed(index.matching_pairs(views)))
        assert found <= every
        assert index.recall(views) == pytest.approx(len(found) / len(every))
        shares.append(len(found) / len(every))
    assert 0 < shares[0] < shares[1]
    assert SlotIndex(caps).recall(views) == 1.0
    if kind == "ivf":
        assert shares[1] == 1.0


def test_neighbours_are_asked_for_until_one_lies_outside(monkeypatch):
    caps, views = varied(6, n_slots=700)
    index = SlotIndex(caps, backend="faiss")
    index._search._proposer.ranged = False  # as of a GPU index, which has no range search
    for most in (2048, 65):
        monkeypatch.setattr(faiss_proposer, "_GPU_NEIGHBOURS", most)
        for a, b in zip(index.matching_pairs(views), matching_pairs(views, caps), strict=True):
            assert torch.equal(a, b)


def test_no_faiss_says_what_to_install(monkeypatch):
    caps, views = varied(1, n=5)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"must find FAISS.*neural-slots\[faiss-cpu\]"):
        SlotIndex(caps, backend="faiss")
    same(SlotIndex(caps).predict(views), decide(views, caps))


def test_nothing_in_nothing_out():
    caps, _ = varied(1, n=1)
    index = SlotIndex(caps)
    assert len(index.predict(torch.zeros(0, 2, 24))) == 0
    assert [len(part) for part in index.matching_pairs(torch.zeros(0, 2, 24))] == [0, 0]
    assert index.recall(torch.zeros(0, 2, 24)) == 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c: SlotIndex(c, backend="gpu"), "`backend` must be 'auto', 'torch' or 'faiss', got 'gpu'"),
        (lambda c: SlotIndex(c, backend="torch", approximate="ivf"), "must be None with backend='torch', got 'ivf'"),
        (lambda c: SlotIndex(c, approximate="lsh"), "must be None, 'ivf' or 'hnsw', got 'lsh'"),
        (lambda c: SlotIndex(c, effort=0), "must be at least 1, got 0 and None"),
        (lambda c: SlotIndex(parted(c, slice(0, 0))), "must hold at least one slot, got 0"),
        (lambda c: SlotIndex(c).predict(torch.zeros(2, 24)), r"shape \(example, view, 24\), got \(2, 24\)"),
        (lambda c: SlotIndex(c).add(literal.random_caps(np.random.default_rng(0), 3, 5)), "must have 24 features"),
    ],
)
def test_messages(call, says):
    caps, _ = varied(1, n=1)
    with pytest.raises(UsageError, match=says):
        call(caps)


@pytest.mark.parametrize("order", ["faiss, torch", "torch, faiss"])
def test_two_openmp_runtimes_live_together(order):
    code = (
        f"import {order}, numpy as np; torch.set_num_threads(2); faiss.omp_set_num_threads(2)\n"
        "x = np.random.default_rng(0).normal(size=(3000, 32)).astype('f')\n"
        "index = faiss.IndexFlatIP(32); index.add(x)\n"
        "for _ in range(3):\n"
        "    scores = torch.from_numpy(x) @ torch.from_numpy(x).T\n"
        "    found = index.search(x, 1)[0][:, 0]\n"
        "    assert np.allclose(scores.max(1).values.numpy(), found, rtol=1e-4)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
