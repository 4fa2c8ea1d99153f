"""Each argument finds what was planted, and p-values of units about nothing are no smaller than they say."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from backbones.explanations.circuits import (
    NULLS,
    Unit,
    dataset_examples,
    draw_stimuli,
    edges_of,
    implementation,
    spectrum,
    synthetic_examples,
    unit_cards,
    use_by_later_units,
)
from backbones.explanations.circuits.stimuli import ANGLES, tuning
from backbones.explanations.circuits.weights import later_layer

DEAD = (
    "A dead unit has no picture",
    "dead unit",
    "dead unit",
    "No other unit",
    "to have weights, got ReLU",
    "at least 5 units, got 4",
    "to have weights, got ReLU",
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_examples_of_a_planted_feature_tell_of_others():
    patches = noise(200, 1, 5, 5)
    values = patches.flatten(1) @ patches[0].flatten()
    found = dataset_examples(values, patches, permutations=99)
    assert found.p_value == 0.01
    assert found.statistic > 0.95
    assert found.null_mean == pytest.approx(0.5, abs=0.05)


def test_examples_of_nothing_have_uniform_p_values():
    values = [
        dataset_examples(noise(64, seed=s), noise(64, 9, seed=1000 + s), permutations=9, seed=s).p_value
        for s in range(100)
    ]
    for level in (0.2, 0.5):
        assert abs((np.array(values) <= level).mean() - level) < 3.5 * math.sqrt(level * (1 - level) / 100)


def test_a_spectrum_goes_from_most_to_least():
    values = noise(101)
    ranked = values.sort(descending=True).values
    assert values[spectrum(values, 5)].tolist() == ranked[[0, 25, 50, 75, 100]].tolist()
    assert spectrum(values[:3], 9).sort().values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("step", [0, 2, 7])
def test_a_planted_grating_is_found_at_its_angle(step):
    stimuli = draw_stimuli(1, 9, 9)
    angle = step * math.pi / ANGLES
    y, x = np.mgrid[-4:5, -4:5]
    template = torch.from_numpy(np.cos(2 * math.pi / 9 * (x * math.cos(angle) + y * math.sin(angle)))).float()
    said = (stimuli.patches[:, 0] * template).sum((1, 2)).relu()
    tuned = tuning(stimuli, said)
    assert tuned.angles[tuned.curve.argmax()] == pytest.approx(angle)
    assert tuned.selectivity > 0.3
    patches = noise(300, 1, 9, 9)
    values = (patches[:, 0] * template).sum((1, 2)).relu()
    found = synthetic_examples(stimuli, said, patches, values, permutations=99)
    assert found.p_value == 0.01
    assert synthetic_examples(stimuli, said, patches, noise(300, seed=3), permutations=99).p_value > 0.05


def test_stimuli_are_of_one_strength_and_none_is_missing():
    for size in (1, 3, 4, 9):
        stimuli = draw_stimuli(3, size, size)
        assert torch.allclose(stimuli.patches.flatten(1).norm(dim=1), torch.ones(len(stimuli.patches)))
        assert ("line" in stimuli.kinds) == (size >= 5)
        assert len(stimuli.kinds) == len(stimuli.angles) == len(stimuli.patches)
    assert tuning(draw_stimuli(1, 3, 3), torch.zeros(len(draw_stimuli(1, 3, 3).kinds))).selectivity == 0


@pytest.mark.parametrize(
    ("layer", "n_edges"),
    [
        (nn.Conv2d(1, 4, 3, padding=1), 9),
        (nn.Conv2d(2, 4, (3, 2), stride=2, padding_mode="reflect", padding=1), 12),
        (nn.Conv2d(6, 4, 3, dilation=2, bias=False), 6),
        (nn.Conv2d(12, 4, 3, groups=2), 6),
        (nn.Conv2d(6, 6, 3, groups=3, padding="same"), 18),
    ],
)
def test_edges_add_up_to_the_unit(layer, n_edges):
    net, x = nn.Sequential(layer), noise(7, layer.in_channels, 9, 9)
    maps = net(x).detach().flatten(2)
    for index in (0, 3):
        edges = edges_of(net, Unit("0", index), x)
        assert edges.added.shape == (7, n_edges)
        assert torch.allclose(edges.total, maps[:, index].amax(1), atol=1e-5)
        at = torch.arange(7)
        assert torch.allclose(edges_of(net, Unit("0", index), x, at).total, maps[torch.arange(7), index, at], atol=1e-5)
    assert set(edges.sources) <= set(range(layer.in_channels))
    assert (edges.taps >= 0).all() == (layer.weight.shape[1] <= 4)


def test_edges_of_a_linear_unit():
    net, x = nn.Sequential(nn.Linear(6, 3)), noise(5, 6)
    assert torch.allclose(edges_of(net, Unit("0", 2), x).total, net(x)[:, 2], atol=1e-6)


def test_a_grouped_unit_names_its_own_sources():
    net = nn.Sequential(nn.Conv2d(12, 4, 1, groups=2))
    assert edges_of(net, Unit("0", 3), noise(3, 12, 4, 4)).sources.tolist() == [6, 7, 8, 9, 10, 11]


def test_planted_edges_are_the_ones_kept():
    net = nn.Sequential(nn.Conv2d(12, 2, 3))
    with torch.no_grad():
        net[0].weight.mul_(0.01)
        net[0].weight[0, [3, 8]] = noise(2, 3, 3) * 3
    found = implementation(edges_of(net, Unit("0", 0), noise(200, 12, 6, 6), torch.zeros(200).long()))
    assert sorted(found.kept) == [3, 8]
    assert found.n_edges == 12
    assert found.found.statistic > 0.99
    assert found.found.p_value < 0.05  # 1 of 66 pairs is the same one
    alike = nn.Sequential(nn.Conv2d(12, 2, 1))
    with torch.no_grad():
        alike[0].weight.fill_(1.0)
    of_all = implementation(edges_of(alike, Unit("0", 0), noise(400, 12, 1, 1)))
    assert len(of_all.kept) >= 10
    assert of_all.found.p_value > 0.05  # no edge is better than another


def test_use_is_where_the_weights_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 30))
    x = noise(80, 1, 8, 8)
    assert later_layer(net, "0", x) == "4"
    with torch.no_grad():
        net[4].weight.view(30, 6, 9)[:, 2] *= torch.linspace(0, 4, 30)[:, None]
    assert use_by_later_units(net, Unit("0", 2), x, "4", permutations=99).p_value == 0.01
    by_hand = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 9))
    assert use_by_later_units(by_hand, Unit("0", 1), noise(20, 3), "1").statistic == pytest.approx(1)
    assert not by_hand[0]._forward_hooks


def test_the_later_layer_is_one_that_takes_the_units():
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 5, 1), nn.ReLU())
    x = noise(2, 1, 8, 8)
    assert (later_layer(net, "0", x), later_layer(net, "1", x), later_layer(net, "2", x)) == (None, "2", None)


def test_a_card_says_what_could_not_be_measured():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, -1
    x = noise(64, 1, 8, 8)
    whole, dead = unit_cards(net, "1", [0, 1], x, permutations=19)
    assert [it.name for it in whole.arguments] == list(NULLS)
    for it, said in zip(dead.arguments, DEAD, strict=True):
        assert it.result is None
        assert said in it.why_not
    (of_class,) = unit_cards(net, "3", [2], x, permutations=19)
    assert "No convolution or linear layer takes" in of_class.arguments[5].why_not
    (rows,) = unit_cards(nn.Sequential(nn.Linear(5, 2)), "0", [1], noise(40, 5), permutations=19)
    assert rows.tuning is None
    assert "no picture can be made" in rows.arguments[0].why_not
    assert "no images" in rows.arguments[2].why_not
    with pytest.raises(ValueError, match="must be one of the 3 units of '0', got 3"):
        unit_cards(net, "0", [3], x)


def test_the_same_seed_gives_the_same_card():
    net, x = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 6)), noise(64, 1, 8, 8)
    first, again = (unit_cards(net, "0", [1], x, permutations=19, seed=3)[0].arguments for _ in range(2))
    assert first == again
    assert [it.result for it in first] != [
        it.result for it in unit_cards(net, "0", [1], x, permutations=19)[0].arguments
    ]
