"""Labels: the numbers that stand for classes, their names, and what a user gives as labels."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.arrays import on_host
from slots.errors import DataError, UsageError
from slots.sources.reading import labelled

MOST_GAPS = 100_000
"""Label ids below this may have any gaps; beyond it at most nine of ten ids may stand for nothing."""

GivenLabels = npt.NDArray[Any] | Mapping[int, int | str]
"""Label ids, one an example and -1 for unknown; or example -> label id or name."""


def check_name(name: str, what: str = "label") -> str:
    """Return a name if it is text that a file can hold.

    Parameters
    ----------
    name : str
        Of a class, a label or a cluster.
    what : str, default "label"
        What the message calls it.

    Raises
    ------
    DataError
        If it is empty, or holds half of a character (a lone surrogate), which UTF-8 lacks.
    """
    if not name.strip():
        raise DataError(f"`{what}` must not be empty, got {name!r}. Name it, or leave it out where it is unknown.")
    if not name.isascii() and any("\ud800" <= it <= "\udfff" for it in name):
        raise DataError(f"`{what}` must be text, got half of a character in {name!r}. Write it in UTF-8.")
    return name


def check_ids(largest: int, *, n_distinct: int, n_names: int = 0, what: str = "y") -> None:
    """Refuse ids that leave large gaps: models number their labels, and keep a name for each number up to the largest.

    Parameters
    ----------
    largest : int
        Largest id.
    n_distinct : int
        Number of different ids.
    n_names : int, default 0
        Ids that have a name already.
    what : str, default "y"
        What the message calls them.

    Raises
    ------
    DataError
        If the largest id is neither named, nor below `MOST_GAPS`, nor below ten times the number of different ids.
    """
    if largest >= max(MOST_GAPS, 10 * n_distinct, n_names):
        raise DataError(
            f"`{what}` must number the classes from 0 without large gaps, got {largest} among {n_distinct} different "
            "ids. Number them anew, or give strings, which are taken as names."
        )


@dataclass(frozen=True)
class LabelNames:
    """The label ids given out so far, and what each of them is called. Ids are never given out twice.

    Parameters
    ----------
    names : tuple of str
        Name of label ``i`` at place ``i``; their number is the next free id.
    clusters : frozenset of int
        Labels that stand for a cluster nobody has named yet.

    Examples
    --------
    >>> labels = LabelNames(("cat", "dog"))
    >>> labels.name(1), labels.name(7), labels.id("dog"), labels.ids(["dog", "fish"]).tolist()
    ('dog', '7', 1, [1, -1])
    """

    names: tuple[str, ...]
    clusters: frozenset[int] = frozenset()

    @property
    def n_labels(self) -> int:
        """Ids given out so far; the next new label gets this number."""
        return len(self.names)

    def name(self, label: int) -> str:
        """Name of a label; a label beyond the known names is shown as its number."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def id(self, name: str) -> int:
        """Id of the label with this name, the lowest where two share it.

        Raises
        ------
        UsageError
            If there is no such label.
        """
        if name not in self.names:
            raise UsageError(f"`name` must be a label of the model, got {name!r}. It knows {', '.join(self.names)}.")
        return self.names.index(name)

    def ids(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Ids of the labels with these names, -1 where there is none; shape (name,)."""
        known = {name: label for label, name in reversed(list(enumerate(self.names)))}
        return np.array([known.get(name, -1) for name in names], np.int64)

    def reaching(self, n_labels: int) -> LabelNames:
        """The same with at least so many ids given out; those that are new go by their numbers."""
        return replace(self, names=(*self.names, *map(str, range(len(self.names), n_labels))))

    def with_name(self, name: str) -> LabelNames:
        """The same in which the name has an id: the one it has, else the next; `check_name` holds for a new one."""
        return self if name in self.names else replace(self, names=(*self.names, check_name(name)))

    def with_clusters(self, count: int) -> LabelNames:
        """The same with as many further clusters, under the next ids."""
        fresh = range(len(self.names), len(self.names) + count)
        names = (*self.names, *(f"cluster {label}" for label in fresh))
        return LabelNames(names, self.clusters | set(fresh))

    def read(self, labels: GivenLabels | None, n: int) -> tuple[npt.NDArray[np.int64], LabelNames]:
        """Read what a user says of ``n`` examples.

        Parameters
        ----------
        labels : int array of shape (example,), or mapping from row to label, optional
            Ids, -1 for unknown; a mapping may also hold names, and new names get the next ids.
        n : int
            Number of examples.

        Returns
        -------
        given : int64 array of shape (example,)
            Ids, -1 where unknown.
        known : LabelNames
            The present labels with the new ones behind them.

        Raises
        ------
        DataError
            If the labels are no such array or mapping, are for other rows, or are ids with large gaps (`check_ids`).
        """
        if labels is None:
            return np.full(n, -1, np.int64), self
        given, known = self._read_mapping(labels, n) if isinstance(labels, Mapping) else (_read_array(labels, n), self)
        n_distinct = known.n_labels + len(np.unique(given))
        check_ids(int(given.max(initial=-1)), n_distinct=n_distinct, n_names=known.n_labels, what="labels")
        return given, known.reaching(1 + int(given.max(initial=-1)))

    def _read_mapping(self, labels: Mapping[int, int | str], n: int) -> tuple[npt.NDArray[np.int64], LabelNames]:
        given, known = np.full(n, -1, np.int64), self
        for row, label in labels.items():
            place = _whole_number(row)
            if place is None or not 0 <= place < n:
                raise DataError(f"`labels` must be for rows 0 to {n - 1}, got row {row!r:.60}. Is it for other data?")
            if isinstance(label, str):
                known = known.with_name(label)
                given[place] = known.id(label)
                continue
            number = _whole_number(label)
            if number is None or not 0 <= number < _LARGEST:
                raise DataError(
                    f"`labels` must be names or numbers >= 0, got {label!r:.60} for row {row}. Leave it out."
                )
            given[place] = number
        return given, known


_LARGEST = 2**63
"""Numbers from here on do not fit into 64 bits with a sign."""


def _whole_number(value: Any) -> int | None:
    """A whole number of Python or NumPy as it is; None for anything else, 1.0 too."""
    try:
        return operator.index(value)
    except TypeError:
        return None


def _read_array(labels: npt.NDArray[Any], n: int) -> npt.NDArray[np.int64]:
    array = np.asarray(labels)
    whole = array.shape == (n,) and np.issubdtype(array.dtype, np.integer)
    if not whole or (n and not -1 <= int(array.min()) <= int(array.max()) < _LARGEST):
        held = f" from {array.min()} to {array.max()}" if whole else ""
        raise DataError(
            f"`labels` must be whole numbers >= -1 of shape ({n},), got {array.dtype} of shape {array.shape}{held}. "
            "Give one label an example, -1 where it is unknown."
        )
    return array.astype(np.int64)


def numbered(y: npt.ArrayLike, class_names: tuple[str, ...] = ()) -> tuple[npt.ArrayLike, tuple[str, ...]]:
    """Labels that are names, as ids; numbers stay as they are.

    Parameters
    ----------
    y : array of shape (example,)
        Whole numbers or strings.
    class_names : tuple of str
        Where given, the ids are places among these.

    Returns
    -------
    labels : array of shape (example,)
    class_names : tuple of str
        The names, sorted, where none were given.

    Raises
    ------
    DataError
        If a name is none of the given ones.

    Examples
    --------
    >>> numbered(["dog", "cat", "dog"])
    (array([1, 0, 1]), ('cat', 'dog'))
    """
    values = np.asarray(y)
    if values.dtype == object and len(values) and all(isinstance(value, str) for value in values):
        values = values.astype(str)
    if values.dtype.kind != "U" or values.ndim != 1:
        return y, class_names
    names = class_names or tuple(check_name(name, "y") for name in np.unique(values).tolist())
    ids = LabelNames(names).ids(values.tolist())
    if (ids < 0).any():
        raise DataError(
            f"`y` must hold names of `class_names`, got {str(values[ids < 0][0])!r}. Add it to class_names."
        )
    return ids, names


def check_labels(x: Sized, y: npt.ArrayLike, *, n_names: int | None = None) -> npt.NDArray[np.int64]:
    """Labels of a training set as int64.

    Parameters
    ----------
    x : sequence of length (example,)
        The examples.
    y : int array of shape (example,)
        Their labels, >= 0.
    n_names : int, optional
        The ids are to be those of a model with so many names: ids with large gaps are refused (`check_ids`). Default:
        any ids.

    Returns
    -------
    int64 array of shape (example,)

    Raises
    ------
    DataError
        If there are no examples, or the labels are not one whole number >= 0 for each, or leave large gaps.
    """
    labels = np.asarray(y)
    if len(x) == 0:
        raise DataError("`x` must hold at least one example, got none. Check the training part of the data.")
    if labels.shape != (len(x),):
        raise DataError(f"`y` must have shape ({len(x)},), got {labels.shape}. Give one label an example.")
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or not 0 <= int(labels.min()) <= int(labels.max()) < _LARGEST:
        least = f" from {labels.min()}" if labels.dtype.kind in "biuf" else ""
        most = f" to {labels.max()}" if whole and int(labels.max()) >= _LARGEST else ""
        raise DataError(
            f"`y` must hold whole numbers >= 0, got {labels.dtype}{least}{most}. Number the classes from 0."
        )
    if n_names is not None:
        check_ids(int(labels.max()), n_distinct=len(np.unique(labels)), n_names=n_names)
    return labels.astype(np.int64)


def check_same_kind(known: npt.NDArray[Any], more: npt.NDArray[Any]) -> None:
    """Refuse numbers after names, and names after numbers: they cannot be sorted together.

    Parameters
    ----------
    known : array of shape (class,)
        Labels so far.
    more : array of shape (example,)
        Labels that come.

    Raises
    ------
    DataError
        If one holds names and the other numbers.
    """
    if (known.dtype.kind in "biuf") != (more.dtype.kind in "biuf"):
        raise DataError(
            f"`y` must hold labels of the same kind as before, got {more.dtype} after {known.dtype}. "
            "Convert them to strings or to numbers."
        )


def check_rows_and_labels(
    estimator: Any,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None,
    *,
    reset: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Rows and class labels as a scikit-learn classifier takes them.

    Parameters
    ----------
    estimator : BaseEstimator
        Told the number and names of the features by ``reset``, and asked for them otherwise.
    x : array-like of shape (example, feature), or data set
        Finite, not sparse.
    y : array-like of shape (example,) or None
        Strings, whole numbers, booleans, or floats that are whole. None: those of the data set, by name where it names
        them.
    reset : bool
        Whether these are the first rows.

    Returns
    -------
    rows : float64 array of shape (example, feature)
    labels : array of shape (example,)

    Raises
    ------
    ValueError
        If the data is empty or not finite, or the labels are continuous.
    TypeError
        If the data is sparse.
    """
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d, validate_data

    x, y = labelled(x, y)
    rows, labels = validate_data(estimator, on_host(x), on_host(y), dtype=np.float64, reset=reset)
    with warnings.catch_warnings():
        # One example a class is welcome here.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than", UserWarning)
        check_classification_targets(labels)
    return rows, column_or_1d(labels)
