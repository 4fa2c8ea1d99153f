"""Backbones and models on their device, made from names, recipes and folders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import backbones
from protocols.data.dataset import Dataset
from protocols.recipes.recipes import Recipe
from slots.errors import UsageError
from slots.model.slot_model import SlotModel


def pick_device(name: str) -> str:
    """The device to run on: ``"auto"`` takes the first GPU where there is one.

    Raises
    ------
    UsageError
        If the device is unknown or not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"`device` must be auto, cpu or a CUDA device of this machine, got {name!r}. Try auto."
        ) from error
    return name


def build_backbone(name: str, data: Dataset, recipe: Recipe, seed: int) -> nn.Module | None:
    """The backbone of a recipe with weights drawn from the seed; None for feature rows."""
    if name == "none":
        return None
    if backbones.is_text_name(name):
        return read_encoder(name)
    height, width, channels = data.shape
    torch.manual_seed(seed)
    try:
        if recipe.trained is not None:
            backbone = recipe.trained.build((channels, height, width))
            return backbone if recipe.fine_tune else backbone.requires_grad_(False)
        return backbones.build(name, input_shape=(channels, height, width), **recipe.backbone)
    except ValueError as error:
        raise UsageError(str(error)) from error


def read_encoder(name: str) -> backbones.TextBackbone:
    """The sentence encoder ``text:NAME``.

    Raises
    ------
    UsageError
        If it is not on this machine.
    """
    try:
        return backbones.build(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def load_model(folder: str | Path, *, device: str = "auto", half: bool = False) -> SlotModel:
    """Load a model folder with its backbone.

    Parameters
    ----------
    folder : path
        As `slots.SlotModel.save` wrote it.
    device : str, default "auto"
        ``auto``, ``cpu`` or a CUDA device; ``auto`` takes the first GPU where there is one.
    half : bool, default False
        See `slots.SlotModel.half_precision`.

    Returns
    -------
    SlotModel

    Raises
    ------
    ModelError
        If the folder is no readable model.
    """
    model = SlotModel.load(folder, build=backbones.build, device=pick_device(device))
    model.half_precision = half
    return model
