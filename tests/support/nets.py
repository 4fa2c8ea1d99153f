"""Small data and a small network, real but quick."""

import numpy as np
import torch
from torch import nn


def blobs(n=300, classes=4, feature=8, spread=0.35, seed=0):
    """Gaussian clusters around random directions, scaled at random: float32 rows and labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, feature))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    y = rng.integers(0, classes, n)
    x = (centres[y] + spread * rng.normal(size=(n, feature)) / np.sqrt(feature)) * rng.uniform(0.5, 5, (n, 1))
    return x.astype(np.float32), y


def strokes(n=120, seed=0):
    """8 x 8 images of a horizontal or a vertical bar somewhere, with noise: uint8 images and labels."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 60, (n, 8, 8)), rng.integers(0, 2, n)
    for image, label, place in zip(x, y, rng.integers(1, 7, n), strict=True):
        if label:
            image[:, place] = 255
        else:
            image[place] = 255
    return x.astype(np.uint8), y


class TinyNet(nn.Module):
    """One convolution with batch normalisation, enough to need training mode and running statistics."""

    name = "tiny"

    def __init__(self, input_shape=(1, 8, 8), width=6):
        super().__init__()
        self.options = {"width": width}
        self.convolution = nn.Conv2d(input_shape[0], width, 3, bias=False)
        self.normalisation = nn.BatchNorm2d(width)
        self.constrained = 0
        self.prepared = []
        self.heard = []

    def forward(self, x):
        return self.normalisation(self.convolution(x)).relu().amax(dim=(2, 3))

    def prepare_(self, x):
        self.prepared.append(x)

    def schedule_(self, progress):
        self.heard.append(progress)

    def constrain_(self):
        self.constrained += 1


def build_tiny(name, *, input_shape, **options):
    """A builder like `backbones.build` that knows one network."""
    assert name == "tiny"
    return TinyNet(input_shape, **options)


def same_state(a, b):
    """Whether two modules hold the same bits."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
