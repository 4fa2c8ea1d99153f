"""The ood protocol: its figures, its splits, its foreign sets, its peers and its table."""

import dataclasses
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from support import reference_ood as literal

from protocols.data.dataset import Dataset
from protocols.data.loading import load_data
from protocols.harness.detection_metrics import Quality, mean_quality, quality
from protocols.harness.encoders import Encoder
from protocols.harness.foreign import foreign_inputs, is_noise, resized
from protocols.harness.linear_probe import linear_classifier, linear_probe
from protocols.harness.outcome import SeedOutcome, merge_rows
from protocols.harness.protocol import Setting
from protocols.runs.ood.data_sets import near_sets
from protocols.runs.ood.peers import NOVELTY_PEERS, Familiar, angle_to, fit_novelty_peer, k_means, unit
from protocols.runs.ood.protocol import NOT_INSTALLED, PROTOCOL
from slots.errors import UsageError
from slots.features.preprocessing import Preprocessing

pytestmark = pytest.mark.slow

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)
DIGITS = load_data("digits")


def silent(_step, _share):
    return None


def setting(tmp_path, **changes):
    """Digits as pixels, where no other data lies."""
    return Setting(**{"data": DIGITS, "backbone": "pixels", "data_dir": tmp_path, **changes})


# --- figures


@given(SCORES, SCORES)
def test_figures_are_the_literal_ones(familiar, foreign):
    found = quality(familiar, foreign)
    assert found.auroc == pytest.approx(literal.auroc(familiar, foreign))
    assert found.fpr95 == pytest.approx(literal.false_positive_rate(familiar, foreign))
    opposite = [-x for x in foreign], [-x for x in familiar]
    assert found.fpr95_foreign == pytest.approx(literal.false_positive_rate(*opposite))
    assert found.aupr_foreign == pytest.approx(literal.average_precision(foreign, familiar))
    assert found.aupr_familiar == pytest.approx(
        literal.average_precision([-x for x in familiar], [-x for x in foreign])
    )


def test_figures_by_hand():
    """Twenty familiar scores 1 to 20: the 19th accepts 95 %; of the foreign 18, 19, 30, 40 two lie at or below it."""
    found = quality(range(1, 21), [18, 19, 30, 40])
    assert found.fpr95 == 0.5
    assert found.fpr95_foreign == 3 / 20  # all four foreign ones are needed, and 18, 19 and 20 are no lower
    mean = mean_quality([found, Quality(1.0, 1.0, 1.0, 0.0, 0.0)])
    assert mean.fpr95 == 0.25


# --- sets


def test_foreign_images_without_other_data(tmp_path):
    found = foreign_inputs(DIGITS, tmp_path, 50, np.random.default_rng(0))
    assert list(found) == ["inverted", "shuffled pixels", "gaussian noise", "uniform noise"]
    assert [is_noise(name) for name in found] == [False, False, True, True]
    for x in found.values():
        assert x.shape == (50, 8, 8, 1)
        assert x.dtype == np.uint8
    upright = 255 - found["inverted"]
    assert all(any((image == it).all() for it in DIGITS.x_test) for image in upright)
    ordered = np.sort(found["shuffled pixels"].reshape(50, -1))
    assert np.array_equal(ordered, np.sort(upright.reshape(50, -1)))
    assert not np.array_equal(found["shuffled pixels"], upright)


def test_foreign_images_are_other_data(tmp_path):
    """Digits are not foreign to digits, colour is not shown to a grey network, and all get the data's shape."""
    rng = np.random.default_rng(0)
    for name, shape in (("mnist", (28, 28)), ("fashion_mnist", (28, 28)), ("cifar10", (32, 32, 3))):
        images = rng.integers(0, 256, (30, *shape), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", x_test=images, y_test=np.zeros(30, np.int64))
    found = foreign_inputs(DIGITS, tmp_path, 20, rng)
    assert list(found) == ["fashion_mnist", "gaussian noise", "uniform noise"]
    assert found["fashion_mnist"].shape == (20, 8, 8, 1)
    colour = dataclasses.replace(DIGITS, name="cifar10", x_train=np.zeros((5, 32, 32, 3), np.uint8))
    colour = dataclasses.replace(colour, x_test=np.zeros((25, 32, 32, 3), np.uint8))
    assert list(foreign_inputs(colour, tmp_path, 20, rng)) == [
        "mnist", "fashion_mnist", "gaussian noise", "uniform noise",
    ]  # fmt: skip


def test_resized_images_keep_their_grey():
    grey = np.full((3, 28, 28, 1), 77, np.uint8)
    assert (resized(grey, (8, 8, 1)) == 77).all()
    assert resized(grey, (32, 32, 3)).shape == (3, 32, 32, 3)
    halves = np.zeros((1, 4, 4, 1), np.uint8)
    halves[:, :, 2:] = 200
    small = resized(halves, (2, 2, 3))[0]
    assert (small[:, 0] < 60).all()
    assert (small[:, 1] > 140).all()


def feature_rows(n_test=60):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(4), 60)
    x = (rng.normal(0, 0.3, (240, 12)) + 3 * np.eye(4, 12)[y]).astype(np.float32)
    cut = 240 - n_test
    return Dataset("rows", x[:cut], y[:cut], x[cut:], y[cut:], tuple("abcd"), "")


def test_foreign_rows_have_the_columns_of_the_data(tmp_path):
    data = feature_rows()
    found = foreign_inputs(data, tmp_path, 60, np.random.default_rng(0))
    assert list(found) == ["shuffled columns", "gaussian noise", "uniform noise"]
    assert np.array_equal(np.sort(found["shuffled columns"], axis=0), np.sort(data.x_test, axis=0))
    assert all(x.dtype == np.float32 for x in found.values())


def test_held_out_classes_are_seen_by_nobody(tmp_path):
    sets = near_sets(setting(tmp_path), 3, share=0.4, n_train=0, progress=silent)
    assert len(sets.known) == 6
    assert set(sets.y_train) == set(range(6))
    labels = {int(name) for name in sets.known}
    assert len(sets.train) == np.isin(DIGITS.y_train, list(labels)).sum()
    assert len(sets.calibration) + len(sets.test) == np.isin(DIGITS.y_test, list(labels)).sum()
    outside = DIGITS.x_test[~np.isin(DIGITS.y_test, list(labels))]
    assert np.allclose(sets.foreign["held-out classes"], outside.reshape(len(outside), -1) / 255)
    assert sets.linear.out_features == 6
    other = near_sets(setting(tmp_path), 4, share=0.4, n_train=100, progress=silent)
    assert other.known != sets.known
    assert len(other.train) == 100


def test_messages_on_data(tmp_path):
    two = dataclasses.replace(DIGITS, y_train=DIGITS.y_train % 2, y_test=DIGITS.y_test % 2)
    with pytest.raises(UsageError, match="`data` must have at least 3 classes to hold some out, got 2"):
        near_sets(setting(tmp_path, data=two), 0, share=0.4, n_train=0, progress=silent)
    few = dataclasses.replace(DIGITS, x_test=DIGITS.x_test[:9], y_test=DIGITS.y_test[:9])
    with pytest.raises(UsageError, match="at least 40 labelled test examples, got 1437 and 9"):
        PROTOCOL.run_seed(setting(tmp_path, data=few), 0, silent)
    tiny = dataclasses.replace(DIGITS, x_train=DIGITS.x_train[:19], y_train=DIGITS.y_train[:19])
    with pytest.raises(UsageError, match="at least 20 training examples for a slot model that judges novelty, got 19"):
        PROTOCOL.run_seed(setting(tmp_path, data=tiny), 0, silent)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"slots": 5}, "`slots` must be >= 10, got 5"),
        ({"held_out": 1.0}, r"`held_out` must lie in \(0, 1\), got 1.0"),
        ({"foreign": 3}, "`train` and `epochs` must be >= 0 and `foreign` >= 10, got 20000, 3 and 3"),
    ],
)
def test_messages_on_options(tmp_path, options, says):
    with pytest.raises(UsageError, match=says):
        PROTOCOL.run_seed(setting(tmp_path, options=options), 0, silent)


# --- peers


@pytest.fixture(scope="module")
def familiar():
    data = feature_rows()
    return Familiar(np.abs(data.x_train), data.y_train, linear_probe(np.abs(data.x_train), data.y_train), 40)


@pytest.mark.parametrize("name", NOVELTY_PEERS)
def test_peers_score_rows_and_find_what_is_far(familiar, name):
    rng = np.random.default_rng(1)
    test = np.abs(feature_rows().x_test)
    far = np.abs(rng.normal(0, 3, test.shape)).astype(np.float32)
    far[:, :4] = 0.05  # nothing of what the classes are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peers = fit_novelty_peer(name, familiar)
    for peer in peers:
        usual, foreign = peer.score(test), peer.score(far)
        assert usual.shape == (len(test),)
        assert usual.dtype == np.float64
        assert np.isfinite(usual).all()
        assert np.array_equal(peer.score(test[:7]), usual[:7]) or np.allclose(
            peer.score(test[:7]), usual[:7], rtol=1e-5
        )
        # what looks at the logits alone is not asked to find this
        if name not in ("max-softmax", "energy", "gen", "ash", "scale", "vim", "nnguide"):
            assert quality(usual, foreign).auroc > 0.9, peer.method


def test_neighbours_are_counted_as_published(familiar):
    """Sun et al. 2022 by hand: minus the k-th largest cosine."""
    rows, test = unit(familiar.features), unit(np.abs(feature_rows().x_test[:5]))
    first, fiftieth, raw = fit_novelty_peer("knn", familiar)
    cosine = np.sort(test @ rows.T, axis=1)[:, ::-1]
    assert first.score(test) == pytest.approx(-cosine[:, 0], abs=1e-6)
    assert fiftieth.score(test) == pytest.approx(-cosine[:, 49], abs=1e-6)
    gap = ((test[:, None] - familiar.features) ** 2).sum(2).min(1)
    assert raw.score(test) == pytest.approx(gap, rel=1e-4)


def test_the_angle_to_centres_by_hand():
    score = angle_to(np.float32([[1, 0], [0, 1]]))
    assert score(np.float32([[2, 0], [3, 3], [-1, 0]])) == pytest.approx([0, np.pi / 4, np.pi / 2], abs=1e-3)
    assert len(k_means(np.float32([[1, 0], [0, 1]]), 5, 0)) == 2


# --- the run

SMALL = {"slots": 120, "train": 600, "foreign": 60, "epochs": 1}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    told = []
    chosen = Setting(DIGITS, "pixels", peers=("energy", "knn", "k-means"), data_dir=tmp_path_factory.mktemp("no"))
    chosen = dataclasses.replace(chosen, options=SMALL)
    return chosen, PROTOCOL.run_seed(chosen, 0, lambda step, share: told.append(share)), told


def test_the_table(outcome):
    _, found, told = outcome
    groups = list(dict.fromkeys(row.group for row in found.rows))
    assert groups[:2] == ["far sets, mean", "held-out classes"]
    assert set(groups[2:]) == {
        "against inverted", "against shuffled pixels", "against gaussian noise", "against uniform noise",
    }  # fmt: skip
    first = [row for row in found.rows if row.group == groups[0]]
    assert [row.ours for row in first[:4]] == [True, True, True, False]
    assert len(first) == 3 + 1 + 3 + 1
    figures = first[0].figures
    assert set(figures) <= {column.key for column in PROTOCOL.columns}
    singles = [row for row in found.rows if row.method == first[0].method and row.group.startswith("against")]
    counted = [row.figures["auroc"] for row in singles if "noise" not in row.group]
    assert figures["auroc"] == pytest.approx(np.mean(counted))
    assert min(told) >= 0
    assert max(told) <= 1


def test_ours_finds_and_holds_its_promise(outcome):
    """Digits: nearly all foreign inputs are found, and alarms lie where binomial luck of 180 examples lets them."""
    _, found, _ = outcome
    for row in found.rows:
        if row.ours and row.group in ("far sets, mean", "held-out classes"):
            assert row.figures["auroc"] > 0.9, row
            assert row.figures["alarms_5"] <= 0.14, row
            assert row.figures["remembered"] <= 120 * 2
    detector = next(row for row in found.rows if row.method == "slots: NoveltyDetector")
    assert detector.figures["remembered"] <= 120


def test_curves_stand_beside_k_means(outcome):
    _, found, _ = outcome
    assert len(found.curves) == 4
    for curve in found.curves:
        assert list(curve.x) == [10, 30, 100]
        assert all(0.5 < value <= 1 for value in curve.y)
    assert [curve.ours for curve in found.curves] == [True, False, True, False]


def test_a_run_can_be_repeated_and_stored(outcome):
    chosen, found, _ = outcome
    again = PROTOCOL.run_seed(chosen, 0, silent)
    for first, second in zip(found.rows, again.rows, strict=True):
        timeless = [{k: v for k, v in it.figures.items() if k not in ("fit_s", "score_ms")} for it in (first, second)]
        assert timeless[0] == timeless[1], first.method
    back = SeedOutcome.from_json(found.as_json())
    assert len(merge_rows([back, again], PROTOCOL.columns)) == len(found.rows)


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    options = {"slots": 20, "train": 250, "foreign": 20, "epochs": 0}
    found = PROTOCOL.run_seed(setting(tmp_path, peers=("knn",), options=options), 0, silent)
    assert found.skipped == {"knn": NOT_INSTALLED}


def test_feature_rows_have_far_sets_too(tmp_path):
    chosen = Setting(feature_rows(), "none", options={"slots": 40, "epochs": 1, "held_out": 0.3}, data_dir=tmp_path)
    more = Dataset("rows", *(np.concatenate([it, it]) for it in (chosen.data.x_train, chosen.data.y_train)),
                   chosen.data.x_test, chosen.data.y_test, chosen.data.class_names, "")  # fmt: skip
    found = PROTOCOL.run_seed(dataclasses.replace(chosen, data=more), 0, silent)
    assert {row.group for row in found.rows} >= {"far sets, mean", "against shuffled columns", "held-out classes"}


def test_logits_come_from_the_networks_own_layer(tmp_path):
    """A stored layer is taken, its rows for the known classes; one of other classes is not."""
    data = feature_rows()
    keep = data.y_train > 0
    x, y, classes = data.x_train[keep], data.y_train[keep] - 1, np.array([1, 2, 3])
    weight = torch.eye(4, 12)
    encoder = Encoder("none", Preprocessing.of(x), torch.nn.Identity())
    chosen = setting(tmp_path, data=data, weights=str(tmp_path / "net.pt"))
    assert linear_classifier(encoder, chosen, x, y, classes=classes, seed=0).weight.shape == (3, 12)  # no file: a probe
    torch.save({"module.fc.weight": weight, "module.fc.bias": torch.zeros(4)}, tmp_path / "net.pt")
    found = linear_classifier(encoder, chosen, x, y, classes=classes, seed=0)
    assert torch.equal(found.weight, weight[1:])
    torch.save({"fc.weight": weight.flip(0), "fc.bias": torch.zeros(4)}, tmp_path / "net.pt")
    other = linear_classifier(encoder, chosen, x, y, classes=classes, seed=0)
    assert (other(torch.from_numpy(x)).argmax(1).numpy() == y).mean() > 0.95
    trained = torch.nn.Linear(12, 3)
    assert (
        linear_classifier(dataclasses.replace(encoder, linear=trained), chosen, x, y, classes=classes, seed=0)
        is trained
    )
    save_file({"linear.weight": weight, "linear.bias": torch.zeros(4)}, tmp_path / "net.safetensors")
    stored = dataclasses.replace(chosen, weights=str(tmp_path / "net.safetensors"))
    assert torch.equal(linear_classifier(encoder, stored, x, y, classes=classes, seed=0).weight, weight[1:])


def test_frozen_features_are_kept(tmp_path, monkeypatch):
    """The second run of a frozen network reads its features."""
    from backbones.nets.pixels import Pixels
    from protocols.runs.ood import data_sets

    calls = []

    class Frozen(data_sets.Encoder):
        def __call__(self, x):
            calls.append(len(x))
            return super().__call__(x)

    def make(chosen, x, y, seed, progress):
        preprocessing = data_sets.make_encoder(dataclasses.replace(chosen, weights=None), x, y, seed).preprocessing
        return Frozen("frozen", preprocessing, Pixels((1, 8, 8)))

    original = data_sets.make_encoder
    monkeypatch.setattr(data_sets, "make_encoder", lambda s, x, y, seed, progress=None: (
        original(s, x, y, seed, progress) if s.weights is None else make(s, x, y, seed, progress)
    ))  # fmt: skip
    chosen = setting(tmp_path, weights="some", cache=tmp_path / "kept")
    first = near_sets(chosen, 0, share=0.4, n_train=100, progress=silent)
    seen = len(calls)
    second = near_sets(chosen, 0, share=0.4, n_train=100, progress=silent)
    assert seen == 4
    assert len(calls) == seen
    assert np.array_equal(first.train, second.train)
    assert torch.equal(first.linear.weight, second.linear.weight)
