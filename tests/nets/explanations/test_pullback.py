"""Pullbacks: values to the bit, gradients by hand, limits, and everything back in its place afterwards."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_pullback as literal
from torch import nn
from torch.nn import functional

import backbones
from backbones.explanations.pullbacks import pullback
from backbones.nets.cifar_resnet import CifarResNet


def gradient(model, x, **options):
    leaf = x.detach().clone().requires_grad_()
    with pullback(nn.Identity() if not isinstance(model, nn.Module) else model, **options):
        value = model(leaf)
    value.sum().backward()
    return leaf.grad


def networks():
    from torchvision.models import VisionTransformer, resnet18

    yield "resnet18", resnet18(), (2, 3, 40, 40)
    yield "resnet56", CifarResNet(56), (2, 3, 32, 32)
    vit = VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    nn.init.normal_(vit.heads.head.weight)  # torchvision starts with 0
    yield "vit", vit, (2, 3, 32, 32)
    yield "explor", backbones.build("explor", input_shape=(3, 16, 16)), (2, 3, 16, 16)
    yield "positive", backbones.build("positive", input_shape=(3, 16, 16), widths=[8, 16]), (2, 3, 16, 16)


@pytest.mark.parametrize("name", ["resnet18", "resnet56", "vit", "explor", "positive"])
def test_values_are_the_same_to_the_bit_and_gradients_are_not(name):
    torch.manual_seed(0)
    (model, shape) = next((net, shape) for key, net, shape in networks() if key == name)
    model.eval()
    x = torch.randn(shape, requires_grad=True)
    plain = model(x)
    slope = torch.autograd.grad(plain[:, 0].sum(), x)[0]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for kind in ("soft", "held", "plain"):
        with pullback(model, kind):
            value = model(x)
        assert torch.equal(value, plain)
        moved = (torch.autograd.grad(value[:, 0].sum(), x)[0] - slope).norm() / slope.norm()
        if kind == "plain" or (kind == "held" and name != "explor"):
            assert moved == 0
        else:
            assert moved > 0.01
        with pullback(model, kind), torch.no_grad():
            assert torch.allclose(model(x), plain, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("gate", ["normal", "logistic"])
def test_two_layers_by_hand(gate):
    first, second, x = [[1.0, -2.0], [0.5, 0.25], [-1.0, -1.0]], [2.0, -1.0, 3.0], [0.3, 0.4]
    rule = (lambda z: literal.normal_gate(z, 0.6)) if gate == "normal" else (lambda z: literal.logistic_gate(z, 0.3))
    value, slopes = literal.two_layers(first, second, x, rule)
    hidden, output = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)

    def net(x):
        return functional.relu(x @ hidden.T) @ output

    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    with pullback(nn.Identity(), gate=gate):
        found = net(leaf)
    found.backward()
    assert found.item() == pytest.approx(value)
    assert leaf.grad.tolist() == pytest.approx(slopes, rel=1e-12)


FORMS = {
    "module": nn.ReLU(),
    "in-place module": nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
    "functional": functional.relu,
    "functional, in place": lambda x: functional.relu(x, inplace=True),
    "functional, in place by position": lambda x: functional.relu(x, True),
    "torch": torch.relu,
    "torch, in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method, in place": lambda x: x.relu_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_relu_is_caught(form):
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    expected = [literal.normal_gate(float(v), 0.6) for v in z]
    assert gradient(lambda x: FORMS[form](x * 1), z).tolist() == pytest.approx(expected, rel=1e-12)


def test_in_place_reaches_whoever_else_holds_the_tensor():
    def net(x):
        maps = 3 * x
        other = maps
        functional.relu(maps, inplace=True)
        return other + 0 * maps

    z = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    with pullback(nn.Identity()):
        value = net(leaf)
    assert value.tolist() == [0.0, 6.0]
    value.sum().backward()
    assert leaf.grad.tolist() == pytest.approx([3 * literal.normal_gate(3 * v, 0.6) for v in z.tolist()])
    with pullback(nn.Identity()), pytest.raises(RuntimeError, match="leaf Variable"):
        functional.relu_(z.requires_grad_())


@pytest.mark.parametrize("in_place", [False, True])
def test_silu_and_gelu_by_hand(in_place):
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)
    silu = gradient(lambda x: functional.silu(x * 1, inplace=in_place), z)
    assert silu.tolist() == pytest.approx([literal.logistic_gate(float(v), 1.6) for v in z], rel=1e-12)
    for approximate in ("none", "tanh"):
        gelu = gradient(nn.GELU(approximate=approximate), z)
        assert gelu.tolist() == pytest.approx([literal.normal_gate(float(v), 1.0) for v in z], rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    share=st.floats(0, 0.5),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 100),
)
def test_max_pooling_by_hand(size, kernel, stride, share, dilation, ceil_mode, seed):
    padding = tuple(int(share * k) for k in kernel)
    if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
        return
    torch.manual_seed(seed)
    x = torch.randn(size, dtype=torch.float64)
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    leaf = x.view(1, 1, *size).clone().requires_grad_()
    with pullback(pool):
        value = pool(leaf)
    assert torch.equal(value, pool(leaf))
    upstream = torch.randn_like(value)
    value.backward(upstream)
    expected = literal.max_pool(
        x, upstream[0, 0], kernel=kernel, stride=stride, padding=padding, dilation=dilation, temperature=0.3
    )
    assert torch.allclose(leaf.grad[0, 0], expected, atol=1e-12)


def test_max_pooling_without_batch_and_with_indices():
    torch.manual_seed(1)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    whole = gradient(nn.MaxPool2d(2), x)
    assert torch.equal(gradient(nn.MaxPool2d(2), x[0]), whole[0])
    assert torch.equal(gradient(lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], x), whole)
    assert torch.equal(gradient(lambda x: torch.max_pool2d(x, 2), x), whole)
    pool = nn.MaxPool2d(2, return_indices=True)
    with pullback(pool):
        assert torch.equal(pool(x)[1], functional.max_pool2d(x, 2, return_indices=True)[1])
        value, places = pool(x.clone().requires_grad_())
    assert value.requires_grad
    assert torch.equal(places, pool(x)[1])


def test_layer_normalisation_with_given_mean_and_variance():
    torch.manual_seed(0)
    norm = nn.LayerNorm(5).double()
    nn.init.normal_(norm.weight)
    norm.requires_grad_(False)
    x = torch.randn(3, 5, dtype=torch.float64)
    upstream = torch.randn(3, 5, dtype=torch.float64)
    found = gradient(lambda x: norm(x) * upstream, x)
    for row in range(3):
        deviation = math.sqrt(sum((float(v) - float(x[row].mean())) ** 2 for v in x[row]) / 5 + norm.eps)
        expected = [float(upstream[row, i] * norm.weight[i]) / deviation for i in range(5)]
        assert found[row].tolist() == pytest.approx(expected)
    assert torch.equal(gradient(nn.LayerNorm(5, elementwise_affine=False).double(), x) > 0, torch.ones(3, 5) > 0)


@pytest.mark.parametrize("mask", ["none", "causal", "bool", "added"])
def test_attention_by_hand(mask):
    torch.manual_seed(0)
    query, key, value, upstream = torch.randn(4, 4, 3, dtype=torch.float64)
    allowed = torch.ones(4, 4, dtype=torch.bool)
    more = {}
    if mask == "causal":
        allowed, more = allowed.tril(), {"is_causal": True}
    elif mask != "none":
        allowed[2, 1] = allowed[0, 3] = False
        more = {"attn_mask": allowed if mask == "bool" else torch.zeros(4, 4).double().masked_fill(~allowed, -math.inf)}
    leaves = [part.clone().requires_grad_() for part in (query, key, value)]
    with pullback(nn.Identity()):
        result = functional.scaled_dot_product_attention(*leaves, **more)
    assert torch.equal(result, functional.scaled_dot_product_attention(*leaves, **more))
    result.backward(upstream)
    assert leaves[0].grad is None
    assert leaves[1].grad is None
    assert torch.allclose(leaves[2].grad, literal.attention(query, key, value, upstream, 2.0, allowed))


def test_grouped_attention_and_rows_that_look_nowhere():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 3, 2), torch.randn(1, 2, 3, 2), torch.randn(1, 2, 3, 2).requires_grad_()
    with pullback(nn.Identity()):
        functional.scaled_dot_product_attention(query, key, value, enable_gqa=True).sum().backward()
    assert value.grad.sum().item() == pytest.approx(24)  # each of 4 x 3 queries shares out 1, for 2 features
    leaf = torch.randn(3, 2, requires_grad=True)
    with pullback(nn.Identity()):
        nowhere = torch.zeros(3, 3, dtype=torch.bool)
        functional.scaled_dot_product_attention(leaf, leaf, leaf, attn_mask=nowhere).nan_to_num().sum().backward()
    assert leaf.grad.abs().sum() == 0


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_module(need_weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=True).double().eval()
    x = torch.randn(2, 5, 6, dtype=torch.float64)

    def net(x):
        return layer(x, x, x, need_weights=need_weights)

    plain, weights = net(x.clone().requires_grad_())
    leaf = x.clone().requires_grad_()
    with pullback(layer):
        value, found = net(leaf)
    assert torch.equal(value, plain)
    assert found is None if weights is None else torch.equal(found, weights)
    value.sum().backward()
    # By its parts: the projections, softened weights that are given, the values.
    leaf2 = x.clone().requires_grad_()
    q, k, v = (
        part.view(2, 5, 2, 3).transpose(1, 2)
        for part in functional.linear(leaf2, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
    )
    soft = torch.softmax(q @ k.mT / math.sqrt(3) / 2, -1).detach() @ v
    layer.out_proj(soft.transpose(1, 2).flatten(2)).sum().backward()
    assert torch.allclose(leaf.grad, leaf2.grad)


def net_of_relu_and_pooling():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 1),
    ).double().eval()  # fmt: skip


def test_limits_are_the_plain_gradient_and_the_linear_network():
    net = net_of_relu_and_pooling()
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    plain = gradient(net, x, kind="plain")
    assert torch.allclose(gradient(net, x, softness=1e-9), plain, atol=1e-14)
    assert not torch.allclose(gradient(net, x), plain, atol=1e-3)
    linear = gradient(literal.linear_twin(net), x, kind="plain")
    assert torch.allclose(gradient(net, x, softness=1e9), linear, rtol=1e-6)


def test_gates_of_the_projects_layers_are_held():
    torch.manual_seed(0)
    model = backbones.build("explor", input_shape=(1, 8, 8)).eval()
    x, direction = torch.randn(3, 1, 8, 8), torch.randn(model.feature_dim)
    held = gradient(lambda x: model(x) @ direction, x, kind="plain")
    leaf = x.clone().requires_grad_()
    with pullback(model, "held"):
        value = model(leaf) @ direction
        value.sum().backward()
    assert torch.allclose(leaf.grad, model.template(x, direction))
    assert not torch.allclose(leaf.grad, held)


def test_gradients_of_parameters_and_autocast():
    net = net_of_relu_and_pooling()
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    with pullback(net):
        net(x).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    half = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4))
    leaf = torch.randn(3, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), pullback(half):
        value = half(leaf)
        assert torch.equal(value, half(leaf.detach()))
    value.float().sum().backward()
    assert leaf.grad.isfinite().all()


def test_everything_is_as_it_was_after_an_exception():
    model = nn.Sequential(backbones.build("explor", input_shape=(1, 8, 8)), nn.ReLU())
    with pytest.raises(ZeroDivisionError), pullback(model):
        raise ZeroDivisionError
    assert not any(getattr(module, "hold_gate", False) for module in model.modules())
    z = torch.tensor([-1.0, 1.0], requires_grad=True)
    torch.relu(z).sum().backward()
    assert z.grad.tolist() == [0.0, 1.0]
    with (
        pytest.raises(ValueError, match=r"`kind` must be one of soft, held, plain, got 'hard'\."),
        pullback(model, "hard"),
    ):
        pass
    with pytest.raises(ValueError, match=r"`gate` must be one of normal, logistic"), pullback(model, gate="step"):
        pass
    for softness in (0, -1.0, math.inf, math.nan, True, "1"):
        with (
            pytest.raises(ValueError, match=r"`softness` must be a finite number above 0, got "),
            pullback(model, softness=softness),
        ):
            pass
