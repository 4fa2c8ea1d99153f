"""Every backbone keeps the contract, at every shape; and the sentences that name what is wrong."""

import functools
import os
import shutil

import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images
from support import contract
from torch import nn

import backbones
from backbones.base import evaluating

SHAPES = [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
VARIANTS = [
    ("pixels", {}),
    ("cnn", {"width": 4, "hidden": 20}),
    ("positive", {}),
    ("positive", {"activation": "silu", "pooling": "mean", "widths": [8, 12]}),
    ("positive", {"activation": "silu", "first": "perspective", "widths": [6, 8]}),
    ("positive", {"first": "l2", "inputs": "whitening", "widths": [6, 8]}),
    ("positive", {"first": "whitening", "widths": [6, 8], "signs": "plus"}),
    ("explor", {}),
    ("explor", {"key": "detached", "gate": "detached", "logits": "dobble", "widths": [10, 14], "stem_kernel": 4}),
    ("explor", {"a_x": 8.0, "a_l": 0.5, "logits": "zeros", "stem_stride": 2, "key": "batchnorm"}),
    ("explor", {"block": "exclusive", "widths": [6, 8, 10], "residual": 1}),
    ("unfolding", {}),
    ("unfolding", {"gate": "max", "widths": [6, 10], "windows": [4, 3], "signs": "nonnegative", "pooling": "max"}),
    ("unfolding", {"gate": "silu", "widths": [8, 12], "windows": [5, 3], "strides": [2, 2], "residual": 1}),
    ("unfolding", {"stem": "whitening", "widths": [8, 12], "windows": [3, 3], "strides": [2, 2]}),
    ("explor", {"stem": "whitening", "block": "pool", "widths": [10, 12, 14], "pooling": "max"}),
    ("disjunction", {}),
    ("disjunction", {"norm": "scale", "parts": 30, "conjunctions": 10, "kernel": 5, "stride": 1}),
    ("directional", {"parts": 24, "units": 20}),
    ("directional", {"activation": "silu", "parts": 24, "units": 20, "kernel": 5, "room": 2}),
    ("gumbel", {"parts": 24, "units": 20}),
    ("gumbel", {"activation": "silu", "parts": 24, "units": 20, "kernel": 5, "top": 2}),
    ("parts", {"channels": 6, "width": 8, "receptive_field": 5, "parts": 9, "threshold": 0.3}),
    ("parts", {"channels": 12, "width": 16, "sharpness": 4.0, "where": "anywhere"}),
    ("lipschitz", {"widths": [8, 16], "depth": 1, "hidden": 20}),
    ("pretrained", {"frozen": False}),  # frozen: tests/nets/nets/test_pretrained.py
]
CHECKS = [check for name, check in vars(contract).items() if name.startswith("check_")]
OF_SIZE = (contract.check_shapes, contract.check_rebuild_and_load, contract.check_grp)
"""What may depend on the size of the inputs is checked for large ones too."""
CASES = [(shape, check) for shape in SHAPES for check in (CHECKS if max(shape) < 20 else OF_SIZE)]


@functools.cache
def photograph_and_digits():
    """A colour photograph and written digits, both from 0 to 1, read once."""
    photograph = torch.tensor(load_sample_images().images[0] / 255.0, dtype=torch.float32).permute(2, 0, 1)
    return photograph, torch.tensor(load_digits().images / 16.0, dtype=torch.float32)


def natural(shape, count=4):
    """Patches of pictures: colour ones of a photograph, grey ones of written digits where they are large enough."""
    channels, height, width = shape
    photograph, digits = photograph_and_digits()
    if shape == (1, 8, 8):
        return digits[:count, None].clone()
    corners = torch.randint(0, 300, (count, 2)).tolist()
    patches = torch.stack([photograph[:channels, top : top + height, left : left + width] for top, left in corners])
    return (patches - photograph.mean()) / photograph.std()


@pytest.mark.parametrize(("shape", "check"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_contract(name, options, shape, check):
    backbone = backbones.build(name, input_shape=shape, **options)
    check(backbone, torch.randn(4, *shape))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_gradients_explain_pictures_too(name, options, shape):
    contract.check_grp(backbones.build(name, input_shape=shape, **options), natural(shape))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)], ids=str)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_the_promise_in_single_precision(name, options, shape):
    """The error of a gradient as explanation is below 1e-4 on 1,000 pictures and on 1,000 inputs of noise."""
    backbone = contract.warmed(backbones.build(name, input_shape=shape, **options))
    count = 1000 if backbone.claims_grp else 50
    errors = [contract.gradients_explain(backbone, x) for x in (natural(shape, count), torch.randn(count, *shape))]
    assert max(errors) < 1e-4 if backbone.claims_grp else min(errors) > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees():
    for name, options in VARIANTS:
        contract.the_gpu_agrees(backbones.build(name, input_shape=(3, 9, 13), **options), torch.randn(4, 3, 9, 13))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), dict(VARIANTS).items(), ids=str)  # the last variant of each
def test_compiled(name, options):
    torch.compiler.reset()
    backbone = backbones.build(name, input_shape=(1, 8, 8), **options)
    contract.compiled_is_eager(backbone, torch.randn(4, 1, 8, 8), compiler="aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_compiled_to_machine_code():
    torch.compiler.reset()
    backbone = backbones.build("explor", input_shape=(1, 4, 4), widths=[4, 6])
    contract.compiled_is_eager(backbone, torch.randn(4, 1, 4, 4), compiler="inductor")


def test_contract_covers_every_backbone():
    assert {name for name, _ in VARIANTS} == set(backbones.BACKBONES)
    assert all(kind.name == name for name, kind in backbones.BACKBONES.items())


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_smallest_input(name):
    channels = 1 if name == "pretrained" else 2
    backbone = backbones.build(name, input_shape=(channels, 1, 1)).eval()
    assert backbone(torch.randn(3, channels, 1, 1)).shape == (3, backbone.feature_dim)


def test_pixels_are_the_input():
    x = torch.arange(24.0).view(2, 3, 2, 2)
    backbone = backbones.build("pixels", input_shape=(3, 2, 2))
    assert torch.equal(backbone(x), torch.stack([torch.arange(12.0), torch.arange(12.0, 24.0)]))
    direction = torch.randn(12)
    assert torch.equal(backbone.template(x, direction), direction.view(1, 3, 2, 2).expand(2, -1, -1, -1))


def test_same_seed_same_weights():
    twins = []
    for _ in range(2):
        torch.manual_seed(5)
        twins.append(backbones.build("explor", input_shape=(1, 8, 8)).state_dict())
    assert all(torch.equal(value, twins[1][key]) for key, value in twins[0].items())


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("vgg", (1, 8, 8), {}, r"`name` must be one of pixels, cnn, positive, .*, got 'vgg'\. Choose one"),
        ("pixels", (1, 8, 8), {"depth": 3}, r"An option of pixels must be left out, got depth\."),
        (
            "positive",
            (1, 8, 8),
            {"depth": 3},
            r"must be one of widths, pooling, activation, first, inputs, signs, got depth\.",
        ),
        ("pixels", (8, 8), {}, r"`input_shape` must be three positive integers .*, got \(8, 8\)\."),
        ("explor", (1, 8, 0), {}, r"`input_shape` must be three positive integers .*, got \(1, 8, 0\)\."),
        ("explor", (1, 8, 8.0), {}, r"`input_shape` must be three positive integers .*, got \(1, 8, 8\.0\)\."),
        ("explor", (1, 8, 8), {"widths": [4] * 5}, r"`widths` must be a list of 1 to 4 positive integers, got"),
        ("explor", (1, 8, 8), {"widths": []}, r"`widths` must be a list of 1 to 4 positive integers, got \[\]"),
        ("explor", (1, 8, 8), {"widths": 24}, r"`widths` must be a list of 1 to 4 positive integers, got 24"),
        ("positive", (1, 4, 9), {"widths": [8, 0]}, r"`widths` must be a list of 1 to 3 .*, got \[8, 0\]"),
        ("explor", (1, 8, 8), {"logits": "ones"}, r"`logits` must be one of random, dobble, zeros, got 'ones'\."),
        ("explor", (1, 8, 8), {"key": "raw"}, r"`key` must be one of rms, detached, batchnorm, got 'raw'\."),
        ("explor", (1, 8, 8), {"gate": "open"}, r"`gate` must be one of full, detached, got 'open'\."),
        ("explor", (1, 8, 8), {"a_x": -1.0}, r"`a_x` must be a finite number of at least 0, got -1\.0\."),
        ("explor", (1, 8, 8), {"a_l": float("nan")}, r"`a_l` must be a finite number of at least 0, got nan\."),
        ("explor", (1, 8, 8), {"stem_kernel": 0}, r"`stem_kernel` must be a positive integer, got 0\."),
        ("explor", (1, 8, 8), {"stem_stride": 1.5}, r"`stem_stride` must be a positive integer, got 1\.5\."),
        ("explor", (1, 8, 8), {"stem": "conv"}, r"`stem` must be one of convolution, whitening, got 'conv'\."),
        ("explor", (1, 8, 8), {"block": "max"}, r"`block` must be one of conv, pool, exclusive, got 'max'\."),
        ("explor", (1, 8, 8), {"across": -1}, r"`across` must be an integer of at least 0, got -1\."),
        ("explor", (1, 8, 8), {"residual": -1}, r"`residual` must be an integer of at least 0, got -1\."),
        ("explor", (1, 8, 8), {"pooling": "sum"}, r"`pooling` must be one of mean, max, got 'sum'\."),
        ("positive", (1, 8, 8), {"pooling": "sum"}, r"`pooling` must be one of max, mean, got 'sum'\."),
        ("lipschitz", (1, 8, 8), {"widths": [9]}, r"`widths` must be a list of 1 to 4 even integers .*, got \[9\]"),
        ("positive", (1, 8, 8), {"activation": "gelu"}, r"`activation` must be one of relu, silu, got 'gelu'\."),
        ("positive", (1, 8, 8), {"first": "l1"}, r"`first` must be one of convolution, l2, .*, got 'l1'\."),
        ("positive", (1, 8, 8), {"inputs": "max"}, r"`inputs` must be one of none, batch, .*, got 'max'\."),
    ],
)
def test_sentences(name, shape, options, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(name, input_shape=shape, **options)


def test_positive_weights():
    backbone = backbones.build("positive", input_shape=(3, 16, 16), signs="plus")
    weights = [layer.weight for layer in backbone.positive]
    assert all(weight.min() >= 0 and weight.max() <= 2 / weight[0].numel() for weight in weights)
    # The mean of a neuron's weights is 1 / fan_in: it starts as an average of its inputs.
    assert all(abs(weight.flatten(1).sum(1).mean() - 1) < 0.05 for weight in weights)
    first = backbone.first.weight.detach().clone()
    assert (first < 0).any()
    with torch.no_grad():
        for weight in weights:
            weight[0].sub_(0.5)
    backbone.constrain_()
    assert all((weight[0] == 0).all() and (weight[1:] > 0).float().mean() > 0.99 for weight in weights)
    assert torch.equal(backbone.first.weight, first)


def test_modes_are_put_back_one_by_one_also_after_an_exception():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    net[1].eval()
    net[1][0].train()
    with pytest.raises(KeyError, match=r"^False$"), evaluating(net):
        {}[any(module.training for module in net.modules())]
    assert [module.training for module in net.modules()] == [True, True, False, True]
