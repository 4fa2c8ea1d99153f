"""Gradients of scores and steps along them, against steps written out."""

import math

import pytest
import torch
from torch import nn

import backbones
from backbones.explanations.ascent import accentuate, ascend, counterfactual, gradient
from backbones.explanations.pullbacks import pullback


def small_net():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return layers.double().train()


def literal_ascent(net, x, unit, steps, alpha, kind):
    """One input after the other."""
    ends = []
    for row in x:
        here = row.clone()
        for _ in range(steps):
            leaf = here.clone().requires_grad_()
            with pullback(net, kind):
                net(leaf[None])[0, unit].backward()
            here = here + alpha * leaf.grad / math.sqrt(sum(float(v) ** 2 for v in leaf.grad.flatten()))
        ends.append(here)
    return torch.stack(ends)


@pytest.mark.parametrize("kind", ["soft", "plain"])
def test_steps_written_out(kind):
    net, x = small_net(), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    found = ascend(net, x, 1, steps=3, alpha=0.7, kind=kind, clip=(-1, 1))
    net.eval()
    expected = literal_ascent(net, x, 1, 3, 0.7, kind)
    assert torch.allclose(found.attribution, expected - x)
    assert torch.allclose(found.inputs, expected.clamp(-1, 1))
    assert found.scores.shape == (4, 4)
    assert torch.allclose(found.scores[0], net(x)[:, 1])
    assert torch.allclose(found.scores[-1], net(expected)[:, 1])
    assert (found.scores[-1] > found.scores[0]).all()
    assert (found.attribution.flatten(1).norm(dim=1) <= 3 * 0.7 + 1e-9).all()


@pytest.mark.parametrize(("shape", "alpha"), [((3, 224, 224), 20.0), ((3, 32, 32), 2.86), ((1, 28, 28), 1.44)])
def test_default_step_has_the_published_length(shape, alpha):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = ascend(net, torch.zeros(1, *shape), 0, steps=1)
    assert found.attribution.norm().item() == pytest.approx(alpha, abs=0.005)


def test_every_kind_of_score():
    net, x = small_net(), torch.randn(4, 12, dtype=torch.float64)
    direction = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    each = torch.tensor([0, 2, 1, 0])
    one = gradient(net, x, 1)
    assert torch.equal(gradient(net, x, torch.ones(4, dtype=torch.int64)), one)
    assert torch.allclose(gradient(net, x, torch.eye(3, dtype=torch.float64)[1]), one)
    assert torch.allclose(gradient(net, x, torch.eye(3, dtype=torch.float64)[each]), gradient(net, x, each))
    parts = gradient(net, x, 0) - 2 * gradient(net, x, 2)
    assert torch.allclose(gradient(net, x, direction), parts)
    assert torch.allclose(gradient(net, x, lambda output: output @ direction), parts)
    assert torch.equal(gradient(net, x, -1), gradient(net, x, 2))


def test_a_slot_as_a_direction_is_the_template():
    torch.manual_seed(0)
    backbone = backbones.build("explor", input_shape=(1, 8, 8))
    slot, x = torch.randn(backbone.feature_dim), torch.randn(2, 1, 8, 8)
    assert torch.allclose(gradient(backbone, x, slot, kind="held"), backbone.template(x, slot))
    moved = counterfactual(backbone, x, slot, steps=2)
    assert (moved.scores[-1] > moved.scores[0]).all()


def test_accentuate_climbs_what_is_seen_and_counterfactual_something_else():
    net, x = small_net(), torch.randn(6, 12, dtype=torch.float64)
    net.eval()
    seen = net(x).argmax(1)
    net.train()
    more = accentuate(net, x, alpha=0.5)
    assert torch.equal(more.attribution, ascend(net, x, seen, alpha=0.5).attribution)
    assert (more.scores[-1] > more.scores[0]).all()
    other = counterfactual(net, x, (seen + 1) % 3, steps=20, alpha=0.5)
    net.eval()
    assert torch.equal(net(other.inputs).argmax(1), (seen + 1) % 3)


def test_model_and_gradients_stay_as_they_were():
    net, x = small_net(), torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    net[3].eval()
    running = net[2].running_mean.clone()
    with torch.inference_mode():
        found = accentuate(net, x, steps=1)
    assert not found.attribution.requires_grad
    assert net.training
    assert not net[3].training
    assert torch.equal(net[2].running_mean, running)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in net.parameters())


def test_no_gradient_no_step_and_no_input_no_result():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(net[1].weight)
    assert torch.equal(ascend(net, torch.ones(2, 4), 0).attribution, torch.zeros(2, 4))
    assert ascend(net, torch.ones(0, 4), 0).scores.shape == (6, 0)


def test_sentences():
    net, x = small_net(), torch.randn(4, 12, dtype=torch.float64)
    for steps in (0, 1.5, True):
        with pytest.raises(ValueError, match="`steps` must be a positive integer"):
            ascend(net, x, 0, steps=steps)
    for alpha in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="`alpha` must be a finite length above 0, got "):
            ascend(net, x, 0, alpha=alpha)
    with pytest.raises(ValueError, match=r"`clip` must be a range \(low, high\), got \(1, 1\)\."):
        ascend(net, x, 0, clip=(1, 1))
    with pytest.raises(ValueError, match=r"`score` must be one of 3 units, got 3\."):
        gradient(net, x, 3)
    with pytest.raises(ValueError, match=r"`score` must have shape \(4,\) of int64, or \(3,\) or \(4, 3\) of floats"):
        gradient(net, x, torch.zeros(5))
    with pytest.raises(ValueError, match=r"`score` must return shape \(4,\), got \(\)\."):
        gradient(net, x, lambda output: output.sum())
    with pytest.raises(ValueError, match=r"`model` must give \(batch, unit\), got shape \(4, 12, 1\)\."):
        gradient(nn.Unflatten(1, (12, 1)), x, 0)
