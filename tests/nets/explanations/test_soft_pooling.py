"""Soft max pooling over one, two and three axes, adaptive windows and whole maps, against loops over places."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_pullback as literal
from torch import nn
from torch.nn import functional

import backbones
from backbones.explanations.pullbacks import pullback

FIXED = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
ADAPTIVE = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


def soft(call, x, upstream=None, **options):
    """Value and gradient of a call; the value has to be the plain one."""
    leaf = x.clone().requires_grad_()
    with pullback(nn.Identity(), **options):
        value = call(leaf)
    assert torch.equal(value, call(x))
    value.backward(torch.ones_like(value) if upstream is None else upstream)
    return value.detach(), leaf.grad


@settings(max_examples=60, deadline=None)
@given(
    axes=st.integers(1, 3),
    sizes=st.tuples(*[st.integers(3, 6)] * 3),
    kernels=st.tuples(*[st.integers(1, 3)] * 3),
    strides=st.tuples(*[st.integers(1, 3)] * 3),
    share=st.floats(0, 0.5),
    dilations=st.tuples(*[st.integers(1, 2)] * 3),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 100),
)
def test_windows_of_one_size(axes, sizes, kernels, strides, share, dilations, ceil_mode, seed):
    size, kernel, stride, dilation = (each[:axes] for each in (sizes, kernels, strides, dilations))
    padding = tuple(int(share * k) for k in kernel)
    if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
        return
    torch.manual_seed(seed)
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    pool = FIXED[axes](kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    upstream = torch.randn_like(pool(x))
    _, found = soft(pool, x, upstream)
    for channel in range(2):
        expected = literal.max_pool(
            x[0, channel],
            upstream[0, channel],
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            temperature=0.3,
        )
        assert torch.allclose(found[0, channel], expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    axes=st.integers(1, 3),
    sizes=st.tuples(*[st.integers(1, 7)] * 3),
    outputs=st.tuples(*[st.integers(1, 8)] * 3),
    softness=st.floats(0.1, 5),
)
def test_adaptive_windows(axes, sizes, outputs, softness):
    torch.manual_seed(sum(sizes))
    x = torch.randn(1, 1, *sizes[:axes], dtype=torch.float64)
    pool = ADAPTIVE[axes](outputs[:axes])
    upstream = torch.randn_like(pool(x))
    _, found = soft(pool, x, upstream, softness=softness)
    assert torch.allclose(found[0, 0], literal.adaptive_max_pool(x[0, 0], upstream[0, 0], 0.3 * softness), atol=1e-12)


FORMS = {
    "1-D module": (1, nn.MaxPool1d(2)),
    "1-D of torch": (1, lambda x: torch.max_pool1d(x, 2)),
    "1-D with indices": (1, lambda x: functional.max_pool1d(x, 2, return_indices=True)[0]),
    "1-D, pair in a list": (1, lambda x: functional.max_pool1d(x, [2], stride=[2])),
    "3-D module": (3, nn.MaxPool3d(2)),
    "3-D of torch": (3, lambda x: torch.max_pool3d(x, [2, 2, 2])),
    "3-D with indices": (3, lambda x: nn.MaxPool3d(2, return_indices=True)(x)[0]),
    "1-D adaptive": (1, nn.AdaptiveMaxPool1d(2)),
    "1-D adaptive of torch": (1, lambda x: torch.adaptive_max_pool1d(x, [2])[0]),
    "1-D adaptive with indices": (1, lambda x: functional.adaptive_max_pool1d(x, 2, return_indices=True)[0]),
    "2-D adaptive": (2, lambda x: functional.adaptive_max_pool2d(x, output_size=(2, None))),
    "2-D adaptive with indices": (2, lambda x: nn.AdaptiveMaxPool2d((2, None), return_indices=True)(x)[0]),
    "3-D adaptive": (3, nn.AdaptiveMaxPool3d(2)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_call_with_and_without_batch(form):
    axes, call = FORMS[form]
    torch.manual_seed(0)
    x = torch.randn(2, 3, *[4] * axes, dtype=torch.float64)
    value, found = soft(call, x)
    assert torch.allclose(found.sum(), torch.tensor(float(value.numel())).double())  # each window shares out 1
    assert (found > 0).all()  # to each of its places
    if axes < 3 or "adaptive" not in form:
        assert torch.allclose(soft(call, x[0])[1], found[0], atol=1e-15)
    with pullback(nn.Identity()), torch.no_grad():
        assert torch.equal(call(x), value)


def test_indices_are_torchs_own():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 7)
    for call in (
        nn.MaxPool1d(3, return_indices=True),
        nn.AdaptiveMaxPool1d(3, return_indices=True),
        lambda x: nn.AdaptiveMaxPool2d(3, return_indices=True)(x[None]),
    ):
        with pullback(nn.Identity()):
            value, places = call(x[0].clone().requires_grad_())
        assert torch.equal(places, call(x[0])[1])
        assert value.requires_grad


WHOLE = {
    "amax of both": lambda x: x.amax((2, 3)),
    "amax, counted from the end": lambda x: torch.amax(x, dim=(-1, -2), keepdim=True),
    "adaptive": nn.AdaptiveMaxPool2d(1),
    "max of one axis": lambda x: x.flatten(2).max(2)[0],
    "max, values by name": lambda x: torch.max(x.flatten(2), dim=-1, keepdim=True).values,
}


@pytest.mark.parametrize("form", WHOLE)
def test_the_largest_of_all_places(form):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    upstream = torch.randn_like(WHOLE[form](x))
    _, found = soft(WHOLE[form], x, upstream)
    for row in range(2):
        for channel in range(3):
            expected = literal.adaptive_max_pool(x[row, channel], upstream[row, channel].reshape(1, 1), 0.3)
            assert torch.allclose(found[row, channel], expected, atol=1e-12)


def test_maxima_along_places_alone_and_no_others():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    _, found = soft(lambda x: x.amax(-2), x)  # one place axis of two
    rows = x.movedim(2, 3)
    assert torch.allclose(found.movedim(2, 3), torch.softmax(rows / 0.3, -1), atol=1e-12)
    with pullback(nn.Identity()):
        largest = x.clone().requires_grad_().max(3)
    assert type(largest) is type(x.max(3))
    assert torch.equal(largest.indices, x.max(3).indices)
    for call in (
        lambda x: x.amax(1),
        lambda x: x.max(1).values,
        lambda x: x.amax((1, 2)),
        lambda x: x.max(),
        lambda x: x.amax(),
        lambda x: x.flatten(1).amax(1),
        lambda x: torch.max(x, x.flip(3)),
        lambda x: torch.max(x, other=x.flip(3)),
    ):
        leaf = x.clone().requires_grad_()
        call(leaf).sum().backward()
        assert torch.equal(soft(call, x)[1], leaf.grad)
    with pullback(nn.Identity()):
        assert torch.arange(8).view(1, 2, 4).amax(2).tolist() == [[3, 7]]


@pytest.mark.parametrize("call", [nn.AdaptiveMaxPool2d(3), nn.MaxPool2d(2), WHOLE["amax of both"]])
def test_limits_are_the_plain_gradient_and_the_average(call):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    value = call(leaf)
    value.sum().backward()
    assert torch.allclose(soft(call, x, softness=1e-9)[1], leaf.grad, atol=1e-14)
    average = {3: nn.AdaptiveAvgPool2d(3), 4: nn.AvgPool2d(2), 1: lambda x: x.mean((2, 3))}
    leaf.grad = None
    average[value.shape[2] if value.ndim == 4 else 1](leaf).sum().backward()
    assert torch.allclose(soft(call, x, softness=1e9)[1], leaf.grad, atol=1e-8)


def test_averages_are_linear_and_stay_as_they_are():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    for call in (nn.AdaptiveAvgPool2d(3), nn.AvgPool2d(3, 2, 1), lambda x: x.mean((2, 3))):
        leaf = x.clone().requires_grad_()
        call(leaf).sum().backward()
        assert torch.equal(soft(call, x)[1], leaf.grad)


def test_a_network_of_ours_that_ends_in_a_maximum():
    torch.manual_seed(0)
    net = backbones.build("positive", input_shape=(1, 12, 12), widths=[4, 8], pooling="max").eval()
    x = torch.rand(2, 1, 12, 12)
    _, found = soft(net, x)
    leaf = x.clone().requires_grad_()
    net(leaf).sum().backward()
    assert (found - leaf.grad).norm() > 0.01 * leaf.grad.norm()
    assert (found != 0).double().mean() > (leaf.grad != 0).double().mean()
