"""Branches beside each other, the negative branch, and the first layers of `positive` that are made of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import backbones
from backbones.layers.branches import NegativeBranch, Parallel
from backbones.layers.l2_conv import L2Conv2d
from backbones.nets.first_layers import FIRSTS, INPUTS, first_layer, input_layer


def test_joins():
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 5, padding=2)
    x = torch.randn(2, 2, 6, 5)
    a, b = first(x), second(x)
    assert torch.equal(Parallel(first, second)(x), torch.cat([a, b], 1))
    torch.testing.assert_close(Parallel(first, second, join="sum")(x), a + b)
    assert torch.equal(Parallel(first, second, join="max")(x), torch.maximum(a, b))
    assert torch.equal(Parallel(first, join="max")(x), a)


def test_negative_branch():
    layer = nn.Conv2d(2, 3, 3, bias=False)
    x = torch.randn(2, 2, 6, 5)
    out = NegativeBranch(layer)(x)
    assert torch.equal(out, torch.cat([layer(x), layer(-x)], 1))
    torch.testing.assert_close(out[:, :3], -out[:, 3:])
    distances = NegativeBranch(L2Conv2d(2, 3, 3))
    flipped = -(x.unfold(2, 3, 1).unfold(3, 3, 1)[:, :, 0, 0] + distances.layer.weight[1]).square().flatten(1).sum(1)
    torch.testing.assert_close(distances(x)[:, 4, 0, 0], flipped)


def test_homogeneous_branches_are_explained():
    layers = Parallel(
        nn.Conv2d(1, 2, 3, padding=1, bias=False), NegativeBranch(nn.Conv2d(1, 1, 5, padding=2, bias=False))
    )
    net = nn.Sequential(layers, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()).double()
    assert backbones.grp_gap(net, torch.randn(3, 1, 7, 7, dtype=torch.float64)).relative < 1e-12


@pytest.mark.parametrize("kind", FIRSTS)
def test_first_layers_keep_the_picture_and_give_the_width(kind):
    layer = first_layer(kind, 3, 10)
    assert layer(torch.randn(2, 3, 9, 7)).shape == (2, 10, 9, 7)


def test_branches_have_windows_of_three_sizes():
    layer = first_layer("branches", 1, 8)
    assert [tuple(branch.weight.shape) for branch in layer.branches] == [(2, 1, 3, 3), (3, 1, 5, 5), (3, 1, 7, 7)]


@pytest.mark.parametrize("kind", FIRSTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_positive_with_each(kind, inputs):
    """The first layer and the normalisation stand where they should; only what they break breaks the claim."""
    net = backbones.build(
        "positive", input_shape=(3, 9, 8), widths=[6, 8], first=kind, inputs=inputs, activation="silu"
    )
    assert type(net.first) is type(first_layer(kind, 3, 6))
    assert type(net.inputs) is type(input_layer(inputs, 3))
    assert net.claims_grp == (kind != "l2" and inputs == "none")
    x = torch.randn(4, 3, 9, 8)
    net(x)
    net.eval()
    maps = net.activations[0](net.first(net.inputs(x)))
    maps = net.activations[1](functional.conv2d(functional.max_pool2d(maps, 2), net.positive[0].weight, padding=1))
    torch.testing.assert_close(net(x), maps.amax((2, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Parallel, r"`branches` must hold at least one layer, got none\."),
        (lambda: Parallel(nn.ReLU(), join="mean"), r"`join` must be one of concat, sum, max, got 'mean'\."),
        (
            lambda: Parallel(nn.Identity(), nn.MaxPool2d(2))(torch.zeros(1, 1, 4, 4)),
            r"`branches` must give maps of one shape, got \(1, 1, 4, 4\) and \(1, 1, 2, 2\)\.",
        ),
        (
            lambda: Parallel(nn.Identity(), nn.Conv2d(1, 2, 1), join="sum")(torch.zeros(1, 1, 4, 4)),
            r"`branches` must give maps of one shape, got \(1, 1, 4, 4\) and \(1, 2, 4, 4\)\.",
        ),
        (lambda: first_layer("negative", 1, 5), r"`widths` must begin with an even number for negatives, got 5\."),
        (lambda: first_layer("branches", 1, 2), r"`widths` must begin with at least 3 for three branches, got 2\."),
        (lambda: first_layer("conv", 1, 2), r"`first` must be one of convolution, l2, .*, got 'conv'\."),
        (lambda: input_layer("zca", 1), r"`inputs` must be one of none, batch, percentile, whitening, got 'zca'\."),
    ],
)
def test_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()
