"""Soft gates of activations: values to the bit, gates by hand in every form of a call, limits, and what is no gate."""

import math
from functools import partial

import pytest
import torch
from support import reference_pullback as literal
from torch import Tensor, nn
from torch.nn import functional

from backbones.explanations.pullbacks import pullback
from backbones.explanations.soft_activations import GUARD, RULES

Z = torch.tensor([-7.5, -3.2, -2.0, -0.9, -0.3, 0.1, 0.7, 1.4, 2.9, 5.2, 6.1, 8.0], dtype=torch.float64)

BOUNDS = {
    "relu6": (0.0, 6.0, {
        "module": nn.ReLU6(),
        "module, in place": nn.ReLU6(inplace=True),
        "functional": functional.relu6,
        "functional, in place by position": lambda x: functional.relu6(x, True),
        "a clamp": lambda x: x.clamp(0, 6),
    }),
    "hardtanh": (-1.0, 1.0, {
        "module": nn.Hardtanh(),
        "functional": functional.hardtanh,
        "functional, in place": lambda x: functional.hardtanh(x, -1.0, 1.0, True),
        "underscore": functional.hardtanh_,
        "bounds by name": lambda x: functional.hardtanh(x, max_val=1.0, min_val=-1.0, inplace=True),
    }),
    "clamp": (-0.5, 2.0, {
        "method": lambda x: x.clamp(-0.5, 2.0),
        "method, in place": lambda x: x.clamp_(-0.5, 2.0),
        "torch": lambda x: torch.clamp(x, min=-0.5, max=2.0),
        "torch, in place": lambda x: torch.clamp_(x, max=2.0, min=-0.5),
        "clip": lambda x: x.clip(-0.5, max=2.0),
        "clip, in place": lambda x: torch.clip_(x, -0.5, 2.0),
    }),
    "clamp from below": (0.4, None, {
        "method": lambda x: x.clamp_min(0.4),
        "method, in place": lambda x: x.clamp_min_(0.4),
        "torch": lambda x: torch.clamp_min(x, min=0.4),
        "clamp": lambda x: x.clamp(min=0.4),
        "clamp, no upper bound": lambda x: torch.clamp(x, 0.4, None),
    }),
    "clamp from above": (None, 0.4, {
        "method": lambda x: x.clamp_max(0.4),
        "torch, in place": lambda x: torch.clamp_max_(x, 0.4),
        "clip": lambda x: torch.clip(x, max=0.4),
    }),
}  # fmt: skip

SLOPES = {
    "module": (0.01, nn.LeakyReLU()),
    "module, in place": (0.2, nn.LeakyReLU(0.2, inplace=True)),
    "functional": (0.01, functional.leaky_relu),
    "functional, in place by position": (0.3, lambda x: functional.leaky_relu(x, 0.3, True)),
    "underscore": (0.3, lambda x: functional.leaky_relu_(x, negative_slope=0.3)),
    "below 0 it rises again": (-0.5, lambda x: functional.leaky_relu(x, -0.5)),
    "one learned slope": (0.25, nn.PReLU().double()),
    "prelu as a method": (0.1, lambda x: x.prelu(torch.tensor([0.1], dtype=torch.float64))),
}

SWISHES = {
    "module": nn.Hardswish(),
    "module, in place": nn.Hardswish(inplace=True),
    "functional": functional.hardswish,
    "functional, in place by position": lambda x: functional.hardswish(x, True),
}

ALL = {
    **{f"{name}: {form}": call for name, (_, _, forms) in BOUNDS.items() for form, call in forms.items()},
    **{f"leaky relu: {form}": call for form, (_, call) in SLOPES.items()},
    **{f"hard-swish: {form}": call for form, call in SWISHES.items()},
}


def gate_of(call, z=Z, **options):
    """The gradient for one that arrives."""
    leaf = z.clone().requires_grad_()
    with pullback(nn.Identity(), **options):
        value = call(leaf * 1)
    value.sum().backward()
    return leaf.grad.tolist()


def literal_gate(form, softness=1.0):
    if form == "normal":
        return partial(literal.normal_gate, width=0.6 * softness)
    return partial(literal.logistic_gate, width=0.3 * softness)


@pytest.mark.parametrize("form", ["normal", "logistic"])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_gate_at_either_bound_in_every_form_of_the_call(name, form):
    low, high, calls = BOUNDS[name]
    for softness in (1.0, 0.4):
        expected = [literal.between(z, low, high, literal_gate(form, softness)) for z in Z.tolist()]
        for call in calls.values():
            assert gate_of(call, gate=form, softness=softness) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", ["normal", "logistic"])
@pytest.mark.parametrize("call", SLOPES)
def test_a_leaky_relu_lets_its_slope_through_where_it_is_shut(call, form):
    slope, function = SLOPES[call]
    expected = [literal.leaky_gate(z, slope, literal_gate(form)) for z in Z.tolist()]
    assert gate_of(function, gate=form) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("call", SWISHES)
def test_hard_swish_has_its_own_factor_in_a_wider_form(call):
    for softness in (1.0, 1 / 1.6):
        expected = [literal.hard_swish_gate(z, 1.6 * softness) for z in Z.tolist()]
        assert gate_of(SWISHES[call], softness=softness) == pytest.approx(expected, abs=1e-15)
    value_over_input = (functional.hardswish(Z) / Z).tolist()
    assert gate_of(SWISHES[call], softness=1 / 1.6) == pytest.approx(value_over_input, abs=1e-15)


def test_one_bound_at_0_is_relu_and_a_slope_of_0_and_a_bound_out_of_reach_too():
    relu = gate_of(functional.relu)
    assert gate_of(lambda x: x.clamp(min=0)) == relu
    assert gate_of(lambda x: functional.leaky_relu(x, 0.0)) == relu
    assert gate_of(lambda x: x.clamp(0, math.inf)) == relu
    assert gate_of(lambda x: -(-x).clamp_max(0)) == relu


@pytest.mark.parametrize("z", [-1.3, -0.2, 0.4, 1.7])
def test_gates_are_slopes_of_the_function_smoothed_by_normal_noise(z):
    at = torch.tensor([z], dtype=torch.float64)
    leaky = literal.smoothed_slope(lambda v: v if v > 0 else 0.2 * v, z, 0.6)
    assert gate_of(lambda x: functional.leaky_relu(x, 0.2), at)[0] == pytest.approx(leaky, abs=1e-6)
    clamped = literal.smoothed_slope(lambda v: min(max(v, -1.0), 1.0), z, 0.6)
    shut = [1 - literal.normal_gate(z + 1, 0.6), 1 - literal.normal_gate(1 - z, 0.6)]
    # Two gates multiplied, in place of their sum minus 1: more by the product of what is shut.
    assert gate_of(functional.hardtanh, at)[0] - shut[0] * shut[1] == pytest.approx(clamped, abs=1e-6)


@pytest.mark.parametrize("call", ALL)
def test_values_are_the_functions_own_to_the_bit(call):
    has_slope = "learned" in call or "prelu" in call  # a slope of float64
    for dtype in [torch.float64] if has_slope else [torch.float64, torch.float32, torch.bfloat16]:
        odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-310], dtype=dtype)
        x = torch.cat([Z.to(dtype), odd])
        plain = ALL[call](x.clone())
        with pullback(nn.Identity()):
            value = ALL[call](x.clone().requires_grad_() * 1)
            without = ALL[call](x.clone())
        for found in (value, without):
            assert torch.equal(found.isnan(), plain.isnan())
            assert torch.equal(found.nan_to_num(5.0), plain.nan_to_num(5.0))
            assert torch.equal(found.signbit(), plain.signbit())
        assert value.requires_grad
        assert not without.requires_grad or "learned" in call


@pytest.mark.parametrize("call", ALL)
def test_limits(call):
    leaf = Z.clone().requires_grad_()
    ALL[call](leaf * 1).sum().backward()
    wide = gate_of(ALL[call], softness=1e9)
    assert wide == pytest.approx([wide[0]] * len(Z), abs=1e-7)  # the same everywhere: a linear network
    if call.startswith("hard-swish"):
        assert wide[0] == pytest.approx(0.5)
        assert gate_of(ALL[call], softness=1e-9) == (Z > 0).double().tolist()
        return
    assert gate_of(ALL[call], softness=1e-9) == pytest.approx(leaf.grad.tolist(), abs=1e-14)
    slope = SLOPES[call.removeprefix("leaky relu: ")][0] if call.startswith("leaky") else None
    one = call.startswith(("clamp from above", "clamp from below"))
    assert wide[0] == pytest.approx((1 + slope) / 2 if slope is not None else 0.5 if one else 0.25)


@pytest.mark.parametrize(
    "function", [functional.hardtanh_, functional.leaky_relu_, Tensor.clamp_, Tensor.clamp_min_, nn.ReLU6(inplace=True)]
)
def test_in_place_reaches_whoever_else_holds_the_tensor(function):
    more = {Tensor.clamp_: (-1.0, 1.0), Tensor.clamp_min_: (0.0,)}.get(function, ())
    leaf = torch.tensor([-2.0, 0.3, 9.0], dtype=torch.float64, requires_grad=True)
    with pullback(nn.Identity()):
        maps = 3 * leaf
        other = maps
        result = function(maps, *more)
    assert result is other
    plain = function(3 * leaf.detach(), *more)
    assert torch.equal(other, plain)
    other.sum().backward()
    assert leaf.grad.tolist() == pytest.approx(
        [3 * g for g in gate_of(lambda x: function(x, *more), 3 * leaf.detach())]
    )
    with pullback(nn.Identity()), pytest.raises(RuntimeError, match="leaf Variable"):
        function(torch.ones(2, requires_grad=True), *more)


def test_learned_slopes_one_a_channel_get_their_ordinary_gradient():
    torch.manual_seed(0)
    layer = nn.PReLU(3).double()
    nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    upstream = torch.randn_like(x)
    plain = torch.autograd.grad(layer(x), layer.weight, upstream)[0]
    leaf = x.clone().requires_grad_()
    with pullback(layer):
        value = layer(leaf)
        alone = layer(x)
    assert torch.equal(value, layer(x))
    found, slopes = torch.autograd.grad(value, [leaf, layer.weight], upstream)
    assert torch.allclose(slopes, plain, rtol=1e-12)
    assert torch.allclose(torch.autograd.grad(alone, layer.weight, upstream)[0], plain, rtol=1e-12)
    for channel, slope in enumerate(layer.weight.tolist()):
        gates = [literal.leaky_gate(z, slope, literal_gate("normal")) for z in x[:, channel].flatten().tolist()]
        assert (found / upstream)[:, channel].flatten().tolist() == pytest.approx(gates, rel=1e-9)


def test_guards_and_learned_bounds_and_whole_numbers_are_left_alone():
    z = torch.tensor([1e-5, 0.02, 0.3], dtype=torch.float64)
    for call in (
        lambda x: x.clamp_min(GUARD).log(),
        lambda x: 1 / x.clamp(min=1e-12),
        lambda x: x.clamp(1e-7, 1 - 1e-7).log(),
        lambda x: x.clamp(min=torch.tensor(0.1)),
    ):
        leaf = z.clone().requires_grad_()
        call(leaf).sum().backward()
        assert gate_of(call, z) == leaf.grad.tolist()
    assert gate_of(lambda x: x.clamp_min(2 * GUARD), z) != [0.0, 1.0, 1.0]
    bound = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    with pullback(nn.Identity()):
        z.clone().requires_grad_().clamp(max=bound).sum().backward()
        assert torch.arange(5).clamp(1, 3).tolist() == [1, 1, 2, 3, 3]
    assert bound.grad.item() == 1.0


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_networks_of_others(name):
    from torchvision import models

    torch.manual_seed(0)
    net = models.get_model(name, weights=None).eval()
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    plain = net(x)
    slope = torch.autograd.grad(plain[:, 0].sum(), x)[0]
    with pullback(net):
        soft = net(x)
    assert torch.equal(soft, plain)
    moved = torch.autograd.grad(soft[:, 0].sum(), x)[0]
    assert (moved - slope).norm() > 0.1 * slope.norm()
    assert moved.isfinite().all()


def test_every_function_of_the_table_has_its_rule_by_its_name():
    names = {function.__name__.rstrip("_") for function in RULES}
    assert names == {
        "relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "leaky_relu", "prelu", "gelu", "silu",
        "hardswish",
    }  # fmt: skip
