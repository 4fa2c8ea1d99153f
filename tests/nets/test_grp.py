"""The gap of nets whose gap is known by hand, and the switch that holds gates."""

import pytest
import torch
from torch import nn

from backbones import detached_gates, grp_gap
from backbones.explor_layers.layers import ExplORLinear
from backbones.layers.silu_batchnorm import SiLUBatchNorm


def test_linear_layer_has_no_gap_and_a_bias_is_all_of_one():
    x = torch.tensor([[1.0, 2.0]])
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
        linear.bias.copy_(torch.tensor([0.0, 3.0]))
    gap = grp_gap(linear, x)  # values 3 and 4, explained 3 and 1
    assert gap.relative == pytest.approx(3 / 4)
    assert gap.unexplained.tolist() == pytest.approx([0.0, 3 / 4])
    assert grp_gap(linear, x, max_units=1).relative == 0.0
    assert linear.weight.grad is None


def test_square_explains_twice_its_value_and_a_constant_nothing():
    x = torch.tensor([[2.0], [3.0]])
    assert grp_gap(lambda x: x.square(), x).relative == pytest.approx(1.0)
    assert grp_gap(lambda x: 0 * x + 1, x).unexplained.tolist() == [1.0]


def test_zero_units():
    gap = grp_gap(lambda x: torch.cat([0 * x, x - x.detach()], dim=1), torch.tensor([[2.0]]))
    assert gap.unexplained.tolist() == [0.0, float("inf")]
    assert gap.relative == 1.0
    assert grp_gap(lambda x: 0 * x, torch.tensor([[2.0]])).relative == 0.0


def test_held_gates_end_with_the_block_even_after_an_exception():
    model = nn.Sequential(SiLUBatchNorm(3), ExplORLinear(3, 2), nn.ReLU())
    model[1].hold_gate = True
    with detached_gates(model):
        assert model[0].hold_gate
        assert model[1].hold_gate
    with pytest.raises(ValueError, match="must have shape"), detached_gates(model):
        model(torch.zeros(2, 9))
    assert not model[0].hold_gate
    assert model[1].hold_gate


def test_sentences():
    with pytest.raises(ValueError, match=r"`x` must hold at least one input, got shape \(0, 3\)\."):
        grp_gap(nn.ReLU(), torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"`max_units` must be at least 1, got 0\."):
        grp_gap(nn.ReLU(), torch.ones(1, 3), max_units=0)
