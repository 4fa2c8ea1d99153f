"""The reconstruction regulariser against correlations written out, and against finite differences."""

import math

import pytest
import torch
from torch import nn

import backbones
from backbones.explanations.reconstruction import reconstruct


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)).double()


def literal(net, x, top, ignore_background):
    """Correlation of one input with its template, by loops."""
    leaf = x.clone().requires_grad_()
    net(leaf[None])[0].sort(descending=True).values[:top].sum().backward()
    g, v = leaf.grad.tolist(), x.tolist()
    w = [abs(a) if ignore_background else 1.0 for a in g]
    total = sum(w)
    mean_g = sum(a * b for a, b in zip(w, g, strict=True)) / total
    mean_v = sum(a * b for a, b in zip(w, v, strict=True)) / total
    cov = sum(c * (a - mean_g) * (b - mean_v) for a, b, c in zip(g, v, w, strict=True))
    var_g = sum(c * (a - mean_g) ** 2 for a, c in zip(g, w, strict=True))
    var_v = sum(c * (b - mean_v) ** 2 for b, c in zip(v, w, strict=True))
    return cov / math.sqrt(var_g * var_v)


@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("ignore_background", [False, True])
def test_correlations_written_out(top, ignore_background):
    net, x = mlp(), torch.randn(7, 6, dtype=torch.float64)
    found = reconstruct(net, x, top=top, ignore_background=ignore_background)
    expected = [literal(net, row, top, ignore_background) for row in x]
    assert found.correlation.tolist() == pytest.approx(expected)
    assert found.loss.item() == pytest.approx(1 - sum(expected) / 7)
    assert torch.equal(found.features, net(x))


def test_gradient_is_that_of_finite_differences():
    net, x = mlp(), torch.randn(7, 6, dtype=torch.float64)
    reconstruct(net, x).loss.backward()
    weight = net[0].weight
    slope = weight.grad[1, 2].item()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight[1, 2] += step
            values.append(reconstruct(net, x).loss.item())
            weight[1, 2] -= step
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-7)
    assert abs(slope) > 1e-5


def test_a_unit_that_always_wins_does_not_when_balanced():
    net = nn.Linear(3, 2, bias=False).double()
    net.weight.data.copy_(torch.tensor([[9.0, 9.0, 9.5], [0.0, 1.0, 0.0]]))
    x = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [2.0, 1.0, 1.0]], dtype=torch.float64)
    first, second = net.weight.data
    assert torch.equal(reconstruct(net, x).templates.detach(), first.expand(3, 3))
    # values 27, 36.5, 36.5 and 2, 0, 1: by their own standards the second unit wins for the first input alone
    assert torch.equal(reconstruct(net, x, balanced=True).templates.detach(), torch.stack([second, first, first]))


def test_what_the_template_leaves_out_does_not_count_as_background():
    weight = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0]])
    net = nn.Linear(5, 1, bias=False)
    net.weight.data.copy_(weight)
    x = torch.tensor([[2.0, 3.0, 4.0, 9.0, -9.0]])
    assert reconstruct(net, x, ignore_background=True).correlation.item() == pytest.approx(1.0, abs=1e-6)
    assert reconstruct(net, x).correlation.item() < 0.5


def test_flat_pictures_have_correlation_0_and_finite_gradients():
    net = mlp()
    found = reconstruct(net, torch.ones(2, 6, dtype=torch.float64))
    assert found.correlation.tolist() == [0.0, 0.0]
    found.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_detached_head_leaves_the_backbone_to_the_reconstruction():
    torch.manual_seed(0)
    net = backbones.build("positive", input_shape=(1, 8, 8), widths=[4, 8]).double()
    head = nn.Linear(8, 3).double()
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    found = reconstruct(net, x, detach=True)
    head(found.features).sum().backward()
    assert head.weight.grad is not None
    assert all(parameter.grad is None for parameter in net.parameters())
    found = reconstruct(net, x)
    head(found.features).sum().backward()
    assert net.first.weight.grad.abs().sum() > 0


def test_training_raises_the_correlation():
    torch.manual_seed(0)
    net = backbones.build("explor", input_shape=(1, 8, 8), widths=[4, 8])
    x = torch.rand(20, 1, 8, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = reconstruct(net, x, detach=True).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_sentences():
    net = mlp()
    with pytest.raises(ValueError, match="`top` must be a positive integer"):
        reconstruct(net, torch.ones(1, 6).double(), top=0)
    with pytest.raises(
        ValueError, match=r"`top` must be at most the number of features, got 5 for features \(1, 4\)\."
    ):
        reconstruct(net, torch.ones(1, 6).double(), top=5)
    with pytest.raises(ValueError, match=r"`x` must hold at least one input, got shape \(0, 6\)\."):
        reconstruct(net, torch.ones(0, 6).double())

    class Blind(nn.Module):
        def forward(self, x):
            return x.detach()

    with pytest.raises(ValueError, match=r"`backbone` must give .* with gradients, got \(1, 6\) without any"):
        reconstruct(Blind(), torch.ones(1, 6))
