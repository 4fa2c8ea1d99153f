"""`gumbel`: templates of arranged parts that hear one part at each place."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count
from backbones.layers.gumbel_conv import GumbelConv2d, check_top
from backbones.nets.directional import ACTIVATIONS, gated_norm
from backbones.nets.sizes import fitting, sides_after

_KERNEL, _ROOM, _GRID, _WINDOW = 10, 5, 10, 3


class Gumbel(AbstractBackbone):
    """Like `directional`, with a second layer that chooses: a template is one part here, another part there.

    Convolution, max pooling on a coarse grid, batch normalisation and GELU; `GumbelConv2d`, largest value over all
    places. The head's softmax pooling over each class's slots stands above.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    parts : int
        Filters of the first layer (count, >= 1).
    units : int
        Filters of the second layer, and features (count, >= 1).
    kernel : int, optional
        Side of a part (pixels, >= 1). Default: 10, or half of the shorter side, rounded up, of smaller inputs.
    room : int
        Side of the max pooling (places of the first maps, odd, >= 1): how far a part may move.
    grid : int, optional
        Step of the max pooling (places of the first maps, >= 1). Default: 10, less where fewer than 3 x 3 places would
        be left.
    window : int, optional
        Side of the second layer's filters (places of the pooled maps, >= 1). Default: 3, or what is there.
    top : int
        Parts that a template hears at each place (count, 1 to ``parts``).
    activation : {"gelu", "silu"}
        ``"gelu"``: GELU of the batch normalisation. ``"silu"``: `SiLUBatchNorm`, whose value has no offset.

    Notes
    -----
    Call `schedule_` before each training step: the choice is drawn while training, at a temperature that falls.
    Only ``activation="silu"`` claims the Gradient Representation Property (in evaluation, as everywhere).
    """

    name: ClassVar[str] = "gumbel"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        parts: int = 120,
        units: int = 60,
        kernel: int | None = None,
        room: int = _ROOM,
        grid: int | None = None,
        window: int | None = None,
        top: int = 1,
        activation: str = "gelu",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        check_count("parts", parts)
        check_count("units", units)
        check_top(top, parts)
        check_choice("activation", activation, ACTIVATIONS)
        kernel = fitting("kernel", kernel, min(_KERNEL, -(-min(height, width) // 2)), (height, width))
        sides = sides_after((height, width), kernel)
        check_room(room)
        grid = _grid(min(sides)) if grid is None else grid
        check_count("grid", grid)
        window = fitting("window", window, _WINDOW, sides_after(sides, room, stride=grid, padding=room // 2))
        sizes = {"kernel": kernel, "room": room, "grid": grid, "window": window}
        options = {"parts": parts, "units": units, **sizes, "top": top, "activation": activation}
        super().__init__(input_shape, feature_dim=units, options=options, claims_grp=activation == "silu")
        self.parts = nn.Conv2d(channels, parts, kernel, bias=False)
        self.room = nn.MaxPool2d(room, stride=grid, padding=room // 2)
        self.activation = gated_norm(activation, parts)
        self.templates = GumbelConv2d(parts, units, window, top=top)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Largest value of each template over all places."""
        maps: Tensor = self.templates(self.activation(self.room(self.parts(x))))
        return maps.amax((2, 3))

    def schedule_(self, progress: float) -> None:
        """Let the temperature of the choice fall with the progress of the training."""
        self.templates.anneal_(progress)


def check_room(room: object) -> None:
    """Raise a ValueError unless the value is an odd positive int: then the window has a middle."""
    if isinstance(room, bool) or not isinstance(room, int) or room < 1 or room % 2 == 0:
        raise ValueError(f"`room` must be an odd positive integer, got {room!r}. 5 is usual.")


def _grid(side: int) -> int:
    """The usual step, or the largest with which three windows begin inside."""
    return max(1, min(_GRID, (side - 1) // (_WINDOW - 1)))
