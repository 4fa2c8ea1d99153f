"""Layers that keep lengths, or make them shorter, and scale with their input."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.precision import full_precision


class OrthogonalMap(nn.Module):
    """A matrix with orthonormal rows or columns, whichever are fewer: an isometry, or a projection and an isometry.

    Parameters
    ----------
    n_in, n_out : int
        Lengths of the vectors that go in and come out, >= 1.

    Notes
    -----
    Cayley's transform of a free matrix ``[U; V]`` with ``n = min(n_in, n_out)`` columns: ``A = U - U^T + V^T V``, ``Q =
    [(I + A)^-1 (I - A); -2 V (I + A)^-1]``, whose columns are orthonormal (Trockman and Kolter, "Orthogonalizing
    convolutional layers with the Cayley transform", ICLR 2021). No step of training leaves it, so nothing is projected.
    """

    fixed: Tensor | None

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.wide = n_in > n_out
        many, few = max(n_in, n_out), min(n_in, n_out)
        self.free = nn.Parameter(torch.randn(many, few) / math.sqrt(many))
        self.register_buffer("fixed", None, persistent=False)

    @torch.no_grad()
    def fix_(self) -> None:
        """Keep the matrix as it is from now on: a graph of another engine may know no inverse."""
        self.fixed = self.matrix()

    def matrix(self) -> Float[Tensor, "n_out n_in"]:
        """The matrix as it is applied, orthonormal up to the rounding of its numbers."""
        if self.fixed is not None:
            return self.fixed
        with full_precision(self.free) as free:
            few = free.shape[1]
            upper, lower = free[:few], free[few:]
            skewed = upper - upper.T + lower.T @ lower
            eye = torch.eye(few, dtype=free.dtype, device=free.device)
            inverse = torch.linalg.inv(eye + skewed)
            found = torch.cat([inverse @ (eye - skewed), -2 * lower @ inverse])
            return found.T if self.wide else found

    def forward(self, x: Float[Tensor, "batch n_in *place"]) -> Float[Tensor, "batch n_out *place"]:
        """Apply it to the channels of maps, at each place, or to rows."""
        matrix = self.matrix()
        return functional.conv2d(x, matrix[:, :, None, None]) if x.ndim == 4 else functional.linear(x, matrix)

    @torch.no_grad()
    def norm(self) -> float:
        """Its largest singular value, of the numbers that it has: 1 up to rounding."""
        matrix = self.matrix().double()
        gram = matrix @ matrix.T if self.wide else matrix.T @ matrix
        return math.sqrt(float(torch.linalg.eigvalsh(gram)[-1]))


class ChannelShift(nn.Module):
    """Move an eighth of the channels by one place up, others down, left and right; what enters is zero.

    Between two orthogonal maps that is an orthogonal convolution: shifts of some channels and mixing of all are the
    factors of every one that Li et al. build ("Preventing gradient attenuation in Lipschitz constrained convolutional
    networks", NeurIPS 2019). At the edge it forgets what leaves, which makes nothing longer.
    """

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """The same channels, some of them moved."""
        n = x.shape[1] // 8
        up, down, left, right, rest = x.split([n, n, n, n, x.shape[1] - 4 * n], dim=1)
        moved = functional.pad(up[:, :, 1:], (0, 0, 0, 1)), functional.pad(down[:, :, :-1], (0, 0, 1, 0))
        aside = functional.pad(left[..., 1:], (0, 1)), functional.pad(right[..., :-1], (1, 0))
        return torch.cat([*moved, *aside, rest], dim=1)


class MaxMin(nn.Module):
    """Sort channels in pairs: the larger half first. It keeps lengths, and distances or less.

    Anil et al., "Sorting out Lipschitz function approximation" (ICML 2019).
    """

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """As many channels as before, which must be even."""
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)


class Fold(nn.Module):
    """Two by two places become one with four times the channels; odd sides get zeros beside them. An isometry."""

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch more low narrow"]:
        """Maps of half the height and width, rounded up."""
        even = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return torch.cat([even[:, :, i::2, j::2] for i in range(2) for j in range(2)], dim=1)
