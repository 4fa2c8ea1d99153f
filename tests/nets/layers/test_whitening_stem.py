"""The stem that is looked up in the data: its outputs are uncorrelated, of variance one, and signed both ways."""

import pytest
import torch
from sklearn.datasets import load_sample_images

from backbones.layers.whitening_stem import WhiteningStem


def pictures(n=60, side=20):
    photograph = torch.tensor(load_sample_images().images[0] / 255.0, dtype=torch.float32).permute(2, 0, 1)
    corners = torch.randint(0, 380, (n, 2)).tolist()
    return torch.stack([photograph[:, top : top + side, left : left + side] for top, left in corners])


@pytest.mark.parametrize("kernel", [2, 3])
def test_outputs_are_white(kernel):
    x = pictures()
    stem = WhiteningStem(3, kernel)
    stem.learn_(x)
    half = 3 * kernel**2
    edge = (kernel - 1) // 2
    maps = stem(x).detach().double()
    inner = maps[:, :, edge : maps.shape[2] - edge, edge : maps.shape[3] - edge]
    rows = inner.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.equal(maps[:, :half], -maps[:, half:])
    covariance = torch.cov(rows[:, :half].T)
    mixed = covariance - covariance.diag().diag()
    assert mixed.abs().max() < 1e-3
    # A variance v becomes v / (v + epsilon): near 1 for what is strong, smaller for what is mostly noise.
    patches = x.double().unfold(2, kernel, 1).unfold(3, kernel, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    variances = torch.linalg.eigvalsh(torch.cov(patches.T)).flip(0)
    torch.testing.assert_close(covariance.diag(), variances / (variances + 5e-4), rtol=1e-3, atol=1e-4)
    assert covariance[0, 0] > 0.99


def test_fresh_filters_are_orthonormal_and_nothing_is_trained():
    stem = WhiteningStem(2, 3, stride=2)
    filters = stem.weight[:18].flatten(1)
    torch.testing.assert_close(filters @ filters.T, torch.eye(18), rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in stem.parameters())
    assert stem(torch.rand(1, 2, 8, 8)).shape == (1, 36, 4, 4)


def test_constant_images_give_finite_filters():
    stem = WhiteningStem(1, 2)
    stem.learn_(torch.ones(3, 1, 5, 5))
    assert torch.isfinite(stem.weight).all()


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 2, 9), (3, 8, 8)])
def test_sentence(shape):
    with pytest.raises(ValueError, match=r"`x` must be at least one input of 3 x 3 pixels or more, got shape"):
        WhiteningStem(3, 3).learn_(torch.zeros(shape))
