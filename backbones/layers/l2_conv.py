"""`L2Conv2d`: how near each patch is to each filter; a filter is then a patch itself and can be looked at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_count
from backbones.precision import full_precision


class L2Conv2d(nn.Module):
    """``y_k = -|patch - w_k|^2``, at most 0 and 0 where the patch is the filter.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        (count or pixels, >= 1).
    stride, padding : int
        As in `torch.nn.Conv2d` (pixels); what lies outside of the picture counts as 0.

    Notes
    -----
    ``-|p - w|^2 = 2 <p, w> - |p|^2 - |w|^2``: a convolution, a box sum of squares and a constant, always in float32 or
    better, since large terms cancel. Filters want about ten times the learning rate of others. There is no Gradient
    Representation Property: the picture of a unit is ``weight`` itself. Start from `learn_`: random filters of the
    usual size are all equally far from everything.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size, "stride": stride}
        for name, value in sizes.items():
            check_count(name, value)
        check_count("padding", padding, least=0)
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch filter row column"]:
        """Negative squared distances."""
        with full_precision(x) as wide:
            weight = self.weight.to(wide.dtype)
            inner = functional.conv2d(wide, weight, stride=self.stride, padding=self.padding)
            box = torch.ones_like(weight[:1, :1])
            energy = wide.square().sum(1, keepdim=True)
            squares = functional.conv2d(energy, box, stride=self.stride, padding=self.padding)
            near: Tensor = 2 * inner - squares - weight.square().sum((1, 2, 3)).view(1, -1, 1, 1)
        return near

    @torch.no_grad()
    def learn_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take random patches of some training inputs as filters; see `random_patches`."""
        self.weight.copy_(random_patches(x, count=len(self.weight), size=self.weight.shape[2]))


def random_patches(
    x: Float[Tensor, "batch channel height width"], *, count: int, size: int
) -> Float[Tensor, "patch channel row column"]:
    """Square patches from random places of random inputs, drawn from torch's global generator.

    Parameters
    ----------
    x : float tensor of shape (batch, channel, height, width)
        Inputs, none smaller than a patch.
    count : int
        Number of patches (>= 1). An input gives a second patch only when all have given one.
    size : int
        Side of a patch (pixels, >= 1).

    Returns
    -------
    float tensor of shape (count, channel, size, size)

    Raises
    ------
    ValueError
        If there is no input, or inputs are smaller than a patch.
    """
    if x.ndim != 4 or len(x) == 0 or min(x.shape[2:]) < size:
        raise ValueError(
            f"`x` must be at least one input of {size} x {size} pixels or more, got shape {tuple(x.shape)}. "
            "Pass training inputs."
        )
    rounds = -(-count // len(x))
    sources = torch.cat([torch.randperm(len(x)) for _ in range(rounds)])[:count]
    tops = torch.randint(0, x.shape[2] - size + 1, (count,))
    lefts = torch.randint(0, x.shape[3] - size + 1, (count,))
    places = zip(sources.tolist(), tops.tolist(), lefts.tolist(), strict=True)
    return torch.stack([x[i, :, top : top + size, left : left + size] for i, top, left in places])
