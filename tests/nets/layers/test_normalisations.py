"""Normalisations of the input: percentiles by sorting, whitening against the eigenvectors, running statistics."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from backbones.layers.input_norms import IterativeWhitening, PercentileNorm, inverse_root
from backbones.nets.first_layers import input_layer


def colours(n=6, side=12, channels=3, dtype=torch.float64):
    """Channels that are correlated, of different means and deviations."""
    mixing = torch.tensor([[2.0, 0.3, 0.1], [1.5, 0.5, 0.0], [1.2, -0.2, 0.4]], dtype=dtype)[:channels, :channels]
    return torch.einsum("ij,bjhw->bihw", mixing, torch.randn(n, channels, side, side, dtype=dtype)) + 3


def rows(x):
    return x.transpose(0, 1).flatten(1)


def zca(covariance):
    """Exact inverse root by eigenvectors."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T


def percentile(values, share):
    """Linear between the two sorted values next to the share."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_percentiles_become_0_and_1():
    x = colours(3, 5)
    layer = PercentileNorm(3, low=10, high=75).double()
    out = layer(x)
    for c in range(3):
        values = x[:, c].flatten().tolist()
        low, high = percentile(values, 0.1), percentile(values, 0.75)
        torch.testing.assert_close(out[:, c], (x[:, c] - low) / (high - low), rtol=1e-9, atol=1e-9)
    # A single bright pixel changes next to nothing.
    spoiled = x.clone()
    spoiled[0, :, 0, 0] = 1e6
    assert (layer(spoiled) - out)[1:].abs().max() < 0.2


def test_exact_whitening_in_the_limit():
    x = colours()
    layer = IterativeWhitening(3, steps=40).double()
    out = layer(x)
    covariance = torch.cov(rows(x), correction=0)
    root = zca(covariance + 1e-5 * torch.eye(3, dtype=torch.float64))
    expected = torch.einsum("ij,bjhw->bihw", root, x - rows(x).mean(1).view(1, -1, 1, 1))
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(torch.cov(rows(out), correction=0), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-3)
    assert rows(out).mean(1).abs().max() < 1e-10


def test_steps_are_newton_schulz_and_come_nearer():
    matrix = torch.cov(rows(colours()), correction=0)
    exact = zca(matrix)
    normal = matrix / matrix.trace()
    p = torch.eye(3, dtype=torch.float64)
    errors = []
    for steps in range(1, 14):
        p = 0.5 * (3 * p - p @ p @ p @ normal)  # as published; in float64 a few steps of it are stable
        if steps <= 6:
            torch.testing.assert_close(inverse_root(matrix, steps), p / matrix.trace().sqrt(), rtol=1e-6, atol=1e-8)
        errors.append((inverse_root(matrix, steps) - exact).abs().max().item())
    assert all(later <= earlier * (1 + 1e-9) + 1e-10 for earlier, later in pairwise(errors))
    assert errors[0] > 1.0
    assert errors[-1] < 1e-6


def test_many_steps_stay_stable_in_single_precision():
    matrix = torch.diag(torch.tensor([1.0, 1e-2, 1e-4]))
    torch.testing.assert_close(
        inverse_root(matrix, 60), torch.diag(torch.tensor([1.0, 10.0, 100.0])), rtol=1e-3, atol=0.1
    )


@pytest.mark.parametrize("kind", ["batch", "percentile", "whitening"])
def test_evaluation_uses_what_training_saw(kind):
    """After many batches of one kind, running statistics are the batches' own."""
    layer = input_layer(kind, 3).double()
    x = colours(40, 16)
    for _ in range(200):
        out = layer(x)
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.eval()
    torch.testing.assert_close(layer(x), out, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer(x[:1]), out[:1], rtol=1e-3, atol=1e-3)
    assert layer(x[:0]).shape == (0, 3, 16, 16)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_running_statistics_move_by_the_momentum():
    x = colours(2, 4)
    norm, white = PercentileNorm(3, momentum=0.25).double(), IterativeWhitening(3, momentum=0.25).double()
    norm(x)
    white(x)
    low = torch.from_numpy(np.percentile(rows(x).numpy(), 1, axis=1))
    torch.testing.assert_close(norm.running_low, 0.25 * low)
    torch.testing.assert_close(white.running_mean, 0.25 * rows(x).mean(1))
    expected = 0.75 * torch.eye(3, dtype=torch.float64) + 0.25 * torch.cov(rows(x), correction=0)
    torch.testing.assert_close(white.running_covariance, expected)


def test_constant_and_large_batches():
    for kind in ("percentile", "whitening"):
        assert torch.isfinite(input_layer(kind, 2)(torch.ones(2, 2, 4, 4))).all()
    out = PercentileNorm(1)(torch.rand(2, 1, 400, 400))  # more values than are looked at
    assert abs(out.quantile(0.01).item()) < 0.02
    assert abs(out.quantile(0.99).item() - 1) < 0.02


def test_half_precision():
    x = colours(dtype=torch.float32)
    for kind in ("percentile", "whitening"):
        exact = input_layer(kind, 3)(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(input_layer(kind, 3)(x).float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PercentileNorm(3, low=50, high=50), r"`low` and `high` must be percentiles .*, got 50 and 50\."),
        (lambda: PercentileNorm(3, high=101), r"`low` and `high` must be percentiles .*, got 1\.0 and 101\."),
        (lambda: PercentileNorm(0), r"`channels` must be a positive integer, got 0\."),
        (lambda: PercentileNorm(1, momentum=0), r"`momentum` must lie in \(0, 1\], got 0\."),
        (lambda: IterativeWhitening(1, momentum=2), r"`momentum` must lie in \(0, 1\], got 2\."),
        (lambda: IterativeWhitening(3, steps=0), r"`steps` must be a positive integer, got 0\."),
        (lambda: PercentileNorm(3)(torch.zeros(2, 1, 4, 4)), r"\(batch, 3, height, width\) and not be empty, got"),
        (lambda: IterativeWhitening(3)(torch.zeros(0, 3, 4, 4)), r"and not be empty, got \(0, 3, 4, 4\)\."),
        (lambda: PercentileNorm(3).eval()(torch.zeros(3, 4, 4)), r"\(batch, 3, height, width\), got \(3, 4, 4\)\."),
    ],
)
def test_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()
