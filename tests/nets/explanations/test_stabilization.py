"""The stability regulariser against cosines written out, against finite differences, and in training."""

import math

import pytest
import torch
from torch import nn

import backbones
from backbones.explanations import stabilize


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)).double()


def draws(seed=3):
    return torch.Generator().manual_seed(seed)


def literal(net, x, pairs, seed):
    """What the templates of each direction, for noise and for the next example, say of the inputs: cosines by loops."""
    centred = [[v - m for v, m in zip(row, x.mean(0).tolist(), strict=True)] for row in x.tolist()]
    size = [math.sqrt(sum(v * v for v in column) / len(column)) for column in x.T.tolist()]
    noise = torch.randn((min(pairs, len(x)), 6), generator=draws(seed), dtype=torch.float64).tolist()
    found = []
    features = net(x).detach()
    for i, row in enumerate(noise):
        along = features[i] - features.mean(0)
        inputs = [torch.tensor([v * s for v, s in zip(row, size, strict=True)]).double(), x[(i + 1) % len(x)]]
        templates = []
        for z in inputs:
            leaf = z.clone().requires_grad_()
            (net(leaf[None])[0] * along).sum().backward()
            templates.append(leaf.grad.tolist())
        a, b = ([sum(t * v for t, v in zip(template, row, strict=True)) for row in centred] for template in templates)
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        found.append(dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b)))
    return found


@pytest.mark.parametrize("pairs", [1, 4, 16])
def test_cosines_written_out(pairs):
    net, x = mlp(), torch.randn(7, 6, dtype=torch.float64)
    found = stabilize(net, x, pairs=pairs, generator=draws())
    expected = literal(net, x, pairs, 3)
    assert found.agreement.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.loss.item() == pytest.approx(1 - sum(expected) / len(expected), abs=1e-6)
    assert torch.equal(found.features, net(x))


def test_gradient_is_that_of_finite_differences():
    net, x = mlp(), torch.randn(7, 6, dtype=torch.float64)
    # directions are taken as given: a difference must not move them
    along = net(x).detach()

    class Held(nn.Module):
        def forward(self, inputs):
            return net(inputs) if len(inputs) != len(x) else along + 0 * net(inputs)

    held = Held()
    stabilize(held, x, pairs=5, generator=draws()).loss.backward()
    weight = net[0].weight
    slope = weight.grad[1, 2].item()
    values = []
    for step in (1e-3, -1e-3):  # the templates are compared in single precision
        with torch.no_grad():
            weight[1, 2] += step
            values.append(stabilize(held, x, pairs=5, generator=draws()).loss.item())
            weight[1, 2] -= step
    assert slope == pytest.approx((values[0] - values[1]) / 2e-3, abs=3e-4)
    assert abs(slope) > 1e-2


def test_a_linear_network_is_stable_already():
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False))
    found = stabilize(net, torch.randn(5, 2, 2, 2))
    assert found.agreement.tolist() == pytest.approx([1.0] * 5)
    assert found.loss.item() == pytest.approx(0.0, abs=1e-6)


def test_noise_is_as_large_as_the_inputs_in_each_channel():
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            seen.append(x.detach())
            return x.square().mean((2, 3)) * self.weight

    x = torch.randn(64, 3, 8, 8) * torch.tensor([0.1, 1.0, 5.0])[:, None, None] + 2
    stabilize(Watched(), x, pairs=64)
    noise, others = seen[1].chunk(2)
    assert torch.equal(others, x.roll(-1, 0))
    expected = x.square().mean((0, 2, 3)).sqrt()
    assert noise.std((0, 2, 3)).tolist() == pytest.approx(expected.tolist(), rel=0.05)
    assert noise.mean((0, 2, 3)).abs().max() < 0.3


def test_templates_are_those_of_evaluation_and_modes_stay():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    net[2].eval()
    before = {name: value.clone() for name, value in net[1].named_buffers()}
    x = torch.randn(6, 1, 5, 5) + 3
    stabilize(net, x)
    assert [module.training for module in net] == [True, True, False, True]
    assert net[1].num_batches_tracked == 1  # by the features' pass alone
    expected = 0.9 * before["running_mean"] + 0.1 * net[0](x).mean((0, 2, 3))
    torch.testing.assert_close(net[1].running_mean, expected.detach())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn", {}),
        ("explor", {"widths": [8, 12]}),
        ("positive", {"widths": [8, 12], "activation": "silu"}),
        ("unfolding", {"widths": [8, 12], "windows": [3, 2]}),
        ("directional", {"parts": 20, "units": 12}),
    ],
)
def test_training_by_it_makes_templates_stable(name, options):
    torch.manual_seed(0)
    net = backbones.build(name, input_shape=(1, 8, 8), **options)
    x = torch.randn(16, 1, 8, 8)

    def measured():
        return stabilize(net.eval(), x, generator=draws()).agreement.mean()

    with torch.no_grad():
        for _ in range(20):
            net.train()(x)
    before = measured()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        stabilize(net.train(), x).loss.backward()
        optimizer.step()
        net.constrain_()
    assert measured() > before + 0.15


def test_what_no_input_contains_does_not_count():
    class Hidden(nn.Module):
        """Gates on the first half of the input open the way for the second, which is the same in every input."""

        def forward(self, x):
            first, second = x.chunk(2, 1)
            return torch.stack([first[:, 0] + 100 * (first[:, 1] > 0) * second[:, 0], first[:, 2]], 1)

    x = torch.randn(9, 6, dtype=torch.float64)
    x[:, 3:] = 0
    found = stabilize(Hidden(), x.requires_grad_(), generator=draws())
    assert found.agreement.tolist() == pytest.approx([1.0] * 9)


def test_what_all_directions_share_does_not_count():
    class Shared(nn.Module):
        """One unit that is the same for every input and large, and others whose gates the input opens."""

        def __init__(self):
            super().__init__()
            self.own = mlp()

        def forward(self, x):
            return torch.cat([1e4 * x.sum(1, keepdim=True), self.own(x)], 1)

    x = torch.randn(7, 6, dtype=torch.float64)
    x -= x.mean(1, keepdim=True)  # so that the shared unit tells no two examples apart
    net = Shared()
    found, alone = (stabilize(each, x, generator=draws()) for each in (net, net.own))
    there = alone.agreement != 0  # of one example's units none is open
    assert there.sum() == 6
    assert found.agreement[there].tolist() == pytest.approx(alone.agreement[there].tolist(), abs=1e-4)


def test_half_precision_keeps_what_tells_examples_apart():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    net[2].bias.data += 40  # of all examples alike: what is left of it is less than sixteen roundings in bfloat16
    x = torch.randn(16, 6)
    exact = stabilize(net, x, generator=draws()).agreement
    with torch.autocast("cpu", torch.bfloat16):
        coarse = stabilize(net, x, generator=draws()).agreement
    assert (exact != 0).sum() > 12
    assert (coarse != 0).sum() > 12


def test_a_direction_without_length_is_left_as_it_is():
    net = mlp()
    x = torch.randn(1, 6, dtype=torch.float64).repeat(3, 1)
    found = stabilize(net, x)
    assert found.agreement.tolist() == [0, 0, 0]
    found.loss.backward()
    assert torch.isfinite(net[0].weight.grad).all()
    assert stabilize(net, x[:1]).agreement == 0  # one example differs from nothing


def test_what_it_cannot_take_is_refused():
    net = mlp()
    with pytest.raises(ValueError, match="`x` must hold at least one input"):
        stabilize(net, torch.zeros(0, 6).double())
    with pytest.raises(ValueError, match="pairs"):
        stabilize(net, torch.zeros(2, 6).double(), pairs=0)
    with pytest.raises(ValueError, match=r"without any\. Remove no_grad"):
        stabilize(net.requires_grad_(False), torch.zeros(2, 6).double())
    with pytest.raises(ValueError, match=r"must give \(batch, feature\)"):
        stabilize(nn.Conv2d(1, 1, 1), torch.zeros(2, 1, 3, 3))
