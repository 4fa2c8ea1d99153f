"""What a request carries, made into inputs of a model; all that is wrong with it becomes one sentence."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.data.decoding import ImageBytes, ImageLimits, n_pixels
from protocols.data.images import load_images
from protocols.service.settings import Limits
from slots.errors import DataError
from slots.model.slot_model import SlotModel


def from_json(model: SlotModel, given: Sequence[Any], limits: Limits) -> npt.NDArray[Any]:
    """Inputs of a JSON list: rows of numbers, texts, or images in base64 (a data URI will do).

    Parameters
    ----------
    model : SlotModel
        Says which of them it takes.
    given : sequence
        One element an input.
    limits : Limits
        How many there may be.

    Returns
    -------
    array of shape (example, ...)

    Raises
    ------
    DataError
        If there are none or too many, or one is of another kind or shape than the model takes.
    """
    kind = model.preprocessing.kind
    check_count(kind, len(given), limits)
    if kind == "features":
        return feature_rows(model, given)
    if not all(isinstance(it, str) for it in given):
        wanted = "texts" if kind == "text" else "images as base64 strings"
        raise DataError(f"`inputs` must be {wanted}, got {type(_first_other(given)).__name__}. See the model's `kind`.")
    if kind == "text":
        texts = np.empty(len(given), dtype=object)
        texts[:] = list(given)
        model.preprocessing.check(texts)
        return texts
    return images(model, image_files(given, limits), limits)


def image_files(given: Sequence[Any], limits: Limits) -> list[bytes]:
    """Image files that came in base64.

    Parameters
    ----------
    given : sequence
        Base64 strings; data URIs will do.
    limits : Limits
        How many there may be.

    Returns
    -------
    list of bytes

    Raises
    ------
    DataError
        If there are none or too many, or one is no base64.
    """
    check_count("images", len(given), limits)
    if not all(isinstance(it, str) for it in given):
        raise DataError(
            f"`inputs` must be images as base64 strings, got {type(_first_other(given)).__name__}. "
            "See the model's `kind`."
        )
    return [_decoded(it, place) for place, it in enumerate(given)]


def feature_rows(model: SlotModel, given: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of numbers as a model takes them.

    Parameters
    ----------
    model : SlotModel
        Of feature rows.
    given : sequence or array
        The rows.

    Returns
    -------
    float32 array of shape (example, feature)

    Raises
    ------
    DataError
        If they are no such rows, or not finite.
    """
    try:
        rows = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:  # the last of whole numbers beyond what a float holds
        raise DataError(
            f"`inputs` must be rows of {model.preprocessing.shape[0]} numbers each, got something else. "
            "Send a list of lists."
        ) from error
    with np.errstate(over="ignore"):
        x = rows.astype(np.float32)
    model.preprocessing.check(x)
    return x


def images(model: SlotModel, files: Sequence[bytes], limits: Limits) -> npt.NDArray[np.uint8]:
    """Decoded image files in a model's size.

    Parameters
    ----------
    model : SlotModel
        Of images.
    files : sequence of bytes
        Contents of JPEG, PNG, WebP, BMP, GIF or TIFF files.
    limits : Limits
        How many, and how large.

    Returns
    -------
    uint8 array of shape (example, height, width, channel)

    Raises
    ------
    DataError
        If one is no image, or too large, or of another size than the model's.
    """
    check_count("images", len(files), limits)
    named = [ImageBytes(f"input {place}", file) for place, file in enumerate(files)]
    most = ImageLimits(max_pixels=limits.pixels)
    if limits.all_pixels and len(files) * limits.pixels > limits.all_pixels:
        total = sum(n_pixels(it, most) for it in named)
        if total > limits.all_pixels:
            raise DataError(f"`inputs` may have {limits.all_pixels} pixels in all, got {total}. Send several requests.")
    channels, height, width = model.preprocessing.shape
    crop = (model.backbone_spec or ("", {}))[1].get("crop")
    return load_images(
        named,
        shape=(height, width, channels),
        image_size=None if crop is None else (height, width),
        crop=crop,
        limits=most,
    )


def check_count(kind: str, n: int, limits: Limits) -> None:
    """Refuse a request without inputs, or with more than one request may have."""
    most = limits.rows if kind == "features" else limits.images
    if not 1 <= n <= most:
        raise DataError(f"`inputs` must be 1 to {most} inputs, got {n}. Send several requests.")


def _decoded(text: str, place: int) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"Input {place} must be base64 of an image file, got other characters. Encode it.") from error


def _first_other(given: Sequence[Any]) -> Any:
    return next(it for it in given if not isinstance(it, str))
