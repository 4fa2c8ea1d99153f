"""What the `adversarial` protocol attacks: one network, slots on its features and on pixels, and the test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from protocols.harness.encoders import Encoder, Features, Labels, make_encoder
from protocols.harness.linear_probe import linear_classifier
from protocols.harness.protocol import Setting
from slots.closing.config import ClosingConfig
from slots.errors import UsageError
from slots.head.hashing import IncrementalNeuralHashing
from slots.novelty.detector import NoveltyDetector
from slots.progress import Progress
from slots.training.config import TrainConfig
from slots.training.fitting import fit

_PER_CLASS = 50  # slots a class, at most


@dataclass(frozen=True)
class AttackTargets:
    """Images under attack and the models attacked, fitted on the same training examples; nothing learns any more.

    Parameters
    ----------
    images, labels : tensors of shape (example, channel, height, width) and (example,)
        Test images in [0, 1] that are attacked.
    reference : float tensor of shape (example, channel, height, width)
        Other test images, which set thresholds.
    features, pixels : callable
        Images to feature rows, differentiable.
    linear : nn.Linear
        The network's own last layer, or a linear probe of its features.
    head, pixel_head : IncrementalNeuralHashing
        Slots on features and on pixels; the same where features are pixels.
    novelty : NoveltyDetector
        On features.
    train_features, train_pixels : float32 arrays of shape (example, feature)
        What the heads were fitted on: features and pixels of the same examples.
    y_train : int64 array of shape (example,)
        From 0 to the number of classes - 1.
    network : str
        What the features are.
    seed : int
        Of the noise, the starts of the attacks and k-means.
    """

    images: Tensor
    labels: Tensor
    reference: Tensor
    features: Callable[[Tensor], Tensor]
    pixels: Callable[[Tensor], Tensor]
    linear: nn.Linear
    head: IncrementalNeuralHashing
    pixel_head: IncrementalNeuralHashing
    novelty: NoveltyDetector
    train_features: Features
    train_pixels: Features
    y_train: Labels
    network: str
    seed: int

    @property
    def on_pixels(self) -> bool:
        """Whether the features are the pixels."""
        return self.head is self.pixel_head

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.y_train.max()) + 1

    def few(self, n: int) -> AttackTargets:
        """The same with fewer images."""
        return replace(self, images=self.images[:n], labels=self.labels[:n])


def prepare(
    setting: Setting, seed: int, *, examples: int, train: int, slots: int, epochs: int, progress: Progress
) -> AttackTargets:
    """Train the network, the heads and the detector that will be attacked.

    Parameters
    ----------
    setting : Setting
        Data, backbone and device.
    seed : int
        Draws the training examples of the heads, and the test images.
    examples : int
        Images to attack, and as many for thresholds; fewer where there are not enough.
    train : int
        Training examples of the heads; the network learns from all.
    slots : int
        Most slots of a head, and vectors of the detector.
    epochs : int
        Of a head.
    progress : callable
        ``progress(step, share)`` of the trainings.

    Raises
    ------
    UsageError
        If the data is no images, or has too few labels.

    Notes
    -----
    Attacks run on the CPU, wherever the network was trained.
    """
    data, rng = setting.data, np.random.default_rng(seed)
    known, tested = data.y_train >= 0, data.y_test >= 0
    if data.kind != "images" or not known.any() or tested.sum() < 20:
        raise UsageError(
            f"`data` must be labelled images with at least 20 to test on, got {data.kind} with {int(tested.sum())}. "
            "Attacks change pixels."
        )
    classes = np.unique(data.y_train[known])
    tested &= np.isin(data.y_test, classes)
    x, y = data.x_train[known], np.searchsorted(classes, data.y_train[known])
    encoder = make_encoder(setting, x, y, seed, progress)
    encoder.module.to("cpu")
    encoder.device = "cpu"
    used = np.sort(rng.permutation(len(x))[:train])
    order = rng.permutation(np.flatnonzero(tested))
    n = min(examples, len(order) // 2)
    chosen, others = order[:n], order[n : 2 * n]
    features, rows = encoder(x[used]), _flat(x[used])
    linear = linear_classifier(encoder, setting, features, y[used], classes=classes, seed=seed).to("cpu")
    head = _fit(features, y[used], slots=slots, epochs=epochs, seed=seed, progress=progress)
    on_pixels = setting.backbone == "pixels" and setting.model is None
    pixel_head = head if on_pixels else _fit(rows, y[used], slots=slots, epochs=epochs, seed=seed, progress=progress)
    return AttackTargets(
        images=_scaled(data.x_test[chosen]),
        labels=torch.from_numpy(np.searchsorted(classes, data.y_test[chosen])),
        reference=_scaled(data.x_test[others]),
        features=_network(encoder),
        pixels=lambda images: images.flatten(1),
        linear=linear.requires_grad_(False),
        head=head,
        pixel_head=pixel_head,
        novelty=NoveltyDetector(slots, seed=seed).fit(features),
        train_features=features,
        train_pixels=rows,
        y_train=y[used],
        network=f"Features: {encoder.name}.",
        seed=seed,
    )


def _network(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """From images in [0, 1] to features, the preprocessing's scaling included."""
    mean, std = encoder.preprocessing.mean, encoder.preprocessing.std
    module = encoder.module.eval().requires_grad_(False)

    def features(images: Tensor) -> Tensor:
        inputs = images
        if mean:
            inputs = (images - images.new_tensor(mean).view(1, -1, 1, 1)) / images.new_tensor(std).view(1, -1, 1, 1)
        found: Tensor = module(inputs)
        return found.flatten(1).float()

    return features


def _fit(
    rows: Features, y: Labels, *, slots: int, epochs: int, seed: int, progress: Progress
) -> IncrementalNeuralHashing:
    """A slot head on rows that stay as they are."""
    n_classes = int(y.max()) + 1
    per_class = max(1, min(_PER_CLASS, slots // n_classes, len(y) // (4 * n_classes)))
    # The caps as training sets them are attacked, as in the recorded results: vouching would hide some from the attack.
    closing = ClosingConfig(vouch=None)
    config = TrainConfig(epochs=epochs, slots_per_class=per_class, closing=closing, seed=seed)
    model, _ = fit(rows, y, config=config, progress=progress)
    model.head.requires_grad_(False)
    return model.head


def _scaled(x: Features) -> Tensor:
    """Images in [0, 1], channels first."""
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float().div(255).contiguous()


def _flat(x: Features) -> Features:
    """Pixels in the order that a flattened image tensor has them."""
    found: Features = _scaled(x).flatten(1).numpy()
    return found
