"""What a novelty detector may learn from and what it is tried on: familiar halves, far sets, held-out classes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from protocols.data.dataset import Dataset
from protocols.harness.encoders import Encoder, Features, Labels, make_encoder
from protocols.harness.foreign import foreign_inputs
from protocols.harness.linear_probe import linear_classifier
from protocols.harness.protocol import Setting
from slots.errors import UsageError
from slots.progress import Progress
from slots.shapes import RawInputs
from slots.storage.atomic import write_file


@dataclass(frozen=True)
class Sets:
    """Familiar and foreign feature rows of one split.

    Parameters
    ----------
    train : float32 array of shape (example, feature)
        What detectors learn from.
    y_train : int64 array of shape (example,)
        From 0 to the number of known classes - 1.
    calibration, test : float32 arrays
        Two halves of the known classes' test examples, which neither the network nor a detector saw.
    foreign : dict of str to float32 array
        Sets that are measured.
    linear : nn.Linear
        Classifier on these features (`protocols.harness.linear_probe`).
    accuracy : float
        Share of ``test`` that it names right.
    known : tuple of str
        Names of the known classes.
    """

    train: Features
    y_train: Labels
    calibration: Features
    test: Features
    foreign: dict[str, Features]
    linear: nn.Linear
    accuracy: float
    known: tuple[str, ...]

    def logits(self, features: Features) -> Features:
        """Outputs of `linear`, float32 of shape (example, class)."""
        weight, bias = (it.detach().cpu().numpy() for it in (self.linear.weight, self.linear.bias))
        found: Features = features @ weight.T + bias
        return found


def far_sets(setting: Setting, seed: int, *, n_train: int, n_foreign: int, progress: Progress) -> Sets:
    """Far out-of-distribution: all classes are known; whole other data sets are foreign, and noise.

    Parameters
    ----------
    setting : Setting
        Data, backbone, device and where other data sets lie.
    seed : int
        Draws the training examples, the foreign ones and the noise.
    n_train : int
        Most training examples that a detector sees; 0 for all.
    n_foreign : int
        Most examples of a foreign set.
    progress : callable
        ``progress(step, share)`` of the network's training and the features.
    """
    data, rng = _labelled(setting.data), np.random.default_rng(seed)
    raw = foreign_inputs(data, setting.data_dir, n_foreign, rng)
    classes = np.unique(data.y_train)
    return _embed(setting, data, raw, classes=classes, rng=rng, seed=seed, n_train=n_train, progress=progress)


def near_sets(setting: Setting, seed: int, *, share: float, n_train: int, progress: Progress) -> Sets:
    """Near out-of-distribution: some classes are known to network and detectors, test examples of others foreign.

    Parameters
    ----------
    setting : Setting
        Data, backbone and device.
    seed : int
        Draws the classes.
    share : float
        Share of the classes held out; at least one, and at least two stay.
    n_train : int
        As in `far_sets`.
    progress : callable
        ``progress(step, share)`` of the network's training and the features.

    Raises
    ------
    UsageError
        If there are fewer than three classes.
    """
    data, rng = _labelled(setting.data), np.random.default_rng(seed)
    classes = np.unique(data.y_train)
    if len(classes) < 3:
        raise UsageError(f"`data` must have at least 3 classes to hold some out, got {len(classes)}. Take other data.")
    out = min(max(1, round(share * len(classes))), len(classes) - 2)
    known = np.sort(rng.permutation(classes)[out:])
    train, test = np.isin(data.y_train, known), np.isin(data.y_test, known)
    raw: dict[str, RawInputs] = {"held-out classes": data.x_test[~test]}
    kept = replace(
        data,
        x_train=data.x_train[train],
        y_train=np.searchsorted(known, data.y_train[train]),
        x_test=data.x_test[test],
        y_test=np.searchsorted(known, data.y_test[test]),
        class_names=tuple(data.class_names[c] for c in known),
    )
    return _embed(setting, kept, raw, classes=known, rng=rng, seed=seed, n_train=n_train, progress=progress)


def _labelled(data: Dataset) -> Dataset:
    """The data without what has no label."""
    train, test = data.y_train >= 0, data.y_test >= 0
    if not train.any() or test.sum() < 40:
        raise UsageError(
            f"`data` must have a labelled training part and at least 40 labelled test examples, got {train.sum()} and "
            f"{test.sum()}. Half of the test examples calibrate, half measure."
        )
    if train.all() and test.all():
        return data
    return replace(
        data,
        x_train=data.x_train[train],
        y_train=data.y_train[train],
        x_test=data.x_test[test],
        y_test=data.y_test[test],
    )


def _embed(
    setting: Setting,
    data: Dataset,
    raw: dict[str, RawInputs],
    *,
    classes: Labels,
    rng: np.random.Generator,
    seed: int,
    n_train: int,
    progress: Progress,
) -> Sets:
    """Train the network on the whole training part, and run what is needed through it."""
    encoder = make_encoder(setting, data.x_train, data.y_train, seed, progress)
    used = np.sort(rng.permutation(len(data.x_train))[: n_train or None])
    calibrating, testing = np.array_split(rng.permutation(len(data.x_test)), 2)

    def features(x: RawInputs) -> Features:
        progress("features", 0.0)
        return _features_of(encoder, x, setting)

    train, tested = features(data.x_train[used]), features(data.x_test[testing])
    progress("last layer", 0.0)
    linear = linear_classifier(encoder, setting, train, data.y_train[used], classes=classes, seed=seed)
    sets = Sets(
        train=train,
        y_train=data.y_train[used],
        calibration=features(data.x_test[calibrating]),
        test=tested,
        foreign={name: features(x) for name, x in raw.items()},
        linear=linear,
        accuracy=0.0,
        known=data.class_names,
    )
    return replace(sets, accuracy=float((sets.logits(tested).argmax(1) == data.y_test[testing]).mean()))


def _features_of(encoder: Encoder, x: RawInputs, setting: Setting) -> Features:
    """Features of raw inputs; those of a frozen network are kept in the cache, since they cost more than all else."""
    if setting.cache is None or setting.weights is None:
        return encoder(x)
    sha = hashlib.sha256(f"1 {setting.backbone} {x.shape} {x.dtype}".encode())
    for array in (np.asarray(x), *(it.detach().cpu().numpy() for it in encoder.module.state_dict().values())):
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    file = setting.cache / f"features-{sha.hexdigest()[:16]}.npy"
    if file.exists():
        kept: Features = np.load(file, allow_pickle=False)
        return kept
    found, buffer = encoder(x), io.BytesIO()
    np.save(buffer, found)
    write_file(file, buffer.getvalue())
    return found
