"""ExplOR layers against their literal formulas, and every limit that they claim."""

import pytest
import torch
from support import reference_nets as reference
from torch.nn import functional

from backbones import detached_gates, grp_gap
from backbones.explor_layers.gates import chances_and_values
from backbones.explor_layers.layers import ExplOR2d, ExplORConv2d, ExplORLinear

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64 sums of a few dozen terms


def wide(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def set_(layer, *, weight=None, logits=None):
    with torch.no_grad():
        for parameter, value in ((layer.weight, weight), (layer.logits, logits)):
            if value is not None:
                parameter.copy_(torch.as_tensor(value, dtype=torch.float64))
    return layer


SETTINGS = [
    {},
    {"a_x": 0.7, "a_l": 1.3, "key": "detached"},
    {"a_x": 1.5, "a_l": 2.0, "key": "raw", "null_score": 0.5},
    {"a_x": 9.0, "a_l": 0.5, "null_score": -1.0},
    {"a_x": 0.0, "a_l": 0.0, "null_score": 1.0},
]


def sharpness(options):
    return {"a_x": 2.0, "a_l": 4.0, **options}


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_linear_is_the_formula(options):
    layer, x = ExplORLinear(5, 4, **options).double(), wide(3, 5)
    expected = reference.explor_linear(x, layer.weight, layer.logits, **sharpness(options))
    torch.testing.assert_close(layer(x).detach(), expected, **EXACT)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (3, 2, 0), (2, 1, 1), (3, 3, 0)])
def test_window_is_the_formula(options, window, stride, padding):
    layer = ExplOR2d(3, 2, window, stride=stride, padding=padding, **options).double()
    x = wide(2, 3, 5, 7)
    expected = reference.explor_window(
        x, layer.weight, layer.logits, stride=stride, padding=padding, **sharpness(options)
    )
    torch.testing.assert_close(layer(x).detach(), expected, **EXACT)
    channels_last = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, layer(x), **EXACT)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(1, 1, 0, 1), (3, 1, 1, 1), (2, 2, 1, 2)])
def test_convolution_is_the_formula(options, kernel, stride, padding, dilation):
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = ExplORConv2d(3, 2, kernel, **geometry, **options).double()
    x = wide(2, 3, 5, 6)
    expected = reference.explor_conv(x, layer.weight, layer.logits, **geometry, **sharpness(options))
    torch.testing.assert_close(layer(x).detach(), expected, **EXACT)


def test_four_numbers_by_hand():
    # Keys 1 and -1; scores log 3 and 0, so the gates are 3/4 and 1/4.
    layer = set_(ExplORLinear(2, 1, a_x=0.5, a_l=1.0).double(), weight=[[1.0, 2.0]], logits=[[0.0, 0.0]])
    set_(layer, logits=[[torch.tensor(3.0).log().item() - 1.0, 0.0]])
    x = torch.tensor([[2.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.tensor([[3 / 4 * 2.0 + 1 / 4 * 2 * -2.0]], dtype=torch.float64))


class TestLimits:
    def test_sharp_inputs_pick_the_largest_of_the_subset(self):
        subset = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0]], dtype=torch.float64)
        layer = set_(ExplORLinear(5, 2, a_x=150.0, a_l=500.0).double(), weight=torch.ones(2, 5), logits=subset)
        x = torch.tensor([[0.1, -0.5, 3.0, 4.0, 1.0], [-2.0, -1.0, -3.0, 0.5, -4.0]], dtype=torch.float64)
        torch.testing.assert_close(layer(x).detach(), torch.tensor([[1.0, 3.0], [-1.0, -1.0]]).double(), **EXACT)

    def test_no_sharpness_is_the_mean(self):
        layer, x = ExplORLinear(6, 3, a_x=0.0, a_l=0.0).double(), wide(4, 6)
        torch.testing.assert_close(layer(x), x @ layer.weight.T / 6, **EXACT)

    def test_sharp_logits_alone_are_a_linear_neuron_with_sparse_weights(self):
        layer, x = ExplORLinear(6, 3, a_x=0.0, a_l=3.0).double(), wide(4, 6)
        torch.testing.assert_close(layer(x), x @ (layer.weight * (3 * layer.logits).softmax(1)).T, **EXACT)
        sparse = ExplORLinear(6, 3, a_x=0.0, a_l=1e4).double()
        chosen = sparse.logits.argmax(1)
        expected = x[:, chosen] * sparse.weight[range(3), chosen]
        torch.testing.assert_close(sparse(x), expected, **EXACT)

    def test_one_input_and_the_null_option_are_silu_and_relu(self):
        x = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None].repeat(1, 3) * torch.tensor([1.0, 0.5, -2.0])
        own = torch.eye(3) * 200
        silu = ExplORLinear(3, 3, a_x=1.0, a_l=1.0, key="raw", null_score=200.0).double()
        torch.testing.assert_close(
            set_(silu, weight=torch.eye(3), logits=own)(x).detach(), functional.silu(x), **EXACT
        )  # a common offset of scores changes nothing: own input 200 + x, null option 200
        relu = ExplORLinear(3, 3, a_x=80.0, a_l=1.0, key="raw", null_score=1000.0).double()
        relu = set_(relu, weight=torch.eye(3), logits=torch.eye(3) * 1000)
        torch.testing.assert_close(relu(x).detach(), x.relu(), **EXACT)

    @pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
    def test_one_channel_a_neuron_is_max_pooling(self, window, stride, padding):
        layer = ExplOR2d(3, 3, window, stride=stride, padding=padding, a_x=400.0, a_l=1.0, key="raw").double()
        own = torch.eye(3)[:, :, None, None].expand(-1, -1, window, window)
        set_(layer, weight=torch.ones(3, 3, window, window), logits=(own - 1) * 3000)
        x = torch.randint(-4, 5, (2, 3, 6, 6)).double() / 8  # exp(-400 / 8) is nothing
        expected = functional.max_pool2d(x, window, stride, padding)
        torch.testing.assert_close(layer(x).detach(), expected, **EXACT)

    def test_tiles_far_apart_in_size_are_as_exact(self):
        layer = ExplOR2d(1, 1, a_x=400.0, a_l=1.0, key="raw").double()
        set_(layer, weight=torch.ones(1, 1, 2, 2), logits=torch.zeros(1, 1, 2, 2))
        x = torch.tensor([[-7.0, -6.0, 5.0, 4.0], [-7.5, -6.5, 4.0, 3.0]], dtype=torch.float64)[None, None]
        torch.testing.assert_close(layer(x).detach().flatten(), torch.tensor([-6.0, 5.0]).double(), **EXACT)

    def test_pointwise_layers_are_the_linear_layer_at_each_place(self):
        linear, x = ExplORLinear(4, 5).double(), wide(2, 4, 3, 3)
        expected = linear(x.permute(0, 2, 3, 1).reshape(-1, 4)).view(2, 3, 3, 5).permute(0, 3, 1, 2)
        for layer in (ExplOR2d(4, 5, 1), ExplORConv2d(4, 5, 1)):
            weights = {key: value[:, :, None, None] for key, value in linear.state_dict().items()}
            layer.double().load_state_dict(weights)
            torch.testing.assert_close(layer(x), expected, **EXACT)

    def test_without_sharpness_a_convolution_is_ordinary(self):
        layer, x = ExplORConv2d(4, 5, 3, stride=2, padding=1, a_x=0.0, a_l=0.0).double(), wide(2, 4, 7, 6)
        torch.testing.assert_close(layer(x), functional.conv2d(x, layer.weight / 4, stride=2, padding=1), **EXACT)


LAYERS = {
    "linear": (lambda **options: ExplORLinear(6, 5, **options), (3, 6)),
    "tiles": (lambda **options: ExplOR2d(6, 5, 2, **options), (3, 6, 4, 4)),
    "windows": (lambda **options: ExplOR2d(6, 5, 3, stride=1, padding=1, **options), (3, 6, 4, 4)),
    "convolution": (lambda **options: ExplORConv2d(6, 5, 3, padding=1, **options), (3, 6, 4, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
class TestEveryLayer:
    @pytest.mark.parametrize("a_x", [2.0, 9.0])
    def test_gradient_explains_the_value(self, kind, a_x):
        make, shape = LAYERS[kind]
        x = wide(*shape)

        def flat(layer):
            return lambda x: layer(x).flatten(1)

        full, detached, raw = (make(a_x=a_x, key=key).double() for key in ("rms", "detached", "raw"))
        assert grp_gap(flat(full), x).relative < 1e-13
        assert grp_gap(flat(detached), x).relative < 1e-13
        assert grp_gap(flat(raw), x).relative > 0.1
        with detached_gates(raw):
            assert grp_gap(flat(raw), x).relative < 1e-13

    def test_key_changes_gradients_only(self, kind):
        make, shape = LAYERS[kind]
        full, detached = make().double(), make(key="detached").double()
        detached.load_state_dict(full.state_dict())
        x = wide(*shape).requires_grad_()
        torch.testing.assert_close(full(x), detached(x), **EXACT)
        gradients = [torch.autograd.grad(layer(x).sum(), x)[0] for layer in (full, detached)]
        assert (gradients[0] - gradients[1]).abs().max() > 1e-3
        with detached_gates(full):
            torch.testing.assert_close(torch.autograd.grad(full(x).sum(), x)[0], gradients[1], **EXACT)

    def test_scale_of_the_input_is_the_scale_of_the_output(self, kind):
        make, shape = LAYERS[kind]
        layer, x = make().double(), wide(*shape)
        torch.testing.assert_close(layer(1000 * x), 1000 * layer(x), rtol=1e-10, atol=1e-10)
        assert (layer(0 * x) == 0).all()

    @pytest.mark.parametrize("options", [{"a_x": 5.0}, {"a_x": 30.0, "a_l": 30.0, "null_score": 0.0}], ids=str)
    def test_float32_stays_finite_and_half_precision_computes_in_float32(self, kind, options):
        make, shape = LAYERS[kind]
        layer = make(**options)
        x = (torch.randn(shape) * 100).requires_grad_()
        layer(x).sum().backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in (x, layer.weight, layer.logits))
        with torch.no_grad():
            half = x.bfloat16()
            with torch.autocast("cpu", torch.bfloat16):
                inside = layer(half)
            assert inside.dtype == torch.float32
            assert torch.equal(inside, layer(half.float()))

    def test_dobble_gives_each_neuron_its_channels(self, kind):
        make, _ = LAYERS[kind]
        logits = (
            make(logits="dobble").logits.flatten(2) if kind != "linear" else make(logits="dobble").logits[..., None]
        )
        assert set(logits.unique().tolist()) == {0.0, 1.0}
        assert (logits == logits[..., :1]).all()
        shared = logits[..., 0] @ logits[..., 0].T
        assert (shared - shared.diag().diag() <= 1).all()
        assert not make(logits="zeros").logits.any()


@pytest.mark.parametrize("n_inputs", [5, 70])  # above 64 keys reach the limit of 8
def test_chances_have_right_derivatives(n_inputs):
    x = wide(3, n_inputs)
    x[0, 0] = 40.0
    x[2] = 0.0
    plain_key = x / x.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)
    chances, values = chances_and_values(x, 0.7)
    torch.testing.assert_close(chances, (0.7 * plain_key.clamp(-8, 8)).exp(), **EXACT)
    torch.testing.assert_close(values, chances * x, **EXACT)
    x = x[:2].requires_grad_()
    torch.autograd.gradcheck(lambda x: chances_and_values(x, 0.7), x)
    torch.autograd.gradgradcheck(lambda x: chances_and_values(x, 0.7), x)


def test_sentences():
    with pytest.raises(ValueError, match=r"`key` must be one of rms, detached, batchnorm, raw, got 'norm'\."):
        ExplORLinear(2, 2, key="norm")
    with pytest.raises(ValueError, match=r"`logits` must be one of random, dobble, zeros, got 'one'\."):
        ExplOR2d(2, 2, logits="one")
    with pytest.raises(ValueError, match=r"`a_x` must be a finite number of at least 0, got inf\. 2 is a good start\."):
        ExplORConv2d(2, 2, 3, a_x=float("inf"))
