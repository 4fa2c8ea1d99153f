"""SoftMaxPool: the definition, its derivative by formula, its limits, and windows as `MaxPool2d` cuts them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import backbones
from backbones.layers.softmax_pooling import Mean, Scale, SoftMaxPool, SoftMaxPool2d, softmax_pool

EXACT = {"rtol": 1e-12, "atol": 1e-12}
GEOMETRIES = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 1, "dilation": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 5, "ceil_mode": True},
]


def literal(values, tau, kind="softmax"):
    """Value, and derivative by each member, of one group (a list of floats)."""
    total = sum(math.exp(v / tau) for v in values)
    shares = [math.exp(v / tau) / total for v in values]
    if kind == "mellowmax":
        return tau * math.log(total) - tau * math.log(len(values)), shares
    value = sum(a * v for a, v in zip(shares, values, strict=True))
    return value, [a * (1 + (v - value) / tau) for a, v in zip(shares, values, strict=True)]


def gradient(pool, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(pool(x).sum(), x)[0]


@pytest.mark.parametrize("kind", ["softmax", "mellowmax"])
@pytest.mark.parametrize("tau", [0.2, 1.0, 5.0])
def test_value_and_derivative_are_the_formulas(tau, kind):
    x = torch.randn(4, 6, dtype=torch.float64)
    pool = SoftMaxPool(2, tau=tau, kind=kind)
    out, slopes = pool(x), gradient(pool, x)
    for row, values, derivatives in zip(x.tolist(), out.tolist(), slopes.tolist(), strict=True):
        for group in range(2):
            members = slice(3 * group, 3 * group + 3)
            value, expected = literal(row[members], tau, kind)
            assert values[group] == pytest.approx(value, rel=1e-12, abs=1e-12)
            assert derivatives[members] == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_three_members_by_hand():
    x = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)]], dtype=torch.float64)  # shares 1/8, 2/8, 5/8
    assert SoftMaxPool(1)(x).item() == pytest.approx(2 / 8 * math.log(2) + 5 / 8 * math.log(5))
    assert SoftMaxPool(1, kind="mellowmax")(x).item() == pytest.approx(math.log(8 / 3))


def test_what_the_gradient_explains():
    """Full: the value plus the variance over tau. Detached, or gates held: the value."""
    x, tau = torch.randn(50, 7, dtype=torch.float64), 0.4
    shares = torch.softmax(x / tau, 1)
    value = (shares * x).sum(1)
    variance = (shares * (x - value[:, None]) ** 2).sum(1)
    full, detached = SoftMaxPool(1, tau=tau), SoftMaxPool(1, tau=tau, grad="detach")
    torch.testing.assert_close((gradient(full, x) * x).sum(1), value + variance / tau, **EXACT)
    torch.testing.assert_close((gradient(detached, x) * x).sum(1), value, **EXACT)
    torch.testing.assert_close(gradient(detached, x), shares, **EXACT)
    assert torch.equal(full(x), detached(x))
    with backbones.detached_gates(full):
        assert torch.equal(gradient(full, x), gradient(detached, x))
    # Members more than tau below the value pull it down, all others up.
    assert torch.equal(gradient(full, x) < 0, x < value[:, None] - tau)
    assert (gradient(full, x) < 0).any()
    # Mellowmax: shares as its gradient, and less than the softmax pooling by tau times what the shares know.
    mellow = SoftMaxPool(1, tau=tau, kind="mellowmax")
    torch.testing.assert_close(gradient(mellow, x), shares, **EXACT)
    entropy = -(shares * shares.log()).sum(1)
    torch.testing.assert_close(mellow(x)[:, 0], value + tau * (entropy - math.log(7)), **EXACT)


@pytest.mark.parametrize("kind", ["softmax", "mellowmax"])
def test_limits(kind):
    x = torch.randn(20, 5, dtype=torch.float64)
    torch.testing.assert_close(SoftMaxPool(1, tau=1e-4, kind=kind)(x)[:, 0], x.amax(1), rtol=0, atol=2e-4)
    torch.testing.assert_close(SoftMaxPool(1, tau=1e6, kind=kind)(x)[:, 0], x.mean(1), rtol=0, atol=1e-5)


def test_members_that_take_no_part():
    x = torch.tensor([[1.0, -math.inf, 2.0], [-math.inf] * 3]).requires_grad_()
    for kind in ("softmax", "mellowmax"):
        out = softmax_pool(x, tau=1.0, kind=kind)
        assert out[0].item() == pytest.approx(literal([1.0, 2.0], 1.0, kind)[0], rel=1e-6)
        assert out[1].item() == -math.inf
        slopes = torch.autograd.grad(out[0], x)[0]
        assert torch.isfinite(slopes).all()
        assert slopes[0, 1] == 0
        assert (slopes[1] == 0).all()


def patches(x, kernel_size, stride, padding, dilation, shape):
    """Values of each window that lie in the picture, place by place."""
    for i in range(shape[0]):
        for j in range(shape[1]):
            rows = [i * stride - padding + dilation * r for r in range(kernel_size)]
            columns = [j * stride - padding + dilation * c for c in range(kernel_size)]
            inside = [(r, c) for r in rows for c in columns if 0 <= r < x.shape[2] and 0 <= c < x.shape[3]]
            yield i, j, inside


@pytest.mark.parametrize("kind", ["softmax", "mellowmax"])
@pytest.mark.parametrize("side", [(9, 7), (8, 10)], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_windows_are_those_of_max_pooling(geometry, side, kind):
    x = torch.randn(2, 3, *side, dtype=torch.float64)
    hard = nn.MaxPool2d(**geometry)(x)
    soft = SoftMaxPool2d(**geometry, tau=0.5, kind=kind)(x)
    assert soft.shape == hard.shape
    sizes = {"stride": geometry["kernel_size"], "padding": 0, "dilation": 1} | geometry
    sizes.pop("ceil_mode", None)
    for i, j, inside in patches(x, **sizes, shape=hard.shape[2:]):
        values = torch.stack([x[:, :, r, c] for r, c in inside], -1).flatten(0, 1).tolist()
        expected = [literal(row, 0.5, kind)[0] for row in values]
        assert soft[:, :, i, j].flatten().tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    sharp = SoftMaxPool2d(**geometry, tau=1e-6, kind=kind)(x)
    torch.testing.assert_close(sharp, hard, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grad", ["full", "detach"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_surrogate_is_hard_forward_and_soft_backward(geometry, grad):
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    soft, surrogate = (SoftMaxPool2d(**geometry, grad=grad, forward=kind) for kind in ("soft", "hard"))
    assert torch.equal(surrogate(x), nn.MaxPool2d(**geometry)(x))
    assert torch.equal(gradient(surrogate, x), gradient(soft, x))
    assert not torch.equal(gradient(surrogate, x), gradient(nn.MaxPool2d(**geometry), x))


def test_windows_without_any_pixel():
    """A dilated window can miss a small picture altogether: -inf as in max pooling, and no gradient."""
    x = torch.randn(1, 1, 1, 1, requires_grad=True)
    for kind in ("soft", "hard"):
        pool = SoftMaxPool2d(2, 1, 1, 2, forward=kind)
        out = pool(x)
        assert torch.equal(out, functional.max_pool2d(x, 2, 1, 1, 2))
        assert out.item() == -math.inf
        assert torch.autograd.grad(out.sum(), x)[0].item() == 0


def test_half_precision_and_compiling():
    x = torch.randn(2, 3, 8, 8)
    pool = SoftMaxPool2d(3, 2, 1, forward="hard")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pool(x), nn.MaxPool2d(3, 2, 1)(x))
    torch.compiler.reset()
    compiled = torch.compile(pool, backend="aot_eager")
    torch.testing.assert_close(gradient(compiled, x), gradient(pool, x))


def test_mean_and_scale():
    x = torch.tensor([[1.0, 3.0, -2.0, 0.0, 6.0, 8.0]])
    assert Mean(3)(x).tolist() == [[2.0, -1.0, 7.0]]
    assert Mean(2)(x)[0].tolist() == pytest.approx([2 / 3, 14 / 3])
    assert Mean(3)(x[:0]).shape == (0, 3)
    scale = Scale(2.5)
    assert torch.equal(scale(x), 2.5 * x)
    scale(x).sum().backward()
    assert scale.factor.grad.item() == pytest.approx(16.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftMaxPool(2, tau=0.0), r"`tau` must be a finite number above 0, got 0\.0\."),
        (lambda: SoftMaxPool(2, tau=math.inf), r"`tau` must be a finite number above 0, got inf\."),
        (lambda: SoftMaxPool(0), r"`groups` must be a positive integer, got 0\."),
        (lambda: Mean(0), r"`groups` must be a positive integer, got 0\."),
        (lambda: SoftMaxPool(2, grad="half"), r"`grad` must be one of full, detach, got 'half'\."),
        (lambda: SoftMaxPool(2, kind="max"), r"`kind` must be one of softmax, mellowmax, got 'max'\."),
        (lambda: SoftMaxPool2d(2, forward="max"), r"`forward` must be one of soft, hard, got 'max'\."),
        (lambda: SoftMaxPool2d(3, padding=2), r"`padding` must be at most half of the window, 1, got 2\."),
        (lambda: SoftMaxPool2d(2, padding=-1), r"`padding` must be an integer of at least 0, got -1\."),
        (lambda: SoftMaxPool2d(2, 0), r"`stride` must be a positive integer, got 0\."),
        (lambda: SoftMaxPool2d(4)(torch.zeros(1, 1, 3, 5)), r"`x` must span at least 4 pixels a side, got 3\."),
        (lambda: SoftMaxPool(4)(torch.zeros(2, 6)), r"units that divide into 4 groups, got \(2, 6\)\."),
        (lambda: Mean(3)(torch.zeros(6)), r"units that divide into 3 groups, got \(6,\)\."),
    ],
)
def test_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()
