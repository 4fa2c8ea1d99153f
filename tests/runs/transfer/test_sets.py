"""The suite's data sets: what is found and named as missing, and what each variant makes of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.data.loading import load_data
from protocols.harness.protocol import Setting
from protocols.runs.transfer.domains import IMAGE_DOMAINS, blurred, moved, turned
from protocols.runs.transfer.sources import Source, find_sources, source_files
from protocols.runs.transfer.variants import VARIANTS, Part, make_task, rows_of, some
from slots.errors import DataError


def everything(_name):
    return True


@pytest.fixture(scope="module")
def digits():
    return Source(load_data("digits"))


def archive(folder, name="words", n=90, **more):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = np.eye(3, 5)[y] + rng.normal(0, 0.1, (n, 5))
    half = n // 2
    np.savez(folder / f"{name}.npz", x_train=x[:half], y_train=y[:half], x_test=x[half:], y_test=y[half:], **more)


class TestSources:
    def test_what_is_there_and_what_is_missing(self, tmp_path):
        archive(tmp_path, "words", x_out=np.ones((4, 5)))
        archive(tmp_path, "mnist")
        setting = Setting(load_data("digits"), data_dir=tmp_path, options={"archives": str(tmp_path)})
        sources, missing = find_sources(setting, everything)
        assert [it.name for it in sources] == ["digits", "mnist", "mnist", "words"]
        assert [it.foreign is None for it in sources] == [True, True, True, False]
        assert missing["cifar10"] == "no cifar10.npz in the data folder"
        assert "pass --backbone cifar_resnet20 --weights FILE" in missing["cifar10, features of a network"]
        assert [path.name for path in source_files(setting)] == ["mnist.npz", "mnist.npz", "words.npz"]

    def test_only_what_is_wanted_is_read(self, tmp_path):
        (tmp_path / "mnist.npz").write_bytes(b"damaged")
        setting = Setting(load_data("digits"), data_dir=tmp_path)
        sources, missing = find_sources(setting, lambda name: name == "digits")
        assert [it.name for it in sources] == ["digits"]
        assert list(missing) == ["archives of embeddings"]
        with pytest.raises(DataError, match="archive of plain arrays"):
            find_sources(setting, everything)

    def test_a_set_without_training_part_is_halved(self, tmp_path):
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "notmnist.npz", x_test=rng.normal(size=(9, 4)), y_test=np.arange(9) % 2)
        sources, _ = find_sources(Setting(load_data("digits"), data_dir=tmp_path), everything)
        data = sources[1].data
        assert (len(data.x_train), len(data.x_test)) == (4, 5)
        assert len(np.unique(np.concatenate([data.x_train, data.x_test]), axis=0)) == 9

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ({"x_out": np.ones((4, 3))}, r"x_out` must be rows of \(5,\) numbers, got float64 of shape \(4, 3\)"),
            (None, "`archives` must be a folder with .npz archives, got none in"),
        ],
    )
    def test_misuse(self, tmp_path, content, sentence):
        if content is not None:
            archive(tmp_path, **content)
        setting = Setting(load_data("digits"), data_dir=tmp_path, options={"archives": str(tmp_path)})
        with pytest.raises(DataError, match=sentence):
            find_sources(setting, everything)


class TestVariants:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_every_variant_of_digits(self, digits, variant):
        task = make_task(digits, variant, 3, examples=1000, tests=200)
        again, other = (make_task(digits, variant, seed, examples=1000, tests=200) for seed in (3, 4))
        assert (task.x == again.x).all()
        assert (task.y == again.y).all()
        assert task.x.shape != other.x.shape or (task.x != other.x).any()
        assert np.unique(task.y).tolist() == list(range(task.n_classes))
        assert set(task.y_test) <= set(task.y)
        assert task.x.shape[1] == task.x_test.shape[1]
        assert task.name == ("digits" if variant == "as it is" else f"digits: {variant}")

    def test_sizes(self, digits):
        sizes = {it: np.bincount(make_task(digits, it, 0, examples=1000, tests=200).y) for it in VARIANTS}
        assert set(sizes["5 a class"]) == {5}
        assert set(sizes["15 a class"]) == {15}
        assert set(sizes["50 a class"]) == {50}
        assert sizes["1 to 100"].min() == 1
        assert sizes["1 to 100"].max() > 80
        assert len(sizes["classes merged"]) == 5
        assert len(sizes["turned classes"]) == 40
        assert make_task(digits, "16 directions", 0, examples=0, tests=0).x.shape == (1437, 16)

    def test_rows_and_few_examples_have_fewer_variants(self):
        rows = Source(load_data("digits"))
        data = Source(replace(load_data("digits"), x_train=rows.data.x_train[:150], y_train=rows.data.y_train[:150]))
        made = {it for it in VARIANTS if make_task(data, it, 0, examples=0, tests=50) is not None}
        assert set(VARIANTS) - made == {"15 a class", "50 a class", "1 to 100"}
        flat = replace(data.data, x_train=rows_of(data.data.x_train), x_test=rows_of(data.data.x_test))
        made = {it for it in VARIANTS if make_task(Source(flat), it, 0, examples=0, tests=50) is not None}
        assert made == {"as it is", "5 a class", "classes merged", "16 directions"}

    def test_mixed_domains_leave_the_test_classes(self, digits):
        mixed, plain = (make_task(digits, it, 0, examples=0, tests=0) for it in ("mixed domains", "as it is"))
        changed = (mixed.x_test != plain.x_test).any(1).mean()
        assert (mixed.y_test == plain.y_test).all()
        assert 0.7 < changed < 0.9  # one in five stays

    def test_every_class_keeps_one(self, digits):
        rng = np.random.default_rng(0)
        y = np.concatenate([np.zeros(300, int), np.arange(1, 4)])
        part = Part(rng.normal(size=(303, 2)), y)
        for seed in range(5):
            assert np.unique(some(part, 6, np.random.default_rng(seed)).y).tolist() == [0, 1, 2, 3]
        assert len(some(part, 6, rng).y) == 6

    def test_many_classes_keep_their_share(self, digits):
        assert len(make_task(digits, "as it is", 0, examples=100, tests=50).y) == 250
        assert len(make_task(digits, "as it is", 0, examples=100, tests=50).y_test) == 50

    def test_wide_pictures_are_halved(self):
        x = np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3)
        rows = rows_of(x)
        assert rows.shape == (2, 16 * 16 * 3)
        assert rows[0, 0] == pytest.approx(x[0, :2, :2, 0].mean() / 255)
        assert rows_of(x[:, :28, :28, :1]).shape == (2, 784)


class TestDomains:
    @given(st.sampled_from([(1, 6, 6, 1), (2, 5, 8, 3)]))
    def test_turned_by_hand(self, shape):
        x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert (turned(x, 0.0) == x).all()
        assert (turned(x, 180.0) == x[:, ::-1, ::-1]).all()
        if shape[1] == shape[2]:
            assert (turned(x, 90.0) == np.rot90(x, axes=(1, 2))).all()

    def test_smaller_keeps_the_middle_and_blackens_the_rim(self):
        x = np.full((1, 12, 12, 1), 200, np.uint8)
        small = turned(x, 0.0, scale=0.5)
        assert (small[0, 4:8, 4:8] == 200).all()
        assert (small[0, [0, 1, -1]] == 0).all()

    def test_blurred_is_the_mean_of_nine(self):
        x = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
        assert blurred(x)[0, 3, 4, 0] == round(float(x[0, 2:5, 3:6, 0].mean()))

    def test_each_domain_changes_images(self, digits):
        x = digits.data.x_test[:20]
        for name, change in IMAGE_DOMAINS.items():
            found = change(x)
            assert found.shape == x.shape, name
            assert (found != x).any(axis=(1, 2, 3)).all(), name

    @given(st.integers(2, 9), st.integers(0, 5))
    def test_moved_rows_keep_their_distances(self, width, seed):
        rows = np.random.default_rng(seed).normal(size=(6, width)).astype(np.float32)
        found = moved(rows, seed=seed)
        spread = np.linalg.norm(rows[:, None] - rows, axis=2)
        assert np.linalg.norm(found[:, None] - found, axis=2) == pytest.approx(spread, abs=1e-5)
        assert np.abs(found - rows).max() > 0
        assert (moved(rows, seed=seed) == found).all()
