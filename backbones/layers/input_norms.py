"""Normalisations of the input as layers: by percentiles, and by iterative whitening of the channels.

(The third, batch normalisation, is `torch.nn.BatchNorm2d` with ``affine=False``.) Each keeps running statistics for the
evaluation. All of them subtract something, so none keeps the Gradient Representation Property.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_count, check_share
from backbones.precision import full_precision

_EPSILON: Final = 1e-5
_VALUES: Final = 100_000


class PercentileNorm(nn.Module):
    """Map a low and a high percentile of each channel to 0 and 1; single very dark or bright pixels do not matter.

    Parameters
    ----------
    channels : int
        (count, >= 1).
    low, high : float
        Percentiles, ``0 <= low < high <= 100``.
    momentum : float
        Share of the newest batch in the running percentiles, in (0, 1].

    Notes
    -----
    Nothing is clipped. Of more than 100,000 values a channel every n-th is looked at.
    """

    def __init__(self, channels: int, *, low: float = 1.0, high: float = 99.0, momentum: float = 0.1) -> None:
        super().__init__()
        check_count("channels", channels)
        check_share("momentum", momentum)
        if not 0 <= low < high <= 100:
            raise ValueError(f"`low` and `high` must be percentiles with low < high, got {low} and {high}. Swap them.")
        self.shares, self.momentum = (low / 100, high / 100), momentum
        self.register_buffer("running_low", torch.zeros(channels))
        self.register_buffer("running_high", torch.ones(channels))

    running_low: Tensor
    running_high: Tensor

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Shift and scale each channel."""
        _check_channels(x, len(self.running_low), training=self.training)
        low, high = self.running_low, self.running_high
        if self.training:
            rows = x.detach().to(low.dtype).transpose(0, 1).flatten(1)
            rows = rows[:, :: -(-rows.shape[1] // _VALUES)]
            low, high = (torch.quantile(rows, share, dim=1) for share in self.shares)
            self.running_low.lerp_(low, self.momentum)
            self.running_high.lerp_(high, self.momentum)
        span = (high - low).clamp_min(_EPSILON)
        shifted = x - low.view(1, -1, 1, 1).to(x.dtype)
        return shifted / span.view(1, -1, 1, 1).to(x.dtype)


class IterativeWhitening(nn.Module):
    """Make the channels uncorrelated and of variance one, changing each colour as little as possible (ZCA).

    Parameters
    ----------
    channels : int
        (count, >= 1).
    steps : int
        Newton-Schulz steps (count, >= 1). Few whiten the strong directions only and leave weak ones, mostly noise,
        weak; many give the exact result.
    momentum : float
        Share of the newest batch in the running mean and covariance, in (0, 1].

    Notes
    -----
    ``y = S^{-1/2} (x - mean)``, with the covariance ``S`` of the channels over all pixels, plus 1e-5. From ``Y = S / tr
    S`` and ``Z = 1``, each step is ``T = (3 - Z Y) / 2``, ``Y = Y T``, ``Z = T Z``; ``Z`` goes to the inverse root.
    (The coupled form; the usual ``P -> (3 P - P^3 S) / 2`` is equal without rounding, and unstable with it.) The
    gradient does not flow through the statistics.

    References
    ----------
    Huang, Zhou, Zhu, Liu, Shao: Iterative Normalization: Beyond Standardization towards Efficient Whitening. CVPR 2019.
    Higham: Functions of Matrices, 2008, equation 6.35.
    """

    def __init__(self, channels: int, *, steps: int = 5, momentum: float = 0.1) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("steps", steps)
        check_share("momentum", momentum)
        self.steps, self.momentum = steps, momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_covariance", torch.eye(channels))

    running_mean: Tensor
    running_covariance: Tensor

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Whiten the channels of each pixel."""
        _check_channels(x, len(self.running_mean), training=self.training)
        mean, covariance = self.running_mean, self.running_covariance
        with full_precision(x) as wide:
            if self.training:
                mean, covariance = self._look(wide.detach().to(mean.dtype))
            noise = _EPSILON * torch.eye(len(mean), device=x.device, dtype=mean.dtype)
            root = inverse_root(covariance + noise, self.steps).to(wide.dtype)
            return torch.einsum("ij,bjhw->bihw", root, wide - mean.view(1, -1, 1, 1).to(wide.dtype))

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the batch, from which the running ones learn."""
        rows = x.transpose(0, 1).flatten(1)
        mean = rows.mean(1)
        centred = rows - mean[:, None]
        covariance = centred @ centred.T / rows.shape[1]
        self.running_mean.lerp_(mean, self.momentum)
        self.running_covariance.lerp_(covariance, self.momentum)
        return mean, covariance


def inverse_root(matrix: Float[Tensor, "row row"], steps: int) -> Float[Tensor, "row row"]:
    """Approximate ``S^{-1/2}`` of a symmetric positive definite matrix by products alone (Newton-Schulz).

    Parameters
    ----------
    matrix : float tensor of shape (row, row)
        Scaled by its trace first, so its size does not matter.
    steps : int
        Each doubles the right digits once an eigenvalue's share of the trace has come near 1; one of share ``s`` takes
        about ``log(1 / s) / log(2.25)`` steps to get there.

    Returns
    -------
    float tensor of shape (row, row)
    """
    trace = matrix.diagonal().sum()
    three = 3 * torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    root, inverse = matrix / trace, torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    for _ in range(steps):
        step = 0.5 * (three - inverse @ root)
        root, inverse = root @ step, step @ inverse
    return inverse * torch.rsqrt(trace)


def _check_channels(x: Tensor, channels: int, *, training: bool) -> None:
    if x.ndim != 4 or x.shape[1] != channels or (training and x.numel() == 0):
        rule = f"(batch, {channels}, height, width)" + (" and not be empty" if training else "")
        raise ValueError(f"`x` must have shape {rule}, got {tuple(x.shape)}. The layer was made for other inputs.")
