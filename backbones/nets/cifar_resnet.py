"""The residual networks for CIFAR-10 of He et al. 2015, section 4.2, with the usual parameter names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

DEPTHS: Final = (20, 32, 44, 56, 110)
"""Layers with weights: ``6 n + 2`` for ``n`` blocks a stage."""

_WIDTHS: Final = (16, 32, 64)


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of residual blocks with 16, 32 and 64 channels, the mean, a linear layer.

    Parameters
    ----------
    depth : int
        One of `DEPTHS`.
    n_classes : int
        Outputs of the linear layer (count, >= 1).

    Notes
    -----
    Shortcuts have no parameters: where a stage begins, every second pixel is taken and the new channels are zero, half
    of them before and half after the old ones ("option A" of the paper). State dicts of such networks have the keys
    ``conv1.weight``, ``bn1.*``, ``layer1.0.conv1.weight``, ..., ``linear.bias``.

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016.
    """

    def __init__(self, depth: int, *, n_classes: int = 10) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(
                f"`depth` must be one of {', '.join(map(str, DEPTHS))}, got {depth!r}. 20 is the smallest."
            )
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks)
        self.linear = nn.Linear(_WIDTHS[2], n_classes)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch class"]:
        """Class scores of a batch of standardised pictures."""
        maps = functional.relu(self.bn1(self.conv1(x)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        scores: Tensor = self.linear(maps.mean((2, 3)))
        return scores


class _Block(nn.Module):
    """Two 3x3 convolutions and the way around them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            extra = (maps.shape[1] - x.shape[1]) // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
        return functional.relu(maps + x)


def _stage(before: int, after: int, blocks: int) -> nn.Sequential:
    rest = [_Block(after, after) for _ in range(blocks - 1)]
    return nn.Sequential(OrderedDict((str(i), block) for i, block in enumerate([_Block(before, after), *rest])))
