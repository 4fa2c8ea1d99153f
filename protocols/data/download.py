"""Fetch a well-known data set with torchvision, once, into one ``.npz``; the only code that uses the network."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slots.errors import DataError

DOWNLOADS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
"""Our name of each data set that can be downloaded, and torchvision's."""

_PATIENCE_S = 30.0


def download(name: str, path: Path) -> None:
    """Download a data set and write it as an archive of the layout that `protocols.data.load_data` reads.

    Parameters
    ----------
    name : str
        A key of ``DOWNLOADS``.
    path : Path
        Where the archive goes; it appears only when it is whole.

    Raises
    ------
    DataError
        If the download fails; the sentence names the file that would do instead.
    StorageError
        If the archive cannot be written.
    """
    # torchvision and the writer (which brings torch) take seconds to import, and most runs need neither.
    from torchvision import datasets

    from slots.storage.atomic import write_file

    arrays: dict[str, object] = {}
    try:
        with tempfile.TemporaryDirectory() as folder, _patience(), contextlib.redirect_stdout(sys.stderr):
            for part, train in (("train", True), ("test", False)):
                fetched = getattr(datasets, DOWNLOADS[name])(folder, train=train, download=True)
                arrays[f"x_{part}"] = np.asarray(fetched.data, dtype=np.uint8)
                arrays[f"y_{part}"] = np.asarray(fetched.targets, dtype=np.int64)
                arrays["class_names"] = np.asarray(fetched.classes, dtype=str)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"`{path}` must exist, and downloading it failed: {reason}. "
            "Put an archive with x_train, y_train, x_test, y_test there, or name its folder with --data-dir."
        ) from error
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_file(path, buffer.getvalue())


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Make a server that does not answer an error, not a wait without end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
