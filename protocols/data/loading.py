"""What ``--data`` names: bundled digits, well-known sets, archives and folders of images, all as one kind of object."""

from __future__ import annotations

import lzma
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.data.dataset import Dataset, make_dataset
from protocols.data.download import DOWNLOADS, download
from protocols.data.images import IMAGE_ENDINGS, load_folder
from slots.errors import DataError, UsageError

NAMES = ("digits", *DOWNLOADS)
"""The names `load_data` knows; everything else is a path."""

_MAX_LABEL = 1_000_000
_N_DIGITS_TEST = 360

# What zipfile and numpy raise on damaged or hostile archives; found by flipping every byte of one.
_DAMAGE = (
    OSError, ValueError, EOFError, LookupError, RuntimeError, SyntaxError, TypeError, ArithmeticError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error, lzma.LZMAError,
)  # fmt: skip


def load_data(
    source: str | Path, *, data_dir: str | Path | None = None, image_size: tuple[int, int] | None = None
) -> Dataset:
    """Load a data set by name or path.

    Parameters
    ----------
    source : str or Path
        ``digits`` (part of scikit-learn: 8 x 8 images, 1,437 to train on and 360 to test, a stratified split that is
        always the same); ``mnist``, ``fashion_mnist`` or ``cifar10`` (``NAME.npz`` in the data folder, downloaded there
        if missing); the path of an ``.npz`` archive; or of a folder of images. A name wins over a file of that
        name; write ``./mnist`` for the file.
    data_dir : path, optional
        Default: ``$SLOTS_DATA_DIR``, else ``slots`` in the user's cache folder.
    image_size : (height, width), optional
        Resize images of a folder to this; otherwise they must agree.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data, or it is damaged or of another form. The sentence names file and key.
    UsageError
        If ``image_size`` is given for anything but a folder.

    Notes
    -----
    An archive holds ``x_train, y_train, x_test, y_test``, and ``class_names`` if it likes: x uint8 of shape (example,
    height, width) or (example, height, width, channel), or 2-D numbers, which are features; y whole numbers from 0,
    or -1 for unknown. Either part may be missing, and so may labels. Arrays of Python objects are refused: reading
    them would run code.

    A folder holds ``train/CLASS/*.png`` and ``test/CLASS/*.png``; or ``CLASS/*.png``, of which every fifth image
    in the order of names becomes test data; or images without a class, which become unlabelled test data.
    """
    if image_size is not None and (source in NAMES or not Path(source).is_dir()):
        raise UsageError(f"`image_size` must be left out for {str(source)!r}, got {image_size}. It is for folders.")
    if source == "digits":
        return _digits()
    if source in DOWNLOADS:
        return _named(str(source), Path(data_dir) if data_dir else default_data_dir())
    path = Path(source)
    if path.is_dir():
        train, test, names = load_folder(path, image_size=image_size)
        return make_dataset(path.resolve().name, train, test, names)
    if path.is_file():
        if path.suffix.lower() in IMAGE_ENDINGS:
            raise DataError(f"`{path}` must be a folder of images, got one image. Name its folder.")
        return load_archive(path)
    raise DataError(
        f"`data` must be one of {', '.join(NAMES)}, or a path that exists, got {str(source)!r}. "
        "A path is a folder of images or an .npz archive."
    )


def default_data_dir() -> Path:
    """Tell where named data sets are kept: ``$SLOTS_DATA_DIR``, else ``slots`` in the user's cache folder."""
    if chosen := os.environ.get("SLOTS_DATA_DIR"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "slots"


def load_archive(path: Path, *, name: str | None = None) -> Dataset:
    """Load an ``.npz`` archive; see `load_data` for what it holds."""
    arrays = _read_arrays(path)
    parts = {key: _examples(arrays[key], f"{path}: {key}") for key in ("x_train", "x_test") if key in arrays}
    shapes = {part.shape[1:] for part in parts.values()}
    if len(shapes) == 2:
        raise DataError(
            f"`{path}` must have examples of one shape, got {' and '.join(map(str, sorted(shapes)))}. "
            "Make x_train and x_test alike."
        )
    if not sum(len(part) for part in parts.values()):
        raise DataError(f"`{path}` must hold at least one example, got none. Check how it was written.")
    some = next(iter(parts.values()))
    x_train, x_test = (parts.get(key, some[:0]) for key in ("x_train", "x_test"))
    y_train = _labels(arrays.get("y_train"), len(x_train), f"{path}: y_train")
    y_test = _labels(arrays.get("y_test"), len(x_test), f"{path}: y_test")
    n_classes = 1 + int(max(y_train.max(initial=-1), y_test.max(initial=-1)))
    names = _class_names(arrays.get("class_names"), n_classes, path)
    return make_dataset(name or path.stem, (x_train, y_train), (x_test, y_test), names)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    y = labels.astype(np.int64)
    train, test = train_test_split(np.arange(len(y)), test_size=_N_DIGITS_TEST, stratify=y, random_state=0)
    train, test = np.sort(train), np.sort(test)
    return make_dataset("digits", (x[train], y[train]), (x[test], y[test]), tuple("0123456789"))


def _named(name: str, data_dir: Path) -> Dataset:
    path = data_dir / f"{name}.npz"
    if not path.exists():
        download(name, path)
    return load_archive(path, name=name)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    known = ("x_train", "y_train", "x_test", "y_test", "class_names")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"`{path}` must be an .npz archive, got a single array. Write it with numpy.savez.")
            if not {"x_train", "x_test"} & set(archive.files):
                listed = ", ".join(archive.files) or "nothing"
                raise DataError(f"`{path}` must hold x_train or x_test, got {listed}. Rename its arrays.")
            arrays = {key: archive[key] for key in known if key in archive.files}
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"`{path}` must be an .npz archive of plain arrays, got: {_first_line(error)}. Write it with numpy.savez."
        ) from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"`{path}: {key}` must be an array, got other content. Write it with numpy.savez.")
    return arrays


def _examples(x: NDArray[Any], where: str) -> NDArray[Any]:
    if x.ndim == 2 and x.dtype.kind in "fiub":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            features = np.ascontiguousarray(x, dtype=np.float32)
        if x.shape[1] == 0:
            raise DataError(f"`{where}` must have at least one feature, got shape {x.shape}. Check how it was written.")
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise DataError(
                f"`{where}` must be finite numbers, got {features[row].min()} in row {row}. Clean the data."
            )
        return features
    if x.ndim not in (3, 4):
        raise DataError(
            f"`{where}` must be images (example, height, width[, channel]) or features (example, feature), "
            f"got shape {x.shape}. Reshape it."
        )
    if x.dtype != np.uint8:
        raise DataError(f"`{where}` must be uint8 images, 0 to 255, got {x.dtype}. Scale and convert them.")
    images = x[..., np.newaxis] if x.ndim == 3 else x
    if images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise DataError(f"`{where}` must have 1 or 3 channels, last, got shape {x.shape}. Move the channel axis.")
    return np.ascontiguousarray(images)


def _labels(y: NDArray[Any] | None, n_examples: int, where: str) -> NDArray[np.int64]:
    if y is None:
        return np.full(n_examples, -1, dtype=np.int64)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(
            f"`{where}` must be a row of whole numbers, got {y.dtype} of shape {y.shape}. Encode the labels."
        )
    if len(y) != n_examples:
        raise DataError(f"`{where}` must have one label an example, got {len(y)} for {n_examples}. Check the archive.")
    if len(y) and (int(y.min()) < -1 or int(y.max()) >= _MAX_LABEL):
        raise DataError(
            f"`{where}` must lie between -1 (unknown) and {_MAX_LABEL - 1}, got {y.min()} to {y.max()}. "
            "Number the classes from 0."
        )
    return np.ascontiguousarray(y, dtype=np.int64)


def _class_names(names: NDArray[Any] | None, n_classes: int, path: Path) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(n_classes)))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"`{path}: class_names` must be a row of strings, got {names.dtype}. Convert them with str.")
    if len(names) < n_classes:
        raise DataError(
            f"`{path}: class_names` must name all {n_classes} classes, got {len(names)}. Add the missing names."
        )
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
