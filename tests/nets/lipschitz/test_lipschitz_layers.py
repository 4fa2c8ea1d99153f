"""Layers that make nothing longer: as loops say it, kept by any weights, and an orthogonal convolution in sum."""

import pytest
import torch

from backbones.lipschitz.layers import ChannelShift, Fold, MaxMin, OrthogonalMap
from backbones.lipschitz.net import Lipschitz


@pytest.mark.parametrize(("n_in", "n_out"), [(5, 5), (3, 8), (9, 4), (1, 6), (7, 1)])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_rows_or_columns_are_orthonormal_whatever_the_weights(n_in, n_out, size):
    layer = OrthogonalMap(n_in, n_out).double()
    with torch.no_grad():
        layer.free.normal_(0, size)
    matrix = layer.matrix()
    few = min(n_in, n_out)
    gram = matrix @ matrix.T if n_in >= n_out else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(few).double(), rtol=0, atol=1e-9)
    assert layer.norm() == pytest.approx(1, abs=1e-9)
    maps = torch.randn(2, n_in, 3, 4).double()
    by_place = torch.stack([layer(maps[:, :, i, j]) for i in range(3) for j in range(4)], dim=2)
    torch.testing.assert_close(layer(maps).flatten(2), by_place)


def test_a_fixed_map_is_what_it_was():
    layer = OrthogonalMap(6, 4)
    x, before = torch.randn(3, 6), layer.matrix().detach()
    layer.fix_()
    assert "fixed" not in layer.state_dict()
    with torch.no_grad():
        layer.free.add_(1)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, before))
    assert layer.double()(x.double()).dtype == torch.float64


def test_a_norm_is_that_of_the_numbers_as_they_are():
    layer = OrthogonalMap(40, 30)
    found = torch.linalg.matrix_norm(layer.matrix().detach().double(), 2)
    assert layer.norm() == pytest.approx(float(found), abs=1e-12)


def test_shifts_by_loops():
    x = torch.randn(2, 19, 4, 5)
    found, n = ChannelShift()(x), 19 // 8
    steps = {0: (1, 0), 1: (-1, 0), 2: (0, 1), 3: (0, -1)}
    for channel in range(19):
        down, right = steps.get(channel // n, (0, 0))
        for i in range(4):
            for j in range(5):
                inside = 0 <= i + down < 4 and 0 <= j + right < 5
                expected = x[:, channel, i + down, j + right] if inside else torch.zeros(2)
                assert torch.equal(found[:, channel, i, j], expected)


def test_maxmin_and_fold_keep_lengths():
    x, y = torch.randn(2, 3, 8, 5, 7).double()
    for layer in (MaxMin(), Fold()):
        assert torch.equal(
            layer(x).pow(2).flatten(1).sum(1).round(decimals=9), x.pow(2).flatten(1).sum(1).round(decimals=9)
        )
        assert ((layer(x) - layer(y)).flatten(1).norm(dim=1) <= (x - y).flatten(1).norm(dim=1) + 1e-12).all()
    assert torch.equal(Fold()(x)[:, :8, 1, 2], x[:, :, 2, 4])
    assert Fold()(x).shape == (3, 32, 3, 4)
    assert torch.equal(
        MaxMin()(x), torch.cat([torch.maximum(x[:, :4], x[:, 4:]), torch.minimum(x[:, :4], x[:, 4:])], 1)
    )


def test_mixing_and_shifting_is_an_orthogonal_convolution():
    """What lies in the middle keeps its length, and every output sees a cross of 3 x 3."""
    layers = torch.nn.Sequential(OrthogonalMap(16, 16), ChannelShift(), OrthogonalMap(16, 16)).double()
    x = torch.zeros(1, 16, 7, 7).double()
    x[:, :, 3, 3] = torch.randn(16).double()
    out = layers(x).detach()
    assert out.norm() == pytest.approx(float(x.norm()))
    seen = {(int(i), int(j)) for i, j in (out.abs().amax(1)[0] > 1e-12).nonzero()}
    assert seen == {(3, 3), (2, 3), (4, 3), (3, 2), (3, 4)}


def test_the_constant_is_that_of_all_maps():
    net = Lipschitz((1, 8, 8), widths=[8], depth=1, hidden=6)
    norms = [layer.norm() for layer in net.layers if isinstance(layer, OrthogonalMap)]
    assert len(norms) == 4
    assert net.lipschitz == pytest.approx(torch.tensor(norms).double().prod().item())
    assert net.lipschitz > torch.tensor(norms).double().prod().item()
    assert Lipschitz((1, 2, 2), widths=[8], hidden=500).feature_dim == 8
