"""Answers, thresholds and slots do not depend on how coarsely a user lets torch multiply."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_models import mixture

from slots.closing.config import ClosingConfig
from slots.head.decision import decide, matching_pairs
from slots.head.exact_thresholds import precision_thresholds_over
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.rounding import (
    add_by_owner_,
    full_precision,
    full_product,
    multiplies_bfloat16,
    product_error,
    strictly_above,
    strictly_below,
)
from slots.training.config import TrainConfig
from slots.training.fitting import fit


@contextmanager
def coarse_products():
    """Bfloat16 products wherever this processor makes them; skips where it makes none."""
    a, b = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).split(32)
    exact, matmul = a @ b.T, torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        if torch.equal(a @ b.T, exact):
            pytest.skip("this processor makes float32 products in float32 whatever it is told")
        yield
    finally:
        matmul.fp32_precision = before


def edge_cases(n=300, feature_dim=256):
    """Slots whose caps end within 3e-5 of the inputs, on either side."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, feature_dim, generator=generator)
    weights = normalize(x + 0.3 * torch.randn(n, feature_dim, generator=generator))
    scores = (normalize(x.double()) * normalize(weights.double())).sum(1)
    shift = torch.linspace(-3e-5, 3e-5, n, dtype=torch.double)
    head = IncrementalNeuralHashing(feature_dim)
    head.add_slots(weights, torch.arange(n) % 7, precision_thresholds=(scores + shift).float())
    return x[:, None], head.caps()


def test_coarse_products_change_no_answer():
    """Matches that lie 3e-5 inside a cap stay matches, and unmatched inputs keep their answers."""
    x, caps = edge_cases()
    wanted, pairs = decide(x, caps), matching_pairs(x, caps)
    assert 0.3 < wanted.matched.mean() < 0.7
    with coarse_products():
        found, found_pairs = decide(x, caps), matching_pairs(x, caps)
    assert all(torch.equal(a, b) for a, b in zip(found_pairs, pairs, strict=True))
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@pytest.mark.parametrize("precision", [1.0, 0.9])
def test_coarse_products_change_no_threshold(precision):
    """Thresholds over a reference set are the same bits."""
    rows, labels = mixture(5, 40, feature=64)
    weights, slot_labels = normalize(torch.from_numpy(rows[:30])), torch.from_numpy(labels[:30])

    def blocks():
        yield torch.from_numpy(rows)[:, None], torch.from_numpy(labels)

    def thresholds():
        return precision_thresholds_over(blocks, weights, slot_labels, precision=precision, n_examples=len(rows))

    wanted = thresholds()
    with coarse_products():
        assert torch.equal(thresholds(), wanted)


def test_coarse_products_change_no_closing():
    """A model closed under coarse products is the model closed under exact ones."""
    rows, labels = mixture(4, 60, feature=32, spread=0.25)
    config = TrainConfig(epochs=0, slots_per_class=3, closing=ClosingConfig(reach=0.9))
    wanted, _ = fit(rows, labels, config=config)
    with coarse_products():
        found, _ = fit(rows, labels, config=config)
    for name, value in wanted.head.state_dict().items():
        assert torch.equal(found.head.state_dict()[name], value), name


PRODUCTS = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul


@pytest.fixture
def settings():
    """Reads how products are made on a GPU and on the CPU; puts everything back."""
    everything = (torch.backends, *PRODUCTS)
    before = [it.fp32_precision for it in everything]
    yield lambda: [it.fp32_precision for it in PRODUCTS]
    for it, was in zip(everything, before, strict=True):
        it.fp32_precision = was


def old_setting(value):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API", UserWarning)  # torch 2.9 says it once
        torch.set_float32_matmul_precision(value)


def test_the_guard_gives_back_what_the_user_set(settings):
    """Also when something raises inside."""
    PRODUCTS[0].fp32_precision, PRODUCTS[1].fp32_precision = "tf32", "bf16"
    with full_precision():
        assert settings() == ["ieee", "ieee"]
    with pytest.raises(RuntimeError, match="shape"):
        full_product(torch.ones(1, 2), torch.ones(1, 2))
    assert settings() == ["tf32", "bf16"]


def test_the_guard_knows_the_older_setting(settings):
    """`medium` is bfloat16 on the CPU."""
    old_setting("medium")
    try:
        assert settings() == ["tf32", "bf16"]
        with full_precision():
            assert settings() == ["ieee", "ieee"]
        assert settings() == ["tf32", "bf16"]
    finally:
        old_setting("highest")


def test_the_guard_leaves_inherited_settings_inherited(settings):
    """What the user sets for all backends later still counts."""
    for it in PRODUCTS:
        it.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    with full_precision():
        assert settings() == ["ieee", "ieee"]
    assert settings() == ["tf32", "tf32"]
    torch.backends.fp32_precision = "ieee"
    assert settings() == ["ieee", "ieee"]


@given(st.integers(1, 3000), st.integers(0, 2**31), st.booleans())
def test_the_error_of_a_product_stays_below_its_bound(n_features, seed, alike):
    """Random rows, and rows that are nearly one another."""
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(rng.normal(size=(4, n_features)).astype(np.float32))
    b = a + 1e-3 if alike else torch.from_numpy(rng.normal(size=(4, n_features)).astype(np.float32))
    exact = normalize(a.double()) @ normalize(b.double()).T
    rough = full_product(normalize(a), normalize(b).T)
    assert float((rough.double() - exact).abs().max()) <= product_error(n_features)


@given(st.floats(-1, 1))
def test_roundings_fall_on_their_side(score):
    """And nearer than anything that decides."""
    exact = torch.tensor([score], dtype=torch.double)
    assert 0 < float(strictly_above(exact).double() - exact) < 2e-7
    assert 0 < float(exact - strictly_below(exact).double()) < 2e-7


@given(st.integers(0, 2**31), st.integers(0, 60), st.integers(1, 6))
def test_sums_by_owner_are_the_literal_ones(seed, n, n_owners):
    """Row by row, onto what was there."""
    rng = np.random.default_rng(seed)
    rows, owners = torch.from_numpy(rng.normal(size=(n, 3))), torch.from_numpy(rng.integers(0, n_owners, n))
    before = torch.from_numpy(rng.normal(size=(n_owners, 3)))
    wanted = before.numpy().copy()
    for row, owner in zip(rows.numpy(), owners.tolist(), strict=True):
        wanted[owner] += row
    sums = before.clone()
    assert add_by_owner_(sums, owners, rows) is sums
    np.testing.assert_array_equal(sums.numpy(), wanted)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, False),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_is_for_processors_with_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bfloat16(torch.device("cpu")) is expected
    assert multiplies_bfloat16(torch.device("cuda"))


def test_an_older_torch_is_asked_in_its_own_way(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert multiplies_bfloat16(torch.device("cpu"))
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not multiplies_bfloat16(torch.device("cpu"))
