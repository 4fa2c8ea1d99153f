"""What every way through a life can do: start, answer, learn in the evening, take a day back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocols.harness.encoders import Features
from protocols.runs.lifetime.labelling import Labeller
from slots.shapes import Ids

FALSE_ALARMS = 0.05
"""Share of familiar inputs that may be called novel: for everybody the same."""


def held_out_share(n: int) -> float:
    """Share of so many examples at the start that set the threshold of novelty: a tenth, and more where that is few."""
    return min(0.2, max(0.1, 60 / n))


@dataclass(frozen=True)
class Said:
    """Answers to some inputs.

    Parameters
    ----------
    labels : int64 array of shape (input,)
        Class of each, -1 for junk.
    novel : bool array of shape (input,)
        Whether it is called novel.
    matched : bool array of shape (input,), optional
        Whether the answer is given as final. Default: the method knows no such thing.
    """

    labels: Ids
    novel: npt.NDArray[np.bool_]
    matched: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Evening:
    """What became of a day.

    Parameters
    ----------
    choose_s, learn_s : float
        Seconds of choosing what to ask, and of learning.
    drift : bool or None
        Whether a drift alarm was raised during the day; None where nothing watches.
    note : str
        What went wrong; empty for nothing.
    """

    choose_s: float
    learn_s: float
    drift: bool | None = None
    note: str = ""


class Contender(Protocol):
    """A way to live through the days."""

    def start(self, rows: Features, labels: Ids) -> None:
        """Learn what is known at the start."""

    def stream(self, day: int, rows: Features) -> Said:
        """Answer a day's inputs, which come once and in this order."""

    def answer(self, rows: Features) -> Said:
        """Answer inputs that are not of the stream."""

    def evening(self, day: int, rows: Features, labeller: Labeller) -> Evening:
        """Ask about the inputs of the day, and learn."""

    def take_back(self, day: int) -> None:
        """Forget the labels of a day and what was learned of them: they were bad."""

    @property
    def nbytes(self) -> int:
        """Bytes of what answers."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of all that is kept: also what the next evening, or a step back, needs."""

    def close(self) -> None:
        """Let go of everything."""
