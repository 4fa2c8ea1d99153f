"""Filters in several views: each view against loops, the best of them, and what invariance it buys."""

import pytest
import torch
from support import reference_early as reference
from torch.nn import functional

import backbones
from backbones.layers.view_convs import PerspectiveConv2d, ProjectedConv2d, ScaledConv2d

EXACT = {"rtol": 1e-6, "atol": 1e-7}  # the shares of the projections are kept in float32
MAKES = {
    "scaled": lambda: ScaledConv2d(2, 3, 4, sizes=[3, 5, 7]),
    "perspective": lambda: PerspectiveConv2d(2, 3, 5, views=3),
    "projected": lambda: ProjectedConv2d(2, 3, 5, depth=3),
}


def literal_views(layer):
    weight = layer.weight.detach()
    if isinstance(layer, ScaledConv2d):
        return [reference.scaled_view(weight, size) for size in layer.sizes]
    if isinstance(layer, PerspectiveConv2d):
        entries = (0.45 * layer.entries.detach().tanh()).tolist()
        return [reference.perspective_view(weight, a, b) for a, b in entries]
    return [reference.projected_view(weight, direction) for direction in range(8)]


@pytest.mark.parametrize("name", MAKES)
def test_views_and_their_best(name):
    layer = MAKES[name]().double()
    expected = literal_views(layer)
    for view, literal in zip(layer.views(), expected, strict=True):
        torch.testing.assert_close(view.detach(), literal, **EXACT)
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    maps = [functional.conv2d(x, view, padding=view.shape[2] // 2) for view in expected]
    best = torch.stack(maps).max(0).values
    torch.testing.assert_close(layer(x).detach(), best, rtol=1e-5, atol=1e-6)
    winners = torch.stack(maps).argmax(0).flatten().bincount(minlength=len(maps))
    assert (winners > 0).all()  # no view is there for nothing


@pytest.mark.parametrize("name", MAKES)
def test_gradients_explain(name):
    layer = MAKES[name]().double()
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    assert backbones.grp_gap(lambda x: layer(x).amax((2, 3)), x).relative < 1e-12
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


@pytest.mark.parametrize("name", MAKES)
def test_stride_takes_every_second_place(name):
    layer = MAKES[name]()
    x = torch.randn(1, 2, 9, 8)
    dense = layer(x)
    assert dense.shape == (1, 3, 9, 8)
    layer.stride = 2
    torch.testing.assert_close(layer(x), dense[:, :, ::2, ::2])


def test_flat_filters_answer_alike_at_every_size():
    layer = ScaledConv2d(1, 1, 5, sizes=[3, 5, 9])
    with torch.no_grad():
        layer.weight.fill_(0.2)
    assert [view.sum().item() for view in layer.views()] == pytest.approx([5.0] * 3)
    torch.testing.assert_close(layer.views()[1], layer.weight)


def test_larger_pictures_of_the_filter_are_found():
    """A pattern at another size scores nearly as high as at its own, relative to an ordinary filter."""
    pattern = torch.zeros(1, 1, 5, 5)
    pattern[0, 0, 2, :] = pattern[0, 0, :, 2] = 1.0
    pattern -= pattern.mean()
    large = functional.interpolate(pattern, (9, 9), mode="bilinear", align_corners=True)
    layer = ScaledConv2d(1, 1, 5, sizes=[5, 9])
    with torch.no_grad():
        layer.weight.copy_(pattern)
    alone = functional.conv2d(large, pattern, padding=2)[0, 0, 4, 4]
    assert layer(large)[0, 0, 4, 4] > 1.2 * alone


def test_no_perspective_and_flat_solids_are_the_filter():
    layer = PerspectiveConv2d(2, 3, 5, views=1)
    with torch.no_grad():
        layer.entries.zero_()
    torch.testing.assert_close(layer.views()[0], layer.weight, rtol=1e-5, atol=1e-6)
    solid = ProjectedConv2d(2, 3, 5, depth=1)
    for view in solid.views():
        torch.testing.assert_close(view, solid.weight[..., 0], rtol=1e-5, atol=1e-6)


def test_a_pole_is_seen_lying_in_each_direction():
    layer = ProjectedConv2d(1, 1, 5)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 2, 2] = 1.0  # upright in the middle
    views = layer.views()
    torch.testing.assert_close(views[0][0, 0], torch.eye(5)[2][:, None] * torch.ones(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(views[2][0, 0], torch.eye(5)[2][None] * torch.ones(5, 1), rtol=0, atol=1e-6)
    assert all(view.sum().item() == pytest.approx(5.0) for view in views)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaledConv2d(1, 1, 1), r"`kernel_size` must be an integer of at least 2, got 1\."),
        (lambda: ScaledConv2d(1, 1, sizes=[3, 4]), r"`sizes` must be odd integers of at least 3, got \[3, 4\]\."),
        (lambda: ScaledConv2d(1, 1, sizes=[]), r"`sizes` must be odd integers of at least 3, got \[\]\."),
        (lambda: ScaledConv2d(1, 0), r"`out_channels` must be a positive integer, got 0\."),
        (lambda: PerspectiveConv2d(1, 1, 4), r"`kernel_size` must be an odd integer of at least 3, got 4\."),
        (lambda: PerspectiveConv2d(1, 1, views=0), r"`views` must be a positive integer, got 0\."),
        (lambda: ProjectedConv2d(1, 1, 1), r"`kernel_size` must be an odd integer of at least 3, got 1\."),
        (lambda: ProjectedConv2d(1, 1, depth=0), r"`depth` must be a positive integer, got 0\."),
        (lambda: ProjectedConv2d(1, 1, stride=0), r"`stride` must be a positive integer, got 0\."),
    ],
)
def test_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()
