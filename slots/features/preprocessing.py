"""From what a user holds (images, feature rows, texts) to what a backbone sees, with every misuse named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from slots.errors import DataError
from slots.shapes import RawInputs
from slots.sources.reading import is_source, read_source

Kind = Literal["images", "features", "text"]
_BLOCK = 4096  # examples converted at once while statistics are taken
_CHECKED = 1 << 20  # numbers tested for being finite at once
_FEW = 1 << 14  # numbers for which a call of numpy takes less time than three of torch


def raw_inputs(x: RawInputs | Sequence[str]) -> RawInputs:
    """Inputs as an array: a list of sentences becomes one of strings, a data set is read, an array stays as it is.

    Parameters
    ----------
    x : array, sequence of str, or data set
        What a user passed; data sets as `slots.sources.read_source` reads them, without their labels.

    Returns
    -------
    array

    Raises
    ------
    DataError
        If it is a single string.

    Examples
    --------
    >>> raw_inputs(["what is my balance", "hello"]).shape
    (2,)
    """
    if isinstance(x, str):
        raise DataError(f"`x` must be a list of texts, got one text {x!r:.60}. Put it into a list.")
    if isinstance(x, torch.Tensor) or (isinstance(x, np.ndarray) and x.dtype.kind != "U"):
        return x
    if is_source(x):
        return read_source(x).x
    values: Any = x
    if isinstance(values, np.ndarray) or (len(values) and all(isinstance(value, str) for value in values)):
        texts = np.empty(len(values), dtype=object)
        texts[:] = [str(value) for value in values]
        return texts
    return values if hasattr(values, "dtype") else np.asarray(values)


@dataclass(frozen=True)
class Preprocessing:
    """Checks raw inputs and scales them.

    Parameters
    ----------
    kind : {"images", "features", "text"}
        Images are uint8 of shape (example, height, width) or (example, height, width, channel) and are divided by
        255; features are float rows and are left as they are; texts are strings, for the backbone to read.
    shape : tuple of int
        ``(channel, height, width)``, ``(feature,)`` or, for texts, ``()``.
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
            uint8 images, float features, or strings.
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
        if x.ndim == 1 and x.dtype == object:
            return Preprocessing("text", ())
        raise DataError(
            "`x` must be uint8 images of shape (example, height, width[, channel]) or float features of shape "
            f"(example, feature), got {x.dtype} of shape {tuple(x.shape)}. Convert it first."
        )

    def _standardized(self, x: RawInputs) -> Preprocessing:
        """The same with the mean and deviation of each channel of ``x``."""
        pixels = _tensor(x).reshape(-1, self.shape[0])
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
        if self.kind == "text":
            _check_texts(x)
            return
        floats = isinstance(x, np.ndarray) and x.dtype.kind == "f"  # the name of a type takes as long as all the rest
        if x.ndim != 2 or x.shape[1] != self.shape[0] or not (floats or "float" in str(x.dtype)):
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
            few = isinstance(block, np.ndarray) and block.dtype == np.float32 and block.size <= _FEW
            if few and bool(np.isfinite(block).all()):
                return block
            values = _tensor(block)
            if values.dtype == torch.float64:
                _check_range(values, first)
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

        Raises
        ------
        DataError
            If the inputs are texts, which no tensor holds: a backbone takes them as they are.
        """
        if self.kind == "text":
            raise DataError("`x` must be images or features to be scaled, got text. Give it to the backbone itself.")
        block = _tensor(x).to(device)
        if self.kind == "features":
            return block.float()
        if block.ndim == 3:
            block = block[..., None]
        images = block.permute(0, 3, 1, 2).float().div_(255)
        if self.mean:
            shape = (1, -1, 1, 1)
            images = (images - images.new_tensor(self.mean).view(shape)) / images.new_tensor(self.std).view(shape)
        return images.contiguous(memory_format=torch.channels_last) if self.shape[0] > 1 else images.contiguous()


def _tensor(x: RawInputs) -> Tensor:
    """A block as a tensor. Rows that must not be written to, of a mapped file, are copied: torch would warn of them."""
    return torch.from_numpy(np.require(x, requirements=("C", "W"))) if isinstance(x, np.ndarray) else torch.as_tensor(x)


def _check_range(values: Tensor, first: int) -> None:
    """Raise a `DataError` where float32, in which slots see their features, would lose a float64 row."""
    largest = values.abs().amax(1)
    bounds = torch.finfo(torch.float32)
    lost = ((largest > bounds.max) & largest.isfinite()) | ((largest > 0) & (largest < bounds.tiny))
    if bool(lost.any()):
        row = int(lost.nonzero()[0, 0])
        raise DataError(
            f"`x` must lie within the range of float32, got {float(largest[row]):.3g} as the largest number of row "
            f"{first + row}. Scale the features."
        )


def _check_texts(x: RawInputs) -> None:
    """Raise a `DataError` unless ``x`` is a row of whole strings."""
    if x.ndim != 1 or x.dtype != object:
        raise DataError(
            f"`x` must be a list of texts, got {x.dtype} of shape {tuple(x.shape)}. The model was fitted on text."
        )
    for row, text in enumerate(x):
        if not isinstance(text, str):
            raise DataError(f"`x` must hold strings, got {text!r:.60} in row {row}. Drop or fill in such rows.")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"`x` must hold whole characters, got half of one in row {row}. Read the text as UTF-8.")
