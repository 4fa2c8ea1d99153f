"""Inputs are tested as they are read: whatever is wrong is said before any answer, and nothing is held in between."""

import numpy as np
import pytest
import torch
from support.small_models import mixture, three_animals

from slots.errors import DataError
from slots.features import preprocessing
from slots.features.preprocessing import Preprocessing


@pytest.mark.parametrize("row", [0, 3, 4, 9])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_in_whichever_block_it_stands(row, bad, monkeypatch):
    """The row counts from the start of all inputs, in a check and in a prediction."""
    monkeypatch.setattr(preprocessing, "_CHECKED", 4 * 8)
    x = np.ones((10, 8), np.float32)
    x[row, 5] = bad
    wanted = rf"`x` must be finite, got NaN or infinity in row {row}\. Drop or impute such rows\."
    with pytest.raises(DataError, match=wanted):
        Preprocessing("features", (8,)).check(x)
    model = three_animals()
    monkeypatch.setattr("slots.features.featurizer._BLOCK_FLOATS", 4 * 32)
    assert len(list(model.blocks(10))) == 3
    with pytest.raises(DataError, match=wanted):
        model.predict(x)


def test_a_large_array_is_looked_at_in_small_parts(monkeypatch):
    """Every row once, a few megabytes at a time."""
    x, seen = np.ones((50_000, 64), np.float32), []
    whole = Preprocessing.check_finite

    def spy(self, block, first=0):
        seen.append((first, block.nbytes))
        return whole(self, block, first)

    monkeypatch.setattr(Preprocessing, "check_finite", spy)
    Preprocessing("features", (64,)).check(x)
    assert max(size for _, size in seen) <= 4 << 20
    assert sum(size for _, size in seen) == x.nbytes
    assert [first for first, _ in seen] == list(range(0, len(x), 16_384))


def test_a_wrong_form_is_refused_before_a_number_is_read():
    """Kind and shape first."""
    x, _ = mixture(2, 5, feature=8)
    form = Preprocessing("features", (8,))
    for wrong in (x[:, :7], x.astype(np.int64), x[None]):
        with pytest.raises(DataError, match="must be float features of shape"):
            form.check_form(wrong)
    assert form.check(x) is x


def test_rows_that_must_not_be_written_to_are_answered_without_a_warning(tmp_path):
    """A mapped file is such; warnings are errors here."""
    x = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    made = Preprocessing("features", (3,))
    assert torch.equal(made(made.check_finite(mapped)), torch.from_numpy(x))
