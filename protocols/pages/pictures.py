"""Pictures as PNG bytes: remembered images, and templates in colours that say for and against."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "height width"] | UInt8[np.ndarray, "height width channel"]
"""An image: grey without or with a channel axis, or red, green and blue."""

_FOR = np.array([198.0, 40.0, 32.0])  # red; what speaks against is its mirror image, red and blue exchanged
_LIMIT_QUANTILE = 0.995  # a single extreme pixel must not make the rest of a template pale
_STEPS = 63  # shades to either side of zero: no eye sees more, and twice as many cost a third more bytes
_PALETTE = 256


def png(pixels: Pixels) -> bytes:
    """Encode an image without loss, in few bytes.

    Parameters
    ----------
    pixels : uint8 array of shape (height, width), (height, width, 1) or (height, width, 3)
        Grey or RGB values, 0 to 255.

    Returns
    -------
    bytes
        A PNG file. An image of at most 256 colours is stored by palette where that is smaller.

    Raises
    ------
    ValueError
        If the array is of another kind or shape, or has no pixels.

    Examples
    --------
    >>> png(np.zeros((2, 2), np.uint8))[1:4]
    b'PNG'
    """
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    if pixels.dtype != np.uint8 or not (grey or pixels.ndim == 3) or pixels.shape[2:] not in {(), (1,), (3,)}:
        raise ValueError(
            "`pixels` must be uint8 of shape (height, width), (height, width, 1) or (height, width, 3), "
            f"got {pixels.dtype} of shape {pixels.shape}. Scale it to 0 to 255 and move the channels last."
        )
    if pixels.size == 0:
        raise ValueError(f"`pixels` must not be empty, got shape {pixels.shape}. Leave the picture out.")
    image = Image.fromarray(np.ascontiguousarray(pixels.reshape(pixels.shape[:2]) if grey else pixels))
    if not grey:
        image = _by_palette(pixels) or image
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _by_palette(pixels: Pixels) -> Image.Image | None:
    """The same image by palette, or None where it has too many colours or so few pixels that a palette costs more."""
    numbers = pixels.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1])  # sorted faster than rows, in the same order
    colours, index = np.unique(numbers, return_inverse=True)
    if len(colours) > _PALETTE or 3 * len(colours) > 2 * index.size:
        return None
    image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8))
    image.putpalette((colours[:, None] >> [16, 8, 0] & 255).astype(np.uint8).tobytes())
    return image


def data_uri(picture: bytes) -> str:
    """Write a PNG out as an address that holds the picture itself.

    Parameters
    ----------
    picture : bytes
        A PNG file.

    Returns
    -------
    str
        ``data:image/png;base64,...``; a page with it asks nobody for anything.
    """
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def diverging(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colour signed numbers: red above zero, blue below, white at zero.

    Parameters
    ----------
    values : float array of shape (height, width)
        Any range; the largest size gets the full colour.

    Returns
    -------
    uint8 array of shape (height, width, 3)
        Full colour stands for the 99.5 % quantile of the sizes and above. The negated values give the same picture
        with red and blue exchanged.

    Raises
    ------
    ValueError
        If ``values`` is not 2-D or not finite.

    Examples
    --------
    >>> diverging(np.array([[0.0, 2.0, -2.0]])).tolist()
    [[[255, 255, 255], [198, 40, 32], [32, 40, 198]]]
    """
    if values.ndim != 2:
        raise ValueError(
            f"`values` must have shape (height, width), got {values.shape}. Sum the channels with signed_sum first."
        )
    share = _scaled(values)[..., None]
    end = np.where(share >= 0, _FOR, _FOR[::-1])
    coloured: npt.NDArray[np.uint8] = np.rint(255 + np.abs(share) * (end - 255)).astype(np.uint8)
    return coloured


def signed_sum(template: Float[np.ndarray, "channel height width"]) -> Float[np.ndarray, "height width"]:
    """Sum a template over its channels: what a pixel says for (positive) and against, whatever its colour.

    Parameters
    ----------
    template : float array of shape (channel, height, width)
        From `AbstractBackbone.template` or another gradient.

    Returns
    -------
    float64 array of shape (height, width)
    """
    total: npt.NDArray[np.float64] = template.astype(np.float64).sum(axis=0)
    return total


def in_colour(template: Float[np.ndarray, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Show a colour template around middle grey: the tint that each pixel should have.

    Parameters
    ----------
    template : float array of shape (3, height, width)
        Red, green and blue weights, of any size and sign.

    Returns
    -------
    uint8 array of shape (height, width, 3)
        Zero is 128; the 99.5 % quantile of the sizes, and above, is 127 away from it.

    Raises
    ------
    ValueError
        If there are not three channels, or a number is not finite.

    Examples
    --------
    >>> in_colour(np.array([1.0, 0.0, -1.0]).reshape(3, 1, 1)).tolist()
    [[[255, 128, 1]]]
    """
    if template.ndim != 3 or template.shape[0] != 3:
        raise ValueError(
            f"`template` must have shape (3, height, width), got {template.shape}. Use diverging for grey images."
        )
    tinted: npt.NDArray[np.uint8] = np.rint(128 + 127 * _scaled(template)).astype(np.uint8)
    return tinted.transpose(1, 2, 0)


def side_by_side(images: npt.NDArray[np.uint8], *, gap: int = 1) -> npt.NDArray[np.uint8]:
    """Put images of one size into one row.

    Parameters
    ----------
    images : uint8 array of shape (image, height, width, channel)
        At least one.
    gap : int, default 1
        White columns between two images (pixels, >= 0).

    Returns
    -------
    uint8 array of shape (height, total width, channel)
    """
    n, height, width, channels = images.shape
    row = np.full((height, n * (width + gap) - gap, channels), 255, np.uint8)
    for i, image in enumerate(images):
        row[:, i * (width + gap) :][:, :width] = image
    return row


def shrink(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Average an image down until no side is longer than ``side`` pixels; smaller images stay as they are.

    Parameters
    ----------
    image : uint8 array of shape (height, width, channel)
        Values from 0 to 255.
    side : int
        Pixels, >= 1.

    Returns
    -------
    uint8 array of shape (height, width, channel)
    """
    height, width, channels = image.shape
    longest = max(height, width)
    if longest <= side:
        return image
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    flat: Any = image[..., 0] if channels == 1 else image
    small = np.asarray(Image.fromarray(flat).resize(size, Image.Resampling.BOX))
    return small.reshape(size[1], size[0], channels)


def _scaled(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Numbers over the quantile of their sizes, clipped to [-1, 1] and rounded; all zeros stay zeros."""
    if not np.isfinite(values).all():
        raise ValueError("A template must be finite, got NaN or infinity. Check the backbone's weights.")
    wide = values.astype(np.float64)
    sizes = np.abs(wide)
    limit = np.quantile(sizes, _LIMIT_QUANTILE) if sizes.size else 0.0
    limit = limit or sizes.max(initial=0.0) or 1.0  # a template of few pixels has a quantile of 0
    share: npt.NDArray[np.float64] = np.rint(np.clip(wide / limit, -1, 1) * _STEPS) / _STEPS
    return share
