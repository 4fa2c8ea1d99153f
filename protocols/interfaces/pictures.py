"""Pictures as people hold them, in lists of paths or of PIL's images, read a few at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from protocols.data.decoding import ImageBytes
from protocols.data.images import load_images

BLOCK = 64
"""Pictures that are held decoded at once."""


@dataclass(frozen=True)
class Pictures:
    """A list of pictures that are decoded when they are needed.

    Parameters
    ----------
    items : sequence or array of paths or of PIL images
        At least one.
    image_size : (height, width), optional
        As `protocols.data.load_images` takes it. Default: all have the size of the first.
    crop : float in (0, 1], optional
        As `protocols.data.load_images` takes it.
    """

    items: Sequence[Any] | npt.NDArray[Any]
    image_size: tuple[int, int] | None = None
    crop: float | None = None

    def __len__(self) -> int:
        return len(self.items)

    def form(self) -> tuple[int, int, int]:
        """Channels, height and width that the first `BLOCK` pictures have in common."""
        height, width, channels = load_images(self._files(0), image_size=self.image_size, crop=self.crop).shape[1:]
        return channels, height, width

    def blocks(self, form: tuple[int, ...]) -> Iterator[npt.NDArray[np.uint8]]:
        """All pictures, `BLOCK` at a time, uint8 of shape (picture, height, width, channel).

        Parameters
        ----------
        form : (channel, height, width)
            What they become.

        Raises
        ------
        DataError
            If one cannot be read, or has another size and ``image_size`` is not given.
        """
        channels, height, width = form
        size = None if self.image_size is None else (height, width)
        for start in range(0, len(self.items), BLOCK):
            yield load_images(self._files(start), shape=(height, width, channels), image_size=size, crop=self.crop)

    def _files(self, start: int) -> list[Path | ImageBytes]:
        return [_file(self.items[i], i) for i in range(start, min(len(self.items), start + BLOCK))]


def is_picture(item: object) -> bool:
    """Whether something is a path or an image of PIL, rather than a number or an array.

    Parameters
    ----------
    item : object
        What a list holds.

    Returns
    -------
    bool
        Strings may be paths, too, or sentences: those are not told apart here.
    """
    return isinstance(item, (Path, Image.Image))


def _file(item: str | Path | Image.Image, place: int) -> Path | ImageBytes:
    """A picture as a file, so that all are read by the same rules."""
    if not isinstance(item, Image.Image):
        return Path(item)
    upright = ImageOps.exif_transpose(item)
    if upright.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"} and not upright.mode.startswith("I"):
        upright = upright.convert("RGB")
    content = io.BytesIO()
    upright.save(content, "PNG", compress_level=0)
    return ImageBytes(f"picture {place}", content.getvalue())
