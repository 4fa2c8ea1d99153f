"""Planted families are found whole, with their offsets, and nothing else is."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from backbones.explanations.circuits import record
from backbones.explanations.circuits.families import (
    disc,
    equivariance_error,
    families,
    joint_tuning,
    turn,
)


def pictures(n=60, side=21, seed=0):
    """Smooth noise, whose neighbours are alike as those of photographs are."""
    noise = torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False) * 3


def gabor(degrees, size=9, phase=0.7):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle = math.radians(degrees)
    across = x * math.cos(angle) - y * math.sin(angle)  # against the clock as seen, rows downwards
    wave = np.cos(2 * math.pi * across / 5 + phase) * np.exp(-(x**2 + y**2) / 8)
    return torch.from_numpy(wave - wave.mean()).float()


def layer_of(kernels):
    layer = nn.Conv2d(1, len(kernels), kernels[0].shape[-1], padding=kernels[0].shape[-1] // 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.stack(list(kernels))[:, None])
    return nn.Sequential(layer, nn.ReLU())


@pytest.mark.parametrize("seed", range(5))
def test_planted_quarter_turns_are_all_found(seed):
    generator = torch.Generator().manual_seed(seed)
    bases = torch.randn(5, 5, 5, generator=generator)
    kernels = [torch.rot90(base, k) for base in bases[:3] for k in range(4)] + list(bases[3:])
    order = torch.randperm(len(kernels), generator=generator).tolist()
    net = layer_of([kernels[it] for it in order])
    found = families(net, "1", pictures(seed=seed), group="rot4")
    planted = {frozenset(order.index(4 * b + k) for k in range(4)) for b in range(3)}
    assert {frozenset(it.units) for it in found.families} == planted
    for family in found.families:
        assert family.offsets == (0, 90, 180, 270)
        turns = [order[it] % 4 for it in family.units]
        assert [(it - turns[0]) % 4 for it in turns] == [0, 1, 2, 3]
    assert found.of(order.index(13)) is None


def test_planted_eighth_turns_are_found_among_others():
    others = torch.randn(6, 9, 9, generator=torch.Generator().manual_seed(1)) * disc(9, 9) / 4
    net = layer_of([gabor(45 * k) for k in (3, 0, 5, 1, 2, 7, 4, 6)] + list(others))
    x = pictures(80)
    (family,) = families(net, "1", x[:40], group="rot8").families
    assert sorted(family.units) == list(range(8))
    planted = dict(enumerate((3, 0, 5, 1, 2, 7, 4, 6)))
    start = planted[family.units[0]]
    assert [(planted[it] - start) % 8 * 45 for it in family.units] == list(family.offsets)
    jointly = joint_tuning(net, record(net, "1", x[40:]), family, x[40:], permutations=99)
    assert jointly.p_value == 0.01
    assert jointly.statistic > 0.8


def test_mirror_images_are_found():
    generator = torch.Generator().manual_seed(0)
    bases = torch.randn(4, 5, 5, generator=generator)
    net = layer_of([bases[0], bases[1], bases[0].flip(1), bases[2], bases[1].flip(1), bases[3]])
    found = families(net, "0", pictures(), group="flip").families
    assert [(it.units, it.offsets) for it in found] == [((0, 2), (0.0, math.inf)), ((1, 4), (0.0, math.inf))]
    with pytest.raises(ValueError, match="one of turns"):
        joint_tuning(net, record(net, "0", pictures()), found[0], pictures())


def test_unrelated_units_are_no_family():
    found = []
    for seed in range(5):
        kernels = torch.randn(12, 5, 5, generator=torch.Generator().manual_seed(seed))
        found.append(families(layer_of(list(kernels)), "0", pictures(30), seed=seed))
    assert sum(len(it.families) for it in found) == 0


def test_a_turn_by_interpolation_is_that_of_rot90():
    x = torch.randn(2, 3, 7, 7)
    assert torch.equal(turn(x, 90), torch.rot90(x, 1, (2, 3)))
    assert torch.equal(turn(x, 0), x)
    assert torch.equal(turn(x, math.inf), x.flip(3))
    tall = pictures(2, 21)[:, :, :, 3:16]  # 90 degrees of an oblong picture are interpolated
    inside = turn(tall, 90)[:, :, 4:17]
    assert torch.allclose(inside, torch.rot90(tall[:, :, 4:17], 1, (2, 3)), atol=1e-5)
    there_and_back = turn(turn(pictures(2), 30), 330)[:, :, 7:14, 7:14]
    assert torch.corrcoef(torch.stack([there_and_back.flatten(), pictures(2)[:, :, 7:14, 7:14].flatten()]))[0, 1] > 0.9


def test_a_circuit_that_turns_as_a_whole_has_no_error():
    kernel = torch.randn(4, 3, 3)  # from the first of the later family to each of the earlier
    weight = torch.zeros(5, 6, 3, 3)
    for i in range(4):
        for j in range(4):
            weight[i, j] = torch.rot90(kernel[(j - i) % 4], i)
    assert equivariance_error(weight, [0, 1, 2, 3], [0, 1, 2, 3]) == pytest.approx(0, abs=1e-6)
    assert equivariance_error(weight, [0, 2, 1, 3], [0, 1, 2, 3]) > 0.8
    assert equivariance_error(torch.randn(4, 4, 3, 3), range(4), range(4)) == pytest.approx(math.sqrt(2), abs=0.4)


def test_what_cannot_be_turned_is_refused():
    with pytest.raises(ValueError, match="`group` must be one of rot4, rot8, flip"):
        families(layer_of([gabor(0)]), "0", pictures(), group="hue")
    with pytest.raises(ValueError, match="8 or more images"):
        families(nn.Sequential(nn.Linear(4, 2)), "0", torch.randn(9, 4))
    with pytest.raises(ValueError, match="must be 4 units each"):
        equivariance_error(torch.randn(4, 4, 3, 3), [0, 1, 2], [0, 1, 2, 3])
