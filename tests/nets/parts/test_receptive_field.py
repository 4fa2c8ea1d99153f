"""Fields that are measured are those of the arithmetic, and those that parts claim."""

import pytest
import torch
from torch import nn

import backbones
from backbones.parts import Field, receptive_field

CASES = [
    ((1, 28, 28), {}, 11),
    ((3, 32, 32), {}, 13),
    ((1, 8, 8), {}, 3),
    ((1, 28, 28), {"receptive_field": 9, "step": 1}, 9),
    ((2, 20, 17), {"receptive_field": 17}, 17),
    ((1, 12, 9), {"receptive_field": 4, "step": 3}, 4),
    ((3, 32, 32), {"receptive_field": 17, "first": "pooled", "where": "anywhere"}, 17),
    ((1, 28, 29), {"first": "pooled"}, 11),
    ((1, 16, 16), {"receptive_field": 5, "first": "pooled"}, 5),
]


@pytest.mark.parametrize(("shape", "options", "side"), CASES, ids=str)
def test_parts_see_their_field_and_nothing_else(shape, options, side):
    net = backbones.build("parts", input_shape=shape, channels=5, width=8, **options).double()
    net.train()(torch.randn(20, *shape, dtype=torch.float64))  # statistics of their own
    rows, columns = net.eval().locations(torch.zeros(1, *shape, dtype=torch.float64)).shape[2:]
    assert net.options["receptive_field"] == side
    for place in {(0, 0), (rows - 1, columns - 1), (rows // 2, 0)}:
        found = receptive_field(net.encoder, shape, place)
        assert found == net.field(place)
        assert (found.bottom - found.top, found.right - found.left) == (side, side)


def test_a_pixel_outside_of_the_field_moves_no_bit():
    net = backbones.build("parts", input_shape=(1, 28, 28), channels=7, width=16).eval()
    x = torch.rand(1, 1, 28, 28)
    field = net.field((2, 3))
    outside = torch.ones(28, 28, dtype=torch.bool)
    outside[field.top : field.bottom, field.left : field.right] = False
    changed = torch.where(outside, torch.rand(28, 28) * 100, x)
    inside = torch.where(outside, x, x + 1)
    with torch.no_grad():
        before, after, moved = (net.responses(each)[0, :, 2, 3] for each in (x, changed, inside))
    assert torch.equal(before, after)
    assert not torch.equal(before, moved)


def test_padding_dilation_and_branches_need_no_rule():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.near, self.wide = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=4, dilation=4)

        def forward(self, x):
            return self.near(x) + self.wide(x)

    assert receptive_field(Branches(), (1, 20, 20), (10, 9)) == Field(6, 5, 15, 14)
    assert receptive_field(Branches(), (1, 20, 20), (0, 0)) == Field(0, 0, 5, 5)


def test_maps_of_no_input_have_an_empty_field():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 1, 2, 2, requires_grad=True) + 0 * x.detach().sum()

    assert receptive_field(Constant(), (1, 4, 4), (1, 1)) == Field(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("network", "place"), [(nn.Conv2d(1, 1, 3), (2, 0)), (nn.Conv2d(1, 1, 3), (0, -1)), (nn.Flatten(), (0, 0))]
)
def test_a_place_that_is_none_is_refused(network, place):
    with pytest.raises(ValueError, match="`place` must be a row and a column"):
        receptive_field(network, (1, 4, 4), place)
