"""Convolutions that see each filter in several views and take the view that fits best.

The views of a filter are linear in its weights, so the layers are positively homogeneous, ``f(x) = <grad f(x), x>``.
Inside a kernel, coordinates run from -1 to 1, from the middle of its first pixel to the middle of its last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_count

SIZES: Final = (3, 5, 7)
VIEWS: Final = 3
DIRECTIONS: Final = 8
_LIMIT: Final = 0.45  # two entries below a half keep the denominator of the perspective above 0


class ScaledConv2d(nn.Module):
    """A bias-free convolution whose filters are seen in several sizes.

    Parameters
    ----------
    in_channels, out_channels : int
        (count, >= 1).
    kernel_size : int
        Side of the filters as they are learned (pixels, >= 2).
    sizes : list of int
        Sides at which they are seen (pixels, odd, >= 3).
    stride : int
        (pixels, >= 1). Zeros are padded so that, with stride 1, the picture keeps its size.

    Notes
    -----
    Filters are resampled bilinearly and divided by their area, so that a flat patch answers the same at every size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        *,
        sizes: Sequence[int] = SIZES,
        stride: int = 1,
    ) -> None:
        super().__init__()
        check_count("kernel_size", kernel_size, least=2)
        if not sizes or any(isinstance(s, bool) or not isinstance(s, int) or s < 3 or s % 2 == 0 for s in sizes):
            raise ValueError(f"`sizes` must be odd integers of at least 3, got {sizes!r}. [3, 5, 7] is usual.")
        self.sizes, self.stride = tuple(sizes), stride
        self.weight = _filters(in_channels, out_channels, kernel_size, kernel_size, stride=stride)

    def views(self) -> list[Float[Tensor, "filter channel row column"]]:
        """The filters at each size."""
        before = self.weight.shape[2] ** 2
        return [
            functional.interpolate(self.weight, (size, size), mode="bilinear", align_corners=True) * (before / size**2)
            for size in self.sizes
        ]

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch filter row column"]:
        """The best fit of each filter over its views."""
        return _best(x, self.views(), self.stride)


class PerspectiveConv2d(nn.Module):
    """A bias-free convolution whose filters are seen under several perspectives, each with two learned entries.

    Parameters
    ----------
    in_channels, out_channels : int
        (count, >= 1).
    kernel_size : int
        Side of the filters (pixels, odd, >= 3).
    views : int
        Number of perspectives (count, >= 1), shared by all filters.
    stride : int
        (pixels, >= 1). Zeros are padded so that, with stride 1, the picture keeps its size.

    Attributes
    ----------
    entries : Parameter of shape (view, 2)
        The last row of the homography is ``(0.45 tanh(a), 0.45 tanh(b), 1)``.

    Notes
    -----
    The pixel at ``(u, v)`` of a view shows the filter at ``(u, v) / (1 + a u + b v)``, bilinearly, and 0 outside of it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 5, *, views: int = VIEWS, stride: int = 1
    ) -> None:
        super().__init__()
        check_odd(kernel_size)
        check_count("views", views)
        self.stride = stride
        self.weight = _filters(in_channels, out_channels, kernel_size, kernel_size, stride=stride)
        self.entries = nn.Parameter(0.5 * torch.randn(views, 2))

    def views(self) -> list[Float[Tensor, "filter channel row column"]]:
        """The filters under each perspective."""
        size = self.weight.shape[2]
        axis = torch.linspace(-1, 1, size, device=self.weight.device, dtype=self.weight.dtype)
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        found = []
        for a, b in _LIMIT * self.entries.tanh():
            depth = 1 + a * u + b * v
            grid = torch.stack([u / depth, v / depth], -1).expand(len(self.weight), -1, -1, -1)
            found.append(functional.grid_sample(self.weight, grid, padding_mode="zeros", align_corners=True))
        return found

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch filter row column"]:
        """The best fit of each filter over its views."""
        return _best(x, self.views(), self.stride)


class ProjectedConv2d(nn.Module):
    """A bias-free convolution whose filters are solids, seen from eight directions.

    Parameters
    ----------
    in_channels, out_channels : int
        (count, >= 1).
    kernel_size : int
        Side of the filters (pixels, odd, >= 3).
    depth : int, optional
        Layers of a solid (count, >= 1). Default: as many as a side has pixels.
    stride : int
        (pixels, >= 1). Zeros are padded so that, with stride 1, the picture keeps its size.

    Notes
    -----
    Direction ``m`` of 8 looks down at 45 degrees: the layer at height ``z`` in [-1, 1] is moved by
    ``z (cos, sin)(2 pi m / 8)`` in the kernel's coordinates, bilinearly, cut at the border; the layers are summed.
    Costs as much as eight convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 5, *, depth: int | None = None, stride: int = 1
    ) -> None:
        super().__init__()
        check_odd(kernel_size)
        depth = kernel_size if depth is None else depth
        check_count("depth", depth)
        self.stride = stride
        self.weight = _filters(in_channels, out_channels, kernel_size, kernel_size, depth, stride=stride)
        self.register_buffer("projections", _projections(kernel_size, depth), persistent=False)

    projections: Tensor

    def views(self) -> list[Float[Tensor, "filter channel row column"]]:
        """The shadows of the solids."""
        found = torch.einsum("mrcyxz,fiyxz->mfirc", self.projections.to(self.weight.dtype), self.weight)
        return list(found)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch filter row column"]:
        """The best fit of each filter over its views."""
        return _best(x, self.views(), self.stride)


def _projections(size: int, depth: int) -> Float[Tensor, "direction row column y x z"]:
    """Share of each voxel in each pixel of each shadow."""
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    heights = torch.linspace(-1, 1, depth, dtype=torch.float64) if depth > 1 else torch.zeros(1, dtype=torch.float64)
    step = 2 / (size - 1)
    angles = [2 * math.pi * m / DIRECTIONS for m in range(DIRECTIONS)]

    def along(shift: float) -> Float[Tensor, "pixel height source"]:
        """Bilinear share of each source pixel in each pixel, at each height."""
        wanted = axis[:, None, None] - shift * heights[None, :, None]
        return (1 - (wanted - axis).abs() / step).clamp_min(0)

    found = [torch.einsum("rzy,czx->rcyxz", along(math.sin(angle)), along(math.cos(angle))) for angle in angles]
    return torch.stack(found).float()


def _best(
    x: Float[Tensor, "batch channel height width"], views: list[Tensor], stride: int
) -> Float[Tensor, "batch filter row column"]:
    maps = [functional.conv2d(x, view, stride=stride, padding=view.shape[2] // 2) for view in views]
    return torch.stack(maps).amax(0)


def _filters(in_channels: int, out_channels: int, *sizes: int, stride: int) -> nn.Parameter:
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("stride", stride)):
        check_count(name, value)
    weight = torch.empty(out_channels, in_channels, *sizes)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return nn.Parameter(weight)


def check_odd(kernel_size: object) -> None:
    """Raise a ValueError unless the value is an odd int of at least 3."""
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"`kernel_size` must be an odd integer of at least 3, got {kernel_size!r}. 5 is usual.")
