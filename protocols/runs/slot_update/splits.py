"""Three parts of labelled data: what is fitted on, what comes later without labels, and what nobody sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import Dataset
from slots.errors import UsageError
from slots.shapes import RawInputs

Labels = npt.NDArray[np.int64]

FITTED = 2 / 3
"""Share of the training part that is fitted on, its new classes taken out; 40,000 of MNIST's 60,000."""

_NEVER_SEEN = 1 / 6  # of the training part, where there is no labelled test part


@dataclass(frozen=True)
class Split:
    """Base, unlabelled stream and never-seen test part of a data set, with labels.

    Parameters
    ----------
    base, stream, test : array of shape (example, ...)
        Fitted on (known classes alone); the unlabelled stream (all classes); never seen (all classes).
    base_y, stream_y, test_y : int64 arrays of shape (example,)
        Class of each input; of the stream and the never-seen part they only measure.
    new : int64 array
        Classes that the base does not have.
    """

    base: RawInputs
    base_y: Labels
    stream: RawInputs
    stream_y: Labels
    test: RawInputs
    test_y: Labels
    new: Labels

    @property
    def is_new(self) -> npt.NDArray[np.bool_]:
        """Which never-seen examples are of a new class."""
        return np.isin(self.test_y, self.new)


def new_classes(data: Dataset, held_out: list[int], *, wanted: bool) -> Labels:
    """The classes to take out of the base: those named, else the last two.

    Raises
    ------
    UsageError
        If a class does not exist, or fewer than two would be left.
    """
    classes = np.unique(np.concatenate([data.y_train, data.y_test]))
    classes = classes[classes >= 0]
    if not wanted:
        return np.zeros(0, np.int64)
    new = np.array(sorted(set(held_out)), np.int64) if held_out else classes[-2:]
    if not np.isin(new, classes).all():
        raise UsageError(
            f"`held_out` must be classes of the data, got {held_out}. It has {classes[0]} to {classes[-1]}."
        )
    if len(classes) - len(new) < 2:
        raise UsageError(
            f"`held_out` must leave at least two classes, got {new.tolist()} of {len(classes)}. Hold out fewer."
        )
    return new


def make_split(data: Dataset, new: Labels, seed: int) -> Split:
    """Split labelled data into base, stream and test; examples without a label are left out.

    Parameters
    ----------
    data : Dataset
        All its labels are used: to split, to fit the base, and to measure.
    new : int64 array
        Classes to take out of the base.
    seed : int
        Decides which training examples are fitted on. The never-seen part is the test part, the same for every seed;
        where there is none, a sixth of the training part.

    Raises
    ------
    UsageError
        If a part would be empty.
    """
    rows = np.flatnonzero(data.y_train >= 0)
    order = rows[np.random.default_rng(seed).permutation(len(rows))]
    test = np.flatnonzero(data.y_test >= 0)
    x_test, y_test = data.x_test[test], data.y_test[test]
    if len(test) == 0:
        aside = np.sort(order[: round(_NEVER_SEEN * len(order))])
        order = order[len(aside) :]
        x_test, y_test = data.x_train[aside], data.y_train[aside]
    n_base = round(FITTED * len(order))
    base, stream = np.sort(order[:n_base]), np.sort(order[n_base:])
    base = base[~np.isin(data.y_train[base], new)]
    if min(len(base), len(stream), len(y_test)) == 0:
        raise UsageError(
            f"`data` must have labelled examples for three parts, got {len(rows)} with a label in its training part. "
            "Add some."
        )
    return Split(
        base=data.x_train[base],
        base_y=data.y_train[base],
        stream=data.x_train[stream],
        stream_y=data.y_train[stream],
        test=x_test,
        test_y=y_test,
        new=new,
    )
