"""`read_source`: a `DataLoader` or `Dataset` of PyTorch, or a data set of Hugging Face, read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.errors import DataError
from slots.sources.converting import input_array, label_array
from slots.sources.spooling import RowSpool

INPUT_KEYS = (
    "image", "img", "images", "pixel_values", "text", "sentence", "utterance", "embedding", "embeddings", "features",
    "x",
)  # fmt: skip
LABEL_KEYS = ("label", "labels", "target", "class", "intent", "category", "y")
"""Names that inputs and labels have in a data set of named columns; the first that is there is taken."""

IN_MEMORY = 256 << 20
"""Inputs up to this size, 256 MiB, are held in memory; more lie in a file in the folder for temporary files."""

_BATCH = 256  # examples of a data set that are read at once


@dataclass(frozen=True)
class DataArrays:
    """What a data set holds.

    Parameters
    ----------
    x : array of shape (example, ...)
        uint8 images (example, height, width[, channel]), float32 rows (example, feature), or strings (example,). Where
        they are larger than `IN_MEMORY` it is a map of a nameless file, which goes when the array does.
    y : array of shape (example,) or None
        Labels as the data set has them, numbers or names; None where it has none.
    class_names : tuple of str
        Name of label ``i`` at place ``i``, where the data set tells; else empty.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None
    class_names: tuple[str, ...] = ()

    def named_labels(self) -> npt.NDArray[Any] | None:
        """Labels by name, where the data set names its numbers; else as it has them.

        Raises
        ------
        DataError
            If a number has no name.
        """
        if self.y is None or not self.class_names or self.y.dtype.kind not in "iu":
            return self.y
        if not bool(((self.y >= 0) & (self.y < len(self.class_names))).all()):
            raise DataError(
                f"`x` must have labels from 0 to {len(self.class_names) - 1}, as it names so many classes, got "
                f"{self.y.min()} to {self.y.max()}. Leave examples without a label out."
            )
        return np.asarray(np.array(self.class_names)[self.y])


def is_source(x: object) -> bool:
    """Whether something is a data set that `read_source` reads, rather than an array or a list.

    Parameters
    ----------
    x : object
        What a user passed as inputs.

    Returns
    -------
    bool
    """
    if x is None or isinstance(x, (np.ndarray, list, tuple, str)):
        return False
    if _is_of_hugging_face(x):
        return True
    from torch.utils.data import DataLoader, Dataset

    return isinstance(x, (DataLoader, Dataset))


def read_source(
    source: Any, *, inputs: str | None = None, labels: str | None = None, in_memory: int = IN_MEMORY
) -> DataArrays:
    """Read a data set once, from its first example to its last.

    Parameters
    ----------
    source : DataLoader, Dataset or datasets.Dataset
        Of PyTorch: a ``DataLoader`` with batches ``(inputs, labels)``, or a ``Dataset`` with examples
        ``(input, label)``; inputs alone, or a dict that names them, will do. Of Hugging Face: one split, as ``Dataset``
        or ``IterableDataset``. Inputs are images (PIL, uint8, or floats in [0, 1]; the channel first or last), rows of
        numbers, or strings.
    inputs, labels : str, optional
        What they are called in a dict or in columns. Default: the first of `INPUT_KEYS`, and of `LABEL_KEYS`.
    in_memory : int, default `IN_MEMORY`
        Bytes of inputs from which on they lie in a file.

    Returns
    -------
    DataArrays

    Raises
    ------
    DataError
        If it is empty, holds examples of several shapes, floats that are no images, or no inputs that can be found.

    Notes
    -----
    A transform that draws by chance is drawn once for each example: augment by ``TrainConfig(augment=...)`` instead.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> pairs = TensorDataset(torch.rand(5, 3, 4, 4), torch.arange(5))
    >>> found = read_source(DataLoader(pairs, batch_size=2))
    >>> found.x.shape, found.x.dtype, found.y
    ((5, 4, 4, 3), dtype('uint8'), array([0, 1, 2, 3, 4]))
    """
    spool, found, n = RowSpool(in_memory), list[npt.NDArray[Any]](), 0
    for x, y in _batches(source, inputs, labels):
        block = input_array(x, spool.form)
        spool.add(block)
        n += len(block)
        if y is not None:
            found.append(label_array(y, len(block)))
        if found and sum(map(len, found)) != n:
            raise DataError("`x` must have a label for every example or for none, got some. Fill them in.")
    rows = spool.rows()
    return DataArrays(rows, np.concatenate(found) if found else None, _class_names(source, labels))


def labelled(x: Any, y: Any) -> tuple[Any, Any]:
    """Inputs and labels, both from the data set where ``x`` is one and no labels are given.

    Parameters
    ----------
    x : array-like or data set
        As a user passed them.
    y : array-like or None
        None: the labels of the data set, by name where it names its numbers.

    Returns
    -------
    x, y : array-like
        Unchanged where ``x`` is no data set or ``y`` is given.
    """
    if y is None and is_source(x):
        found = read_source(x)
        return found.x, found.named_labels()
    return x, y


def _is_of_hugging_face(x: object) -> bool:
    """A data set, or a dict of its splits; known by its package's name, which nobody need have installed."""
    return type(x).__module__.partition(".")[0] == "datasets" and hasattr(x, "column_names")


def _batches(source: Any, inputs: str | None, labels: str | None) -> Iterator[tuple[Any, Any]]:
    """Inputs and labels, many at once; labels are None where there are none."""
    if _is_of_hugging_face(source):
        yield from _columns(source, inputs, labels)
        return
    from torch.utils.data import DataLoader

    if isinstance(source, DataLoader):
        yield from (_divided(batch, inputs, labels) for batch in source)
        return
    x, y = list[Any](), list[Any]()
    for example in _examples(source):
        one, label = _divided(example, inputs, labels)
        x.append(one)
        y += [] if label is None else [label]
        if y and len(y) < len(x):
            raise DataError("`x` must have a label for every example or for none, got some. Fill them in.")
        if len(x) == _BATCH:
            yield x, y or None
            x, y = [], []
    if x:
        yield x, y or None


def _examples(source: Any) -> Iterator[Any]:
    """Examples of a data set that is asked by number, or that tells them by itself."""
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        for i in range(len(source)):
            yield source[i]
    else:
        yield from source


def _divided(batch: Any, inputs: str | None, labels: str | None) -> tuple[Any, Any]:
    """Inputs and labels of what a data set of PyTorch gives."""
    if isinstance(batch, Mapping):
        x, y = key_names(list(batch), inputs=inputs, labels=labels)
        return batch[x], None if y is None else batch[y]
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) not in (1, 2):
        raise DataError(
            f"`x` must give pairs of inputs and labels, got {len(batch)} parts. Let the data set leave the others out."
        )
    return batch[0], batch[1] if len(batch) == 2 else None


def _columns(source: Any, inputs: str | None, labels: str | None) -> Iterator[tuple[Any, Any]]:
    """Inputs and labels of a data set of Hugging Face; other columns are not read."""
    if isinstance(source, Mapping):
        raise DataError(f"`x` must be one split of the data set, got all of {', '.join(source)}. Pass x['train'].")
    names = source.column_names
    if names is None:  # a stream that nobody has looked into
        names = list(next(iter(source), {}))
    if not names:
        return
    x, y = key_names(names, inputs=inputs, labels=labels)
    for batch in source.select_columns([x] if y is None else [x, y]).iter(batch_size=_BATCH):
        yield batch[x], None if y is None else batch[y]


def key_names(names: Sequence[str], *, inputs: str | None = None, labels: str | None = None) -> tuple[str, str | None]:
    """What inputs and labels are called among the names of a data set.

    Parameters
    ----------
    names : sequence of str
        All that there are.
    inputs, labels : str, optional
        What a user says.

    Returns
    -------
    inputs : str
    labels : str or None
        None where there are none.

    Raises
    ------
    DataError
        If there are no inputs, or not under the name that was given.
    """
    for name in (inputs, labels):
        if name is not None and name not in names:
            raise DataError(
                f"`{name}` must be a column of the data set, got {', '.join(map(str, names))}. Name another."
            )
    x = inputs or next((key for key in INPUT_KEYS if key in names and key != labels), None)
    if x is None:
        raise DataError(
            f"`x` must have inputs under one of the names {', '.join(INPUT_KEYS)}, got {', '.join(map(str, names))}. "
            "Rename the column."
        )
    return x, labels or next((key for key in LABEL_KEYS if key in names and key != x), None)


def _class_names(source: Any, labels: str | None) -> tuple[str, ...]:
    """Names of the label numbers, where a data set tells them: features of Hugging Face, ``classes`` of torchvision."""
    if _is_of_hugging_face(source):
        features = source.features or {}
        key = labels or next((key for key in LABEL_KEYS if key in features), None)
        return tuple(getattr(features[key], "names", None) or ()) if key else ()
    inner = source
    with suppress(AttributeError):
        while not hasattr(inner, "classes"):  # a loader, or a subset
            inner = inner.dataset
        return tuple(map(str, inner.classes))
    return ()
