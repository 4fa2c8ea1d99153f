"""Slots by the largest entry of a difference: radii as the definitions read, and no search finds a change inside."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from protocols.data.loading import load_data
from slots.errors import DataError, ModelError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.robust import LinfDistanceConfig, LinfDistanceSlots, fit_linf_distance

BOX = (0.0, 1.0)


def case(seed, *, box, n_slots=6, features=4, rows=3):
    """Slots of three labels, some of them outside the box, and rows in it."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, n_slots - 3)])
    centres = rng.uniform(-0.3, 1.3, (n_slots, features)).astype(np.float32)
    x = rng.random((rows, features)) * rng.integers(0, 2, (rows, features))
    return x, LinfDistanceSlots(centres, labels, box, Preprocessing("features", (features,)))


def distance(x, centre):
    return max(abs(a - float(b)) for a, b in zip(x, centre, strict=True))


def stays(x, found, label, size):
    """Whether the least of the own largest distances lies below the least of the others' smallest, by loops."""
    low, high = found.box or (-math.inf, math.inf)
    own, other = math.inf, math.inf
    for centre, of in zip(found.centres, found.labels, strict=True):
        ends = [(max(v - size, low), min(v + size, high)) for v in x]
        if of == label:
            own = min(
                own, max(max(abs(a - float(c)), abs(b - float(c))) for (a, b), c in zip(ends, centre, strict=True))
            )
        else:
            apart = [max(0.0, a - float(c), float(c) - b) for (a, b), c in zip(ends, centre, strict=True)]
            other = min(other, max(apart))
    return own < other


@given(st.integers(0, 10**6), st.sampled_from([None, BOX]))
@settings(max_examples=40)
def test_radii_are_the_definition(seed, box):
    x, slots_ = case(seed, box=box)
    found = slots_.certify_rows(x)
    for row, label, size in zip(x, found.labels, found.radii, strict=True):
        nearest = min(range(len(slots_.labels)), key=lambda k: distance(row, slots_.centres[k]))
        assert label == slots_.labels[nearest]
        if math.isinf(size):
            assert stays(row, slots_, label, 5.0)
            continue
        assert size == 0 or stays(row, slots_, label, size * (1 - 1e-7))
        assert not stays(row, slots_, label, size * (1 + 1e-7) + 1e-9)
        if box is None:
            own, other = (
                min(
                    distance(row, c) for c, of in zip(slots_.centres, slots_.labels, strict=True) if (of == label) == it
                )
                for it in (True, False)
            )
            assert size == pytest.approx((other - own) / 2, abs=1e-7)


@given(st.integers(0, 10**6), st.sampled_from([None, BOX]))
@settings(max_examples=40)
def test_no_change_inside_gives_another_label(seed, box):
    x, slots_ = case(seed, box=box)
    found = slots_.certify_rows(x)
    rng = np.random.default_rng(seed + 1)
    for row, label, size in zip(x, found.labels, np.minimum(found.radii, 2.0) * 0.999, strict=True):
        towards = np.clip(slots_.centres - row, -size, size)  # as near to a centre as the ball allows
        corners = size * rng.choice([-1.0, 1.0], (300, len(row)))
        mixed = np.where(rng.random((len(slots_.centres), len(row))) < 0.7, towards, -np.sign(towards) * size)
        moved = row + np.concatenate([towards, corners, mixed, size * rng.uniform(-1, 1, (100, len(row)))])
        moved = moved if box is None else moved.clip(*box)
        assert set(slots_.certify_rows(moved).labels.tolist()) <= {label}


@pytest.mark.parametrize("box", [None, BOX])
def test_a_search_comes_near_the_radius(box):
    """The bound is no loose one: a grid over two entries finds another label not far above it."""
    steps = np.linspace(-1.6, 1.6, 161)
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    proved, reached = 0.0, 0.0
    for seed in range(30):
        x, slots_ = case(seed, box=box, features=2, rows=1)
        found = slots_.certify_rows(x)
        inside = np.ones(len(grid), bool) if box is None else ((x + grid >= 0) & (x + grid <= 1)).all(1)
        apart = np.abs((x + grid[inside])[:, None] - slots_.centres).max(2)
        other = slots_.labels[apart.argmin(1)] != found.labels[0]
        if other.any():
            least = np.abs(grid[inside][other]).max(1).min()
            assert found.radii[0] <= least + 1e-9
            proved, reached = proved + found.radii[0], reached + least
    assert proved > 0.65 * reached


def test_the_box_makes_indifferent_entries_harmless():
    """Half a pixel is never farther than half a pixel away, so that only the first entry counts."""
    plain = LinfDistanceSlots(np.float32([[0, 0.5], [1, 0.5]]), np.array([0, 1]), None, Preprocessing("features", (2,)))
    boxed = LinfDistanceSlots(plain.centres, plain.labels, BOX, plain.preprocessing)
    x = np.array([[0.0, 0.0]])
    assert plain.certify_rows(x).radii[0] == pytest.approx(0.25)  # of distances 0.5 and 1
    assert boxed.certify_rows(x).radii[0] == pytest.approx(0.5)
    assert boxed.certify_rows(x).rivals[0] == 1


def pictures(n, seed):
    """A bright row or a bright column, and noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.integers(0, 50, (n, 5, 5))
    for image, label in zip(x, y, strict=True):
        where = rng.integers(1, 4)
        image[(where, slice(None)) if label else (slice(None), where)] += 200
    return x.astype(np.uint8), y


def test_training_certifies_what_k_means_does_not():
    data = load_data("digits")
    x, right = data.x_test[:150], data.y_test[:150]
    shares = []
    for epochs in (0, 10):
        config = LinfDistanceConfig(radius=0.15, slots_per_class=5, epochs=epochs, batch_size=100, rate=0.03)
        found = fit_linf_distance(data.x_train, data.y_train, config=config).certify(x)
        shares.append(((found.labels == right) & (found.radii > 0.15)).mean())
    assert shares[1] > 0.7 > 0.5 > shares[0]


def test_the_same_seed_gives_the_same_slots_and_rows_need_no_box():
    x, y = pictures(60, 0)
    config = LinfDistanceConfig(slots_per_class=2, epochs=1)
    one, two = (fit_linf_distance(x, y + 4, config=config) for _ in range(2))
    assert np.array_equal(one.centres, two.centres)
    assert one.box == BOX
    assert set(one.predict(x).tolist()) == {4, 5}
    rows = x.reshape(60, -1).astype(np.float32) / 255
    free = fit_linf_distance(rows, y, config=config)
    assert free.box is None
    outside = LinfDistanceSlots(one.centres, one.labels, None, free.preprocessing)
    assert (one.certify(x).radii >= outside.certify(rows).radii * (1 - 1e-6)).all()
    assert slots.LinfDistanceSlots is LinfDistanceSlots


@pytest.mark.parametrize("kind", ["images", "rows"])
def test_a_file_holds_all_of_them(kind, tmp_path):
    x, y = pictures(40, 0)
    given = x if kind == "images" else x.reshape(40, -1).astype(np.float32)
    slots_ = fit_linf_distance(given, y, config=LinfDistanceConfig(slots_per_class=2, epochs=1))
    again = LinfDistanceSlots.load(slots_.save(tmp_path / "new" / "balls.npz"))
    assert (again.box, again.preprocessing) == (slots_.box, slots_.preprocessing)
    assert np.array_equal(again.certify(given).radii, slots_.certify(given).radii)
    assert np.array_equal(again.predict(given), slots_.predict(given))


@pytest.mark.parametrize("what", ["missing", "text", "cut", "other", "objects", "labels"])
def test_other_files_are_one_line(what, tmp_path):
    x, slots_ = case(0, box=BOX)
    path = slots_.save(tmp_path / "balls.npz")
    held = dict(np.load(path))
    if what == "missing":
        path.unlink()
    elif what == "text":
        path.write_text("no archive")
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif what == "other":
        np.savez(path, x=x)
    elif what == "objects":
        np.savez(path, **{**held, "labels": np.array([{}], object)})
    else:
        np.savez(path, **{**held, "labels": held["labels"][:-1]})
    with pytest.raises(ModelError, match="`path` must be a file that `save` wrote, got"):
        LinfDistanceSlots.load(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"radius": 0}, "`radius` must be a number > 0, got 0"),
        ({"lead": math.inf}, "`lead` must be a number > 0, got inf"),
        ({"slots_per_class": 0}, "`slots_per_class` must be >= 1, got 0"),
    ],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(UsageError, match=said):
        LinfDistanceConfig(**options)


def test_one_label_and_other_inputs_are_refused():
    x, y = pictures(20, 0)
    with pytest.raises(DataError, match="`y` must hold two labels or more"):
        fit_linf_distance(x, y * 0)
    found = fit_linf_distance(x, y, config=LinfDistanceConfig(slots_per_class=1, epochs=0))
    with pytest.raises(DataError, match="`x` must be uint8 images of shape"):
        found.predict(x[:, :4])
