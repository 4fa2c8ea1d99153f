"""What a continual learner answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.shapes import Ids

Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Decision:
    """Answers to some rows.

    Parameters
    ----------
    labels : array of shape (example,)
        Class of each row, by name.
    matched : bool array of shape (example,)
        Whether a sealed slot answers: then no later `ContinualSlots.partial_fit` changes this answer.
    slots : int64 array of shape (example,)
        The slot that matched; -1 where none did.
    """

    labels: Labels
    matched: npt.NDArray[np.bool_]
    slots: Ids
