"""Units by name, and the part of an input that each place sees."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.explanations.circuits import Unit, record, shuffled


def test_names_of_units():
    assert Unit.parse("a.b:12") == Unit("a.b", 12)
    assert Unit.parse(str(Unit("x:y", 0))) == Unit("x:y", 0)
    for text in ("a", "a:", ":3", "a:-1", "a:b", ""):
        with pytest.raises(ValueError, match="must be named LAYER:INDEX"):
            Unit.parse(text)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.integers(0, 99))
@example(kernel=5, stride=3, padding=1, pools=True, seed=0)  # two columns of places, and the border cuts both off
def test_a_place_says_what_its_field_alone_says(kernel, stride, padding, pools, seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 5, kernel, stride=stride, padding=padding), nn.ReLU()]
    layers += [nn.MaxPool2d(2)] if pools else []
    net, x = nn.Sequential(*layers), torch.randn(6, 2, 13, 12)
    last = str(len(layers) - 1)
    found = record(net, last, x)
    side = kernel + stride * pools
    assert (found.field.height, found.field.width) == (side, side)
    crops = found.field.crop(x, found.at)
    with torch.no_grad():
        inner = nn.Sequential(nn.Conv2d(2, 5, kernel, stride=stride), *layers[1:])
        inner[0].load_state_dict(net[0].state_dict())
        alone = inner(crops)[:, :, 0, 0]  # zeros beyond the border are those of the padding
        whole = net(x)
    assert torch.allclose(alone, found.sampled, atol=1e-5)
    assert torch.equal(found.peaks, whole.amax((2, 3)))
    assert torch.equal(whole.flatten(2).gather(2, found.places[..., None])[..., 0], found.peaks)


def test_where_the_network_takes_no_larger_input_a_field_is_what_is_seen():
    class Narrow(nn.Sequential):
        def forward(self, x):
            assert x.shape[-1] == 12, "one width only"
            return super().forward(x)

    net = Narrow(nn.Conv2d(1, 3, 5, stride=3, padding=1), nn.MaxPool2d(2))
    found = record(nn.Sequential(net), "0.1", torch.randn(3, 1, 13, 12))
    assert (found.field.height, found.field.width) == (8, 7)


def test_a_unit_of_a_linear_layer_sees_all():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 4))
    x = torch.randn(5, 1, 8, 8)
    found = record(net, "2", x)
    assert (found.grid, found.field.height, found.field.tops) == ((1, 1), 8, (0,))
    assert torch.equal(found.field.crop(x, found.at), x)
    assert torch.allclose(found.peaks, net(x))
    rows = torch.randn(5, 7)
    assert torch.equal((it := record(nn.Sequential(nn.Linear(7, 2)), "0", rows)).field.crop(rows, it.at), rows)


def test_recording_leaves_the_network_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    net[1].eval()
    before = {name: it.clone() for name, it in net.state_dict().items()}
    record(net, "2", torch.randn(40, 1, 6, 6))
    assert [it.training for it in net] == [True, False, True]
    assert all(torch.equal(before[name], it) for name, it in net.state_dict().items())
    assert not any(it._forward_hooks for it in net.modules())


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("never to be called")


def test_what_comes_after_the_layer_is_not_computed():
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), Broken()), torch.randn(4, 1, 6, 6)
    assert torch.equal(record(net, "0", x).peaks, net[0](x).amax((2, 3)))
    assert not net[0]._forward_hooks
    with pytest.raises(RuntimeError, match="never to be called"):
        record(net, "1", x)


def test_a_shuffled_network_is_another():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    other = shuffled(net)
    assert not torch.equal(other[0].weight, net[0].weight)
    assert torch.equal(other[0].weight.flatten(1).sort(1).values, net[0].weight.flatten(1).sort(1).values)
    assert torch.equal(shuffled(net)[0].weight, other[0].weight)


@pytest.mark.parametrize(
    ("layer", "x", "said"),
    [
        ("9", torch.randn(2, 1, 6, 6), "`layer` must be a module of the network, got '9'. It has 0, 1."),
        ("", torch.randn(2, 1, 6, 6), "got ''"),
        ("0", torch.randn(0, 1, 6, 6), "`x` must hold at least one input"),
        ("1", torch.randn(2, 1, 6, 6), r"must give \(sample, unit\) or .*, got \(2, 3, 16\) from '1'"),
    ],
)
def test_what_cannot_be_recorded_is_refused(layer, x, said):
    with pytest.raises(ValueError, match=said):
        record(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(2)), layer, x)
