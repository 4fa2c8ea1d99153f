"""A data set: a training part and a test part with labels, names of classes, and a digest of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from protocols.data.dividing import rows_to_test
from protocols.data.images import Part
from slots.errors import UsageError

if TYPE_CHECKING:
    from slots.shapes import RawInputs


@dataclass(frozen=True)
class Dataset:
    """A training part and a test part, either of which may be empty.

    Attributes
    ----------
    name : str
        The name that was asked for, or the file's or folder's.
    x_train, x_test : array
        Images: uint8 of shape (example, height, width, channel), 0 to 255. Features: float32 (example, feature). Text:
        strings, as Python objects of shape (example,).
    y_train, y_test : int64 array of shape (example,)
        Positions in ``class_names``; -1 where no label is known.
    class_names : tuple of str
    digest : str
        sha256 of the arrays and names: equal digests mean equal data, wherever they came from.
    test_rows : int64 array of shape (test example,), optional
        Where the source had one part and was divided on reading: which of its rows became the test part. Default: None,
        the source has its own parts.
    source_digest : str
        Digest of the data that these are some classes of; empty where nothing was left out.
    train_files, test_files : tuple of str
        Of a folder of images, the file of each example, as a path within the folder; else empty.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    digest: str
    test_rows: NDArray[np.int64] | None = None
    source_digest: str = ""
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["images", "features", "text"]:
        """Whether an example is an image, a feature vector or a text."""
        if self.x_train.ndim == 1:
            return "text"
        return "images" if self.x_train.ndim == 4 else "features"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (height, width, channel), (feature,), or () for a text."""
        return cast("tuple[int, ...]", self.x_train.shape[1:])

    @property
    def has_labels(self) -> bool:
        """Whether any example of either part has a label."""
        return bool((self.y_train >= 0).any() or (self.y_test >= 0).any())

    def is_named_by(self, figures: Mapping[str, Any]) -> bool:
        """Whether the record of a fit names this data, or some classes of it, as what was learned."""
        return self.digest in (figures.get("data_digest"), figures.get("source_digest"))


def make_dataset(name: str, train: Part, test: Part, class_names: tuple[str, ...]) -> Dataset:
    """A data set from its two parts, with the digest of its content.

    Parameters
    ----------
    name : str
        What the user called it, for summaries and pages.
    train, test : pair of arrays
        Inputs and int64 labels; as `Dataset` describes them.
    class_names : tuple of str
        Name of label ``i`` at place ``i``.

    Returns
    -------
    Dataset
    """
    sha = hashlib.sha256("\n".join(class_names).encode())
    for array in (*train, *test):
        sha.update(f"\n{array.dtype.str} {array.shape}\n".encode())
        sha.update(_bytes(array))
    return Dataset(name, *train, *test, class_names, sha.hexdigest())


def divided(name: str, whole: Part, class_names: tuple[str, ...]) -> Dataset:
    """A data set from a source without parts: a fifth of each class, and what has no label, becomes the test part.

    Parameters
    ----------
    name : str
        What the user called it.
    whole : pair of arrays
        Inputs and int64 labels.
    class_names : tuple of str
        Name of label ``i`` at place ``i``.

    Returns
    -------
    Dataset
        With ``test_rows``.
    """
    x, y = whole
    rows = rows_to_test(y)
    kept = np.setdiff1d(np.arange(len(y)), rows)
    return replace(make_dataset(name, (x[kept], y[kept]), (x[rows], y[rows]), class_names), test_rows=rows)


def undivided(data: Dataset, part: Literal["train", "test"] = "test") -> Dataset:
    """The data as its source has it: all rows in their order, in one part; unchanged where it has its own parts.

    Parameters
    ----------
    data : Dataset
        Left as it is; the result keeps its digest.
    part : {"train", "test"}
        The part that gets all rows.

    Returns
    -------
    Dataset
    """
    if data.test_rows is None:
        return data
    n = len(data.x_train) + len(data.x_test)
    order = np.argsort(np.concatenate([np.setdiff1d(np.arange(n), data.test_rows), data.test_rows]))
    x, y = np.concatenate([data.x_train, data.x_test])[order], np.concatenate([data.y_train, data.y_test])[order]
    whole, nothing = (x, y), (x[:0], y[:0])
    train, test = (whole, nothing) if part == "train" else (nothing, whole)
    return replace(data, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1], test_rows=None)


def only_classes(data: Dataset, wanted: str) -> Dataset:
    """The examples of some classes; labels and names stay as they are.

    Parameters
    ----------
    data : Dataset
        Left as it is; the result has a digest of its own.
    wanted : str
        Names with commas between them; ``0-7`` stands for all classes from ``0`` to ``7`` in the data's order.

    Returns
    -------
    Dataset

    Raises
    ------
    UsageError
        If there is no such class.
    """
    names, keep = data.class_names, np.zeros(len(data.class_names), bool)
    for term in (part.strip() for part in wanted.split(",")):
        first, dash, last = (term, "", term) if term in names else (part.strip() for part in term.partition("-"))
        if first not in names or (dash and last not in names) or not term:
            raise UsageError(f"`classes` must name classes of the data, got {term!r}. It has {', '.join(names)}.")
        keep[names.index(first) : names.index(last) + 1] = True
    parts, kept_files = [], []
    for x, y, files in (
        (data.x_train, data.y_train, data.train_files), (data.x_test, data.y_test, data.test_files)
    ):  # fmt: skip
        rows = (y >= 0) & keep[np.maximum(y, 0)]
        parts.append((x[rows], y[rows]))
        kept_files.append(tuple(file for file, kept in zip(files, rows, strict=False) if kept))
    found = make_dataset(data.name, parts[0], parts[1], names)
    return replace(found, source_digest=data.digest, train_files=kept_files[0], test_files=kept_files[1])


def check_sum(x: RawInputs, row: int) -> str:
    """Eight hex digits that tell whether a row is still the same example."""
    example = x[row]
    raw = example.encode() if isinstance(example, str) else np.ascontiguousarray(np.asarray(example)).tobytes()
    return hashlib.sha256(raw).hexdigest()[:8]


def _bytes(array: NDArray[Any]) -> Any:
    """An array's content; of texts their bytes, each behind its length, so that no two lists of texts are alike."""
    if array.dtype == object:
        return b"".join(b"%d:%s" % (len(raw), raw) for raw in (text.encode() for text in array))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
