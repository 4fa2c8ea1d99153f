"""The classifier that logits come from: the network's own where it can be had, else one that is trained on features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from protocols.harness.encoders import LEAST_STEPS, Encoder, Features, Labels
from protocols.harness.protocol import Setting

_NAMES = ("linear", "fc", "classifier", "head")


def linear_classifier(
    encoder: Encoder, setting: Setting, features: Features, y: Labels, *, classes: npt.NDArray[np.int64], seed: int
) -> nn.Linear:
    """The linear classifier whose logits are looked at: a network's own last layer, or a probe of its features.

    Parameters
    ----------
    encoder : Encoder
        The layer that it was trained with is taken.
    setting : Setting
        Otherwise that of its weight file, its rows for the known classes, if it names these examples no worse than one
        that is trained on them, less five points: then its classes are the data's.
    features : float32 array of shape (example, feature)
        The encoder's, of examples of known classes.
    y : int64 array of shape (example,)
        From 0 to the number of known classes - 1.
    classes : int64 array of shape (class,)
        Labels of the known classes in the data.
    seed : int
        Of a probe's training.

    Returns
    -------
    nn.Linear
        Otherwise a linear probe.
    """
    if encoder.linear is not None:
        return encoder.linear
    probe = linear_probe(features, y, seed=seed)
    own = _stored(setting, len(setting.data.class_names), features.shape[1], classes)
    return own if own is not None and _right(own, features, y) >= _right(probe, features, y) - 0.05 else probe


def linear_probe(features: Features, y: Labels, *, seed: int = 0) -> nn.Linear:
    """A linear classifier on frozen features, trained with cross-entropy on standardised rows and folded back.

    Parameters
    ----------
    features : array of shape (example, feature)
        Scaled by their own mean and deviation while it trains.
    y : int64 array of shape (example,)
        Labels from 0 to the number of classes - 1.
    seed : int, default 0
        Of the first weights and the order of the examples.

    Returns
    -------
    nn.Linear
        On the CPU; takes the features as they are.
    """
    torch.manual_seed(seed)
    x, targets = torch.from_numpy(features), torch.from_numpy(y)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    linear = nn.Linear(x.shape[1], int(targets.max()) + 1)
    epochs = max(20, -(-LEAST_STEPS // -(-len(x) // 512)))
    optimizer = torch.optim.Adam(linear.parameters(), 1e-2, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(512):
            optimizer.zero_grad()
            F.cross_entropy(linear((x[rows] - mean) / std), targets[rows]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        linear.weight.div_(std)
        linear.bias.sub_(linear.weight @ mean)
    return linear.requires_grad_(False)


def _right(linear: nn.Linear, features: Features, y: Labels) -> float:
    with torch.no_grad():
        return float((linear(torch.from_numpy(features)).argmax(1).numpy() == y).mean())


def _stored(setting: Setting, n_classes: int, n_features: int, classes: npt.NDArray[np.int64]) -> nn.Linear | None:
    """The last layer in the file of the weights."""
    path = Path(setting.weights or "")
    if setting.weights is None or not path.is_file():
        return None
    tensors = _tensors(path)
    for name in _NAMES:
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        if weight is not None and bias is not None and tuple(weight.shape) == (n_classes, n_features):
            linear = nn.Linear(n_features, len(classes))
            rows = torch.from_numpy(classes)
            linear.load_state_dict({"weight": weight[rows].float(), "bias": bias[rows].float()})
            return linear.requires_grad_(False)
    return None


def _tensors(path: Path) -> Mapping[str, Tensor]:
    """The state dict; the network has been made of it already, so it can be read."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    stored = stored.get("state_dict", stored)
    return {key.removeprefix("module."): value for key, value in stored.items()}
