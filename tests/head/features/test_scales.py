"""Features of extreme scales: the answers of scale 1, or one line that refuses them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from slots.errors import DataError
from slots.head.similarities import normalize
from slots.training import TrainConfig, fit

RNG = np.random.default_rng(0)
Y = np.arange(120) % 4
X = (np.eye(4)[Y] + RNG.normal(0, 0.15, (120, 4))).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return fit(X, Y, config=TrainConfig(epochs=1, slots_per_class=2))[0]


@pytest.mark.parametrize("power", [-120, -100, -66, 0, 60, 66, 100, 125])
def test_answers_are_those_of_scale_one(model, power):
    expected, scaled = model.predict(X), X * np.float32(2.0) ** power
    assert np.isfinite(scaled).all()
    assert (scaled != 0).all()
    found = model.predict(scaled)
    for part in ("labels", "answers", "slots", "runner_up_slots"):
        assert np.array_equal(getattr(found, part), getattr(expected, part))
    for i in range(0, len(X), 17):
        alone = model.predict(scaled[i : i + 1])
        assert (alone.labels[0], alone.answers[0], alone.slots[0]) == (
            found.labels[i],
            found.answers[i],
            found.slots[i],
        )


@pytest.mark.parametrize("scale", [1e300, 1e40, 1e-45, 1e-300])
def test_float64_beyond_float32_is_refused_in_one_line(model, scale):
    with pytest.raises(DataError, match=r"must lie within the range of float32, got .* of row 0"):
        model.predict(X.astype(np.float64) * scale)
    with pytest.raises(DataError, match="must lie within the range of float32"):
        fit(X.astype(np.float64) * scale, Y, config=TrainConfig(epochs=1, slots_per_class=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_answered_as_its_own_float32(model, dtype):
    half = torch.from_numpy(X).to(dtype)
    found, expected = model.predict(half), model.predict(half.float())
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.slots, expected.slots)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
def test_rows_have_length_one_at_every_scale(seed, dtype):
    rng = np.random.default_rng(seed)
    bits = 120 if dtype == torch.float32 else 1000
    power = rng.integers(-bits, bits, (5, 1)).astype(float)
    plain = torch.from_numpy(rng.normal(size=(5, 7))).to(dtype)
    scaled = torch.ldexp(plain, torch.from_numpy(power).to(dtype))
    assert torch.isfinite(scaled).all()
    torch.testing.assert_close(normalize(scaled), normalize(plain), rtol=1e-5, atol=1e-6)
    assert normalize(torch.zeros(2, 3, dtype=dtype)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("scale", [1e30, 1e25, 1e-25, 1e-30])
def test_a_whole_life_at_a_scale_whose_squares_no_float32_holds(scale, tmp_path):
    rng = np.random.default_rng(0)
    known = (np.eye(6)[np.arange(240) % 3] + rng.normal(0, 0.2, (240, 6))).astype(np.float32)
    new = (np.eye(6)[3 + np.arange(30) % 3] + rng.normal(0, 0.1, (30, 6))).astype(np.float32)
    config = slots.TrainConfig(epochs=2, slots_per_class=3, held_out=0.3, whitening=0.2, device="cpu")
    answers = []
    for factor in (np.float32(1), np.float32(scale)):
        model, _ = slots.fit(known * factor, np.arange(240) % 3, config=config)
        folder = tmp_path / f"{factor:g}"
        model.save(folder)
        model = slots.SlotModel.load(folder)
        assert model.rehearsal.lengths.isfinite().all()
        model.update(new * factor, {0: "a", 1: "b", 2: "c"}, config=slots.UpdateConfig(recall=True))
        assert model.head.recall is not None
        model.save(folder, keep_history=True)
        answers.append(slots.SlotModel.load(folder).predict(np.concatenate([known, new]) * factor).labels)
    assert (answers[0] == answers[1]).mean() > 0.95
