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
