"""Image files as arrays: single files, flat folders, and folders of class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.data.decoding import ImageBytes, ImageHeader, ImageLimits, read_header, read_pixels
from slots.errors import DataError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_EVERY_NTH_IS_TEST = 5

Part = tuple[NDArray[Any], NDArray[np.int64]]
"""Examples, and their labels."""


def list_images(folder: str | Path) -> list[Path]:
    """List the image files in a folder and below, by name; hidden ones and files of other kinds are left out."""
    root = Path(folder)
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def load_images(
    paths: str | Path | Sequence[str | Path | ImageBytes],
    *,
    shape: tuple[int, int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
    limits: ImageLimits | None = None,
) -> NDArray[np.uint8]:
    """Read image files into one array, in the order given (a folder: in the order of `list_images`).

    Parameters
    ----------
    paths : path or sequence of paths or ImageBytes
        Image files, or one folder.
    shape : (height, width, channel), optional
        What a model takes: images become grey (channel 1) or colour (3), and their size must be this. Default: the
        first image's size; grey if all are grey.
    image_size : (height, width), optional
        Resize each image to this (bilinear, aspect not kept) instead of asking that sizes agree.
    crop : float in (0, 1], optional
        With ``image_size``: keep the aspect. Each image is resized until this share of it covers the size, and the
        middle is cut out. Default: the whole image, squeezed.
    limits : ImageLimits, optional
        How large one image, and all together, may be. Default: `ImageLimits.of_environment`.

    Returns
    -------
    uint8 array of shape (example, height, width, channel)
        0 to 255. Photographs are turned upright; transparency is dropped; of an animation the first frame is taken.

    Raises
    ------
    DataError
        If there is no image, or one cannot be read, is too large, has 16 bits a channel or another size; the sentence
        names the first.
    """
    limits = limits or ImageLimits.of_environment()
    files = _files(paths)
    headers = [read_header(file, limits) for file in files]
    size, n_channels = _common(files, headers, shape, image_size)
    if shape is None and image_size is None:
        limits.check_total(files, size[0] * size[1] * n_channels)
    images = np.empty((len(files), *size, n_channels), dtype=np.uint8)
    for image, file in zip(images, files, strict=True):
        pixels = read_pixels(file, size, "L" if n_channels == 1 else "RGB", crop, limits)
        image[...] = pixels.reshape(image.shape)
    return images


@dataclass(frozen=True)
class Folder:
    """What a folder of images holds.

    Parameters
    ----------
    train, test : Part
        Images and int64 labels.
    class_names : tuple of str
        Name of label ``i`` at place ``i``.
    train_files, test_files : tuple of str
        Path of each image within the folder.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]


def load_folder(root: Path, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> Folder:
    """Read both parts and the class names; `protocols.data.load_data` tells the forms a folder may have."""
    train, test = _split(root)
    if not train and not test:
        raise DataError(
            f"`{root}` must hold images ({', '.join(IMAGE_ENDINGS)}), got none. "
            "Name a folder of class folders, or of images."
        )
    names = tuple(sorted({name for _, name in train + test if name is not None}))
    images = load_images([file for file, _ in train + test], image_size=image_size, crop=crop)
    labels = np.array([-1 if name is None else names.index(name) for _, name in train + test], dtype=np.int64)
    n_train = len(train)
    files = tuple(_as_text(file.relative_to(root).as_posix()) for file, _ in train + test)
    parts = (images[:n_train], labels[:n_train]), (images[n_train:], labels[n_train:])
    return Folder(*parts, names, files[:n_train], files[n_train:])


_Named = list[tuple[Path, str | None]]


def _split(root: Path) -> tuple[_Named, _Named]:
    """Sort the files into a training and a test part, each with its class."""
    if (root / "train").is_dir() or (root / "test").is_dir():
        return _by_class(root / "train"), _by_class(root / "test")
    files = _by_class(root)
    train: _Named = []
    test: _Named = [(file, name) for file, name in files if name is None]
    for wanted in sorted({name for _, name in files if name is not None}):
        of_class = [(file, name) for file, name in files if name == wanted]
        for position, item in enumerate(of_class):
            (test if position % _EVERY_NTH_IS_TEST == _EVERY_NTH_IS_TEST - 1 else train).append(item)
    return train, test


def _by_class(part: Path) -> _Named:
    """List every image of a part with its class, the name of the first folder below; None when it lies in no folder."""
    named = []
    for file in list_images(part) if part.is_dir() else []:
        below = file.relative_to(part).parts
        named.append((file, _as_text(below[0]) if len(below) > 1 else None))
    return named


def _as_text(name: str) -> str:
    r"""A name of a file or folder as text: bytes that are no UTF-8 are spelt out, as in ``caf\xe9``."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _files(paths: str | Path | Sequence[str | Path | ImageBytes]) -> list[Path | ImageBytes]:
    files: list[Path | ImageBytes]
    if not isinstance(paths, str | Path):
        files = [path if isinstance(path, ImageBytes) else Path(path) for path in paths]
    elif Path(paths).is_dir():
        files = [*list_images(paths)]
    else:
        files = [Path(paths)]
    if not files:
        raise DataError(
            f"`paths` must name at least one image, got {paths}. Endings known: {', '.join(IMAGE_ENDINGS)}."
        )
    return files


def _common(
    files: Sequence[Path | ImageBytes],
    headers: list[ImageHeader],
    shape: tuple[int, int, int] | None,
    image_size: tuple[int, int] | None,
) -> tuple[tuple[int, int], int]:
    """Find size and channel count of all images, or raise the error that names the first that does not fit."""
    n_channels = shape[2] if shape else 1 if all(header.is_grey for header in headers) else 3
    if n_channels not in (1, 3):
        raise DataError(f"`shape` must end in 1 or 3 channels, got {shape}. Image files are grey or colour.")
    size = shape[:2] if shape else image_size or headers[0].size
    if image_size is not None and (tuple(image_size) != tuple(size) or min(image_size) < 1):
        raise DataError(f"`image_size` must be positive and fit `shape`, got {image_size} for {shape}. Drop one.")
    for file, header in zip(files, headers, strict=True):
        own = header.size
        if image_size is None and own != size:
            raise DataError(
                f"`{file}` must be {size[0]} x {size[1]} (height x width) like the others, got {own[0]} x {own[1]}. "
                f"Pass image_size=({size[0]}, {size[1]}) to resize, or --image-size to slots fit."
            )
    return size, n_channels
