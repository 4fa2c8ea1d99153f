"""Antitraining against a literal step, its reach, its control, and compressed networks against masked ones."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import backbones
from backbones.pruning.ablation import Statistics, noise_like, running_statistics
from backbones.pruning.adjacent_layers import surroundings
from backbones.pruning.antitraining import AntitrainingConfig, antitrain, silence
from backbones.pruning.compression import Masked, compress


def mlp(width=12):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))


def data(batches=6):
    torch.manual_seed(1)
    x = torch.randn(batches, 50, 4)
    return [(part, part[:, :3].argmax(1)) for part in x]


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def antitrained(reach="consumer", protect=True, layer="1", epochs=1):
    net = mlp()
    net.train()
    net[3].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before = state(net)
    spectators = torch.ones(net[int(layer)](torch.zeros(1, 12)).shape[1], dtype=torch.bool)
    spectators[[2, 5]] = False
    config = AntitrainingConfig(reach=reach, protect=protect, anti_epochs=epochs)
    known = running_statistics(net, layer, data())
    silence(
        net,
        surroundings(net, layer, data()[0][0]),
        data(),
        spectators=spectators,
        statistics=known,
        config=config,
    )
    return net, before, known, config


def test_one_step_written_out():
    net, before, known, config = antitrained()
    literal = mlp()
    noise = torch.Generator().manual_seed(config.seed + 7919)
    labels = torch.Generator().manual_seed(config.seed + 7919)
    moments = {name: [0.0, 0.0] for name in ("2.weight", "2.bias")}
    for step, (x, y) in enumerate(data(), 1):
        hidden = literal[1](literal[0](x)).detach()
        drawn = noise_like(hidden, known, "normal", noise)
        hidden[:, [2, 5]] = drawn[:, [2, 5]]
        loss = functional.cross_entropy(
            literal[4](literal[3](literal[2](hidden))), y[torch.randperm(50, generator=labels)]
        )
        literal.zero_grad()
        loss.backward()
        for name, moment in moments.items():
            parameter = literal.get_parameter(name)
            gradient = parameter.grad.clone()
            if name == "2.weight":
                gradient[:, [2, 5]] = 0.0
            moment[0] = 0.9 * moment[0] + 0.1 * gradient
            moment[1] = 0.999 * moment[1] + 0.001 * gradient**2
            mean, square = moment[0] / (1 - 0.9**step), moment[1] / (1 - 0.999**step)
            parameter.data -= config.anti_lr * mean / (square.sqrt() + 1e-8)
    for name, value in literal.state_dict().items():
        assert torch.allclose(net.state_dict()[name], value, atol=1e-5), name
    assert not torch.equal(before["2.weight"], net[2].weight)


@pytest.mark.parametrize(
    ("reach", "protect", "changed"),
    [
        ("consumer", True, {"2.weight", "2.bias"}),
        ("after", True, {"2.weight", "2.bias", "4.weight", "4.bias"}),
        ("after", False, {"2.weight", "2.bias", "4.weight", "4.bias"}),
    ],
)
def test_what_changes(reach, protect, changed):
    net, before, _, _ = antitrained(reach, protect)
    assert {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])} == changed
    core_stays = torch.equal(net[2].weight[:, [2, 5]], before["2.weight"][:, [2, 5]])
    assert core_stays is protect
    assert [net.training, net[3].training] == [True, False]
    assert torch.equal(net[0].weight.grad, torch.ones(12, 4))
    assert net[2].weight.grad is None
    assert not any(module._forward_hooks for module in net.modules())


def test_spectators_learn_to_say_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():
        net[2].weight.mul_(20)
    before = net[2].weight.detach().clone()
    spectators = torch.ones(12, dtype=torch.bool)
    spectators[[2, 5]] = False
    batches = data() * 10
    place = surroundings(net, "1", batches[0][0])
    known = running_statistics(net, "1", batches)
    silence(
        net,
        place,
        batches,
        spectators=spectators,
        statistics=known,
        config=AntitrainingConfig(anti_lr=0.1, protect=False, anti_epochs=4),
    )
    # What counts is how the classes differ: a push that is the same for all says nothing.
    size = lambda weight: (weight - weight.mean(0))[:, spectators].norm()  # noqa: E731
    assert size(net[2].weight) < 0.3 * size(before)


@pytest.mark.parametrize("schedule", ["together", "cyclic"])
def test_schedules_and_the_control(schedule):
    net = mlp()
    start = copy.deepcopy(net)
    config = AntitrainingConfig(rounds=2, epochs=3, lr=1e-2, schedule=schedule)
    found = antitrain(net, ["1", "3"], data(), config=config)
    turns = ["1", "3"] if schedule == "cyclic" else ["3", "1"] * 2
    assert [entry.layer for entry in found.rounds] == [entry.layer for entry in found.control] == turns
    alone = antitrain(copy.deepcopy(start), ["1", "3"], data(), config=config)
    assert [e.core.neurons.tolist() for e in alone.rounds] == [e.core.neurons.tolist() for e in found.rounds]
    # The control is ordinary training.
    optimiser = torch.optim.Adam(start.parameters(), lr=1e-2)
    for _ in range(6):
        for x, y in data():
            optimiser.zero_grad()
            functional.cross_entropy(start(x), y).backward()
            optimiser.step()
    for name, value in start.state_dict().items():
        assert torch.equal(found.control_model.state_dict()[name], value), name
    for core in (found.core("1"), found.control_core("3")):
        assert core.core_accuracy >= core.floor + 0.95 * (core.accuracy - core.floor)


def test_antitraining_makes_the_core_smaller():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 3))
    found = antitrain(net, ["1"], data(), config=AntitrainingConfig(rounds=5, epochs=4, lr=1e-2))
    assert len(found.core("1").neurons) < len(found.control_core("1").neurons)
    assert found.core("1").accuracy > 0.9


def test_weights_that_must_not_be_negative_are_not():
    torch.manual_seed(0)
    backbone = backbones.build("positive", input_shape=(1, 8, 8), widths=[6, 8])
    net = nn.Sequential(backbone, nn.Linear(8, 2))
    batches = [(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)]
    statistics = copy.deepcopy(dict(net.named_buffers()))
    antitrain(net, ["0.activations.0"], batches, config=AntitrainingConfig(rounds=2, epochs=0, reach="after"))
    assert backbone.positive[0].weight.min() >= 0
    assert all(torch.equal(value, statistics[name]) for name, value in net.named_buffers())


def masked_output(net, kept, x, constants=None):
    """Outputs with unwanted neurons replaced by a hook."""
    handles = []
    for layer, keep in kept.items():

        def hook(module, inputs, output, keep=keep, layer=layer):
            result = torch.zeros_like(output) if constants is None else constants[layer].expand_as(output).clone()
            result[:, keep] = output[:, keep]
            return result

        handles.append(net.get_submodule(layer).register_forward_hook(hook))
    with torch.no_grad():
        result = net.eval()(x)
    for handle in handles:
        handle.remove()
    return result


@settings(deadline=None, max_examples=15)
@given(
    st.sets(st.integers(0, 11), min_size=1), st.sets(st.integers(0, 7), min_size=1), st.sampled_from(["zero", "mean"])
)
def test_a_compressed_mlp_gives_what_the_masked_one_gives(first, second, fill):
    net, x = mlp(), data()[0][0]
    kept = {"1": torch.tensor(sorted(first)), "3": torch.tensor(sorted(second))}
    known = {layer: running_statistics(net, layer, data()) for layer in kept}
    found = compress(net, kept, x, fill=fill, statistics=known)
    constants = {layer: value.mean for layer, value in known.items()} if fill == "mean" else None
    assert torch.allclose(found.model(x), masked_output(net, kept, x, constants), atol=1e-5)
    assert [found.model[0].out_features, found.model[2].in_features] == [len(first)] * 2
    assert [found.model[2].out_features, found.model[4].in_features] == [len(second)] * 2
    assert (found.masked, found.removed) == ({}, {"1": 12 - len(first), "3": 8 - len(second)})
    assert found.parameters_after == sum(p.numel() for p in found.model.parameters())
    assert net[0].out_features == 12


@pytest.mark.parametrize(
    ("activation", "first"), [("relu", "convolution"), ("silu", "convolution"), ("relu", "whitening")]
)
def test_a_compressed_positive_backbone(activation, first):
    torch.manual_seed(0)
    shape = (1, 8, 8) if first == "convolution" else (1, 16, 16)
    backbone = backbones.build("positive", input_shape=shape, widths=[6, 8, 5], activation=activation, first=first)
    net = nn.Sequential(backbone, nn.Linear(5, 2))
    x = torch.rand(20, *shape)
    net.train()(x)
    kept = {"0.activations.0": torch.tensor([4, 1]), "0.activations.1": torch.tensor([0, 3, 7])}
    kept["0.activations.2"] = torch.tensor([0, 2, 3])
    found = compress(net, kept, x)
    assert found.masked == {}
    assert torch.allclose(found.model.eval()(x), masked_output(net, kept, x), atol=1e-5)
    smaller = found.model[0]
    assert smaller.options["widths"] == [2, 3, 3]
    again = backbones.build("positive", input_shape=shape, **smaller.options)
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(again.eval()(x), smaller.eval()(x))
    assert smaller.feature_dim == 3
    assert backbone.options["widths"] == [6, 8, 5]


def test_a_flattened_convolution_is_cut_in_blocks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    x = torch.rand(6, 1, 4, 4)
    kept = {"2": torch.tensor([1, 3])}
    known = {"2": running_statistics(net, "2", [(x, x)])}
    constants = {"2": known["2"].mean[:, None, None]}
    found = compress(net, kept, x, fill="mean", statistics=known)
    assert found.removed == {"2": 2}
    assert torch.allclose(found.model.eval()(x), masked_output(net, kept, x, constants), atol=1e-5)


class Bypass(nn.Module):
    """Adds its input to what two layers make of it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden + self.second(hidden))


def mask_only(case):
    torch.manual_seed(0)
    if case == "explor":
        return backbones.build("explor", input_shape=(1, 8, 8), widths=[4, 6]), "layers.1", torch.rand(3, 1, 8, 8)
    if case == "side branch":
        return Bypass(), "first", torch.rand(3, 4)
    if case == "groups":
        return nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), "0", torch.rand(3, 1, 2, 2)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "0", torch.rand(3, 4)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("explor", "taken by ExplOR2d; only Linear and Conv2d are cut"),
        ("side branch", "without them a later layer does not fit"),
        ("groups", "taken by a convolution in 2 groups"),
        ("norm", "1 comes between the neurons and the layer that takes them"),
    ],
)
def test_what_cannot_be_cut_is_masked_and_says_why(case, why):
    net, layer, x = mask_only(case)
    kept = {layer: torch.tensor([3, 0])}
    found = compress(net, kept, x)
    assert found.removed == {}
    assert why in found.masked[layer]
    assert isinstance(found.model.get_submodule(layer), Masked)
    assert torch.allclose(found.model.eval()(x), masked_output(net, kept, x), atol=1e-6)
    assert found.parameters_after == found.parameters_before


def test_a_cut_that_would_change_the_outputs_is_not_made():
    # A constant of -1 in front of the ReLU is 0 behind it, but would move into the bias as -1.
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(5, 4)
    known = {"0": Statistics(torch.full((4,), -1.0), torch.ones(4), 5)}
    found = compress(net, {"0": torch.tensor([1])}, x, fill="mean", statistics=known)
    assert found.masked == {"0": "without them the outputs change: the network is no plain chain here"}
    constants = {"0": known["0"].mean}
    assert torch.allclose(found.model(x), masked_output(net, {"0": torch.tensor([1])}, x, constants), atol=1e-6)


def test_means_do_not_move_into_a_padded_convolution():
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    x = torch.rand(2, 1, 4, 4)
    known = {"1": running_statistics(net, "1", [(x, x)])}
    found = compress(net, {"1": torch.tensor([1])}, x, fill="mean", statistics=known)
    assert found.masked == {"1": "means cannot move into the bias of a convolution with padding"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: antitrain(n, [], data()), r"`layers` must be a list of module names, got \[\]"),
        (lambda n: antitrain(n, "1", data()), "`layers` must be a list of module names, got '1'"),
        (lambda n: antitrain(n, ["4"], data()), "`layers` must have weights after them, got '4'"),
        (lambda n: antitrain(n, ["8"], data()), "`layer` must name a module of the model, got '8'"),
        (lambda n: AntitrainingConfig(rounds=0), "`rounds` must be a positive integer, got 0"),
        (lambda n: AntitrainingConfig(schedule="x"), "`schedule` must be one of together, cyclic, got 'x'"),
        (lambda n: AntitrainingConfig(reach="x"), "`reach` must be one of consumer, after, got 'x'"),
        (lambda n: AntitrainingConfig(lr=0), "`lr` and `anti_lr` must be above 0, got 0 and 0.01"),
        (lambda n: compress(n, {"1": torch.tensor([])}, torch.rand(2, 4)), "`layers` must give each layer different"),
        (lambda n: compress(n, {"1": torch.tensor([1, 1])}, torch.rand(2, 4)), "different neurons from 0 to 11"),
        (lambda n: compress(n, {"1": torch.tensor([12])}, torch.rand(2, 4)), r"from 0 to 11, got \[12\]"),
        (
            lambda n: compress(n, {"1": torch.tensor([1])}, torch.rand(2, 4), fill="mean"),
            r"`statistics` must hold '1' for fill='mean', got \[\]",
        ),
        (lambda n: compress(n, {}, torch.rand(2, 4), fill="x"), "`fill` must be one of zero, mean, got 'x'"),
        (
            lambda n: antitrain(n, ["1"], data(1), config=AntitrainingConfig(rounds=1)).core("3"),
            "`layer` must be one of 1, got '3'",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call(mlp())
