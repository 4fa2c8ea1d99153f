"""`unfolding` against the literal top-down version, its layers by hand, and the sentences."""

import pytest
import torch
from support import reference_unfolding as reference
from torch import nn
from torch.nn import functional

import backbones
from backbones.layers.or_layer import OrConv2d
from backbones.layers.scale_norm import ScaleNorm
from backbones.layers.silu_batchnorm import SiLUBatchNorm
from backbones.layers.whitening_stem import WhiteningStem

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def built(shape, **options):
    """A net in float64 and evaluation whose statistics, gains and offsets are not those of a fresh one."""
    net = backbones.build("unfolding", input_shape=shape, **options).double()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, ScaleNorm):
                layer.running_mean_square.uniform_(0.2, 3.0)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.2, 3.0)
                layer.weight.uniform_(-1.5, 1.5)
                layer.bias.normal_()
    net.constrain_()
    return net.eval()


def as_levels(net):
    """The net's numbers as the reference wants them, and the gate at the top."""
    levels, seen = [], {}

    def gate(chooses=True):
        if "silu" in seen:
            norm = seen["silu"]
            parts = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            return reference.by_degree(*(part.tolist() for part in parts))
        scales = [1.0] * len(levels[-1]["weight"])
        if "scale" in seen:
            scales = (seen["scale"].running_mean_square + 1e-5).sqrt().tolist()
        if "relu" in seen:
            return reference.any_positive(scales)
        return reference.best_only(scales) if chooses else reference.every(scales)

    def walk(layers, below=None):
        for i, layer in enumerate(layers):
            if isinstance(layer, (nn.Conv2d, OrConv2d)):
                stride = layer.stride if isinstance(layer.stride, int) else layer.stride[0]
                levels.append(
                    {
                        "weight": layer.weight.detach(),
                        "stride": stride,
                        "padding": layer.padding,
                        "gate": gate() if levels else None,
                        "below": below if i == len(layers) - 1 else None,
                    }
                )
                seen.clear()
            elif isinstance(layer, ScaleNorm):
                seen["scale"] = layer
            elif isinstance(layer, SiLUBatchNorm):
                seen["silu"] = layer.norm
            elif isinstance(layer, nn.ReLU):
                seen["relu"] = True
            else:
                walk(list(layer.branch), below=2)

    walk(list(net.layers))
    return levels, gate(chooses=False)


NESTED = {"widths": [4, 3], "windows": [3, 2]}
DEEP = {"widths": [3, 4, 3, 2], "windows": [2, 2, 2, 1]}
OVERLAPPING = {"widths": [3, 4], "windows": [5, 3], "strides": [2, 2], "residual": [1, 0]}
NETS = [
    ((1, 6, 6), {**NESTED, "gate": "max", "norm": "none"}),  # two levels with disjoint windows, as first told
    ((1, 6, 6), {**NESTED, "gate": "relu", "norm": "none"}),
    ((1, 6, 6), {**NESTED, "gate": "max", "norm": "none", "signs": "nonnegative"}),
    ((2, 8, 7), {**DEEP, "gate": "max", "pooling": "max"}),
    ((2, 8, 7), {**DEEP, "gate": "relu", "pooling": "flatten"}),
    ((2, 8, 7), {**DEEP, "gate": "silu", "signs": "nonnegative"}),
    ((2, 7, 6), {**OVERLAPPING, "gate": "max"}),
    ((2, 7, 6), {**OVERLAPPING, "gate": "relu", "pooling": "max"}),
    ((2, 7, 6), {**OVERLAPPING, "gate": "silu", "pooling": "flatten"}),
    ((1, 7, 6), {**NESTED, "gate": "max", "stem": "whitening"}),
    ((1, 7, 6), {**NESTED, "gate": "relu", "stem": "whitening", "stem_kernel": 3}),
]


@pytest.mark.parametrize(("shape", "options"), NETS, ids=str)
def test_the_net_is_the_unfolding(shape, options):
    net = built(shape, **options)
    x = torch.randn(2, *shape, dtype=torch.float64)
    levels, top = as_levels(net)
    for one in x:
        filters, values = reference.unfold(one, levels)
        filters, values = reference.pool(*reference.gate_top(filters, values, top), options.get("pooling", "mean"))
        torch.testing.assert_close(net(one[None])[0].detach(), values, **EXACT)
        pictures = net.template(one.expand(net.feature_dim, -1, -1, -1), torch.eye(net.feature_dim).double())
        torch.testing.assert_close(pictures, filters, **EXACT)


def test_two_levels_by_hand():
    net = backbones.build(
        "unfolding", input_shape=(1, 1, 4), widths=[2, 1], windows=[1, 2], strides=[2, 2], gate="max", norm="none"
    )
    first, second = (layer for layer in net.layers if hasattr(layer, "weight"))
    with torch.no_grad():
        first.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))  # looks at pixels 0 and 2
        second.weight.zero_()
        second.weight[0, :, 1, 0] = torch.tensor([1.0, 3.0])  # the row of zeros above adds nothing
        second.weight[0, :, 1, 1] = torch.tensor([1.0, 3.0])
    top, left = second.padding
    assert (top, left) == (1, 0)
    x = torch.tensor([5.0, 9.0, -1.0, 9.0]).view(1, 1, 1, 4)
    # At pixel 0: max(1 * 10, 3 * -5) = 10, part 0. At pixel 2: max(1 * -2, 3 * 1) = 3, part 1.
    assert net(x).tolist() == [[13.0]]
    assert net.template(x, torch.ones(1)).flatten().tolist() == [2.0, 0.0, -3.0, 0.0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, (0, 0)), (3, 1, (1, 1)), (2, 2, (1, 0)), (3, 2, (0, 2))]
)
def test_or_convolution_is_the_formula(kernel, stride, padding, monkeypatch):
    layer, x = OrConv2d(3, 4, kernel, stride=stride, padding=padding).double(), torch.randn(2, 3, 4, 3).double()
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    patches = functional.unfold(padded, kernel, stride=stride).unflatten(1, (3, kernel**2))
    products = patches[:, None] * layer.weight.flatten(2)[None, ..., None]  # batch, unit, part, position, place
    expected = products.amax(2).sum(2)
    x.requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out.flatten(2), expected, **EXACT)
    wanted = torch.autograd.grad(expected.square().sum(), layer.weight)[0]
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), layer.weight)[0], wanted, **EXACT)
    monkeypatch.setattr("backbones.layers.or_layer._BLOCK", 1)  # one row at a time
    assert torch.equal(layer(x), out)
    torch.autograd.gradcheck(layer, x)


def test_or_takes_the_first_of_equals_and_the_least_bad():
    layer = OrConv2d(3, 1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1))
    x = torch.tensor([[2.0, 2.0, -2.0], [-3.0, -1.0, 5.0]]).view(2, 3, 1, 1).requires_grad_()
    out = layer(x)
    assert out.flatten().tolist() == [2.0, -1.0]
    assert torch.autograd.grad(out.sum(), x)[0].flatten(1).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_nothing_is_chosen_where_all_is_blank():
    net = built((1, 8, 8), widths=[3, 4], windows=[4, 2], gate="max")
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    x[:, :, :4, :4] = 0
    picture = net.template(x, torch.randn(4, dtype=torch.float64))
    assert (picture[:, :, :4, :4] == 0).all()
    assert (picture[:, :, 4:, 4:] != 0).any()


def test_scale_norm_by_hand():
    norm = ScaleNorm(2, momentum=0.25)
    x = torch.tensor([[3.0, 1.0], [4.0, -1.0]]).view(2, 2, 1, 1)
    out = norm(x).flatten(1)
    root = (25 / 2) ** 0.5
    torch.testing.assert_close(out, torch.tensor([[3 / root, 1.0], [4 / root, -1.0]]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean_square, torch.tensor([0.75 + 12.5 / 4, 1.0]))
    norm.eval()
    torch.testing.assert_close(norm(x[:1]).flatten()[0], torch.tensor(3 / (0.75 + 12.5 / 4) ** 0.5), rtol=1e-5, atol=0)
    half = ScaleNorm(2, momentum=0.25)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(half.running_mean_square, torch.tensor([0.75 + 12.5 / 4, 1.0]))


def test_scale_norm_trains_as_its_formula():
    norm, x = ScaleNorm(3).double(), torch.randn(4, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    expected = x / (x.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected, **EXACT)
    torch.autograd.gradcheck(norm, x)


def test_the_stem_is_looked_up_and_stays():
    net = backbones.build("unfolding", input_shape=(1, 8, 8), stem="whitening")
    fresh = net.layers[0].weight.clone()
    x = torch.rand(30, 1, 8, 8)
    net.prepare_(x)
    again = WhiteningStem(1)
    again.learn_(x)
    assert torch.equal(net.layers[0].weight, again.weight)
    assert not torch.equal(net.layers[0].weight, fresh)
    assert not net.layers[0].weight.requires_grad
    net.constrain_()
    plain = backbones.build("unfolding", input_shape=(1, 8, 8))
    before = plain.layers[0].weight.clone()
    plain.prepare_(x)
    assert torch.equal(plain.layers[0].weight, before)


def test_nonnegative_weights():
    for gate in ("max", "silu"):
        net = backbones.build("unfolding", input_shape=(3, 8, 8), gate=gate, signs="nonnegative", residual=1)
        kernels = [layer.weight for layer in net.modules() if isinstance(layer, (nn.Conv2d, OrConv2d))]
        assert len(kernels) == 6
        assert all(kernel.min() >= 0 and kernel.max() <= 2 / kernel[0].numel() for kernel in kernels)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter[0] -= 2.0
        net.constrain_()
        assert all((kernel[0] == 0).all() and (kernel[1:] > 0).any() for kernel in kernels)
        # Parts cannot cancel: on an input of at least 0 no filter is negative anywhere.
        picture = net.template(torch.rand(2, 3, 8, 8), torch.rand(net.feature_dim))
        assert picture.min() >= 0
        assert picture.max() > 0
    free = backbones.build("unfolding", input_shape=(3, 8, 8))
    before = [parameter.clone() for parameter in free.parameters()]
    free.constrain_()
    assert all(torch.equal(*pair) for pair in zip(before, free.parameters(), strict=True))
    assert any(parameter.min() < 0 for parameter in free.parameters())


@pytest.mark.parametrize(
    ("shape", "options", "feature_dim", "places"),
    [
        ((1, 28, 28), {}, 256, 1),
        ((3, 32, 32), {}, 256, 1),
        ((3, 64, 64), {"pooling": "flatten"}, 256, 1),
        ((1, 1, 1), {}, 64, 1),
        ((2, 9, 13), {"widths": [4], "windows": [2], "pooling": "flatten"}, 4 * 5 * 7, 35),
        ((2, 9, 13), {"widths": [4, 6], "strides": [2, 2], "pooling": "flatten"}, 6 * 3 * 4, 12),
    ],
    ids=str,
)
def test_windows_reach_every_pixel(shape, options, feature_dim, places):
    net = backbones.build("unfolding", input_shape=shape, norm="none", **options).double()
    assert net.feature_dim == feature_dim
    assert net.layers(torch.zeros(1, *shape).double()).shape[2:].numel() == places
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    assert (net.template(torch.ones(1, *shape).double(), torch.ones(feature_dim).double()) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "or"}, r"`gate` must be one of relu, max, silu, got 'or'\."),
        ({"norm": "batch"}, r"`norm` must be one of scale, none, got 'batch'\."),
        ({"signs": "positive"}, r"`signs` must be one of free, nonnegative, got 'positive'\."),
        ({"pooling": "sum"}, r"`pooling` must be one of mean, max, flatten, got 'sum'\."),
        ({"widths": 8}, r"`widths` must be a list of 2 integers of at least 1, got 8\. Give one for each level\."),
        ({"widths": []}, r"`widths` must be a list of 2 integers of at least 1, got \[\]\."),
        ({"widths": [8], "windows": [2, 2]}, r"`windows` must be a list of 1 integer of at least 1, got \[2, 2\]\."),
        ({"widths": [8, 8], "strides": [2, 0]}, r"`strides` must be a list of 2 integers .*, got \[2, 0\]\."),
        ({"widths": [8, 8], "residual": [1]}, r"`residual` must be a list of 2 integers of at least 0, got \[1\]\."),
        ({"residual": -1}, r"`residual` must be a list of 2 integers of at least 0, got \[-1, -1\]\."),
        ({"stem": "pca"}, r"`stem` must be one of none, whitening, got 'pca'\."),
        ({"stem": "whitening", "stem_kernel": 9}, r"`stem_kernel` must be at most 8, the shorter side, got 9\."),
        ({"stem_kernel": 0}, r"`stem_kernel` must be a positive integer, got 0\."),
        ({"stem": "whitening", "signs": "nonnegative"}, r"`stem` must be none with nonnegative signs, got whitening\."),
        ({"residual": 0.5}, r"`residual` must be a list of 2 integers of at least 0, got 0\.5\."),
    ],
)
def test_sentences(options, message):
    with pytest.raises(ValueError, match=message):
        backbones.build("unfolding", input_shape=(1, 8, 8), **options)


def test_sentences_of_layers():
    with pytest.raises(ValueError, match=r"`momentum` must lie in \(0, 1\], got 0\. 0\.1 is usual\."):
        ScaleNorm(3, momentum=0)
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 3, height, width\), got \(2, 4, 1, 1\)\."):
        ScaleNorm(3)(torch.ones(2, 4, 1, 1))
    with pytest.raises(ValueError, match=r"`x` must not be empty in training, got shape \(0, 3, 1, 1\)\."):
        ScaleNorm(3)(torch.ones(0, 3, 1, 1))
