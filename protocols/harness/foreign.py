"""Inputs that are foreign to a data set: other data sets in its shape, what is left of it when it is broken, noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from protocols.data.arrays import load_archive
from protocols.data.dataset import Dataset
from protocols.data.loading import default_data_dir
from slots.shapes import RawInputs

Features = npt.NDArray[np.float32]

NAMED = ("mnist", "fashion_mnist", "notmnist", "cifar10")
"""Sets that may be foreign to another one, where they lie in the data folder."""

_ALIKE = {"digits": ("digits", "mnist"), "mnist": ("mnist", "digits")}  # handwritten digits are not foreign to digits
_COLOUR = ("cifar10",)  # never foreign to grey images: their backbones would not see them as they are


def is_noise(name: str) -> bool:
    """Whether a foreign set is noise, which counts in no mean."""
    return name.endswith("noise")


def foreign_inputs(data: Dataset, data_dir: Path | None, n: int, rng: np.random.Generator) -> dict[str, RawInputs]:
    """Raw inputs that are none of the data's, in its shape.

    Parameters
    ----------
    data : Dataset
        Known data; its kind and shape decide what can be foreign.
    data_dir : Path, optional
        Where named sets lie. Default: as `protocols.data.load_data`.
    n : int
        Most of each kind.
    rng : numpy Generator
        Draws the examples and the noise.

    Returns
    -------
    dict
        For images: other named sets, resized; without any, the test images inverted, and with their pixels shuffled.
        For feature rows: test rows each of whose numbers comes from another row. And two kinds of noise.
    """
    some = data.x_test[rng.permutation(len(data.x_test))[:n]]
    if data.kind == "features":
        return _other_rows(data, some, rng)
    found = _named_sets(data, default_data_dir() if data_dir is None else data_dir, n)
    if not found:
        pixels = some.reshape(len(some), -1, some.shape[3])
        shuffled = np.stack([rng.permutation(image) for image in pixels]).reshape(some.shape)
        found = {"inverted": 255 - some, "shuffled pixels": shuffled}
    mean, std = float(data.x_train.mean()), float(data.x_train.std())
    gauss = np.clip(rng.normal(mean, std, some.shape).round(), 0, 255).astype(np.uint8)
    uniform = rng.integers(0, 256, some.shape, dtype=np.uint8)
    return {**found, "gaussian noise": gauss, "uniform noise": uniform}


def resized(images: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Images in another (height, width, channel): bilinear, smoothed where they shrink; grey ones fill all channels."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if tuple(x.shape[2:]) != shape[:2]:
        x = functional.interpolate(x, size=shape[:2], mode="bilinear", align_corners=False, antialias=True)
    x = x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return x.expand(-1, -1, -1, shape[2]).contiguous().numpy()


def _other_rows(data: Dataset, some: Features, rng: np.random.Generator) -> dict[str, RawInputs]:
    """Feature rows that are none of the data's."""
    shuffled = np.stack([rng.permutation(column) for column in some.T], axis=1)
    gauss = rng.normal(data.x_train.mean(0), data.x_train.std(0), some.shape).astype(np.float32)
    uniform = rng.uniform(data.x_train.min(0), data.x_train.max(0), some.shape).astype(np.float32)
    return {"shuffled columns": shuffled, "gaussian noise": gauss, "uniform noise": uniform}


def _named_sets(data: Dataset, folder: Path, n: int) -> dict[str, RawInputs]:
    """The first test images of each named set that lies in the folder and is foreign to the data."""
    found: dict[str, RawInputs] = {}
    for name in NAMED:
        path = folder / f"{name}.npz"
        if name in _ALIKE.get(data.name, (data.name,)) or (name in _COLOUR and data.shape[2] == 1) or not path.exists():
            continue
        other = load_archive(path, name=name)
        found[name] = resized(other.x_test[:n] if len(other.x_test) else other.x_train[:n], data.shape)
    return found
