"""`WhiteningStem`: a first convolution that is not trained, but looked up in the patches of the training images."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_count

_EPSILON: Final = 5e-4
"""Added to the variances, in units of the inputs': directions in which patches hardly vary are mostly noise."""

_PATCHES: Final = 200_000


class WhiteningStem(nn.Conv2d):
    """Principal components of patches, each scaled to variance one, and their negatives.

    Natural patches vary a hundred times more in brightness than in fine detail; a first layer that is trained from
    random filters needs many epochs to undo that. The negatives let a rectifier keep both signs.

    Parameters
    ----------
    channels : int
        Channels of the inputs (count, >= 1).
    kernel : int
        Side of a patch (pixels, >= 1). The layer has ``2 * channels * kernel**2`` outputs, strongest component first.
    stride : int
        Step from patch to patch (pixels, >= 1).

    Notes
    -----
    No mean is subtracted, so the layer is linear. Until `learn_` is called the filters are random orthonormal ones.

    References
    ----------
    Page: ResNet on CIFAR-10 in 26 s (2018), and Jordan: 94 % on CIFAR-10 in 3.29 seconds on a single GPU (2024), use
    such a layer in ordinary nets.
    """

    def __init__(self, channels: int, kernel: int = 2, stride: int = 1) -> None:
        for name, value in (("channels", channels), ("kernel", kernel), ("stride", stride)):
            check_count(name, value)
        half = channels * kernel**2
        super().__init__(channels, 2 * half, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
        self.weight.requires_grad_(False)
        self._fill(torch.linalg.qr(torch.randn(half, half)).Q)

    @torch.no_grad()
    def learn_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take the filters from the patches of some inputs.

        Parameters
        ----------
        x : float tensor of shape (batch, channel, height, width)
            Scaled as they will be; a few hundred are enough. Of more than 200,000 patches every n-th is looked at.

        Raises
        ------
        ValueError
            If the inputs are smaller than a patch, or there are none.
        """
        side = self.kernel_size[0]
        if x.ndim != 4 or len(x) == 0 or min(x.shape[2:]) < side:
            raise ValueError(
                f"`x` must be at least one input of {side} x {side} pixels or more, got shape {tuple(x.shape)}. "
                "Pass training inputs."
            )
        patches = x.double().unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        patches = patches[:: -(-len(patches) // _PATCHES)]
        patches = patches - patches.mean(0)
        variances, components = torch.linalg.eigh(patches.T @ patches / len(patches))  # weakest first
        self._fill((components / (variances.clamp_min(0) + _EPSILON).sqrt()).T.flip(0))

    @torch.no_grad()
    def _fill(self, filters: Tensor) -> None:
        self.weight.copy_(torch.cat([filters, -filters]).reshape(self.weight.shape))
