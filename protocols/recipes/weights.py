"""Trained backbones that come with the project: ``slots fit --backbone explor --data cifar10 --pretrained``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

import backbones
from backbones import AbstractBackbone
from slots.errors import UsageError
from slots.storage.atomic import write_file

FOLDER = Path(__file__).parent / "trained"
ON_GPU = "-gpu"
"""What the name of larger weights ends with, which a GPU takes where there are some."""


@dataclass(frozen=True)
class TrainedBackbone:
    """A backbone's weights and what they were trained for.

    Parameters
    ----------
    name : str
        Of `backbones.build`.
    data : str
        Data set.
    options : dict
        Options of the backbone.
    tensors : dict of tensor
        Its state dict; floats in half precision.
    figures : dict
        How it was trained and what it reached.
    """

    name: str
    data: str
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    figures: dict[str, Any]

    def build(self, input_shape: tuple[int, int, int]) -> AbstractBackbone:
        """The backbone with its weights, in float32."""
        backbone = backbones.build(self.name, input_shape=input_shape, **self.options)
        backbone.load_state_dict(self.tensors)
        return backbone


def list_trained() -> list[str]:
    """Which trained backbones there are, each as ``backbone-data``, larger ones as ``backbone-data-gpu``."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_trained(name: str, data: str, device: str = "cpu") -> TrainedBackbone:
    """Read the weights of a backbone for a data set.

    Parameters
    ----------
    name : str
        Of `backbones.build`.
    data : str
        Name of the data set.
    device : str, default "cpu"
        Where they will run: a CUDA device takes larger ones where there are some.

    Raises
    ------
    UsageError
        If there are none for the pair.
    """
    path = FOLDER / f"{name}-{data}.safetensors"
    larger = path.with_stem(path.stem + ON_GPU)
    if device.startswith("cuda") and larger.is_file():
        path = larger
    if not path.is_file():
        known = ", ".join(list_trained()) or "none"
        raise UsageError(f"`pretrained` must be one of {known}, got {name}-{data}. Leave --pretrained out to train.")
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})["backbone"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return TrainedBackbone(name, data, header["options"], tensors, header["figures"])


def write_trained(backbone: AbstractBackbone, data: str, figures: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Write the weights of a backbone, floats in half precision: about two bytes a weight.

    Parameters
    ----------
    backbone : AbstractBackbone
        Trained; its name, shape and options are written too.
    data : str
        Name of the data set it was trained on.
    figures : dict
        Anything JSON can hold.
    folder : Path
        Made if missing. Default: where the project keeps its own.

    Returns
    -------
    Path
        ``folder/NAME-DATA.safetensors``.
    """
    state = backbone.state_dict()
    tensors = {key: (value.half() if value.is_floating_point() else value).cpu() for key, value in state.items()}
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise UsageError("`backbone` must have weights below 65,504, got a larger one. Keep them in a model instead.")
    header = {"backbone": json.dumps({"options": backbone.options, "figures": figures})}
    path = folder / f"{backbone.name}-{data}.safetensors"
    write_file(path, save({key: value.contiguous() for key, value in tensors.items()}, header))
    return path
