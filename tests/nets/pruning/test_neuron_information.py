"""Randomised neurons, their information and the core, against loops and numbers found by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_antitraining import information, moments, smallest
from torch import nn

from backbones.pruning.ablation import randomised, running_statistics
from backbones.pruning.importance import core_set, mutual_information, neuron_information, score


def mlp(width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width, bias=False), nn.ReLU(), nn.Linear(width, 3, bias=False)).double()


def data(sizes=(5, 3)):
    torch.manual_seed(1)
    return [(torch.randn(n, 4, dtype=torch.float64), torch.randint(3, (n,))) for n in sizes]


def hand():
    """Two classes told apart by two neurons that say the same, a third that says nothing."""
    net = nn.Sequential(nn.Identity(), nn.Linear(3, 2, bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]]))
    x = torch.tensor([[1.0, 1.0, 5.0], [-1.0, -1.0, 5.0]], dtype=torch.float64)
    return net, [(x, torch.tensor([0, 1]))]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.floats(-1e6, 1e6))
def test_statistics_do_not_depend_on_the_batches(sizes, offset):
    torch.manual_seed(3)
    batches = [(torch.randn(n, 4, dtype=torch.float64) + offset, torch.zeros(n)) for n in sizes]
    net = nn.Sequential(nn.Identity(), nn.Linear(4, 2)).double()
    found = running_statistics(net, "0", batches)
    mean, deviation = moments(torch.cat([x for x, _ in batches]))
    assert found.count == sum(sizes)
    assert found.mean.tolist() == pytest.approx(mean.tolist(), rel=1e-6)
    assert found.deviation.tolist() == pytest.approx(deviation.tolist(), rel=1e-4, abs=1e-4)


def test_statistics_of_maps_count_places():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(18, 2))
    x = torch.randn(4, 1, 3, 3)
    found = running_statistics(net, "0", [(x, torch.zeros(4))])
    values = net[0](x).movedim(1, 0).flatten(1)
    assert found.count == 36
    assert torch.allclose(found.mean, values.mean(1), atol=1e-6)
    assert torch.allclose(found.deviation, values.std(1, correction=0), atol=1e-6)


@pytest.mark.parametrize("group", [[0], [2], [1, 4], list(range(6))])
def test_information_is_that_of_loops(group):
    net, batches = mlp(), data((7,))
    x, y = batches[0]
    mean, deviation = moments(net[1](net[0](x)).detach())
    drawn = torch.randn(7, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = information(net[0].weight, net[2].weight, x, y, mean.double(), deviation.double(), group, drawn)
    (found,) = neuron_information(net, "1", batches, groups=[group], seed=5).tolist()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("noise", ["normal", "permuted"])
def test_one_pass_gives_what_one_neuron_at_a_time_gives(noise):
    net, batches = mlp(), data()
    slow = neuron_information(net, "1", batches, noise=noise)
    fast = neuron_information(net, "1", batches, noise=noise, before="2")
    assert torch.allclose(slow, fast, atol=1e-12)
    assert slow.abs().max() > 1e-3


def swapped(net, batches, group):
    """Loss with the group's two examples exchanged or not, by hand: gaps of 4 -> 0, or 4 -> -4."""
    return neuron_information(net, "0", batches, groups=[group], noise="permuted", seed=first_swap()).item()


def first_swap():
    """A seed whose permutation exchanges the two examples for neurons 0 and 1."""
    for seed in range(100):
        order = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed)).argsort(0)
        if order[0, 0] == 1 and order[0, 1] == 1:
            return seed
    raise AssertionError


def test_hand_computed_information():
    # Logits are (a+b, -a-b): the right class leads by 4. One neuron exchanged: by 0, both: it trails by 4.
    net, batches = hand()
    base = math.log(1 + math.exp(-4))
    assert swapped(net, batches, [0]) == pytest.approx(math.log(2) - base)
    assert swapped(net, batches, [0, 1]) == pytest.approx(4.0)
    assert swapped(net, batches, [2]) == pytest.approx(0.0)
    found = mutual_information(net, "0", batches, 0, 1, noise="permuted", seed=first_swap())
    assert found == pytest.approx(4 - 2 * (math.log(2) - base))
    assert found > 0  # each stands in for the other


@pytest.mark.parametrize("criterion", ["sufficiency", "necessity"])
def test_core_is_the_smallest_of_all_tops(criterion):
    net = nn.Sequential(nn.Identity(), nn.Linear(5, 5, bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.diag(torch.tensor([5.0, 4.0, 3.0, 0.0, 0.0])))
    y = torch.arange(3).repeat(20)
    batches = [(torch.eye(5, dtype=torch.float64)[y], y)]
    known = running_statistics(net, "0", batches)
    found = core_set(net, "0", batches, ranking=torch.arange(5), criterion=criterion)

    def accuracy(chosen):
        mask = torch.zeros(5, dtype=torch.bool)
        mask[chosen] = True
        return score(net, "0", batches, mask, statistics=known).accuracy

    none, every = accuracy([]), accuracy([0, 1, 2, 3, 4])
    keeps = lambda top: accuracy(list(range(top, 5))) >= every + 0.95 * (none - every)  # noqa: E731
    loses = lambda top: accuracy(list(range(top))) <= none - 0.95 * (none - every)  # noqa: E731
    assert len(found.neurons) == smallest(keeps if criterion == "sufficiency" else loses, 5)
    assert (found.accuracy, found.floor) == (1.0, every)
    assert 0 < len(found.neurons) < 5


def test_noise_is_of_the_neurons_and_repeats():
    net, (batch, *_) = mlp(), data((4000,))
    known = running_statistics(net, "1", [batch])
    seen = []
    net[2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mask = torch.tensor([True, False, True, False, False, False])
    for _ in range(2):
        with randomised(net, "1", mask, statistics=known, seed=3):
            net(batch[0])
    plain = net[1](net[0](batch[0]))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0][:, ~mask], plain[:, ~mask])
    assert torch.allclose(seen[0][:, mask].mean(0), known.mean[mask], atol=0.1)
    assert torch.allclose(seen[0][:, mask].std(0), known.deviation[mask], rtol=0.1)
    with randomised(net, "1", mask, statistics=known, noise="permuted"):
        net(batch[0])
    assert torch.equal(seen[2].sort(0).values, plain.sort(0).values)
    assert not torch.equal(seen[2][:, 0], plain[:, 0])


def test_permuted_maps_stay_whole():
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(8, 2))
    x = torch.arange(48.0).reshape(6, 2, 2, 2)
    seen = []
    net[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with randomised(
        net, "0", torch.tensor([True, True]), statistics=running_statistics(net, "0", [(x, x)]), noise="permuted"
    ):
        net(x)
    for channel in range(2):
        maps = {tuple(m.flatten().tolist()) for m in seen[-1][:, channel]}
        assert maps == {tuple(m.flatten().tolist()) for m in x[:, channel]}


def test_hooks_are_gone_and_the_model_is_as_found():
    net, batches = mlp(), data()
    net.train()
    net[1].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    known = running_statistics(net, "1", batches)
    with pytest.raises(RuntimeError, match="stop"), randomised(net, "1", torch.ones(6).bool(), statistics=known):
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="groups"):
        neuron_information(net, "1", batches, groups=[[9]])
    neuron_information(net, "1", batches)
    neuron_information(net, "1", batches, before="2")
    bad = [(torch.randn(2, 5, dtype=torch.float64), torch.tensor([0, 1]))]
    with pytest.raises(RuntimeError, match="shapes"):
        neuron_information(net, "1", bad, statistics=known, before="2")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert [net.training, net[0].training, net[1].training] == [True, True, False]
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert net[2].weight.grad is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, b: running_statistics(n, "9", b), "`layer` must name a module of the model, got '9'"),
        (lambda n, b: running_statistics(n, "1", iter(b)), "`batches` must be readable more than once, got list_iter"),
        (lambda n, b: running_statistics(n, "1", []), "`batches` must hold at least one batch, got none"),
        (lambda n, b: neuron_information(n, "1", b, groups=[[]]), "`groups` must hold neurons from 0 to 5, got"),
        (lambda n, b: neuron_information(n, "1", b, groups=[[0]], before="2"), "`before` must be left out with"),
        (lambda n, b: neuron_information(n, "1", b, before="1"), "`before` must name an nn.Linear fed by .* got '1'"),
        (lambda n, b: neuron_information(n, "0", b, before="2"), "`before` must name an nn.Linear fed by .* got '2'"),
        (lambda n, b: neuron_information(n, "1", b, noise="pink"), "`noise` must be one of normal, permuted"),
        (lambda n, b: mutual_information(n, "1", b, 2, 2), "`j` must differ from `i`, got 2 twice"),
        (lambda n, b: core_set(n, "1", b, ranking=torch.zeros(6).long()), "`ranking` must hold each of the 6 neurons"),
        (lambda n, b: core_set(n, "1", b, ranking=torch.arange(6), share=0), "`share` must lie in"),
        (lambda n, b: core_set(n, "1", b, ranking=torch.arange(6), criterion="x"), "`criterion` must be one of"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call(mlp(), data())


def test_message_of_wrong_masks_and_outputs():
    net, batches = mlp(), data()
    known = running_statistics(net, "1", batches)
    with (
        pytest.raises(ValueError, match=r"`neurons` must have shape \(6,\), got \(2,\)"),
        randomised(net, "1", torch.ones(2).bool(), statistics=known),
    ):
        net(batches[0][0])
    flat = nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)).double()
    with pytest.raises(
        ValueError, match=r"`layer` must give a tensor of shape \(batch, neuron, ...\), got shape \(15,\)"
    ):
        running_statistics(flat, "1", batches)
    unused = nn.Sequential(nn.Linear(4, 3)).double()
    unused.extra = nn.Linear(3, 3)
    unused.forward = lambda x: 2 * unused[0](x)
    with pytest.raises(ValueError, match="`layer` must take part in the forward pass, got 'extra'"):
        running_statistics(unused, "extra", batches)
