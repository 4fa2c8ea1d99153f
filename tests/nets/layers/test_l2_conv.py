"""`L2Conv2d`: distances place by place, and filters that start as patches."""

import pytest
import torch
from support import reference_nets as reference

import backbones
from backbones.layers.l2_conv import L2Conv2d, random_patches


def distances(x, weight, *, stride, padding):
    """Negative squared distance of each patch, zeros outside of the picture."""
    size = weight.shape[2]
    corners = reference.places(*x.shape[2:], size, stride, padding)
    wide = torch.zeros(*x.shape[:2], x.shape[2] + 2 * padding, x.shape[3] + 2 * padding, dtype=x.dtype)
    wide[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    out = torch.zeros(len(x), len(weight), corners[-1][0] + 1, corners[-1][1] + 1, dtype=x.dtype)
    for i, j, top, left in corners:
        patch = wide[:, :, top + padding : top + padding + size, left + padding : left + padding + size]
        for k, one in enumerate(weight.detach()):
            out[:, k, i, j] = -((patch - one) ** 2).flatten(1).sum(1)
    return out


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 0), (3, 2, 1), (5, 1, 2), (1, 1, 0), (4, 3, 2)])
def test_definition(size, stride, padding):
    layer = L2Conv2d(2, 4, size, stride=stride, padding=padding).double()
    x = torch.randn(3, 2, 8, 7, dtype=torch.float64)
    expected = distances(x, layer.weight, stride=stride, padding=padding)
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-10, atol=1e-10)


def test_by_hand_and_zero_at_the_patch_itself():
    layer = L2Conv2d(1, 1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert layer(torch.zeros(1, 1, 2, 2)).item() == -30
    assert layer(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])).item() == -1
    assert layer(layer.weight).item() == 0


def test_gradient_pulls_the_filter_to_the_patch():
    layer = L2Conv2d(2, 1, 3).double()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    pull, push = torch.autograd.grad(layer(x).sum(), [layer.weight, x])
    torch.testing.assert_close(pull, 2 * (x - layer.weight))
    torch.testing.assert_close(push, -2 * (x - layer.weight))


def test_half_precision_does_not_cancel():
    layer = L2Conv2d(3, 2, 5, padding=2)
    x = 10 + torch.randn(2, 3, 9, 9)
    layer.learn_(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), layer.double()(x.double()), rtol=1e-4, atol=1e-2)


def test_patches_come_from_the_inputs():
    x = torch.randn(3, 2, 6, 5)
    patches = random_patches(x, count=7, size=3)
    assert patches.shape == (7, 2, 3, 3)
    found = []
    for patch in patches:
        places = [
            i
            for i in range(3)
            for top in range(4)
            for left in range(3)
            if torch.equal(x[i, :, top : top + 3, left : left + 3], patch)
        ]
        assert len(places) == 1
        found += places
    assert sorted(found[:3]) == sorted(found[3:6]) == [0, 1, 2]
    whole = random_patches(x, count=200, size=3)
    assert len(whole.flatten(1).unique(dim=0)) == 36  # every place of every input


def test_positive_starts_from_patches():
    net = backbones.build("positive", input_shape=(1, 8, 8), widths=[6, 8], first="l2")
    x = torch.rand(40, 1, 8, 8)
    before = net.first.weight.detach().clone()
    net.eval().prepare_(x)
    assert not net.training
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    candidates = padded.unfold(2, 5, 1).unfold(3, 5, 1).flatten(0, 3).flatten(1)
    assert not torch.equal(net.first.weight, before)
    assert all((candidates == one.flatten()).all(1).any() for one in net.first.weight)
    backbones.build("positive", input_shape=(1, 8, 8)).prepare_(x)  # nothing to look up


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L2Conv2d(0, 2, 3), r"`in_channels` must be a positive integer, got 0\."),
        (lambda: L2Conv2d(1, 2, 2.5), r"`kernel_size` must be a positive integer, got 2\.5\."),
        (lambda: L2Conv2d(1, 2, 3, padding=-1), r"`padding` must be an integer of at least 0, got -1\."),
        (lambda: L2Conv2d(1, 2, 3).learn_(torch.zeros(2, 1, 2, 5)), r"`x` must be at least one input of 3 x 3 pixels"),
        (lambda: random_patches(torch.zeros(0, 1, 4, 4), count=1, size=3), r"or more, got shape \(0, 1, 4, 4\)\."),
    ],
)
def test_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()
