"""`directional`: large parts with some wiggle room, and templates of where they lie relative to each other."""

from __future__ import annotations

from typing import ClassVar, Final

from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count
from backbones.layers.silu_batchnorm import SiLUBatchNorm
from backbones.nets.sizes import fitting, sides_after

ACTIVATIONS: Final = ("gelu", "silu")
_KERNEL, _ROOM, _WINDOW = 10, 3, 4


class Directional(AbstractBackbone):
    """Two layers: parts, each free to move by a pixel or two; and templates of arranged parts, found anywhere.

    Convolution, max pooling, batch normalisation and GELU; convolution, largest value over all places. The head's
    softmax pooling over each class's slots stands above.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    parts : int
        Filters of the first layer (count, >= 1).
    units : int
        Filters of the second layer, and features (count, >= 1).
    kernel : int, optional
        Side of a part (pixels, >= 1). Default: 10, or the shorter side of smaller inputs.
    stride : int
        Step of the parts (pixels, >= 1).
    room : int, optional
        Side and step of the max pooling (places of the first maps, >= 1): how far a part may move. Default: 3, or what
        is there.
    window : int, optional
        Side of the second layer's filters (places of the pooled maps, >= 1). Default: 4, or what is there.
    activation : {"gelu", "silu"}
        ``"gelu"``: GELU of the batch normalisation. ``"silu"``: `SiLUBatchNorm`, whose value has no offset.

    Notes
    -----
    Only ``activation="silu"`` claims the Gradient Representation Property. For inputs of 32 x 32 pixels the sizes are
    12, 4 and 1: there the second layer sees the whole picture, at one place.
    """

    name: ClassVar[str] = "directional"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        parts: int = 120,
        units: int = 120,
        kernel: int | None = None,
        stride: int = 2,
        room: int | None = None,
        window: int | None = None,
        activation: str = "gelu",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        for name, value in (("parts", parts), ("units", units), ("stride", stride)):
            check_count(name, value)
        check_choice("activation", activation, ACTIVATIONS)
        kernel = fitting("kernel", kernel, _KERNEL, (height, width))
        sides = sides_after((height, width), kernel, stride=stride)
        room = fitting("room", room, _ROOM, sides)
        window = fitting("window", window, _WINDOW, sides_after(sides, room, stride=room))
        sizes = {"kernel": kernel, "stride": stride, "room": room, "window": window}
        options = {"parts": parts, "units": units, **sizes, "activation": activation}
        super().__init__(input_shape, feature_dim=units, options=options, claims_grp=activation == "silu")
        self.parts = nn.Conv2d(channels, parts, kernel, stride=stride, bias=False)
        self.room = nn.MaxPool2d(room)
        self.activation = gated_norm(activation, parts)
        self.templates = nn.Conv2d(parts, units, window, bias=False)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Largest value of each template over all places."""
        maps: Tensor = self.templates(self.activation(self.room(self.parts(x))))
        return maps.amax((2, 3))


def gated_norm(activation: str, channels: int) -> nn.Module:
    """Batch normalisation and GELU, or the one without offset."""
    if activation == "silu":
        return SiLUBatchNorm(channels)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.GELU())
