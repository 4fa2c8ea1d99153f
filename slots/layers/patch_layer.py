"""The base of layers that are learned from patches of their input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from slots.errors import DataError, EmptyHeadError, UsageError

Maps = Float[Tensor, "batch channel height width"]
Patches = Float[Tensor, "patch feature"]


class AbstractPatchLayer(nn.Module):
    """A layer that is learned from square patches of its input, and then slides over it.

    Parameters
    ----------
    kernel_size : int
        Side of a patch (pixels, >= 1).
    stride : int, default 1
        Pixels from one patch to the next, >= 1.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        if kernel_size < 1 or stride < 1:
            raise UsageError(
                f"`kernel_size` and `stride` must be >= 1, got {kernel_size} and {stride}. Pass larger numbers."
            )
        self.kernel_size, self.stride = kernel_size, stride

    @property
    @abstractmethod
    def n_channels(self) -> int:
        """Channels of the input; 0 before `learn`."""

    @abstractmethod
    def learn(self, patches: Patches) -> None:
        """Learn from patches, each flattened as (channel, height, width)."""

    @abstractmethod
    def forward(self, maps: Maps) -> Maps:
        """One value a channel and patch."""

    def _channels_of(self, patches: Patches) -> int:
        """Channels of flattened patches, checked."""
        area = self.kernel_size**2
        if patches.ndim != 2 or patches.shape[1] == 0 or patches.shape[1] % area:
            raise DataError(
                f"`patches` must have shape (patch, channel * {area}), got {tuple(patches.shape)}. "
                f"Flatten each patch of side {self.kernel_size}."
            )
        return patches.shape[1] // area

    def _box_means(self, maps: Maps) -> Float[Tensor, "batch 1 height width"]:
        """Mean of each patch over its pixels and channels."""
        return functional.avg_pool2d(maps.mean(1, keepdim=True), self.kernel_size, self.stride)

    def _check(self, maps: Maps) -> None:
        channels = self.n_channels
        if channels == 0:
            raise EmptyHeadError(f"This {type(self).__name__} has learned nothing yet. Call learn or fit_layers first.")
        if maps.ndim != 4 or maps.shape[1] != channels or min(maps.shape[2:]) < self.kernel_size:
            raise ValueError(
                f"`maps` must have shape (batch, {channels}, height, width) and sides >= {self.kernel_size}, got "
                f"{tuple(maps.shape)}. The layer was learned below another network."
            )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the sizes of the stored tensors before they are copied in."""
        own = {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers(recurse=False))}
        for name, present in own.items():
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.ndim == present.ndim and stored.shape[2:] == present.shape[2:]:
                self._replace(name, torch.empty(stored.shape, dtype=present.dtype, device=present.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _replace(self, name: str, value: Tensor) -> None:
        """Give a parameter or buffer a new value of another size; a parameter becomes a new one."""
        present = getattr(self, name)
        value = value.to(present)
        setattr(self, name, nn.Parameter(value, present.requires_grad) if isinstance(present, nn.Parameter) else value)
