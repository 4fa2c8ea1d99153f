"""`pixels`: the input itself, flattened. The head alone, and the control for every other backbone."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from backbones.base import AbstractBackbone, check_input_shape


class Pixels(AbstractBackbone):
    """Flatten each input; nothing to learn, no options.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    """

    name: ClassVar[str] = "pixels"
    keeps_inputs: ClassVar[bool] = True
    """Features are the inputs themselves, so that a radius around features is one around inputs."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        channels, height, width = check_input_shape(input_shape)
        super().__init__(input_shape, feature_dim=channels * height * width, options={}, claims_grp=True)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """The inputs as rows."""
        # `flatten(1)` of an empty batch keeps the length of a row, `reshape(len(x), -1)` would not know it.
        return x.flatten(1)
