"""Inputs as they are kept: float32 numbers, UTF-8 text, or the image file as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.service.answering import inputs
from protocols.service.settings import Limits
from slots.errors import DataError
from slots.model.slot_model import SlotModel

FEATURES = "application/x-float32"
"""Media type of a feature row: little-endian float32 numbers."""
TEXT = "text/plain"
"""Media type of a text, in UTF-8."""

_FIRST_BYTES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


@dataclass(frozen=True)
class Contents:
    """Inputs of a request, as the model takes them and as they are kept.

    Parameters
    ----------
    x : array of shape (example, ...)
        For the model.
    files : sequence of bytes
        What is kept of each.
    media : sequence of str
        Media type of each.
    """

    x: npt.NDArray[Any]
    files: Sequence[bytes]
    media: Sequence[str]


def contents(model: SlotModel, given: Sequence[Any], limits: Limits) -> Contents:
    """Inputs of a JSON list, as `inputs.from_json` reads them.

    Parameters
    ----------
    model : SlotModel
        Says what it takes.
    given : sequence
        One element an input.
    limits : Limits
        How many there may be.

    Returns
    -------
    Contents

    Raises
    ------
    DataError
        If one is not what the model takes.
    """
    kind = model.preprocessing.kind
    if kind != "images":
        x = inputs.from_json(model, given, limits)
        if kind == "features":
            rows = np.ascontiguousarray(x, dtype="<f4")
            return Contents(x, [row.tobytes() for row in rows], [FEATURES] * len(x))
        return Contents(x, [_encoded(text, place) for place, text in enumerate(given)], [TEXT] * len(x))
    return of_images(model, inputs.image_files(given, limits), limits)


def of_images(model: SlotModel, files: Sequence[bytes], limits: Limits) -> Contents:
    """Image files, as `inputs.images` reads them.

    Parameters
    ----------
    model : SlotModel
        Of images.
    files : sequence of bytes
        As they came.
    limits : Limits
        How many, and how large.

    Returns
    -------
    Contents

    Raises
    ------
    DataError
        If one is no image of the model's size.
    """
    return Contents(inputs.images(model, files, limits), files, [image_media(file) for file in files])


def image_media(file: bytes) -> str:
    """Media type of an image file, by its first bytes; the client's word is not taken for it."""
    for first, media in _FIRST_BYTES:
        if file.startswith(first):
            return media
    return "image/webp" if file[:4] == b"RIFF" and file[8:12] == b"WEBP" else "application/octet-stream"


def _encoded(text: str, place: int) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"Input {place} must be text, got half of a character in it. Send UTF-8.") from error
