"""From what a user holds (uint8 images, feature rows) to what a backbone sees, with every misuse named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from slots.errors import DataError
from slots.shapes import RawInputs

Kind = Literal["images", "features"]
_BLOCK = 4096  # examples converted at once while statistics are taken
_CHECKED = 1 << 20  # numbers tested for being finite at once


@dataclass(frozen=True)
class Preprocessing:
    """Checks raw inputs and scales them.

    Parameters
    ----------
    kind : {"images", "features"}
        Images are uint8 of shape (example, height, width) or (example, height, width, channel) and are divided by
        255; features are float rows and are left as they are.
    shape : tuple of int
        ``(channel, height, width)`` or ``(feature,)``.
    mean, std : tuples of float, one entry a channel
        Subtracted and divided by after the division by 255; empty for none. It happens outside the backbone,
        because a subtraction inside would break the Gradient Representation Property.
    """

    kind: Kind
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @staticmethod
    def of(x: RawInputs, *, standardize: bool = False) -> Preprocessing:
        """Find kind and shape from data, and with ``standardize`` the channels' mean and deviation.

        Parameters
        ----------
        x : array
            uint8 images, or float features.
        standardize : bool, default False
            Images only.

        Raises
        ------
        DataError
            If ``x`` is neither.
        """
        if x.dtype in (np.uint8, torch.uint8) and x.ndim in (3, 4):
            height, width = int(x.shape[1]), int(x.shape[2])
            channels = int(x.shape[3]) if x.ndim == 4 else 1
            found = Preprocessing("images", (channels, height, width))
            return found._standardized(x) if standardize else found
        if x.ndim == 2 and "float" in str(x.dtype):
            return Preprocessing("features", (int(x.shape[1]),))
        raise DataError(
            "`x` must be uint8 images of shape (example, height, width[, channel]) or float features of shape "
            f"(example, feature), got {x.dtype} of shape {tuple(x.shape)}. Convert it first."
        )

    def _standardized(self, x: RawInputs) -> Preprocessing:
        """The same with the mean and deviation of each channel of ``x``."""
        pixels = torch.as_tensor(x).reshape(-1, self.shape[0])
        count, total, squares = (
            max(1, len(pixels)),
            torch.zeros(self.shape[0]).double(),
            torch.zeros(self.shape[0]).double(),
        )
        step = _BLOCK * self.shape[1] * self.shape[2]
        for i in range(0, len(pixels), step):
            block = pixels[i : i + step].double() / 255
            total, squares = total + block.sum(0), squares + block.square().sum(0)
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(1e-8).sqrt()
        return Preprocessing(self.kind, self.shape, tuple(mean.tolist()), tuple(std.tolist()))

    def check(self, x: RawInputs) -> RawInputs:
        """Return ``x`` if it has this kind and shape and only finite numbers; raise a `DataError` otherwise.

        Numbers are looked at a few megabytes at a time, so a memory map is read once and never held.
        """
        self.check_form(x)
        if self.kind == "features":
            step = max(1, _CHECKED // max(1, self.shape[0]))
            for i in range(0, len(x), step):
                self.check_finite(x[i : i + step], i)
        return x

    def check_form(self, x: RawInputs) -> None:
        """Raise a `DataError` unless ``x`` has this kind and shape; no number is read."""
        if self.kind == "images":
            channels, height, width = self.shape
            fits = x.dtype in (np.uint8, torch.uint8) and (
                tuple(x.shape[1:]) == (height, width, channels)
                or (channels == 1 and tuple(x.shape[1:]) == (height, width))
            )
            if not fits:
                want = f"(example, {height}, {width}" + (f", {channels})" if channels > 1 else ")")
                raise DataError(
                    f"`x` must be uint8 images of shape {want}, got {x.dtype} of shape {tuple(x.shape)}. "
                    "The model was fitted on such images; resize or convert these."
                )
            return
        if x.ndim != 2 or x.shape[1] != self.shape[0] or "float" not in str(x.dtype):
            raise DataError(
                f"`x` must be float features of shape (example, {self.shape[0]}), got {x.dtype} of shape "
                f"{tuple(x.shape)}. The model was fitted on other features."
            )

    def check_finite(self, block: RawInputs, first: int = 0) -> RawInputs:
        """Return a block of which ``check_form`` approved if all its numbers are finite; raise a `DataError` otherwise.

        Parameters
        ----------
        block : array of shape (example, ...)
            Consecutive rows of the input.
        first : int, default 0
            Row of the whole at which the block begins: the message counts from there.
        """
        if self.kind == "features":
            values = torch.as_tensor(block)
            if bool(torch.isfinite(values.sum())):  # one pass: a number that is not finite leaves no sum finite
                return block
            finite = torch.isfinite(values).all(1)
            if not bool(finite.all()):
                row = first + int((~finite).nonzero()[0, 0])
                raise DataError(f"`x` must be finite, got NaN or infinity in row {row}. Drop or impute such rows.")
        return block

    def __call__(self, x: RawInputs, device: torch.device | str = "cpu") -> Tensor:
        """Scale a block of checked inputs.

        Parameters
        ----------
        x : array of shape (example, ...)
            uint8 images or float features, checked.
        device : torch device
            Where the scaling is done and the result lies.

        Returns
        -------
        float32 tensor of shape (example, channel, height, width) or (example, feature)
        """
        block = torch.as_tensor(np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x).to(device)
        if self.kind == "features":
            return block.float()
        if block.ndim == 3:
            block = block[..., None]
        images = block.permute(0, 3, 1, 2).float().div_(255)
        if self.mean:
            shape = (1, -1, 1, 1)
            images = (images - images.new_tensor(self.mean).view(shape)) / images.new_tensor(self.std).view(shape)
        return images.contiguous(memory_format=torch.channels_last) if self.shape[0] > 1 else images.contiguous()
