"""What a fit is given, as arrays."""

from __future__ import annotations

import numpy.typing as npt

from slots.errors import UsageError
from slots.features.preprocessing import raw_inputs
from slots.labels import numbered
from slots.shapes import RawInputs
from slots.sources.reading import is_source, read_source


def training_data(
    x: RawInputs, y: npt.ArrayLike | None, class_names: tuple[str, ...]
) -> tuple[RawInputs, npt.ArrayLike, tuple[str, ...]]:
    """Inputs, labels and names of classes, whatever a user holds them in.

    Parameters
    ----------
    x : array, list of texts, or data set
        A data set as `slots.sources.read_source` reads it.
    y : array of shape (example,) or None
        Numbers or names. None: those of the data set.
    class_names : tuple of str
        Name of label ``i`` at place ``i``; where empty, as the data set or the labels tell.

    Returns
    -------
    x : array
    y : array of shape (example,)
    class_names : tuple of str

    Raises
    ------
    UsageError
        If there are no labels.
    DataError
        If a data set cannot be read, or a name is none of the given ones.
    """
    if is_source(x):
        found = read_source(x)
        x = found.x
        if y is None:
            y, class_names = found.y, class_names or found.class_names
    if y is None:
        raise UsageError("`y` must be given where `x` holds no labels, got none. Pass one label an example.")
    return raw_inputs(x), *numbered(y, class_names)
