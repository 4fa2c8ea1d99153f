"""The plain small convolutional network that the interpretable backbones are compared with."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_count


class Cnn(AbstractBackbone):
    """Two 3 x 3 convolutions with ReLU and max pooling, and one hidden layer: biases, no normalisation.

    Nothing about it is new or interpretable; it is the network of a textbook, whose features a user is likely to have.

    Parameters
    ----------
    input_shape : (channel, height, width)
        Of one input; both poolings by 2 round up, so any size will do.
    width : int, default 16
        Filters of the first convolution, >= 1; the second has twice as many.
    hidden : int, default 128
        Features, >= 1.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> import torch
    >>> Cnn((1, 28, 28))(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 128])
    """

    name: ClassVar[str] = "cnn"

    def __init__(self, input_shape: tuple[int, int, int], *, width: int = 16, hidden: int = 128) -> None:
        channels, height, columns = check_input_shape(input_shape)
        check_count("width", width)
        check_count("hidden", hidden)
        options = {"width": width, "hidden": hidden}
        super().__init__((channels, height, columns), feature_dim=hidden, options=options, claims_grp=False)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(2 * width * -(-height // 4) * -(-columns // 4), hidden),
            nn.ReLU(),
        )

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """The hidden layer after its ReLU."""
        out: Tensor = self.layers(x)
        return out
