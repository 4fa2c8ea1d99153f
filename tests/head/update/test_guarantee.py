"""No update changes any part of an answer that a slot gave, for any input; and the search that says so can fail."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import adversary
from support.nets import TinyNet, strokes
from support.reference_update import clearance

import slots.update.plan
from slots.errors import DataError
from slots.features.preprocessing import Preprocessing
from slots.head.decision import decide
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.storage.generations import Generation
from slots.update.config import UpdateConfig

pytestmark = pytest.mark.slow


def feature_model(seed, feature=4, n_slots=5):
    """Random slots with caps that overlap, of three labels, some of them outside the pooled score."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(n_slots, feature, generator=generator)
    head = IncrementalNeuralHashing(feature)
    head.add_slots(
        weights,
        torch.randint(0, 3, (n_slots,), generator=generator),
        centres=normalize(weights) + 0.4 * normalize(torch.randn(n_slots, feature, generator=generator)),
        precision_thresholds=torch.rand(n_slots, generator=generator) * 0.5 + 0.4,
        support_thresholds=torch.rand(n_slots, generator=generator) * 0.7 + 0.2,
    )
    head.pooled[:] = torch.rand(n_slots, generator=generator) < 0.7
    model = SlotModel(Preprocessing("features", (feature,)), head, class_names=["a", "b", "c"])
    model.history.append(Generation(0, "fit", n_slots, {}))
    return model


def noise(n, seed):
    """Images of noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8)).astype(np.uint8)


def image_model(seed):
    """A network with batch normalisation, nine views, and slots on some of its own features."""
    torch.manual_seed(seed)
    net = TinyNet(width=8).eval()
    x, y = strokes(40, seed=seed)
    head = IncrementalNeuralHashing(8)
    model = SlotModel(Preprocessing("images", (1, 8, 8)), head, backbone=net, views="shift1")
    with torch.no_grad():
        features = normalize(model.features(np.concatenate([x, x[:20] // 3, noise(20, seed)])))
    scores = (features @ features[:40:8, 0].T).amax(1)  # five slots that take in a sixth of such images each
    limit = scores.quantile(0.84, dim=0)
    head.add_slots(
        features[:40:8, 0], torch.from_numpy(y[::8]), precision_thresholds=limit, support_thresholds=limit - 1e-4
    )
    model.thumbnails = np.zeros((5, 4, 8, 8, 1), np.uint8)
    model.history.append(Generation(0, "fit", 5, {}))
    return model


def snapshot(model):
    """All the bits of a model."""
    state = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    parts = (model.exemplar_features, None if model.thumbnails is None else torch.from_numpy(model.thumbnails))
    kept = tuple(None if part is None else part.numpy().tobytes() for part in parts)
    return state, kept, model.class_names, model.clusters, list(model.history)


def some_labels(rng, n, how):
    """None, some or all labels, among them some of classes that the model has never heard of."""
    labels = rng.integers(0, 6, n)
    if how == "none":
        return None
    if how == "mapping":
        names = ["a", "c", "new", "newer"]
        return {int(i): names[int(labels[i]) % 4] for i in rng.permutation(n)[: n // 3]}
    if how == "some":
        labels[rng.random(n) < 0.6] = -1
    return labels


def assert_same_rows(old, new, rows):
    for name in vars(old):
        assert np.array_equal(getattr(old, name)[rows], getattr(new, name)[rows]), name


def assert_old_slots_untouched(old, new):
    n = old.head.n_slots
    for name, value in old.state_dict().items():
        after = new.state_dict()[name]
        if name != "head.classes":
            after = after[:n] if name.startswith("head.") else after
        assert after.numpy().tobytes() == value.numpy().tobytes() or torch.equal(after[: len(value)], value), name
    assert bool((new.head.generations[n:] > old.head.generations.max()).all())


def hostile_points(old, new, generator):
    """Anywhere, in both of an old and a new slot, and up to 1e-4 rad on either side of the edges of every cap."""
    caps, n_old, feature = new.head.caps(), old.head.n_slots, new.head.feature_dim
    every = torch.arange(new.head.n_slots)
    points = [torch.randn(300, feature, generator=generator).double(), adversary.edge_points(caps, every, generator)]
    if len(every) > n_old:
        common, first, second = adversary.common_points(caps, n_old, 40, generator, steps=25)
        points += [common.double(), adversary.edge_points(caps, first, generator, common)]
        points += [adversary.exit_points(caps, slot, common, generator) for slot in (first, second)]
    return torch.cat(points)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    feature=st.integers(2, 6),
    hows=st.lists(st.sampled_from(["none", "some", "all", "mapping"]), min_size=1, max_size=3),
    n_views=st.integers(1, 3),
    size=st.sampled_from([1, 3, 1000]),
    disjoint=st.booleans(),
)
def test_no_update_changes_a_matched_answer(seed, feature, hows, n_views, size, disjoint):
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    model = feature_model(seed, feature)
    config = UpdateConfig(epochs=1, kmeans_iterations=1, disjoint=disjoint)
    for how in hows:
        old = copy.deepcopy(model)
        n = int(rng.integers(0, 30))
        x = (rng.normal(size=(n, feature)) * rng.uniform(0.1, 9, (n, 1))).astype(np.float32)
        done = model.update(x, some_labels(rng, n, how), config=config, budget=4)
        assert_old_slots_untouched(old, model)
        assert done.slots_added == model.head.n_slots - old.head.n_slots
        points = adversary.as_views(hostile_points(old, model, generator), n_views, generator)
        if size == 1:
            points = points[:120]
        before, caps = decide(points, old.head.caps()), model.head.caps()
        after = Prediction.concatenate([decide(points[i : i + size], caps) for i in range(0, len(points), size)])
        assert_same_rows(before, after, before.matched)
        if len(x):
            told = old.predict(x)
            assert_same_rows(told, model.predict(x), told.matched)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), how=st.sampled_from(["none", "some", "all"]), disjoint=st.booleans())
def test_no_update_changes_a_matched_answer_to_an_image(seed, how, disjoint):
    rng, model = np.random.default_rng(seed), image_model(seed)
    probes = np.concatenate([strokes(60, seed=seed + 1)[0], noise(40, seed)])
    for _ in range(2):
        old = copy.deepcopy(model)
        fresh = np.concatenate([strokes(20, seed=int(rng.integers(1000)))[0].swapaxes(1, 2) // 2, probes[60:80]])
        model.update(fresh, some_labels(rng, 40, how), config=UpdateConfig(epochs=1, disjoint=disjoint))
        assert_old_slots_untouched(old, model)
        for images in (probes, fresh):
            before, after = old.predict(images), model.predict(images)
            assert_same_rows(before, after, before.matched)
            alone = Prediction.concatenate([model.predict(images[i : i + 1]) for i in range(len(images))])
            told = Prediction.concatenate([old.predict(images[i : i + 1]) for i in range(len(images))])
            assert_same_rows(told, alone, told.matched)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 8))
def test_disjoint_balls_are_disjoint_as_they_are_stored(seed, feature):
    rng, model = np.random.default_rng(seed), feature_model(seed, feature)
    n_old, labels = model.head.n_slots, rng.integers(0, 5, 40)
    x = rng.normal(size=(40, feature)).astype(np.float32)
    model.update(x, labels, config=UpdateConfig(epochs=1, disjoint=True))
    caps, generator = model.head.caps(), torch.Generator().manual_seed(seed)
    for new in range(n_old, model.head.n_slots):
        for old in range(n_old):
            if caps.labels[old] != caps.labels[new]:
                assert clearance(caps, new, old) > 0
    common, _, second = adversary.common_points(caps, n_old, 60, generator)
    points = torch.cat([common.double(), adversary.exit_points(caps, second, common, generator)])[:, None]
    before = decide(points, adversary.part(caps, torch.arange(len(caps.labels)) < n_old))
    assert not adversary.contested_rows(points, before, caps, n_old).any()


def carved(seed=4, **options):
    """A model before and after an update whose new caps overlap old slots of other labels."""
    rng, old = np.random.default_rng(seed), feature_model(seed, 3, 6)
    x, new = rng.normal(size=(80, 3)).astype(np.float32), copy.deepcopy(old)
    new.update(x, rng.integers(3, 5, 80), config=UpdateConfig(epochs=1, precision=0.5, **options))
    return old, new


def search(old_caps, new_caps, n_views=1):
    return adversary.sphere_search(old_caps, new_caps, 200, torch.Generator().manual_seed(0), n_views=n_views)


@pytest.mark.parametrize("n_views", [1, 3])
def test_the_search_reaches_what_matters_and_finds_nothing(n_views):
    old, new = carved()
    found = search(old.head.caps(), new.head.caps(), n_views)
    assert found.changed == 0
    assert found.contested > 100, "inputs inside an old slot and inside a new one of another label"
    assert found.edge > 100


def test_the_search_finds_new_slots_that_speak_first():
    old, new = carved()
    new.head.generations[old.head.n_slots :] = -1
    found = search(old.head.caps(), new.head.caps())
    assert found.changed >= found.contested > 0


def test_the_search_finds_an_old_slot_that_moved_by_a_thousandth():
    old, new = carved()
    told = old.predict(np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32))
    slot = int(np.bincount(told.slots[told.matched]).argmax())
    with torch.no_grad():
        new.head.weights[slot] = normalize(new.head.weights[slot] + 1e-3 * torch.tensor([1.0, -1.0, 0.5]))
    assert search(old.head.caps(), new.head.caps()).changed > 0


def test_the_search_finds_an_old_cap_that_shrank_by_a_bit():
    old, new = carved()
    up = torch.nextafter(new.head.support_thresholds, torch.full_like(new.head.support_thresholds, 9.0))
    new.head.support_thresholds[: old.head.n_slots] = up[: old.head.n_slots]
    assert search(old.head.caps(), new.head.caps()).changed > 0


def test_disjoint_mode_has_no_contested_point_unless_its_balls_grow_by_a_thousandth():
    old, new = carved(disjoint=True)
    caps = new.head.caps()
    assert search(old.head.caps(), caps) == replace(search(old.head.caps(), caps), contested=0, changed=0)
    support, n_old = caps.support.clone(), old.head.n_slots
    fires = support[n_old:] <= 1
    assert bool(fires.any())
    support[n_old:][fires] = (support[n_old:][fires].double().arccos() + 1e-3).cos().float()
    assert search(old.head.caps(), replace(caps, support=support)).contested > 0


def test_gradient_ascent_on_images_reaches_what_matters_and_finds_nothing():
    old = image_model(1)
    new, x = copy.deepcopy(old), strokes(60, seed=8)[0] // 3
    new.update(x, np.full(60, 2), config=UpdateConfig(epochs=1, precision=0.5))
    images = np.concatenate([x[:30], strokes(30, seed=4)[0]])
    found = adversary.input_search(old, new, images, steps=6)
    assert found.changed == 0
    assert found.contested > 0
    new.head.generations[old.head.n_slots :] = -1
    assert adversary.input_search(old, new, images, steps=6).changed > 0


class Stop(BaseException):
    """Like a user who has had enough."""


def steps_of(model, x, labels):
    """Everything that an update reports, in order."""
    seen = []
    copy.deepcopy(model).update(
        x, labels, config=UpdateConfig(epochs=2), progress=lambda step, share: seen.append((step, share))
    )
    return seen


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, Stop])
def test_an_update_that_is_stopped_leaves_every_bit(error):
    model, rng = feature_model(2), np.random.default_rng(2)
    x, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 5, 60)
    before, calls = snapshot(model), len(steps_of(model, x, labels))
    assert {"matching", "features", "candidates", "refining"} <= {step for step, _ in steps_of(model, x, labels)}
    for stop_at in (1, 2, calls // 2, calls - 1, calls):
        countdown = iter(range(stop_at - 1, -1, -1))

        def report(_step, _share, left=countdown):
            if next(left) == 0:
                raise error

        with pytest.raises(error):
            model.update(x, labels, config=UpdateConfig(epochs=2), progress=report)
        assert snapshot(model) == before
    model.update(x, labels)
    assert snapshot(model) != before


def assert_it_breaks_off(model, error, break_it, mend_it):
    """An update of a broken model leaves every bit of it, and goes through once it is mended."""
    x = noise(40, 9)
    break_it()
    before, answers = snapshot(model), model.predict(x)
    with pytest.raises(error, match="no room"):
        model.update(x, np.full(40, 5))
    assert snapshot(model) == before
    assert_same_rows(answers, model.predict(x), slice(None))
    mend_it()
    assert model.update(x, np.full(40, 5)).slots_added > 0


def full(*_args, **_options):
    raise MemoryError("no room")


@pytest.mark.parametrize("where", ["support_features", "thumbnails", "Generation", "figures", "replace"])
def test_an_error_while_the_slots_are_planned_leaves_every_bit(where):
    with pytest.MonkeyPatch.context() as patched:
        assert_it_breaks_off(
            image_model(2), MemoryError, lambda: patched.setattr(slots.update.plan, where, full), patched.undo
        )


class Full(list):
    """A history that takes no further line."""

    append = full


@pytest.mark.parametrize("where", ["slots", "images", "history"])
def test_an_error_while_the_slots_join_takes_them_out_again(where):
    model = image_model(2)
    add, images = model.head.add_slots, model.thumbnails

    def add_and_fail(*args, **options):
        add(*args, **options)
        full()

    class NoRoom(np.ndarray):
        def __array_function__(self, *_args, **_options):
            full()

    parts = {
        "slots": (model.head, "add_slots", add_and_fail, add),
        "images": (model, "thumbnails", images.view(NoRoom), images),
        "history": (model, "history", Full(model.history), list(model.history)),
    }
    it, name, broken, whole = parts[where]
    assert_it_breaks_off(
        model, MemoryError, lambda: object.__setattr__(it, name, broken), lambda: object.__setattr__(it, name, whole)
    )


def test_wrong_labels_leave_every_bit():
    model = feature_model(2)
    before, x = snapshot(model), np.ones((5, 4), np.float32)
    for wrong in (np.zeros(4, int), np.zeros((5, 1), int), np.zeros(5), np.full(5, -2), {7: 1}, {0: -1}):
        with pytest.raises(DataError, match="`labels` must be"):
            model.update(x, wrong)
    with pytest.raises(DataError, match="must be finite"):
        model.update(np.full((2, 4), np.nan, np.float32))
    assert snapshot(model) == before
