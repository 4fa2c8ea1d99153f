"""The other disjunctions (log-sum-exp, power mean) and the sparse conjunction against their formulas and limits."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_forms as reference
from support import reference_nets as nets
from torch.nn import functional

from backbones import detached_gates, grp_gap
from backbones.explor_layers.layers import ExplOR2d, ExplORConv2d, ExplORLinear
from backbones.layers.xand import XAND, XANDConv2d, sparsemax

EXACT = {"rtol": 1e-10, "atol": 1e-12}
FORMS = ("lse", "pnorm")
SETTINGS = [
    {},
    {"a_x": 0.0, "a_l": 0.0},
    {"a_x": 9.0, "a_l": 1.5, "null_score": 0.5},
    {"a_x": 1.5, "a_l": 2.0, "key": "raw", "null_score": -1.0},
]


def wide(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def full(options):
    return {"a_x": 2.0, "a_l": 4.0, "key": "rms", "null_score": None, **options}


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("form", FORMS)
class TestFormula:
    def test_linear(self, form, options):
        layer, x = ExplORLinear(5, 4, form=form, **options).double(), wide(3, 5)
        expected = reference.soft_linear(x, layer.weight, layer.logits, form=form, **full(options))
        torch.testing.assert_close(layer(x).detach(), expected, **EXACT)

    @pytest.mark.parametrize(("window", "stride"), [(2, 2), (2, 1), (3, 2)])
    def test_window(self, form, options, window, stride):
        layer, x = ExplOR2d(3, 2, window, stride=stride, form=form, **options).double(), wide(2, 3, 5, 6)
        expected = reference.soft_window(x, layer.weight, layer.logits, stride=stride, form=form, **full(options))
        torch.testing.assert_close(layer(x).detach(), expected, **EXACT)

    def test_convolution(self, form, options):
        layer, x = ExplORConv2d(3, 2, 2, form=form, **options).double(), wide(2, 3, 4, 3)
        expected = reference.soft_conv(x, layer.weight, layer.logits, form=form, **full(options))
        torch.testing.assert_close(layer(x).detach(), expected, **EXACT)


LAYERS = {
    "linear": (lambda **options: ExplORLinear(6, 5, **options), (3, 6)),
    "tiles": (lambda **options: ExplOR2d(6, 5, 2, **options), (3, 6, 4, 4)),
    "windows": (lambda **options: ExplOR2d(6, 5, 3, stride=1, **options), (3, 6, 4, 4)),
    "convolution": (lambda **options: ExplORConv2d(6, 5, 3, padding=1, **options), (3, 6, 4, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("form", FORMS)
class TestEveryLayer:
    def test_full_gradient_explains_the_value_held_or_not(self, kind, form):
        make, shape = LAYERS[kind]
        layer, x = make(form=form, null_score=0.5).double(), wide(*shape)
        assert grp_gap(lambda x: layer(x).flatten(1), x).relative < 1e-13
        with detached_gates(layer):
            assert grp_gap(lambda x: layer(x).flatten(1), x).relative < 1e-13
        torch.testing.assert_close(layer(1000 * x), 1000 * layer(x), **EXACT)
        assert layer(0 * x).abs().max() < 1e-20

    def test_float32_stays_finite_in_all_precisions(self, kind, form):
        make, shape = LAYERS[kind]
        layer = make(form=form, a_x=30.0, a_l=30.0)
        x = (torch.randn(shape) * 100).requires_grad_()
        layer(x).sum().backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in (x, layer.weight, layer.logits))
        layer(0 * x).sum().backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in (x, layer.weight, layer.logits))
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x.bfloat16()).dtype == torch.float32

    def test_gradients_are_those_of_the_values(self, kind, form):
        make, shape = LAYERS[kind]
        layer = make(form=form).double()
        torch.autograd.gradcheck(layer, wide(*shape)[:1].requires_grad_())


class TestBatchNormKeys:
    """The key-value form: the batch normalisation of each channel chooses, the gradient goes through the values."""

    def test_linear_is_the_formula_in_training_and_evaluation(self):
        layer, x = ExplORLinear(5, 4, key="batchnorm").double(), wide(6, 5) * 3 + 1
        mean, variance = x.mean(0), x.var(0, correction=0)

        def literal(x, keys):
            rows = [
                [
                    nets.explor_neuron(row, key, w, one, a_x=2.0, a_l=4.0)
                    for w, one in zip(layer.weight, layer.logits, strict=True)
                ]
                for row, key in zip(x, keys, strict=True)
            ]
            return torch.tensor(rows, dtype=torch.float64)

        torch.testing.assert_close(layer(x).detach(), literal(x, (x - mean) / (variance + 1e-5).sqrt()), **EXACT)
        layer.eval()
        keys = (x - layer.norm.running_mean) / (layer.norm.running_var + 1e-5).sqrt()
        torch.testing.assert_close(layer(x).detach(), literal(x, keys), **EXACT)

    def test_windows_normalise_each_channel_over_all_places(self):
        layer, x = ExplOR2d(3, 2, key="batchnorm").double(), wide(2, 3, 4, 4) * 2 - 1
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        keys = (x - mean) / (variance + 1e-5).sqrt()
        expected = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
        for b, n, i, j in torch.cartesian_prod(*[torch.arange(2)] * 4).tolist():
            tile = (b, slice(None), slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
            flat = [part.flatten() for part in (x[tile], keys[tile], layer.weight[n], layer.logits[n])]
            expected[b, n, i, j] = nets.explor_neuron(*flat, a_x=2.0, a_l=4.0)
        torch.testing.assert_close(layer(x).detach(), expected, **EXACT)

    @pytest.mark.parametrize("kind", LAYERS)
    def test_gradient_explains_the_value(self, kind):
        make, shape = LAYERS[kind]
        layer, x = make(key="batchnorm").double(), wide(*shape)
        layer(x + 1)
        layer.eval()
        assert grp_gap(lambda x: layer(x).flatten(1), x).relative < 1e-13
        assert (layer(1000 * x) - 1000 * layer(x)).abs().max() > 1e-3  # but keys do see the scale


class TestLimits:
    def test_a_constant_temperature_loses_the_property(self):
        layer, x = ExplORLinear(6, 3, form="lse", key="raw").double(), wide(4, 6)
        assert grp_gap(layer, x).relative > 0.05
        layer = ExplORLinear(6, 3, form="pnorm", key="raw").double()  # a power mean has no temperature
        assert grp_gap(layer, x).relative < 1e-13

    @pytest.mark.parametrize("form", FORMS)
    def test_between_the_mean_and_the_largest_of_the_subset(self, form):
        subset = torch.tensor([[1.0, 1, 0, 0, 1], [0, 1, 1, 0, 0]], dtype=torch.float64)
        x = torch.tensor([[0.1, 0.5, 3.0, 4.0, 1.0], [2.0, 1.0, 3.0, 0.5, 4.0]], dtype=torch.float64)
        means = torch.stack([x[:, row.bool()].mean(1) for row in subset], dim=1)
        largest = torch.stack([x[:, row.bool()].amax(1) for row in subset], dim=1)

        def value(a_x, a_l=100.0):
            layer = ExplORLinear(5, 2, form=form, a_x=a_x, a_l=a_l).double()
            with torch.no_grad():
                layer.weight.fill_(1.0)
                layer.logits.copy_(subset)
                return layer(x)

        torch.testing.assert_close(value(0.0), means, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(value(200.0, a_l=1000.0), largest, rtol=2e-2, atol=0)
        steps = [value(a_x) for a_x in (0.0, 1.0, 4.0, 16.0)]
        assert all((later > sooner).all() for sooner, later in pairwise(steps))
        assert (steps[-1] < largest).all()

    def test_a_small_sharpness_is_near_the_mean(self):
        layer, x = ExplORLinear(5, 2, form="lse", a_x=1e-6, a_l=0.0).double(), wide(3, 5)
        torch.testing.assert_close(layer(x), x.mean(1, keepdim=True) * layer.weight, rtol=1e-4, atol=1e-5)

    def test_one_input_and_the_null_option_are_softplus_and_relu(self):
        x = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
        soft = ExplORLinear(1, 1, form="lse", key="raw", a_x=1.0, a_l=0.0, null_score=0.0).double()
        expected = (functional.softplus(x) - math.log(2.0)) * soft.weight  # shares of a half
        torch.testing.assert_close(soft(x), expected, **EXACT)
        hard = ExplORLinear(1, 1, form="lse", key="raw", a_x=5000.0, a_l=0.0, null_score=0.0).double()
        torch.testing.assert_close(hard(x), x.relu() * hard.weight, rtol=1e-3, atol=1e-3)

    def test_power_mean_sees_no_negative_input(self):
        layer = ExplORLinear(2, 1, form="pnorm", a_x=1.0, a_l=0.0).double()
        x = torch.tensor([[3.0, -9.0], [-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
        out = layer(x)
        root = (9 / 2) ** 0.5 * layer.weight.item()
        torch.testing.assert_close(out, torch.tensor([[root], [0.0]], dtype=torch.float64), **EXACT)
        picture = torch.autograd.grad(out.sum(), x)[0]
        torch.testing.assert_close(picture, torch.tensor([[root / 3, 0.0], [0.0, 0.0]], dtype=torch.float64), **EXACT)


class TestXand:
    def test_by_hand(self):
        layer, x = XAND(3, 1, inputs=2).double(), torch.tensor([[1.0, 10.0, 100.0]], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[2.0, 3.0, 4.0]]))
            layer.logits.copy_(torch.tensor([[1.0, -1.0, 1.0]]))
        assert layer(x).item() == 2.0 + 400.0
        with torch.no_grad():
            layer.logits.zero_()  # equals: the first two
        assert layer(x).item() == 2.0 + 30.0
        layer(x).backward()
        # The gradient of the sigmoids: 1/4 of what an input adds, kept or not.
        assert layer.logits.grad.tolist() == [[0.5, 7.5, 100.0]]
        assert layer.weight.grad.tolist() == [[1.0, 10.0, 0.0]]

    @pytest.mark.parametrize("mask", ["sigmoid", "topk", "sparsemax"])
    def test_masks(self, mask):
        layer = XAND(50, 20, mask=mask, inputs=5).double()
        m = layer.mask().detach()
        if mask == "sigmoid":
            torch.testing.assert_close(m, layer.logits.sigmoid())
            assert 4 < m.sum(1).mean() < 6.5
        else:
            torch.testing.assert_close(m.sum(1), torch.full((20,), 5.0).double())
            assert ((m > 0).sum(1) == 5).all() if mask == "topk" else (m == 0).any()
        x = wide(4, 50)
        torch.testing.assert_close(layer(x), x @ (m * layer.weight).T, **EXACT)
        assert grp_gap(layer, x).relative < 1e-14
        layer(x).square().sum().backward()
        assert (layer.logits.grad.abs().amax(1) > 0).all()

    @pytest.mark.parametrize("mask", ["sigmoid", "topk", "sparsemax"])
    def test_convolution_is_the_linear_layer_on_windows(self, mask):
        layer, x = XANDConv2d(3, 4, 2, stride=2, mask=mask, inputs=5).double(), wide(2, 3, 4, 6)
        linear = XAND(12, 4, mask=mask, inputs=5).double()
        with torch.no_grad():
            linear.weight.copy_(layer.weight.flatten(1))
            linear.logits.copy_(layer.logits.flatten(1))
        windows = functional.unfold(x, 2, stride=2).transpose(1, 2)
        torch.testing.assert_close(layer(x).flatten(2).transpose(1, 2), linear(windows), **EXACT)

    @given(st.lists(st.floats(-3, 3), min_size=1, max_size=6))
    @settings(max_examples=60, deadline=None)
    def test_sparsemax_is_the_nearest_point(self, logits):
        expected = torch.tensor(reference.sparsemax(logits), dtype=torch.float64)
        found = sparsemax(torch.tensor(logits, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)

    def test_sentences(self):
        with pytest.raises(ValueError, match=r"`mask` must be one of sigmoid, topk, sparsemax, got 'hard'\."):
            XAND(3, 2, mask="hard")
        with pytest.raises(ValueError, match=r"`inputs` must be at most 12, all there are, got 13\. Pass fewer\."):
            XANDConv2d(3, 2, 2, inputs=13)
        with pytest.raises(ValueError, match=r"`inputs` must be a positive integer, got 0\."):
            XAND(3, 2, inputs=0)


def test_sentences():
    with pytest.raises(ValueError, match=r"`form` must be one of average, lse, pnorm, got 'max'\."):
        ExplORLinear(2, 2, form="max")
    with pytest.raises(ValueError, match=r"`key` must be one of rms, raw, got 'batchnorm'\."):
        ExplORLinear(2, 2, form="lse", key="batchnorm")
    with pytest.raises(ValueError, match=r"`padding` must be 0 with form='pnorm', got 1\. Pad the input yourself\."):
        ExplOR2d(2, 2, padding=1, form="pnorm")
