"""The other domain: images that are turned, blurred or inverted; feature rows of another gain and offset."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import functional
from torchvision.transforms.functional import InterpolationMode

from slots.errors import UsageError
from slots.shapes import RawInputs

SHIFTS: Final = ("rotation", "blur", "inversion")
"""Of images."""

_ANGLE = 30.0  # degrees
_SPREAD = 0.5  # deviations of a feature's offset, and of the logarithm of its gain


def shifted(x: RawInputs, how: str, *, seed: int, like: RawInputs) -> RawInputs:
    """Inputs as they come from the other domain.

    Parameters
    ----------
    x : array
        Images, uint8 of shape (example, height, width, channel), or float32 feature rows.
    how : {"rotation", "blur", "inversion"}
        What happens to images: turned by 30 degrees, blurred by a tenth of their height, or light for dark.
    seed : int
        Of the gains and offsets of feature rows.
    like : array
        Inputs of the domain as it was: their deviations scale the offsets of feature rows.

    Returns
    -------
    array
        Of the same kind and shape.

    Raises
    ------
    UsageError
        If there is no such shift.
    """
    if how not in SHIFTS:
        raise UsageError(f"`shift` must be one of {', '.join(SHIFTS)}, got {how!r}. Leave it out for rotation.")
    if x.ndim != 4:
        rng = np.random.default_rng([seed, 7])
        gain = np.exp(rng.normal(0, _SPREAD, x.shape[1]))
        offset = rng.normal(0, _SPREAD, x.shape[1]) * np.asarray(like).std(0)
        return np.asarray(x * gain + offset, np.float32)
    if how == "inversion":
        return np.asarray(255 - x, np.uint8)
    images = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)
    if how == "rotation":
        images = functional.rotate(images, _ANGLE, interpolation=InterpolationMode.BILINEAR)
    else:
        sigma = 0.1 * images.shape[2]
        side = 2 * round(1.5 * sigma) + 1
        images = functional.gaussian_blur(images, [side, side], [sigma, sigma])
    found: npt.NDArray[np.uint8] = images.permute(0, 2, 3, 1).contiguous().numpy()
    return found
