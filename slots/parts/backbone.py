"""What the choice of parts asks of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from slots.errors import UsageError


@runtime_checkable
class PartsBackbone(Protocol):
    """A network whose features are the largest responses of parts in cells, part by part; `backbones.parts` is one."""

    cells: tuple[int, int]
    """Rows and columns of cells."""
    window: tuple[int, int]
    """Height and width of a cell, in places of `locations`."""
    stride: tuple[int, int]
    """Places from one cell to the next."""
    vectors: Tensor
    """Unit vectors of the parts, shape (part, channels)."""
    sources: Tensor
    """Training example, row and column of each part's patch; -1 where it is none."""
    patches: Tensor
    """The patches, shape (part, channel, height, width), as the network saw them."""

    def locations(self, x: Tensor, /) -> Tensor:
        """Vectors of all patches, shape (batch, channels, row, column)."""

    def field(self, place: tuple[int, int], /) -> Any:
        """Pixels of a patch: ``top``, ``left``, ``bottom``, ``right``."""

    def found_at(self, x: Tensor, features: Sequence[int], /) -> Tensor:
        """Where the parts of features respond most within their cells, shape (batch, feature, 2)."""

    def take_parts(self, vectors: Tensor, sources: Tensor, patches: Tensor, /, *, threshold: float) -> None:
        """Use these patches as parts, which respond from a cosine of ``threshold`` on."""


@runtime_checkable
class BagBackbone(Protocol):
    """A network of parts that can learn as a bag of patches before; `backbones.parts` is one."""

    @property
    def n_channels(self) -> int:
        """Channels, which become parts."""

    def bag(self) -> Any:
        """The layers below the channels as a module: ``bag(x)`` are features, ``bag.maps(x)`` those of each place."""

    def begin_channels_(self, directions: Tensor, /) -> None:
        """Let the channels begin as such directions."""


def check_bag_backbone(backbone: object) -> BagBackbone:
    """The backbone, if it can learn as a bag of patches.

    Raises
    ------
    UsageError
        If it cannot.
    """
    if not isinstance(backbone, BagBackbone):
        raise UsageError(
            f"`bag` must be 0 for {type(backbone).__name__}, which has no bag of patches. Give it the methods "
            "`bag` and `begin_channels_`, or leave `bag` out."
        )
    return backbone


def check_parts_backbone(backbone: nn.Module | None) -> PartsBackbone:
    """The backbone, if it has parts.

    Raises
    ------
    UsageError
        If it has none.
    """
    if not isinstance(backbone, PartsBackbone):
        raise UsageError(
            f"`backbone` must have parts, got {type(backbone).__name__}. "
            "Pass backbones.build('parts', input_shape=...)."
        )
    return backbone
