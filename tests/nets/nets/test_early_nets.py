"""`disjunction`, `directional` and `gumbel` against their literal forms, and the layer that chooses channels."""

import math

import pytest
import torch
from support import reference_early as reference
from support import reference_nets
from torch import nn

import backbones
from backbones.layers.gumbel_conv import GumbelConv2d
from backbones.layers.softmax_pooling import Scale, SoftMaxPool

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def built(name, shape, **options):
    net = backbones.build(name, input_shape=shape, **options).double()
    norm = next(layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d))
    with torch.no_grad():
        norm.weight.uniform_(-1.5, 1.5)
        norm.bias.normal_(0.0, 0.5)
    return net, norm.weight, norm.bias


@pytest.mark.parametrize(("shape", "options"), [((3, 14, 12), {}), ((1, 9, 11), {"kernel": 4, "stride": 3})], ids=str)
def test_disjunction_is_its_definition(shape, options):
    net, gain, offset = built("disjunction", shape, parts=12, conjunctions=4, **options)
    x = torch.randn(5, *shape, dtype=torch.float64)
    expected = reference.disjunction(x, net.parts.weight, gain, offset, stride=net.options["stride"], conjunctions=4)
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


def test_disjunction_without_centre():
    net = backbones.build("disjunction", input_shape=(2, 9, 9), parts=6, conjunctions=3, norm="scale").double()
    x = torch.randn(4, 2, 9, 9, dtype=torch.float64)
    found = reference.largest(reference_nets.convolution(x, net.parts.weight, stride=2))
    found = found / (found.square().mean(0) + 1e-5).sqrt()
    torch.testing.assert_close(net(x).detach(), (found[:, ::2] + found[:, 1::2]) / 2, **EXACT)


@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [((3, 32, 32), {}), ((2, 13, 11), {"kernel": 3, "room": 2, "window": 2, "stride": 1})],
    ids=str,
)
def test_directional_is_its_definition(shape, options, activation):
    net, gain, offset = built("directional", shape, parts=4, units=5, activation=activation, **options)
    x = torch.randn(3, *shape, dtype=torch.float64)
    sizes = {"stride": net.options["stride"], "room": net.options["room"], "grid": net.options["room"]}
    weights = (net.parts.weight, net.templates.weight.detach())
    expected = reference.arranged(x, *weights, gain, offset, **sizes, silu=activation == "silu")
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize(("shape", "options"), [((3, 32, 32), {}), ((2, 9, 8), {"room": 3, "top": 2})], ids=str)
def test_gumbel_is_its_definition(shape, options, activation):
    """With the choice of the evaluation, statistics of the batch."""
    net, gain, offset = built("gumbel", shape, parts=4, units=5, activation=activation, **options)
    net.templates.eval()
    x = torch.randn(3, *shape, dtype=torch.float64)
    sizes = {"room": net.options["room"], "grid": net.options["grid"], "padding": net.options["room"] // 2}
    kernel = net.templates.weight.detach() * reference.choice(net.templates.logits, net.options["top"])
    expected = reference.arranged(
        x, net.parts.weight, kernel, gain, offset, stride=1, **sizes, silu=activation == "silu"
    )
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


def test_sizes_of_the_published_nets():
    shape = (3, 32, 32)
    disjunction, directional, gumbel = (
        backbones.build(name, input_shape=shape) for name in ("disjunction", "directional", "gumbel")
    )
    assert disjunction.options == {"parts": 120, "conjunctions": 24, "kernel": 10, "stride": 2, "norm": "batch"}
    assert tuple(directional.templates.weight.shape) == (120, 120, 4, 4)
    assert tuple(gumbel.templates.weight.shape) == (60, 120, 3, 3)
    maps = torch.zeros(1, *shape)
    assert directional.room(directional.parts(maps)).shape[2:] == (4, 4)
    assert gumbel.room(gumbel.parts(maps)).shape[2:] == (3, 3)


@pytest.mark.parametrize("top", [1, 2, 5])
def test_gate_chooses_so_many_channels(top):
    layer = GumbelConv2d(5, 7, 3, top=top)
    for _ in range(5):
        gate = layer.gate()
        assert ((gate == 0) | (gate == 1)).all()
        assert (gate.sum(1) == top).all()
    layer.eval()
    assert torch.equal(layer.gate(), reference.choice(layer.logits.detach(), top))
    assert torch.equal(layer.gate(), layer.gate())
    with torch.no_grad():
        layer.logits.zero_()  # of equals, the first
    assert torch.equal(layer.gate()[:, :top], torch.ones(7, top, 3, 3))


def test_draws_follow_the_probabilities():
    layer = GumbelConv2d(3, 4000, 1)
    with torch.no_grad():
        layer.logits.copy_(torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(4000, -1, -1, -1))
    for progress in (0.0, 0.4):
        layer.anneal_(progress)
        expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0]) / layer.tau, 0)
        share = layer.gate().detach().mean((0, 2, 3))
        torch.testing.assert_close(share, expected, rtol=0, atol=4 * 0.5 / math.sqrt(4000))
    layer.anneal_(1.0)
    assert layer.gate()[:, 2].mean() > 0.999


def test_straight_through_gradient():
    """The gradient of the logits is that of ``top * softmax(logits / tau + noise)``."""
    layer = GumbelConv2d(4, 2, 2, top=2).double()
    layer.anneal_(0.3)
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    torch.manual_seed(3)
    found = torch.autograd.grad(layer(x).square().sum(), [layer.logits, layer.weight])
    torch.manual_seed(3)
    noise = -torch.empty_like(layer.logits).exponential_().log()
    logits = layer.logits.detach().clone().requires_grad_()
    gate = reference.choice(logits.detach() / layer.tau + noise, 2).requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    upper, slope = torch.autograd.grad(nn.functional.conv2d(x, weight * gate).square().sum(), [gate, weight])
    soft = 2 * torch.softmax(logits / layer.tau + noise, 1)
    expected = torch.autograd.grad((soft * upper).sum(), logits)[0]
    torch.testing.assert_close(found, (expected, slope), rtol=1e-9, atol=1e-10)


def test_temperature_falls_geometrically_and_is_saved():
    net = backbones.build("gumbel", input_shape=(1, 8, 8), parts=4, units=3)
    found = []
    for progress in (0.0, 0.5, 1.0):
        net.schedule_(progress)
        found.append(net.templates.tau.item())
    assert found == pytest.approx([2.0, math.sqrt(0.2), 0.1])
    assert net.state_dict()["templates.tau"].item() == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"`progress` must lie in \[0, 1\], got 1\.5\. Pass the share"):
        net.schedule_(1.5)
    backbones.build("pixels", input_shape=(1, 8, 8)).schedule_(1.5)  # nothing to do, nothing to check


def test_first_values():
    layer = GumbelConv2d(64, 50, 3)
    assert abs(layer.logits.std().item() - 0.01) < 1e-3
    bound = math.sqrt(64) / math.sqrt(64 * 9)
    assert 0.95 * bound < layer.weight.abs().max().item() <= bound * (1 + 1e-6)


def marks(count):
    """8x8 pictures of a cross (class 0) or of a corner (class 1), somewhere, in noise."""
    y = torch.arange(count) % 2
    x = 0.2 * torch.randn(count, 1, 8, 8)
    places = torch.randint(1, 7, (count, 2)).tolist()
    for picture, label, (r, c) in zip(x[:, 0], y.tolist(), places, strict=True):
        picture[r, c - 1 : c + 2] += 1.0
        picture[r - 1 : r + 2, c] += 1.0
        if label:
            picture[r, c - 1] -= 1.0
            picture[r - 1, c] -= 1.0
    return x, y


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("disjunction", {"parts": 24, "conjunctions": 6, "kernel": 3, "stride": 1}),
        ("directional", {"parts": 24, "units": 12, "kernel": 3, "stride": 1}),
        ("gumbel", {"parts": 24, "units": 12, "kernel": 3, "room": 3, "grid": 1, "window": 1}),
    ],
)
def test_literal_nets_learn_two_classes(name, options):
    """Backbone, softmax pooling over the classes' features, one factor: a part that may lie anywhere is found."""
    net = nn.Sequential(backbones.build(name, input_shape=(1, 8, 8), **options), SoftMaxPool(2), Scale())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(60):
        x, y = marks(128)
        net[0].schedule_(step / 60)
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net[0].schedule_(1.0)
    net.eval()
    x, y = marks(500)
    assert (net(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("disjunction", {"conjunctions": 7}, r"`conjunctions` must divide 120, the parts, got 7\."),
        ("disjunction", {"parts": 0}, r"`parts` must be a positive integer, got 0\."),
        ("disjunction", {"kernel": 9}, r"`kernel` must be at most 8, the shorter side of its input, got 9\."),
        ("disjunction", {"norm": "layer"}, r"`norm` must be one of batch, scale, got 'layer'\."),
        ("disjunction", {"stride": 0}, r"`stride` must be a positive integer, got 0\."),
        ("directional", {"room": 5, "kernel": 5}, r"`room` must be at most 2, the shorter side of its input, got 5\."),
        ("directional", {"window": 3}, r"`window` must be at most 1, the shorter side of its input, got 3\."),
        ("directional", {"activation": "relu"}, r"`activation` must be one of gelu, silu, got 'relu'\."),
        ("gumbel", {"activation": "relu"}, r"`activation` must be one of gelu, silu, got 'relu'\."),
        ("gumbel", {"room": 4}, r"`room` must be an odd positive integer, got 4\."),
        ("gumbel", {"grid": 0}, r"`grid` must be a positive integer, got 0\."),
        ("gumbel", {"top": 121}, r"`top` must be an integer from 1 to 120, the channels, got 121\."),
        ("gumbel", {"top": 0}, r"`top` must be an integer from 1 to 120, the channels, got 0\."),
        ("gumbel", {"units": 1.5}, r"`units` must be a positive integer, got 1\.5\."),
    ],
)
def test_sentences(name, options, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(name, input_shape=(1, 8, 8), **options)
