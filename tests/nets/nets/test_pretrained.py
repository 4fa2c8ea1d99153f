"""Networks of others as backbones: what is cut off, what stays frozen, what is read from files."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision import models

import backbones
from backbones.nets.cifar_resnet import DEPTHS, CifarResNet
from backbones.nets.pretrained import IMAGENET_MEAN, IMAGENET_STD, Pretrained


def literal_resnet(state, x, depth):
    """The network of the paper, line by line from its state dict."""

    def norm(maps, key):
        mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
        scale = state[f"{key}.weight"] / (var + 1e-5).sqrt()
        return (maps - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + state[f"{key}.bias"].view(1, -1, 1, 1)

    maps = norm(functional.conv2d(x, state["conv1.weight"], padding=1), "bn1").clamp_min(0)
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            key = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = functional.conv2d(maps, state[f"{key}.conv1.weight"], stride=stride, padding=1)
            inner = norm(inner, f"{key}.bn1").clamp_min(0)
            inner = norm(functional.conv2d(inner, state[f"{key}.conv2.weight"], padding=1), f"{key}.bn2")
            around = maps
            if stride == 2:
                around = torch.zeros_like(inner)
                quarter = inner.shape[1] // 4
                around[:, quarter : inner.shape[1] - quarter] = maps[:, :, ::2, ::2]
            maps = (inner + around).clamp_min(0)
    features = maps.mean((2, 3))
    return features, features @ state["linear.weight"].T + state["linear.bias"]


def warm(network):
    """Batch statistics, gains and offsets that are not those of a fresh network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnet_is_the_paper_s(depth):
    network = warm(CifarResNet(depth).double())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x), literal_resnet(network.state_dict(), x, depth)[1], rtol=1e-9, atol=1e-9)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules()) == depth


def test_cifar_resnet_has_the_published_size():
    sizes = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}  # million parameters, table 6 of the paper
    assert {depth: round(sum(p.numel() for p in CifarResNet(depth).parameters()) / 1e6, 2) for depth in sizes} == {
        **sizes,
        110: 1.73,
    }
    with pytest.raises(ValueError, match=r"`depth` must be one of 20, 32, 44, 56, 110, got 18\. 20 is the smallest\."):
        CifarResNet(18)
    assert set(sizes) == set(DEPTHS)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_weights_from_a_file_and_scaling(tmp_path, ending):
    network = warm(CifarResNet(20))
    path = tmp_path / f"weights{ending}"
    if ending == ".pt":
        stored = {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}
        torch.save(stored, path)  # as data-parallel training scripts write it
    else:
        save_file(network.state_dict(), path)
    backbone = backbones.build(
        "pretrained", input_shape=(3, 32, 32), network="cifar_resnet20", weights=str(path)
    ).eval()
    x = torch.rand(3, 3, 32, 32)
    scaled = (x - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    expected = literal_resnet(network.state_dict(), scaled, 20)[0]
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-5)
    assert backbone.options["weights"] is None


def test_frozen_means_unchanged():
    backbone = backbones.build("pretrained", input_shape=(3, 16, 16)).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    x = torch.rand(4, 3, 16, 16, requires_grad=True)
    backbone(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in backbone.parameters())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    tuned = backbones.build("pretrained", input_shape=(3, 16, 16), frozen=False).train()
    tuned(x.detach())
    assert int(tuned.network.bn1.num_batches_tracked) == 1


@pytest.mark.parametrize(
    ("network", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("convnext_tiny", 768), ("vit_b_16", 768)]
)
def test_torchvision_features_are_what_the_classifier_sees(network, width):
    torch.manual_seed(0)
    whole = models.get_model(network).eval()
    torch.manual_seed(0)
    backbone = Pretrained((3, 40, 40), network=f"torchvision:{network}", size=224).eval()
    assert backbone.feature_dim == width
    last = [module for module in whole.modules() if isinstance(module, nn.Linear)][-1]
    seen = []
    last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        resized = functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False, antialias=True)
        whole((resized - backbone.mean) / backbone.std)
        torch.testing.assert_close(backbone(x), seen[0], rtol=1e-4, atol=1e-5)


def test_own_module():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    backbone = Pretrained((1, 6, 6), network=body, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    x = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(backbone(x), body(x.expand(-1, 3, -1, -1)).mean((2, 3)))
    assert backbone.options["network"] == "own"
    with pytest.raises(
        ValueError, match=r"`network` must be cifar_resnet20 .*, got 'own'\. A module of your own works"
    ):
        backbones.build("pretrained", input_shape=(1, 6, 6), **backbone.options)


class _Axes(nn.Module):
    def forward(self, x):
        return x.flatten()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet18"}, r"`network` must be cifar_resnet20 .*, got 'resnet18'\."),
        ({"network": 18}, r"`network` must be cifar_resnet20 .*, got 18\."),
        ({"network": "torchvision:resnet19"}, r"one of torchvision\.models\.list_models\(\), got 'resnet19'\."),
        ({"weights": "nowhere.pt"}, r"`weights` must be a file of a state dict, got 'nowhere\.pt', which is not there"),
        ({"weights": "default"}, r"`weights` must be a file for cifar_resnet20, got 'default'\."),
        ({"size": 0}, r"`size` must be a positive integer, got 0\."),
        (
            {"std": (1.0, 0.0, 1.0)},
            r"`std` must have one number above 0 for each of `mean`, got \(1\.0, 0\.0, 1\.0\)\.",
        ),
        ({"mean": (0.5,), "std": (0.5,)}, r"`mean` and `std` must have 3 entries, one a channel, got 1\."),
        (
            {"network": nn.Conv2d(5, 5, 3)},
            r"`network` must take inputs of shape \(1, 3, 8, 8\), and failed: .*Pass size",
        ),
        ({"network": _Axes()}, r"`network` must give \(batch, feature\), got shape \(192,\)\. Wrap it in a module\."),
    ],
)
def test_sentences(options, message):
    with pytest.raises(ValueError, match=message):
        backbones.build("pretrained", input_shape=(3, 8, 8), **options)


def test_timm_is_optional():
    try:
        import timm  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"`network` must not be of timm where it is missing\. Install it: pip"):
            backbones.build("pretrained", input_shape=(3, 8, 8), network="timm:resnet18")
    else:
        assert backbones.build("pretrained", input_shape=(3, 32, 32), network="timm:resnet18").feature_dim == 512


@pytest.mark.parametrize("content", ["other", "code", "noise"])
def test_foreign_files(tmp_path, content):
    path = tmp_path / "weights.pt"
    if content == "other":
        torch.save(CifarResNet(32).state_dict(), path)
        message = r"`weights` must fit the network, got others in 'weights\.pt': "
    else:
        message = r"`weights` must be a file of plain tensors, got "
        if content == "code":
            torch.save(nn.Linear(2, 2), path)  # a pickled object, which could run anything
        else:
            path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=message):
        backbones.build("pretrained", input_shape=(3, 8, 8), weights=str(path))
