"""What ``--data`` names: bundled digits, well-known sets, files and folders, all as one kind of object."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from protocols.data.arrays import load_archive, load_array
from protocols.data.dataset import Dataset, make_dataset
from protocols.data.download import DOWNLOADS, download
from protocols.data.images import IMAGE_ENDINGS, load_folder
from protocols.data.saved import is_saved, load_saved
from protocols.data.tables import ENDINGS, Columns, load_table, load_tables
from slots.errors import DataError, UsageError

NAMES = ("digits", *DOWNLOADS)
"""The names `load_data` knows; everything else is a path."""

_DIGITS = Path(__file__).with_name("digits.npz")
"""Scikit-learn's digits (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0) times 255 / 16, rounded, in its
split of seed 0 that keeps the classes' shares. Kept here, since scikit-learn takes two seconds to import."""


def load_data(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Load a data set by name or path.

    Parameters
    ----------
    source : str or Path
        ``digits`` (part of scikit-learn: 8 x 8 images, 1,437 to train on and 360 to test, a stratified split that is
        always the same); ``mnist``, ``fashion_mnist`` or ``cifar10`` (``NAME.npz`` in the data folder, downloaded there
        if missing); the path of a file: ``.npz``, ``.npy``, ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` or ``.parquet``;
        or of a folder of images or tables. A name wins over a file of that name; write ``./mnist`` for the file.
    data_dir : path, optional
        Default: ``$SLOTS_DATA_DIR``, else ``slots`` in the user's cache folder.
    image_size : (height, width), optional
        Resize images of a folder to this; otherwise they must agree.
    crop : float in (0, 1], optional
        With ``image_size``: resize until this share of an image covers the size, and cut out the middle.
    text_column, label_column : str, optional
        Columns of a table with the sentences, and with the labels. Default: found by their names
        (`protocols.data.tables.TEXT_COLUMNS` and ``LABEL_COLUMNS``).

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data, or it is damaged or of another form. The sentence names file and key.
    UsageError
        If ``image_size`` is given for anything but a folder, or a column for anything but tables.

    Notes
    -----
    An archive holds ``x_train, y_train, x_test, y_test``, and ``class_names`` if it likes: x uint8 of shape (example,
    height, width) or (example, height, width, channel), or 2-D numbers, which are features; y whole numbers from 0,
    or -1 for unknown, or strings. ``features`` or ``embeddings`` may stand for x, ``labels`` for y. Either part may be
    missing, and so may labels. Arrays of Python objects are refused: reading them would run code.

    A ``.npy`` file holds x alone; `protocols.data.arrays.load_array` says where its labels lie. A table has a column
    of sentences, of vectors, or columns of numbers, and one of labels if it likes; a column ``split`` tells the parts.
    A file without parts of its own is divided: a fifth of each class, drawn with a fixed seed, and what has no label
    become test data, and ``test_rows`` says which.

    A folder holds ``train/CLASS/*.png`` and ``test/CLASS/*.png``; or ``CLASS/*.png``, of which every fifth image
    in the order of names becomes test data; or images without a class, which become unlabelled test data; or
    the tables ``train.csv`` and ``test.csv``, or with another ending; or what ``save_to_disk`` of Hugging Face's
    datasets wrote, with the splits ``train`` and ``test``, or one that is divided.
    """
    path, columns = Path(source), Columns(text_column, label_column)
    if image_size is not None and (source in NAMES or not path.is_dir()):
        raise UsageError(f"`image_size` must be left out for {str(source)!r}, got {image_size}. It is for folders.")
    named = text_column or label_column
    if named is not None and (source in NAMES or not (path.is_dir() or path.suffix.lower() in ENDINGS)):
        raise UsageError(f"A column must be left out for {str(source)!r}, got {named!r}. It is for tables.")
    if source == "digits":
        return load_archive(_DIGITS, name="digits")
    if source in DOWNLOADS:
        return _named(str(source), Path(data_dir) if data_dir else default_data_dir())
    if path.is_dir():
        if is_saved(path):
            return load_saved(path, columns, image_size=image_size, crop=crop)
        if (tables := load_tables(path, columns)) is not None:
            return tables
        found = load_folder(path, image_size=image_size, crop=crop)
        data = make_dataset(path.resolve().name, found.train, found.test, found.class_names)
        return replace(data, train_files=found.train_files, test_files=found.test_files)
    if path.is_file():
        return _load_file(path, columns)
    raise DataError(
        f"`data` must be one of {', '.join(NAMES)}, or a path that exists, got {str(source)!r}. "
        "A path is a folder of images or tables, or a file (.npz, .npy, .csv, .jsonl, .parquet)."
    )


def _load_file(path: Path, columns: Columns) -> Dataset:
    ending = path.suffix.lower()
    if ending in IMAGE_ENDINGS:
        raise DataError(f"`{path}` must be a folder of images, got one image. Name its folder.")
    if ending in ENDINGS:
        return load_table(path, columns)
    return load_array(path) if ending == ".npy" else load_archive(path)


def default_data_dir() -> Path:
    """Tell where named data sets are kept: ``$SLOTS_DATA_DIR``, else ``slots`` in the user's cache folder."""
    if chosen := os.environ.get("SLOTS_DATA_DIR"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "slots"


def _named(name: str, data_dir: Path) -> Dataset:
    path = data_dir / f"{name}.npz"
    if not path.exists():
        download(name, path)
    return load_archive(path, name=name)
