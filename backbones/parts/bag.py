"""The layers below the channels of `parts` as a bag of patches: places do not count, only what is there."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.layers.whitening_stem import WhiteningStem


class BagOfPatches(nn.Module):
    """Mean over the places of what some layers say of each patch.

    Every patch has a gradient of every class in every step, where the largest responses of a few parts give one to the
    few patches that were found. A network learns much faster so, and sees no more than before: each place has its small
    field.

    Parameters
    ----------
    below : nn.Module
        Layers that make maps, shared with the network that they belong to.

    Notes
    -----
    Source: Brendel and Bethge (2019, BagNet).

    Examples
    --------
    >>> maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    >>> BagOfPatches(nn.Identity())(maps)
    tensor([[4.]])
    """

    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.below = below

    @torch.no_grad()
    def prepare_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take the filters of a whitening stem from training inputs."""
        for layer in self.below.modules():
            if isinstance(layer, WhiteningStem):
                layer.learn_(x)

    def maps(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch width row column"]:
        """What is said of each patch."""
        found: Tensor = self.below(x.contiguous(memory_format=torch.channels_last))
        return found

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch width"]:
        """Its mean."""
        return self.maps(x).mean((2, 3))
