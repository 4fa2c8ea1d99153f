"""A normalisation that only scales: without an offset, so that a gradient can explain all of a value."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_share

_EPSILON = 1e-5


class ScaleNorm(nn.Module):
    """Divide each channel by its root mean square over the batch; by the running one in evaluation.

    Nothing is subtracted and there is nothing to learn: whatever comes next can scale a channel.

    Parameters
    ----------
    channels : int
        Maps of the input (count, >= 1), each with a mean square of its own.
    momentum : float
        Share of the newest batch in the running mean square, in (0, 1].

    Notes
    -----
    In evaluation it multiplies by constants, so ``f(x) = <grad f(x), x>`` survives it. In training its gradient also
    flows through the root mean square, as in batch normalisation.
    """

    def __init__(self, channels: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        check_share("momentum", momentum)
        self.momentum = momentum
        self.register_buffer("running_mean_square", torch.ones(channels))

    running_mean_square: Tensor

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Scale a batch of maps."""
        if x.ndim != 4 or x.shape[1] != len(self.running_mean_square):
            raise ValueError(
                f"`x` must have shape (batch, {len(self.running_mean_square)}, height, width), got {tuple(x.shape)}. "
                "The layer was made for another number of channels."
            )
        mean_square = self._batch_mean_square(x) if self.training else self.running_mean_square
        scale = torch.rsqrt(mean_square + _EPSILON).to(x.dtype)
        return x * scale.view(1, -1, 1, 1)

    def _batch_mean_square(self, x: Tensor) -> Float[Tensor, " channel"]:
        """Mean square of each channel, in the precision of the running one, which learns from it."""
        if x.numel() == 0:
            raise ValueError(
                f"`x` must not be empty in training, got shape {tuple(x.shape)}. Pass a batch, or call eval()."
            )
        norm: Tensor = torch.linalg.vector_norm(x, dim=(0, 2, 3), dtype=self.running_mean_square.dtype)
        mean_square = norm.square() / (x.numel() / x.shape[1])
        with torch.no_grad():
            self.running_mean_square.lerp_(mean_square.detach(), self.momentum)
        return mean_square
