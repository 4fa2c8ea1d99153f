"""The gated normalisation against its literal formula and against torch's own."""

import pytest
import torch
from support import reference_nets as reference
from torch import nn

from backbones import detached_gates, grp_gap
from backbones.layers.silu_batchnorm import SiLUBatchNorm


def varied(channels=3, **options):
    layer = SiLUBatchNorm(channels, **options).double()
    with torch.no_grad():
        layer.norm.weight.uniform_(-2, 2)
        layer.norm.bias.normal_()
    return layer


def test_training_is_the_formula_and_keeps_torchs_statistics():
    layer, x = varied(momentum=0.3), torch.randn(4, 3, 5, 2, dtype=torch.float64) * 3 + 1
    twin = nn.BatchNorm2d(3, momentum=0.3).double()
    twin(x)
    expected = reference.silu_batchnorm(x, layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(layer(x).detach(), expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer.norm.running_mean, twin.running_mean)
    torch.testing.assert_close(layer.norm.running_var, twin.running_var)
    assert layer.norm.num_batches_tracked == 1


def test_evaluation_uses_running_statistics():
    layer, x = varied(), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    layer(x + 2)
    layer.eval()
    scale = layer.norm.weight / (layer.norm.running_var + 1e-5).sqrt()
    expected = x * scale.view(1, 3, 1, 1) * torch.sigmoid(layer.norm(x))
    torch.testing.assert_close(layer(x), expected)
    assert layer.norm.num_batches_tracked == 1


def test_gap_is_the_gates_alone():
    layer, x = varied().eval(), torch.randn(4, 3, 2, 2, dtype=torch.float64)

    def flat(x):
        return layer(x).flatten(1)

    assert grp_gap(flat, x).relative > 0.05
    with detached_gates(layer):
        assert grp_gap(flat, x).relative < 1e-14
    centred = nn.Sequential(layer.norm, nn.SiLU(), nn.Flatten()).eval()
    assert grp_gap(centred, x).relative > 0.05


def test_gate_option_changes_gradients_only():
    full, detached = varied(), SiLUBatchNorm(3, gate="detached").double()
    detached.load_state_dict(full.state_dict())
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gradient, held = (torch.autograd.grad(layer(x).square().sum(), x)[0] for layer in (full, detached))
    torch.testing.assert_close(full(x), detached(x))
    assert (gradient - held).abs().max() > 1e-3


def test_sentences():
    with pytest.raises(ValueError, match=r"`gate` must be one of full, detached, got 'open'\."):
        SiLUBatchNorm(3, gate="open")
    with pytest.raises(ValueError, match=r"`x` must hold more than one value a channel in training, got .*eval\(\)\."):
        SiLUBatchNorm(3)(torch.ones(1, 3, 1, 1))
    for wrong in (torch.ones(2, 3), torch.ones(2, 4, 5, 5)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 3, height, width\), got \(2, "):
            SiLUBatchNorm(3)(wrong)
    assert SiLUBatchNorm(3).eval()(torch.ones(1, 3, 1, 1)).shape == (1, 3, 1, 1)
