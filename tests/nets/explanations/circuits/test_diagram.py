"""Pictures that are known as whose they are, circuits unrolled to pixels, and kernels written by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from backbones.explanations.circuits import (
    Unit,
    diagram,
    handwritten,
    handwritten_layer,
    identification,
    record,
    shuffled,
    unrolled,
)
from backbones.explanations.circuits.handwriting import by_hand


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 36, 6),
    )  # fmt: skip


def test_pictures_of_a_first_layer_are_known_and_are_its_kernels():
    net, x = net_of(), noise(60, 1, 12, 12)
    found = identification(net, record(net, "0", x), range(12), x)
    assert found.units == tuple(range(12))
    assert found.top1 >= 0.9
    assert found.of(3, permutations=99).p_value <= 0.02
    cosines = functional.cosine_similarity(found.pictures.flatten(2), net[0].weight.detach().flatten(1)[:, None], dim=2)
    assert cosines.min() > 0.99
    norms = found.pictures.flatten(2).norm(dim=2)
    assert torch.allclose(norms, norms[0, 0].expand_as(norms))


def test_a_dead_unit_and_its_copy():
    """The dead one is left out; two copies cannot be told apart, and share the pictures of both."""
    net, x = net_of(), noise(60, 1, 12, 12)
    with torch.no_grad():
        net[0].weight[4], net[0].bias[4] = 0, -1
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
    found = identification(net, record(net, "1", x), range(12), x)
    assert 4 not in found.units
    assert found.of(0).statistic < 1
    assert np.allclose(found.answers[0], found.answers[1])
    with pytest.raises(ValueError, match="two or more units that are not dead, got 0"):
        identification(net, record(net, "1", x), [4], x)


def test_a_unit_of_a_first_layer_is_its_kernel_in_pixels():
    net, x = net_of(), noise(40, 1, 12, 12)
    found = unrolled(net, Unit("0", 2), x, record(net, "0", x))
    seen = found[found != 0]
    assert found.shape == (1, 5, 5)
    kernel = net[0].weight[2].detach().numpy()
    assert len(seen) > 12  # parts beyond the border are 0 in some examples
    assert np.corrcoef(found.ravel(), kernel.ravel())[0, 1] > 0.95


def test_a_linear_network_is_unrolled_exactly():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3, bias=False), nn.Conv2d(5, 3, 3, bias=False))
    x = noise(30, 2, 9, 9)
    recording = record(net, "1", x)
    template = torch.from_numpy(unrolled(net, Unit("1", 1), x, recording))
    patches = recording.field.crop(x, recording.at)
    assert torch.allclose((patches * template).sum((1, 2, 3)), recording.sampled[:, 1], atol=1e-4)


def test_planted_edges_are_those_of_the_diagram():
    net, x = net_of(), noise(80, 1, 12, 12)
    with torch.no_grad():
        net[3].weight.mul_(0.02)
        net[3].weight[5, [2, 7]] = noise(2, 3, 3)
    found = diagram(net, Unit("3", 5), x, widths=(2, 3))
    assert {it.source for it in found.edges} == {Unit("0", 2), Unit("0", 7)}
    assert len(found.levels) == 2  # the first layer looks at the picture
    (root,) = found.levels[0]
    assert root.faithful > 0.95
    assert [it.faithful for it in found.levels[1]] == [None, None]
    for edge in found.edges:
        assert np.array_equal(edge.kernel, net[3].weight[5, edge.source.index].detach().double().numpy())
    assert sum(it.share for it in found.edges) == pytest.approx(1, abs=0.1)


def test_a_class_is_unrolled_through_places():
    net, x = net_of(), noise(40, 1, 12, 12)
    found = diagram(net, Unit("6", 1), x, widths=(3, 2))
    assert [len(it) for it in found.levels][:2] == [1, 3]
    assert all(it.unit.layer == "0" for it in found.levels[2])
    assert {it.kernel.shape for it in found.edges if it.target == Unit("6", 1)} == {(6, 6)}
    edge = found.edges[0]
    weight = net[6].weight.detach()[1].view(8, 6, 6)[edge.source.index].double().numpy()
    assert np.array_equal(edge.kernel, weight)


def test_all_edges_are_faithful():
    net, x = net_of(), noise(40, 1, 12, 12)
    found = diagram(net, Unit("3", 0), x, widths=(12,))
    assert found.levels[0][0].faithful == pytest.approx(1)
    assert sum(it.share for it in found.edges) == pytest.approx(1)


@pytest.mark.parametrize(
    ("groups", "mode", "padding", "stride"), [(1, "zeros", 1, 1), (2, "reflect", 1, 2), (1, "zeros", "same", 1)]
)
def test_a_kernel_written_by_hand_is_replaced_whole(groups, mode, padding, stride):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 5, groups=groups, padding=padding, padding_mode=mode, stride=stride)
    basis = torch.from_numpy(by_hand(5, 5)).float()
    with torch.no_grad():
        layer.weight.copy_((noise(6, 4 // groups, 6) @ basis.T).view_as(layer.weight))
    net, x = nn.Sequential(layer), noise(60, 4, 11, 11)
    at = torch.randint(25, (60,), generator=torch.Generator().manual_seed(0))
    found = handwritten(net, Unit("0", 4), x, at, permutations=49)
    assert found.statistic == pytest.approx(1)
    assert found.p_value == 1 / 50
    assert torch.allclose(handwritten_layer(net, "0")(x), net(x), atol=1e-4)
    assert handwritten(shuffled(net), Unit("0", 4), x, at, permutations=49).p_value > 0.02


def test_what_is_replaced_is_what_the_layer_says():
    """The statistic is the correlation of the layer with its copy, at the same places."""
    net, x = net_of(), noise(50, 1, 12, 12)
    at = torch.randint(36, (50,), generator=torch.Generator().manual_seed(0))
    found = handwritten(net, Unit("3", 2), x, at, permutations=9).statistic
    with torch.no_grad():
        said = [it[:4](x)[:, 2].flatten(1).gather(1, at[:, None])[:, 0] for it in (net, handwritten_layer(net, "3"))]
    assert found == pytest.approx(np.corrcoef(said)[0, 1], abs=1e-5)


def test_shapes_are_orthonormal():
    for size in ((3, 3), (5, 7)):
        assert np.allclose(by_hand(*size).T @ by_hand(*size), np.eye(6))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net, x: handwritten(net, Unit("6", 0), x, torch.zeros(9).long()), "no shape to write by hand"),
        (lambda net, x: handwritten_layer(net, "6"), "must be a Conv2d to be written by hand"),
        (lambda net, x: diagram(net, Unit("1", 0), x), "to have weights, got ReLU"),
        (lambda net, x: diagram(net, Unit("3", 0), x, widths=(0,)), "`widths` must be a positive integer"),
        (lambda net, x: diagram(nn.Sequential(nn.Linear(4, 2)), Unit("0", 0), x[:, 0, 0, :4]), "must be images"),
        (lambda net, x: identification(net, record(net, "0", x), [0, 1], x, starts=0), "`starts` must be a positive"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(net_of(), noise(9, 1, 12, 12))
