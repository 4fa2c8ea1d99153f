"""The learnable pooling against its definition written as loops, its limits, and its hand-written derivative."""

import math

import pytest
import torch
from torch.nn import functional

from backbones.explor_layers.pooling import ExplORPool2d
from backbones.grp import detached_gates, grp_gap


@torch.no_grad()
def literal(x, layer):
    """Place by place, as in the head of the module."""
    side = layer.window
    count, channels, height, width = x.shape
    out = torch.zeros(count, channels, height // side, width // side, dtype=x.dtype)
    for n in range(count):
        for c in range(channels):
            for row in range(height // side):
                for column in range(width // side):
                    top = bottom = 0.0
                    for i in range(side):
                        for j in range(side):
                            place = x[n, :, row * side + i, column * side + j]
                            value = place[c]
                            key = value / place.square().mean().sqrt()
                            score = math.exp(float(layer.a_x * key + layer.a_l * layer.logits[c, i, j]))
                            top += score * float(layer.weight[c, i, j] * value)
                            bottom += score
                    out[n, c, row, column] = top / bottom
    return out


def made(channels, window, **options):
    layer = ExplORPool2d(channels, window, **options).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.logits.normal_()
    return layer


@pytest.mark.parametrize("key", ["detached", "rms"])
@pytest.mark.parametrize(("shape", "window"), [((2, 3, 4, 6), 2), ((1, 5, 7, 5), 3), ((2, 2, 3, 3), 1)])
def test_values_are_the_definition(shape, window, key):
    layer = made(shape[1], window, a_x=1.5, a_l=0.7, key=key)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x).detach(), literal(x, layer), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("a_x", [0.0, 2.0, 30.0])
def test_the_derivative_with_keys_held(a_x):
    layer, full = made(3, 2, a_x=a_x), ExplORPool2d(3, 2, a_x=a_x, key="rms").double()
    full.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    to = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    to_x, to_weight, to_logits = torch.autograd.grad(layer(x), [x, layer.weight, layer.logits], to)
    expected = torch.autograd.grad(full(x), [full.weight, full.logits], to)  # the parameters do not reach the keys
    torch.testing.assert_close((to_weight, to_logits), expected, rtol=1e-9, atol=1e-12)
    for n, c, i, j in [(0, 0, 0, 0), (1, 2, 3, 1), (1, 1, 2, 3), (0, 2, 1, 2)]:
        rows, columns = slice(i // 2 * 2, i // 2 * 2 + 2), slice(j // 2 * 2, j // 2 * 2 + 2)
        window = x.detach()[n, :, rows, columns]
        keys = (window / window.square().mean(0).sqrt())[c]
        share = torch.softmax((a_x * keys + layer.logits.detach()[c]).flatten(), 0).view(2, 2)[i % 2, j % 2]
        wanted = to[n, c, i // 2, j // 2] * share * layer.weight.detach()[c, i % 2, j % 2]
        torch.testing.assert_close(to_x[n, c, i, j], wanted, rtol=1e-9, atol=1e-12)
    assert not to_x[:, :, 4].any()  # a row that fills no window


def test_second_derivatives_with_keys_held():
    """A loss on the gradient in the input, as the reconstruction regulariser is, against plain autograd."""
    layer = made(3, 2)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    to = torch.randn_like(x)

    def plain(x):
        keys = (x / x.square().mean(1, keepdim=True).sqrt()).detach()
        scores = layer.a_x * keys + layer.a_l * layer.logits.repeat(1, 2, 2)
        windows = scores.unfold(2, 2, 2).unfold(3, 2, 2)
        values = (layer.weight.repeat(1, 2, 2) * x).unfold(2, 2, 2).unfold(3, 2, 2)
        return (windows.flatten(4).softmax(4) * values.flatten(4)).sum(4)

    found, expected = [], []
    for call, results in ((layer, found), (plain, expected)):
        (gradient,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
        results.extend(torch.autograd.grad((gradient * to).square().sum(), [x, layer.weight, layer.logits]))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_gradients_of_training_through_the_keys():
    layer = made(2, 2, a_x=1.0, key="rms")
    assert torch.autograd.gradcheck(layer, torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("key", ["detached", "rms"])
def test_gradients_explain_the_value(key):
    layer = made(3, 2, key=key)
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    with detached_gates(layer):
        assert grp_gap(lambda leaf: layer(leaf).flatten(1), x).relative < 1e-12
    # The keys do not change with the scale, so neither way of training loses the property.
    assert grp_gap(lambda leaf: layer(leaf).flatten(1), x).relative < 1e-12
    torch.testing.assert_close(layer(5 * x), 5 * layer(x), rtol=1e-12, atol=1e-12)


def test_limits():
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    flat = ExplORPool2d(8, 3, a_x=0.0).double()
    torch.testing.assert_close(flat(x).detach(), functional.avg_pool2d(x, 3))
    sharp = ExplORPool2d(8, 3, a_x=1e4).double()
    keys = x / x.square().mean(1, keepdim=True).sqrt()
    place = functional.max_pool2d(keys, 3, return_indices=True)[1]
    torch.testing.assert_close(sharp(x).detach().flatten(2), x.flatten(2).gather(2, place.flatten(2)))
    one = ExplORPool2d(8, 3, a_x=0.0, a_l=1e3).double()
    with torch.no_grad():
        one.logits[:, 1, 2] = 1.0
    torch.testing.assert_close(one(x).detach(), x[:, :, 1::3, 2::3])


def test_half_precision_and_sharp_choices_stay_finite():
    layer = ExplORPool2d(4, 2, a_x=50.0)
    x = (1e3 * torch.randn(2, 4, 8, 8)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x.to(torch.bfloat16))
    out.float().sum().backward()
    assert all(torch.isfinite(t).all() for t in (out, x.grad, layer.weight.grad, layer.logits.grad))
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=50.0)
    assert torch.equal(layer(torch.zeros(1, 4, 2, 2)), torch.zeros(1, 4, 1, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ExplORPool2d(0), r"`channels` must be a positive integer, got 0\."),
        (lambda: ExplORPool2d(2, 0), r"`window` must be a positive integer, got 0\."),
        (lambda: ExplORPool2d(2, a_x=-1.0), r"`a_x` must be a finite number of at least 0, got -1\.0\."),
        (lambda: ExplORPool2d(2, key="raw"), r"`key` must be one of detached, rms, got 'raw'\."),
        (
            lambda: ExplORPool2d(2)(torch.zeros(1, 3, 4, 4)),
            r"`x` must have shape \(batch, 2, height, width\), got \(1, 3, 4, 4\)\. The layer was made for another",
        ),
    ],
)
def test_sentences(call, message):
    with pytest.raises(ValueError, match=message):
        call()
