"""A model before its training: input scaling, backbone, and a head without slots."""

from __future__ import annotations

import torch
from torch import nn

from slots.errors import UsageError
from slots.features.preprocessing import Preprocessing
from slots.features.views import parse_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel
from slots.shapes import RawInputs
from slots.training.config import TrainConfig


def assemble(x: RawInputs, backbone: nn.Module | None, config: TrainConfig, class_names: tuple[str, ...]) -> SlotModel:
    """Model without slots, on its device.

    Parameters
    ----------
    x : raw inputs
        Training examples, as `slots.fit` takes them; the scaling of the inputs is read off them.
    backbone : nn.Module, optional
        The network; none for rows of features.
    config : TrainConfig
        Device, views, and what the head is made with.
    class_names : tuple of str
        Names of the labels 0, 1, ..., or none.

    Raises
    ------
    UsageError
        If there is no backbone for images or texts.
    """
    preprocessing = Preprocessing.of(x, standardize=config.standardize)
    preprocessing.check(x)
    if preprocessing.kind != "features" and backbone is None:
        call = "'pixels', input_shape=..." if preprocessing.kind == "images" else "'text:NAME'"
        raise UsageError(f"`backbone` must be given for {preprocessing.kind}, got none. Pass backbones.build({call}).")
    views = parse_views(config.views)
    if backbone is None:
        feature_dim = preprocessing.shape[0]
    else:
        backbone.to(config.device).eval()
        with torch.no_grad():
            some = x[:1] if preprocessing.kind == "text" else preprocessing(x[:1], config.device)
            feature_dim = int(backbone(some).shape[-1])
    head = empty_head(feature_dim, config)
    model = SlotModel(preprocessing, head, backbone=backbone, class_names=class_names, views=views.spec)
    return model.to(config.device)


def empty_head(feature_dim: int, config: TrainConfig) -> IncrementalNeuralHashing:
    """Head without slots.

    Parameters
    ----------
    feature_dim : int
        Length of a feature vector.
    config : TrainConfig
        Scale, pooling and precision of the head.
    """
    return IncrementalNeuralHashing(feature_dim, scale=config.scale, beta=config.beta, precision=config.precision)
