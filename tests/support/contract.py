"""What every backbone must keep: one function a rule, each taking a backbone and inputs of its shape."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

import backbones
from backbones import AbstractBackbone

# float64 rounding over a few thousand additions a layer; the promise to users is 1e-4 in float32.
GRP_TOLERANCE = 1e-11


def warmed(backbone: AbstractBackbone, *, dtype: torch.dtype = torch.float32) -> AbstractBackbone:
    """The backbone in evaluation, with statistics and parameters that are not those of a fresh one."""
    backbone = backbone.to(dtype).train()
    with torch.no_grad():
        for _ in range(3):
            backbone(torch.rand(8, *backbone.input_shape, dtype=dtype) * 2 - 0.5)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(-1.5, 1.5)
                module.bias.normal_(0.0, 0.5)
    return backbone.eval()


def check_shapes(backbone: AbstractBackbone, x: Tensor) -> None:
    assert backbone.train()(x).shape == (len(x), backbone.feature_dim)
    backbone.eval()
    for batch in (len(x), 1, 0):
        out = backbone(x[:batch])
        assert out.shape == (batch, backbone.feature_dim)
        assert torch.isfinite(out).all()
    for wrong in (x[0], x[:, :, 1:], torch.cat([x, x], dim=1)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(batch, .*build .* with their input_shape\.$"):
            backbone(wrong)


def check_dtypes_and_devices(backbone: AbstractBackbone, x: Tensor) -> None:
    for dtype in (torch.float32, torch.float64):
        assert backbone.to(dtype)(x.to(dtype)).dtype == dtype
    ghost = copy.deepcopy(backbone).to("meta")
    out = ghost(x.to("meta", torch.float64))
    assert out.device.type == "meta"
    assert out.shape == (len(x), backbone.feature_dim)


def check_memory_format(backbone: AbstractBackbone, x: Tensor) -> None:
    """Inputs whose channels lie side by side, or of which every second row is left out, are the same inputs."""
    backbone = warmed(backbone, dtype=torch.float64)
    x = x.double()
    out = backbone(x)
    strided = torch.stack([x, x + 1], dim=3).flatten(2, 3)[:, :, ::2]
    assert torch.equal(strided, x)
    for same in (x.contiguous(memory_format=torch.channels_last), strided, x.transpose(2, 3).clone().transpose(2, 3)):
        torch.testing.assert_close(backbone(same), out, rtol=0, atol=1e-11)


def check_gradients(backbone: AbstractBackbone, x: Tensor) -> None:
    """Every parameter, and the input, gets a finite gradient that is not all zero."""
    backbone.train()
    x = x.clone().requires_grad_()
    out = backbone(x)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in [*backbone.named_parameters(), ("x", x)]:
        if not parameter.requires_grad:  # looked up in the data, not trained
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def check_rebuild_and_load(backbone: AbstractBackbone, x: Tensor) -> None:
    """Options survive JSON and make a net that takes the weights and answers with the same bits."""
    backbone = warmed(backbone)
    options = json.loads(json.dumps(backbone.options))
    assert options == backbone.options
    stream = io.BytesIO()
    torch.save(backbone.state_dict(), stream)
    stream.seek(0)
    again = backbones.build(backbone.name, input_shape=backbone.input_shape, **options)
    assert again.options == backbone.options
    assert (again.feature_dim, again.claims_grp) == (backbone.feature_dim, backbone.claims_grp)
    again.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(again.eval()(x), backbone(x))


def check_evaluation(backbone: AbstractBackbone, x: Tensor) -> None:
    """In evaluation an input's features depend on nothing but the input, and nothing changes by looking."""
    backbone = warmed(backbone, dtype=torch.float64)
    x = x.double()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    out = backbone(x)
    assert torch.equal(out, backbone(x))
    torch.testing.assert_close(torch.cat([backbone(row[None]) for row in x]), out, rtol=0, atol=1e-11)
    torch.testing.assert_close(backbone(x.flip(0)), out.flip(0), rtol=0, atol=1e-11)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def check_half_precision(backbone: AbstractBackbone, x: Tensor) -> None:
    """Under autocast features stay near those of float32, and gradients finite."""
    backbone.train()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # some draw while training
    exact = copy.deepcopy(backbone)(x).detach()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        out = backbone(x)
    leaves = [x, *(parameter for parameter in backbone.parameters() if parameter.requires_grad)]
    out.float().square().sum().backward(inputs=leaves)
    # bfloat16 has 8 bits; a few layers of it lose 3 % on average, more where sharp choices flip.
    assert (out.detach().float() - exact).abs().mean() <= 0.2 * exact.abs().mean()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def check_constraint(backbone: AbstractBackbone, x: Tensor) -> None:
    """A fresh net satisfies its constraint; constraining twice is constraining once, whatever the optimiser did."""
    fresh = copy.deepcopy(backbone.state_dict())
    backbone.constrain_()
    assert all(torch.equal(value, fresh[key]) for key, value in backbone.state_dict().items())
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
    backbone.constrain_()
    once = copy.deepcopy(backbone.state_dict())
    backbone.constrain_()
    assert all(torch.equal(value, once[key]) for key, value in backbone.state_dict().items())
    assert torch.isfinite(backbone.eval()(x)).all()


def check_template(backbone: AbstractBackbone, x: Tensor) -> None:
    """The picture has the shape of the input, row by row, and drawing it leaves no trace."""
    backbone.train()
    x = x.clone().requires_grad_()
    directions = torch.randn(len(x), backbone.feature_dim)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with torch.no_grad():
        pictures = backbone.template(x, directions)
    assert pictures.shape == x.shape
    assert not pictures.requires_grad
    assert x.grad is None
    assert backbone.training
    assert all(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    alone = backbone.template(x[:1], directions[0])
    torch.testing.assert_close(alone, pictures[:1], rtol=1e-3, atol=1e-5 * float(pictures.abs().max()))
    with torch.inference_mode():
        assert torch.equal(backbone.template(x[:1], directions[0]), alone)
    with pytest.raises(ValueError, match=r"`direction` must have shape \(\d+,\) or \(\d+, \d+\), got \(1, 1, 1\)"):
        backbone.template(x, torch.zeros(1, 1, 1))


def check_grp(backbone: AbstractBackbone, x: Tensor) -> None:
    """Where claimed, gradients explain the whole value; where not, they really do not: the claim is not modesty."""
    backbone = warmed(backbone, dtype=torch.float64)
    x = x.double()
    with backbones.detached_gates(backbone):
        gap = backbones.grp_gap(backbone, x, max_units=16).relative
    direction = torch.randn(backbone.feature_dim, dtype=torch.float64)
    value = backbone(x).detach() @ direction
    explained = (backbone.template(x, direction) * x).flatten(1).sum(1)
    picture_gap = float((value - explained).abs().max() / value.abs().max())
    if backbone.claims_grp:
        assert gap < GRP_TOLERANCE
        assert picture_gap < GRP_TOLERANCE
    else:
        assert gap > 1e-3
        assert picture_gap > 1e-3


def compiled_is_eager(backbone: AbstractBackbone, x: Tensor, *, compiler: str) -> None:
    """Features and gradients of a compiled net are those of the net, in training and in evaluation."""
    backbone = warmed(backbone, dtype=torch.float64)
    x = x.double()
    compiled = torch.compile(backbone, backend=compiler)
    torch.testing.assert_close(compiled(x), backbone(x), rtol=1e-9, atol=1e-9)
    learning = [parameter for parameter in backbone.train().parameters() if parameter.requires_grad]
    if not learning:
        return
    state = copy.deepcopy(backbone.state_dict())
    torch.manual_seed(1)
    expected = torch.autograd.grad(backbone(x).square().sum(), learning)
    after = copy.deepcopy(backbone.state_dict())
    backbone.load_state_dict(state)
    torch.manual_seed(1)
    with inductor.patch(fallback_random=True):  # the same draws as without compiling
        found = torch.autograd.grad(compiled(x).square().sum(), learning)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
    for key, value in backbone.state_dict().items():  # and so are the statistics that training keeps
        torch.testing.assert_close(value, after[key], rtol=1e-9, atol=1e-9)


def gradients_explain(backbone: AbstractBackbone, x: Tensor) -> float:
    """Largest relative error, in float32, of what gradients explain: input ``i`` answers for unit ``i``, in turn."""
    units = torch.eye(backbone.feature_dim)[torch.arange(len(x)) % backbone.feature_dim]
    pictures = torch.cat([backbone.template(*part) for part in zip(x.split(250), units.split(250), strict=True)])
    with torch.no_grad():
        features = torch.cat([backbone(part) for part in x.split(250)])
    gap = (features * units).sum(1) - (pictures * x).flatten(1).sum(1)
    return float(gap.abs().max() / features.abs().max())


def the_gpu_agrees(backbone: AbstractBackbone, x: Tensor) -> None:
    """On a GPU: the values and pictures of the CPU in float64, and finite gradients under autocast."""
    backbone = warmed(backbone, dtype=torch.float64)
    direction = torch.randn(backbone.feature_dim, dtype=torch.float64)
    out, picture = backbone(x.double()), backbone.template(x.double(), direction)
    backbone.to("cuda")
    there = x.to("cuda")
    torch.testing.assert_close(backbone(there.double()).cpu(), out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(backbone.template(there.double(), direction.cuda()).cpu(), picture, rtol=1e-9, atol=1e-9)
    backbone.float().train()
    with torch.autocast("cuda", torch.bfloat16):
        out = backbone(there)
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if not learning:
        return
    out.float().square().sum().backward(inputs=learning)
    assert all(torch.isfinite(parameter.grad).all() for parameter in learning)
