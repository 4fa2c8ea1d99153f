"""Other worlds for the same classes: images turned, blurred, inverted or made smaller; rows turned and moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

Images = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


def turned(images: Images, degrees: float, *, scale: float = 1.0) -> Images:
    """Images turned about their middle and made smaller; black where nothing was.

    Parameters
    ----------
    images : uint8 array of shape (example, height, width, channel)
        Any size.
    degrees : float
        Counter-clockwise.
    scale : float, default 1.0
        Size of the picture in its frame, > 0.

    Returns
    -------
    uint8 array of the same shape
    """
    angle = np.deg2rad(degrees)
    height, width = images.shape[1:3]
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    matrix = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]], dtype=torch.float32)
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return _bytes(F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False))


def blurred(images: Images) -> Images:
    """Images averaged over squares of 3 x 3 pixels, twice where they are wide."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    for _ in range(1 if images.shape[2] < 20 else 2):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return _bytes(x)


def _bytes(x: torch.Tensor) -> Images:
    found: Images = x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return found


def moved(rows: Features, *, seed: int, degrees: float = 30.0, offset: float = 0.5) -> Features:
    """Rows turned in random planes of two features each, and moved.

    Parameters
    ----------
    rows : float32 array of shape (example, feature)
        Finite.
    seed : int
        Of planes and offset: equal seeds move equally.
    degrees : float, default 30.0
        Turn in each plane.
    offset : float, default 0.5
        Length of the move, in root mean squares of the rows' own deviation.

    Returns
    -------
    float32 array of the same shape
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows.shape[1])
    a, b = order[0::2][: rows.shape[1] // 2], order[1::2]
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    found = rows.copy()
    found[:, a], found[:, b] = cos * rows[:, a] - sin * rows[:, b], sin * rows[:, a] + cos * rows[:, b]
    direction = rng.standard_normal(rows.shape[1])
    spread = float(np.sqrt(rows.var(0).sum()))
    found += (offset * spread * direction / np.linalg.norm(direction)).astype(np.float32)
    return found


IMAGE_DOMAINS: Final[Mapping[str, Callable[[Images], Images]]] = {
    "turned": lambda images: turned(images, 40.0),
    "blurred": blurred,
    "inverted": lambda images: np.asarray(255 - images, np.uint8),
    "smaller": lambda images: turned(images, 0.0, scale=0.6),
}
"""Name to a change of images that leaves their class as it is."""
