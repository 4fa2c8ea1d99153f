"""Whole nets against their literal form: which layers stand in which order, and what becomes of the last maps."""

import pytest
import torch
from support import reference_blocks
from support import reference_nets as reference
from torch import nn

import backbones
from backbones.explor_layers.layers import ExplOR2d
from backbones.layers.residual import Residual

EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64, a few hundred additions a layer


def parts(net):
    """Kernels of its convolutions, gains and offsets of its normalisations, weights and logits of its choices."""
    found = list(net.modules())
    return (
        [layer.weight for layer in found if isinstance(layer, nn.Conv2d)],
        [(layer.weight, layer.bias) for layer in found if isinstance(layer, nn.BatchNorm2d)],
        [(layer.weight, layer.logits) for layer in found if isinstance(layer, ExplOR2d)],
    )


def built(name, shape, **options):
    net = backbones.build(name, input_shape=shape, **options).double()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(-1.5, 1.5)
                layer.bias.normal_(0.0, 0.5)
    return net


@pytest.mark.parametrize(("pooling", "pool"), [("max", torch.max), ("mean", torch.mean)])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_positive_is_its_definition(activation, pooling, pool):
    net = built("positive", (2, 9, 6), widths=[3, 4, 5], activation=activation, pooling=pooling)
    x = torch.randn(3, 2, 9, 6, dtype=torch.float64)
    kernels, norms, _ = parts(net)
    expected = reference.positive_net(x, kernels, norms, silu=activation == "silu", pool=pool)
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_positive_behind_a_whitening_is_its_definition(activation):
    net = built("positive", (2, 9, 6), widths=[3, 4], activation=activation, first="whitening")
    x = torch.randn(40, 2, 9, 6, dtype=torch.float64)
    net.prepare_(x)
    kernels, norms, _ = parts(net)
    assert [kernel.shape[0] for kernel in kernels] == [16, 3, 4]
    expected = reference.positive_net(x[:3], kernels, norms, silu=activation == "silu", pool=torch.max, whitening=True)
    torch.testing.assert_close(net(x[:3]).detach(), expected, **EXACT)


@pytest.mark.parametrize("first", ["convolution", "whitening"])
def test_positive_begins_with_both_signs(first):
    torch.manual_seed(0)
    net = backbones.build("positive", input_shape=(3, 16, 16), widths=[8, 10, 7], first=first)
    scales = [layer.weight for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [scale.tolist() for scale in scales] == [[1.0, -1.0] * 4, [1.0, -1.0] * 5, [1.0, -1.0] * 3 + [1.0]]
    for weight in net.positive.parameters():
        fan_in = weight[0].numel()
        assert 0.05 < (weight > 0).float().mean() < 0.15
        assert weight.min() == 0.0
        assert 15 / fan_in < weight.max() <= 20 / fan_in
        assert weight.detach().flatten(1).sum(1).mean() == pytest.approx(1, abs=0.5)  # few weights are drawn
        assert (weight.flatten(1) > 0).any(1).all()
    plain = backbones.build("positive", input_shape=(3, 16, 16), widths=[8, 10, 7], first=first, signs="plus")
    assert all((layer.weight == 1).all() for layer in plain.modules() if isinstance(layer, nn.BatchNorm2d))
    for weight in plain.positive.parameters():
        assert (weight > 0).float().mean() > 0.99
        assert weight.max() <= 2 / weight[0].numel()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 9, 8), {"widths": [3, 4, 5]}),
        ((1, 8, 8), {"widths": [3, 5], "stem_kernel": 5, "stem_stride": 2, "a_x": 0.5, "a_l": 1.0}),
        ((1, 7, 7), {"widths": [4]}),
    ],
    ids=str,
)
def test_explor_is_its_definition(shape, options):
    net = built("explor", shape, **options)
    x = torch.randn(2, *shape, dtype=torch.float64)
    sharpness = {"a_x": net.options["a_x"], "a_l": net.options["a_l"]}
    expected = reference.explor_net(x, *parts(net), stride=net.options["stem_stride"], **sharpness)
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


@pytest.mark.parametrize("residual", [0, 2])
def test_exclusive_blocks_are_their_definition(residual):
    net = built("explor", (2, 9, 8), widths=[3, 4, 5], block="exclusive", residual=residual)
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    expected = reference_blocks.exclusive_net(x, *parts(net), residual=residual, a_x=2.0, a_l=4.0)
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


def test_residual_pairs_follow_every_block():
    for block in ("conv", "pool", "exclusive"):
        net = built("explor", (2, 8, 8), widths=[3, 4, 5], block=block, residual=2)
        assert sum(isinstance(layer, Residual) for layer in net.layers) == 4
        plain = built("explor", (2, 8, 8), widths=[3, 4, 5], block=block)
        with torch.no_grad():
            for layer in net.layers:
                if isinstance(layer, Residual):
                    layer.branch[-1].norm.weight.zero_()  # then the branch adds nothing
        rest = [layer for layer in net.layers if not isinstance(layer, Residual)]
        for layer, twin in zip(rest, plain.layers, strict=True):
            twin.load_state_dict(layer.state_dict())
        x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(net(x), plain(x), **EXACT)
