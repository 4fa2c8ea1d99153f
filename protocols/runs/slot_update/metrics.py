"""Figures of one method in the `slot-update` protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.runs.slot_update.splits import Labels, Split


@dataclass(frozen=True)
class Answers:
    """A method's predictions once it was told some labels.

    Parameters
    ----------
    test, stream : int64 arrays of shape (example,)
        Labels of the never-seen part and of the stream.
    asked : int64 array
        Rows of the stream.
    slots : int
        Slots or prototypes held, those from before included.
    seconds : float
        To choose and to learn.
    changed : int, optional
        Inputs that a slot matched before and that are answered differently in any field; None without slots.
    """

    test: Labels
    stream: Labels
    asked: npt.NDArray[np.int64]
    slots: int
    seconds: float
    changed: int | None = None

    def accuracy(self, split: Split) -> float:
        """On the never-seen part."""
        return float((self.test == split.test_y).mean())


def figures_of(split: Split, before: Labels, told: Mapping[int, Answers], wanted: float) -> dict[str, float | None]:
    """Accuracies and counts of one method, by the key of their column.

    Parameters
    ----------
    split : Split
        Its true labels are the measure.
    before : int64 array
        Its labels of the never-seen part before anything was told.
    told : mapping
        Number of labels to `Answers`, ascending.
    wanted : float
        Accuracy for which labels and slots are counted.
    """
    most, new = max(told), split.is_new
    last = told[most]
    never = np.ones(len(split.stream_y), bool)
    never[last.asked] = False
    start = float((before == split.test_y).mean())
    enough = [budget for budget, answers in told.items() if answers.accuracy(split) >= wanted]
    return {
        "before": start,
        **{f"held_out_{budget}": answers.accuracy(split) for budget, answers in told.items()},
        **{f"new_{budget}": share(answers.test == split.test_y, new) for budget, answers in told.items()},
        "gain": last.accuracy(split) - start,
        "known": share(last.test == split.test_y, ~new),
        "stream": float((last.stream == split.stream_y).mean()),
        "never_asked": share(last.stream == split.stream_y, never),
        "control": start,  # a label that is looked up answers nothing but the example that was asked
        "labels_wanted": float(enough[0]) if enough else None,
        "slots_wanted": float(told[enough[0]].slots) if enough else None,
        "slots": float(last.slots),
        "changed": None if last.changed is None else float(sum(answers.changed or 0 for answers in told.values())),
        "seconds": last.seconds,
    }


def share(hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
    """Mean over a part; None where it is empty."""
    return float(hits[among].mean()) if among.any() else None
