"""`Residual`: what a branch makes of its input is added to the input."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn


class Residual(nn.Module):
    """``x + branch(x)``: a sum of maps that scale with the input scales with it too.

    Parameters
    ----------
    branch : iterable of nn.Module
        Layers, one after the other, that keep the shape.
    """

    def __init__(self, branch: Iterable[nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Add both ways."""
        added: Tensor = x + self.branch(x)
        return added
