"""`pretrained`: any network of torchvision or timm, a CIFAR ResNet, or your own module, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import AbstractBackbone, check_input_shape, evaluating
from backbones.checks import check_count
from backbones.nets.cifar_resnet import DEPTHS, CifarResNet

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

OWN: Final = "own"
"""Recorded as the network where a module was given."""

_NETWORKS = "cifar_resnet20 (32, 44, 56, 110), torchvision:NAME or timm:NAME"


@dataclass(frozen=True)
class PublishedInput:
    """What a network's published weights expect to see.

    Parameters
    ----------
    size : int
        Side of the square picture, pixels.
    crop : float
        Share of a picture's shorter side that is seen: it is resized so that this share is ``size``, and the middle is
        cut out; in (0, 1].
    mean, std : tuple of float
        What inputs in [0, 1] are scaled by.
    """

    size: int
    crop: float
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def published_input(network: str) -> PublishedInput:
    """What a network of others expects to see, as its library tells; no weights are read.

    Parameters
    ----------
    network : str
        As `Pretrained` takes it.

    Returns
    -------
    PublishedInput

    Raises
    ------
    ValueError
        If there is no such network, or timm is missing.

    Examples
    --------
    >>> published_input("torchvision:resnet18").size, published_input("cifar_resnet20").size
    (224, 32)
    """
    library, _, name = network.rpartition(":")
    if library == "torchvision":
        from torchvision import models

        _check_torchvision(name)
        seen = models.get_model_weights(name).DEFAULT.transforms()
        size = int(seen.crop_size[0])
        return PublishedInput(size, min(1.0, size / int(seen.resize_size[0])), tuple(seen.mean), tuple(seen.std))
    if library == "timm":
        _check_timm(name)
        import timm

        told = timm.get_pretrained_cfg(name)
        return PublishedInput(int(told.input_size[-1]), float(told.crop_pct), tuple(told.mean), tuple(told.std))
    _check_cifar(network)
    return PublishedInput(32, 1.0)


class Pretrained(AbstractBackbone):
    """A network without its classifier: what went into its last linear layer is the feature vector.

    Inputs are pictures in [0, 1]. The network's own scaling (and size, where one is set) is a part of the backbone, so
    that nobody has to know it; for that reason, and for its offsets, it does not claim the Gradient Representation
    Property.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input. One grey channel is repeated where the network wants three.
    network : str or nn.Module
        ``cifar_resnetN`` with N of 20, 32, 44, 56, 110; ``torchvision:NAME``; ``timm:NAME`` where timm is installed.
        Or a module of your own that gives features (batch, feature), any further axes being averaged: it is used as it
        is, so cut its classifier off first. It is recorded as ``"own"``, since only you can rebuild it: load a
        model that was saved with it by ``SlotModel.load(folder, build=...)`` with a function that does.
    weights : str, optional
        A file of a state dict (``.pt``, ``.pth``, ``.safetensors``; nothing in it can run code), or for torchvision
        and timm ``"default"``: the library downloads its best. Default: none, fresh weights. Read once, when the
        backbone is made, and recorded as None: a saved model has the weights already.
    frozen : bool
        Whether the network stays as it is, batch statistics included. Otherwise it is fine-tuned with the head.
    size : int, optional
        Side to which inputs are resized (bilinear, pixels, >= 1). Default: none.
    mean, std : three floats, optional
        What is subtracted, and what is divided by afterwards. Default: the network's own, as its library tells, and
        those of ImageNet for a module and the CIFAR ResNets.
    crop : float, optional
        How pictures were cut from files for it (`PublishedInput.crop`), recorded for whoever reads further ones.
        Default: None, they were not.

    Examples
    --------
    >>> backbone = Pretrained((3, 32, 32), network="cifar_resnet20")
    >>> backbone(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """

    name: ClassVar[str] = "pretrained"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        network: str | nn.Module = "cifar_resnet20",
        weights: str | None = None,
        frozen: bool = True,
        size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop: float | None = None,
    ) -> None:
        shape = check_input_shape(input_shape)
        if mean is None or std is None:
            known = published_input(network) if isinstance(network, str) else PublishedInput(0, 1.0)
            mean, std = known.mean if mean is None else mean, known.std if std is None else std
        if crop is not None and not 0 < crop <= 1:
            raise ValueError(f"`crop` must lie in (0, 1], got {crop!r}. 0.875 is that of many networks.")
        body = network if isinstance(network, nn.Module) else _make(network, weights)
        if size is not None:
            check_count("size", size)
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise ValueError(f"`std` must have one number above 0 for each of `mean`, got {std!r}. Pass both.")
        if shape[0] not in (1, len(mean)):
            raise ValueError(
                f"`mean` and `std` must have {shape[0]} entries, one a channel, got {len(mean)}. Pass mean and std."
            )
        options = {
            "network": network if isinstance(network, str) else OWN,
            "weights": None,
            "frozen": bool(frozen),
            "size": size,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "crop": crop,
        }
        probe = torch.zeros(1, len(mean), *((size, size) if size else shape[1:]))
        super().__init__(shape, feature_dim=_probe(body, probe), options=options, claims_grp=False)
        self.network = body.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(options["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(options["std"]).view(-1, 1, 1), persistent=False)
        self.network.requires_grad_(not frozen)

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen network stays in evaluation."""
        super().train(mode)
        if self.options["frozen"]:
            self.network.eval()
        return self

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """What the network's last layer would have seen."""
        if len(x) == 0:  # many networks cannot take an empty batch
            return x.new_zeros(0, self.feature_dim)
        if (side := self.options["size"]) and x.shape[2:] != (side, side):
            x = functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        return _rows(self.network((x - self.mean) / self.std))


def is_network_name(name: str) -> bool:
    """Whether a name is that of a network made elsewhere, as `Pretrained` takes it.

    Parameters
    ----------
    name : str
        What a user gave as backbone.

    Returns
    -------
    bool
        True for ``cifar_resnetN``, ``torchvision:NAME`` and ``timm:NAME``, whether there is such a network or not.

    Examples
    --------
    >>> is_network_name("torchvision:resnet18"), is_network_name("cnn")
    (True, False)
    """
    return name.startswith(("cifar_resnet", "torchvision:", "timm:"))


def _rows(features: Tensor) -> Tensor:
    """One row an input: what is left of the picture's axes is averaged."""
    return features.flatten(2).mean(2) if features.ndim > 2 else features


@torch.no_grad()
def _probe(body: nn.Module, x: Tensor) -> int:
    """Length of a feature vector, found by trying; leaves modes and batch statistics as they were."""
    parameter = next(body.parameters(), x)
    try:
        with evaluating(body):
            found = _rows(body(x.to(parameter.device, parameter.dtype)))
    except RuntimeError as error:
        raise ValueError(
            f"`network` must take inputs of shape {tuple(x.shape)}, and failed: {error}. Pass size= for another one."
        ) from error
    if found.ndim != 2:
        raise ValueError(f"`network` must give (batch, feature), got shape {tuple(found.shape)}. Wrap it in a module.")
    return int(found.shape[1])


def _make(network: str, weights: str | None) -> nn.Module:
    """The network, with weights where asked for, without its last linear layer."""
    library, _, name = network.rpartition(":") if isinstance(network, str) else ("", "", "")
    if library == "torchvision":
        body: nn.Module = _torchvision(name, weights)
    elif library == "timm":
        body = _timm(name, weights)
    else:
        _check_cifar(network)
        body = CifarResNet(int(name.removeprefix("cifar_resnet")))
        if weights == "default":
            raise ValueError(f"`weights` must be a file for {name}, got 'default'. Nobody publishes one best set.")
    if weights not in (None, "default"):
        _load(body, Path(weights))
    return _headless(body)


def _check_cifar(network: object) -> None:
    if network not in {f"cifar_resnet{depth}" for depth in DEPTHS}:
        raise ValueError(f"`network` must be {_NETWORKS}, got {network!r}. A module of your own works too, in Python.")


def _check_torchvision(name: str) -> None:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"`network` must be one of torchvision.models.list_models(), got {name!r}. resnet18 is one.")


def _torchvision(name: str, weights: str | None) -> nn.Module:
    from torchvision import models

    _check_torchvision(name)
    body: nn.Module = models.get_model(name, weights="DEFAULT" if weights == "default" else None)
    return body


def _check_timm(name: str) -> None:
    try:
        import timm
    except ImportError as error:
        raise ValueError("`network` must not be of timm where it is missing. Install it: pip install timm.") from error
    if not timm.is_model(name):
        raise ValueError(f"`network` must be one of timm.list_models(), got {name!r}. resnet18 is one.")


def _timm(name: str, weights: str | None) -> nn.Module:
    _check_timm(name)
    import timm

    body: nn.Module = timm.create_model(name, pretrained=weights == "default")
    return body


def _load(body: nn.Module, path: Path) -> None:
    """Read a state dict from a file into a whole network."""
    if not path.is_file():
        raise ValueError(f"`weights` must be a file of a state dict, got {str(path)!r}, which is not there.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        stored: Mapping[str, Any] = load_file(path)
    else:
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds
            raise ValueError(f"`weights` must be a file of plain tensors, got {str(path)!r}: {error}.") from error
    stored = stored.get("state_dict", stored)
    try:
        body.load_state_dict({key.removeprefix("module."): value for key, value in stored.items()})
    except (RuntimeError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"`weights` must fit the network, got others in {path.name!r}: {first}.") from error


def _headless(body: nn.Module) -> nn.Module:
    """The same network with its last linear layer replaced by nothing."""
    linear = [name for name, module in body.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        parent, _, last = linear[-1].rpartition(".")
        setattr(body.get_submodule(parent), last, nn.Identity())
    return body
