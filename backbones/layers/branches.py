"""`Parallel` branches beside each other, and `NegativeBranch`: the same layer on the negative picture as well."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_choice

JOINS: Final = ("concat", "sum", "max")


class Parallel(nn.Module):
    """Several layers look at the same input.

    Parameters
    ----------
    *branches : nn.Module
        At least one; their maps have the same height and width, and for ``"sum"`` and ``"max"`` the same channels.
    join : {"concat", "sum", "max"}
        All channels one after the other, or the sum, or the largest.

    Notes
    -----
    Positively homogeneous if all branches are.
    """

    def __init__(self, *branches: nn.Module, join: str = "concat") -> None:
        super().__init__()
        if not branches:
            raise ValueError("`branches` must hold at least one layer, got none. Pass layers.")
        check_choice("join", join, JOINS)
        self.branches = nn.ModuleList(branches)
        self.join = join

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature row column"]:
        """Join what the branches make of the input."""
        maps = [branch(x) for branch in self.branches]
        wrong = next((m for m in maps if self._differs(m, maps[0])), None)
        if wrong is not None:
            raise ValueError(
                f"`branches` must give maps of one shape, got {tuple(maps[0].shape)} and {tuple(wrong.shape)}. "
                "Change their padding, stride or channels."
            )
        if self.join == "concat":
            return torch.cat(maps, 1)
        stacked = torch.stack(maps)
        return stacked.sum(0) if self.join == "sum" else stacked.amax(0)

    def _differs(self, maps: Tensor, first: Tensor) -> bool:
        start = 2 if self.join == "concat" else 1
        return maps.shape[start:] != first.shape[start:]


class NegativeBranch(nn.Module):
    """``[layer(x), layer(-x)]``: each filter also looks for its negative.

    A rectifier after a signed filter forgets what was negative. Layers with weights of at least 0 cannot fetch it back
    by a negative weight, so they get it as a channel of its own, as in a concatenated ReLU.

    Parameters
    ----------
    layer : nn.Module
        Called twice; twice its channels come out.

    Notes
    -----
    Positively homogeneous if the layer is. Doubles the channels without further weights. The definition is ours.

    References
    ----------
    Shang, Sohn, Almeida, Lee: Understanding and Improving Convolutional Neural Networks via Concatenated Rectified
    Linear Units. ICML 2016.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature row column"]:
        """Both halves, the positive one first."""
        return torch.cat([self.layer(x), self.layer(-x)], 1)
