"""Layers learned without labels, bottom-up: each on random patches of the output of those below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from slots.deprecation import renamed
from slots.errors import DataError, UsageError
from slots.layers.patch_layer import AbstractPatchLayer, Maps, Patches
from slots.layers.slot_conv import SlotConv2d
from slots.progress import Progress

Images = Float[Tensor, "image channel height width"] | UInt8[Tensor, "image channel height width"]


@renamed(report="progress")
@torch.no_grad()
def fit_layers(
    images: Images,
    layers: Iterable[nn.Module],
    *,
    n_patches: int = 100_000,
    patches_per_image: int = 10,
    batch_size: int = 250,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Sequential:
    """Learn a stack of layers without labels, one after the other.

    Parameters
    ----------
    images : float or uint8 tensor of shape (image, channel, height, width)
        uint8 is taken as numbers from 0 to 255. May lie on another device than the layers.
    layers : modules
        In order, the lowest first. Those that are learned (`SlotConv2d`, `PatchWhitening`) and have not learned yet do
        so; all others (pooling, activations, layers learned before) are applied as they are, in evaluation mode.
    n_patches : int, default 100000
        Patches a layer learns from (count, >= 2).
    patches_per_image : int, default 10
        So many come from an image, at random places that may repeat (count, >= 1); images are drawn without
        repetition, or from all of them more patches each where they are too few.
    batch_size : int, default 250
        Images that pass through the layers at once (count, >= 1); with the patches, all the memory that is needed.
    seed : int, default 0
        Choice of images and places.
    progress : callable, optional
        ``progress(step, share)``: told what is being done, and how much of it is done (0 to 1).

    Returns
    -------
    nn.Sequential
        The layers themselves, with what they learned.

    Raises
    ------
    DataError
        If there are no images, or their maps become smaller than a layer's patch.
    UsageError
        If a number is out of its range.

    Examples
    --------
    >>> from slots.layers import PatchWhitening
    >>> from slots.clustering import ClusterConfig
    >>> images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
    >>> slots = SlotConv2d(1, config=ClusterConfig(share=0.1, batch_size=100))
    >>> stack = fit_layers(images, [PatchWhitening(4), slots, nn.MaxPool2d(2)], n_patches=500)
    >>> stack(images.float()).shape == (20, slots.n_slots, 2, 2)
    True
    """
    if images.ndim != 4 or len(images) == 0:
        raise DataError(
            f"`images` must have shape (image, channel, height, width) and an image, got {tuple(images.shape)}. "
            "Move the channels before the height."
        )
    for name, value, low in [("n_patches", n_patches, 2), ("patches_per_image", patches_per_image, 1)]:
        if value < low:
            raise UsageError(f"`{name}` must be >= {low}, got {value}. Pass a larger number.")
    if batch_size < 1:
        raise UsageError(f"`batch_size` must be >= 1, got {batch_size}. Pass a larger number.")
    stack = nn.Sequential(*layers)
    count = min(len(images), -(-n_patches // patches_per_image))
    with _evaluating(stack):
        for n, layer in enumerate(stack):
            if not isinstance(layer, AbstractPatchLayer) or layer.n_channels:
                continue
            if progress is not None:
                progress(f"layer {n + 1} of {len(stack)}", n / len(stack))
            generator = torch.Generator().manual_seed(seed + n)
            chosen = torch.randperm(len(images), generator=generator)[:count]
            parts = []
            for start in range(0, count, batch_size):
                stop = min(count, start + batch_size)
                wanted = n_patches * stop // count - n_patches * start // count
                maps = stack[:n](_as_maps(images[chosen[start:stop]], stack))
                parts.append(random_patches(maps, layer.kernel_size, wanted, generator=generator))
            layer.learn(torch.cat(parts))
    return stack


def random_patches(maps: Maps, side: int, count: int, *, generator: torch.Generator | None = None) -> Patches:
    """Square patches at random places; each map gives its share of them.

    Parameters
    ----------
    maps : float tensor of shape (batch, channel, height, width)
        Images, or the maps of a layer.
    side : int
        Pixels, >= 1.
    count : int
        Patches wanted, >= 0.
    generator : torch.Generator, optional
        On the CPU, wherever the maps are.

    Returns
    -------
    float tensor of shape (count, channel * side * side)

    Raises
    ------
    DataError
        If the maps are smaller than a patch.
    """
    rows, columns = maps.shape[2] - side + 1, maps.shape[3] - side + 1
    if rows < 1 or columns < 1:
        raise DataError(
            f"`maps` must have sides >= {side}, got {tuple(maps.shape[2:])}. Use smaller patches or less pooling."
        )
    owner = torch.arange(count) * len(maps) // max(1, count)
    top, left = (torch.randint(n, (count,), generator=generator) for n in (rows, columns))
    windows = maps.unfold(2, side, 1).unfold(3, side, 1)  # a view: nothing is copied but the chosen patches
    owner, top, left = (index.to(maps.device) for index in (owner, top, left))
    return windows[owner, :, top, left].reshape(count, -1)


class PooledFeatures(nn.Module):
    """Features of a stack: the responses of each `SlotConv2d` in it, averaged over the cells of a grid.

    Parameters
    ----------
    layers : nn.Sequential
        What `fit_layers` returns.
    grid : int, default 2
        Cells to a side, >= 1: 2 are quadrants.

    Notes
    -----
    It is a backbone: from (batch, channel, height, width) to (batch, feature), the features of lower layers first,
    each slot's cells together. The quadrants are those of Coates, Lee and Ng (2011).
    """

    def __init__(self, layers: nn.Sequential, *, grid: int = 2) -> None:
        super().__init__()
        if grid < 1:
            raise UsageError(f"`grid` must be >= 1, got {grid}. 2 averages over quadrants.")
        if not any(isinstance(layer, SlotConv2d) for layer in layers):
            raise UsageError("`layers` must hold a SlotConv2d, got none. Their responses are the features.")
        self.layers, self.grid = layers, grid

    @property
    def feature_dim(self) -> int:
        """Number of features."""
        return self.grid**2 * sum(layer.n_slots for layer in self.layers if isinstance(layer, SlotConv2d))

    def forward(self, images: Images) -> Float[Tensor, "batch feature"]:
        """Features of images.

        Parameters
        ----------
        images : float or uint8 tensor of shape (batch, channel, height, width)
            As the layers were fitted to.

        Returns
        -------
        float tensor of shape (batch, feature)
        """
        maps, features = _as_maps(images, self.layers), []
        for layer in self.layers:
            maps = layer(maps)
            if isinstance(layer, SlotConv2d):
                features.append(functional.adaptive_avg_pool2d(maps, self.grid).flatten(1))
        return torch.cat(features, 1)


def _as_maps(images: Images, stack: nn.Module) -> Maps:
    """Images as floats on the device of the layers."""
    held = next((t for m in stack.modules() for t in (*m.parameters(False), *m.buffers(False))), images)
    return images.to(held.device, images.dtype if images.is_floating_point() else torch.float32)


@contextmanager
def _evaluating(stack: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, each module's own mode after."""
    before = {module: module.training for module in stack.modules()}
    stack.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
