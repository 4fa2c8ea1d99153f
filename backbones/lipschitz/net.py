"""`lipschitz`: orthogonal convolutions and MaxMin without biases, so that certificates hold behind a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_count
from backbones.lipschitz.layers import ChannelShift, Fold, MaxMin, OrthogonalMap

_ROUNDING = 1e-9  # added to the constant; far above float64's error of a largest singular value


class Lipschitz(AbstractBackbone):
    """Stages of orthogonal convolutions and MaxMin, and an orthogonal map to the features.

    No change of an input moves its features by more than `lipschitz` times its Euclidean length, which is 1 up to
    rounding: slots behind it have certificates (`slots.certify`). It has no biases and scales with its input, so its
    gradients explain the whole value, as those of every backbone here with the Gradient Representation Property.

    Parameters
    ----------
    input_shape : (channel, height, width)
        Of one input; each stage halves height and width, rounding up.
    widths : list of int, default [32, 64]
        Channels of each stage, even and >= 8; 1 to 4 stages.
    depth : int, default 2
        Convolutions a stage, >= 1, each 3 places wide.
    hidden : int, default 128
        Features, >= 1; fewer where the last stage holds fewer numbers.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> import torch
    >>> net = Lipschitz((1, 28, 28))
    >>> net(torch.rand(2, 1, 28, 28)).shape, abs(net.lipschitz - 1) < 1e-4
    (torch.Size([2, 128]), True)
    """

    name: ClassVar[str] = "lipschitz"

    def __init__(
        self, input_shape: tuple[int, int, int], *, widths: Sequence[int] = (32, 64), depth: int = 2, hidden: int = 128
    ) -> None:
        channels, height, columns = check_input_shape(input_shape)
        sizes = list(widths) if isinstance(widths, (list, tuple)) else []
        if not 1 <= len(sizes) <= 4 or any(type(it) is not int or it < 8 or it % 2 for it in sizes):
            raise ValueError(
                f"`widths` must be a list of 1 to 4 even integers of at least 8, got {widths!r}. MaxMin sorts pairs of "
                "channels; try [32, 64]."
            )
        check_count("depth", depth)
        check_count("hidden", hidden)
        stages: list[nn.Module] = []
        before = channels
        for width in sizes:
            height, columns = -(-height // 2), -(-columns // 2)
            stages += [Fold(), OrthogonalMap(4 * before, width), MaxMin()]
            for _ in range(depth):
                stages += [OrthogonalMap(width, width), ChannelShift(), OrthogonalMap(width, width), MaxMin()]
            before = width
        held = before * height * columns
        options = {"widths": sizes, "depth": depth, "hidden": hidden}
        shape = channels, input_shape[1], input_shape[2]
        super().__init__(shape, feature_dim=min(hidden, held), options=options, claims_grp=True)
        self.layers = nn.Sequential(*stages, nn.Flatten(), OrthogonalMap(held, self.feature_dim))

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """What the last map leaves."""
        out: Tensor = self.layers(x)
        return out

    @property
    def lipschitz(self) -> float:
        """Largest ratio of a change of the features to the change of the input behind it, both Euclidean, at most.

        The product of the largest singular values of all maps as they are stored, in float64. Between them nothing
        makes a difference longer: folding and flattening only rearrange, shifts forget, and MaxMin sorts.
        """
        norms = (layer.norm() for layer in self.layers if isinstance(layer, OrthogonalMap))
        return math.prod(norms) + _ROUNDING
