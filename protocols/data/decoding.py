"""Image files of strangers: what is decoded at all, how large it may be, and every failure as one sentence."""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slots.errors import DataError, SlotsError, UsageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are decoded, whatever a file is called: the library knows 40 more, one of which starts a program."""

GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"})
_ORIENTATION = 0x0112  # the tag of EXIF
_NOTES = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})  # what in a PNG may hold EXIF
_MOST_CHUNKS = 1 << 16  # of a PNG that are looked over
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIMES_THE_FILES = 100  # of photographs and drawings; blank pictures shrink a thousandfold


@dataclass(frozen=True)
class ImageLimits:
    """How large images of strangers may be.

    Parameters
    ----------
    max_pixels : int, default 25,000,000
        Pixels of one image (count, >= 1), known before it is decoded.
    max_bytes : int, default 1 GiB
        Bytes of all images of a call together (count, >= 1), where their size is their own and nobody gave one;
        or a hundred times what the files have, if that is more. Known before the first is decoded.

    Raises
    ------
    UsageError
        If a limit is below 1.
    """

    max_pixels: int = 25_000_000
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.max_pixels < 1 or self.max_bytes < 1:
            raise UsageError(
                f"`max_pixels` and `max_bytes` must be >= 1, got {self.max_pixels} and {self.max_bytes}. "
                "Leave them out for the defaults."
            )

    @classmethod
    def of_environment(cls) -> ImageLimits:
        """The defaults, or what ``SLOTS_MAX_PIXELS`` and ``SLOTS_MAX_IMAGE_BYTES`` say.

        Raises
        ------
        UsageError
            If they say no whole number >= 1.
        """
        return cls(_number("SLOTS_MAX_PIXELS", cls.max_pixels), _number("SLOTS_MAX_IMAGE_BYTES", cls.max_bytes))

    def check_total(self, files: Sequence[Path | ImageBytes], bytes_each: int) -> None:
        """Refuse to make an array of all these images if it is too large; nothing is decoded for it.

        Parameters
        ----------
        files : sequence of Path or ImageBytes
            Image files.
        bytes_each : int
            Of one image in the array.

        Raises
        ------
        DataError
            If it is too large.
        """
        wanted = len(files) * bytes_each
        if wanted > self.max_bytes and wanted > _TIMES_THE_FILES * sum(_n_bytes(file) for file in files):
            place = files[0].parent if isinstance(files[0], Path) else files[0]
            raise DataError(
                f"`{place}` must hold images of at most {self.max_bytes} bytes in all, got {len(files)} of "
                f"{bytes_each} bytes, from far smaller files. Give a size to resize them to (--image-size), "
                "or set SLOTS_MAX_IMAGE_BYTES if you trust them."
            )


@dataclass(frozen=True)
class ImageBytes:
    """An image file that came over a wire, and lies on no disk.

    Parameters
    ----------
    name : str
        What messages call it.
    content : bytes
        The whole file.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says before it is decoded.

    Parameters
    ----------
    mode : str
        Colour mode, in the library's words.
    size : (height, width)
        Of the upright image, in pixels.
    """

    mode: str
    size: tuple[int, int]

    @property
    def is_grey(self) -> bool:
        """Whether one channel holds it."""
        return self.mode in GREY


def read_header(file: Path | ImageBytes, limits: ImageLimits) -> ImageHeader:
    """Read colour mode and size of an image, and refuse it where it will not be decoded.

    Raises
    ------
    DataError
        If it is no image of a known format, has too many pixels, or other than 8 bits a channel.
    """
    with _opened(file, limits) as image:
        width, height = image.size
        depth = _depth(image)
        if image.mode not in GREY | COLOUR or depth != 8:
            more = ", 16 bits each" if depth == 16 else ""
            raise DataError(
                f"`{file}` must have 8 bits a channel, got mode {image.mode}{more}. "
                "Convert it first: only you know which of its values are black and white."
            )
        # The library turns a TIFF by itself, and says its size turned.
        lies = image.format != "TIFF" and _orientation(image, before_pixels=_notes_come_first(file, image)) >= 5
        return ImageHeader(image.mode, (width, height) if lies else (height, width))


def n_pixels(file: Path | ImageBytes, limits: ImageLimits) -> int:
    """Pixels of an image, of which nothing is decoded.

    Raises
    ------
    DataError
        If it is no image of a known format, or has too many.
    """
    with _opened(file, limits) as image:
        width, height = image.size
        return int(width * height)


def read_pixels(
    file: Path | ImageBytes, size: tuple[int, int], mode: str, crop: float | None, limits: ImageLimits
) -> NDArray[np.uint8]:
    """Decode the first frame of an image, turned upright, in a size.

    Parameters
    ----------
    file : Path or ImageBytes
        Image file.
    size : (height, width)
        Wanted, in pixels; any other is resized.
    mode : {"L", "RGB"}
        Grey or colour.
    crop : float in (0, 1], optional
        Keep the aspect, and cut out the middle; see `protocols.data.images.load_images`.
    limits : ImageLimits
        How large it may be.

    Returns
    -------
    uint8 array of shape (height, width) or (height, width, 3)

    Raises
    ------
    DataError
        If it is no image that is decoded, or not whole.
    """
    with _opened(file, limits) as opened:
        opened.load()
        orientation = 1 if opened.format == "TIFF" else _orientation(opened)
        image = opened if orientation == 1 else opened.transpose(_UPRIGHT[orientation])
        if image.mode != mode:  # else it would be copied
            image = image.convert(mode)
        if crop is not None:
            image = _cut(image, size, crop, limits)
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.uint8)


def _cut(image: Image.Image, size: tuple[int, int], crop: float, limits: ImageLimits) -> Image.Image:
    """Resize until a share of the image covers the size, and cut out the middle."""
    factor = max(size[0] / image.height, size[1] / image.width) / crop
    height, width = max(size[0], round(image.height * factor)), max(size[1], round(image.width * factor))
    if height * width > max(limits.max_pixels, math.ceil(64 * size[0] * size[1] / crop**2)):
        raise DataError(f"it is too long and thin, {image.height} x {image.width}")
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size[1]) // 2, (height - size[0]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))


def _depth(image: Image.Image) -> int:
    """Bits a channel in the file: the library gives 16-bit colour as 8 without a word, and 16-bit grey as it is."""
    if image.mode.startswith("I;16"):
        return 16
    if image.format in {"PNG", "TIFF"} and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        return 16
    return 8


def _notes_come_first(file: Path | ImageBytes, image: Image.Image) -> bool:
    """Whether an image is a PNG none of whose EXIF lies behind its pixels."""
    if image.format != "PNG":
        return False
    seen = False
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.content) as chunks:
        chunks.seek(8)
        for _ in range(_MOST_CHUNKS):
            head = chunks.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return True
            if seen and head[4:] in _NOTES:
                return False
            seen = seen or head[4:] == b"IDAT"
            chunks.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def _orientation(image: Image.Image, *, before_pixels: bool = False) -> int:
    """How the camera was held, 1 to 8; upright where EXIF is damaged or says something else.

    Of a PNG the library decodes all pixels first, in case EXIF lies behind them, unless none does.
    """
    try:
        exif = Image.Image.getexif(image) if before_pixels else image.getexif()
        found = exif.get(_ORIENTATION, 1)
    except SlotsError:
        raise
    except Exception:  # noqa: BLE001  # whatever is wrong with what is only a note beside the picture
        return 1
    return found if isinstance(found, int) and found in _UPRIGHT else 1


@contextlib.contextmanager
def _opened(file: Path | ImageBytes, limits: ImageLimits) -> Iterator[Image.Image]:
    """Open an image, and name the file in whatever goes wrong until it is closed; decoding happens late."""
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"`{file}` must be an image file, and does not exist. Check the path.")
    content = file if isinstance(file, Path) else io.BytesIO(file.content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is lower, and what is amiss but readable is read
            with Image.open(content, formats=FORMATS) as image:
                _check_pixels(image, limits)
                yield image
                _check_pixels(image, limits)  # no format tells one size first and has another then
    except SlotsError as error:
        if str(error).startswith("`"):
            raise
        raise DataError(f"`{file}` must be an image that can be shown, but {error}. Remove it.") from error
    except Exception as error:  # the decoders raise a dozen kinds
        said = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise DataError(f"`{file}` must be a whole image, got: {said}. Remove it or get it again.") from error


def _check_pixels(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise DataError(
            f"it has {height} x {width} pixels, more than {limits.max_pixels} (SLOTS_MAX_PIXELS sets another limit)"
        )


def _n_bytes(file: Path | ImageBytes) -> int:
    return file.stat().st_size if isinstance(file, Path) else len(file.content)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not (text.isascii() and text.isdecimal()):
        raise UsageError(f"`{variable}` must be a whole number, got {text!r}. Leave it out for {default}.")
    return int(text) if text else default
