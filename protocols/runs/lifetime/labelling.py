"""The simulated labeller: knows every input, is sometimes wrong, and has time for so many labels a day."""

from __future__ import annotations

import numpy as np

from protocols.runs.lifetime.calendar import Calendar
from protocols.runs.lifetime.stream import Stream


class Labeller:
    """Says what an input is. All methods that ask about the same input on the same day hear the same word.

    Parameters
    ----------
    stream : Stream
        Knows what each input is.
    calendar : Calendar
        Knows how often the labeller is wrong.
    budget : int
        Labels a day.
    seed : int
        Decides where they are wrong: another of the classes that have come so far.
    """

    def __init__(self, stream: Stream, calendar: Calendar, budget: int, seed: int) -> None:
        self.stream, self.calendar, self.budget, self.seed = stream, calendar, budget, seed
        self.day, self.left, self.given = 0, 0, 0

    def begin(self, day: int) -> None:
        """A day begins; what was left of the day before is lost."""
        self.day, self.left = day, self.budget

    def ask(self, day: int, place: int) -> int:
        """The class of an input of this or an earlier day, or -1 for junk; costs one label.

        Parameters
        ----------
        day, place : int
            The input.

        Raises
        ------
        RuntimeError
            If the day's labels are spent.
        """
        if self.left <= 0:
            raise RuntimeError(f"The {self.budget} labels of day {self.day} are spent.")
        self.left -= 1
        self.given += 1
        true = int(self.stream.days[day - 1].y[place])
        rng = np.random.default_rng([self.seed, 11, self.day, day, place])
        if rng.random() >= self.calendar.wrong_share(self.day):
            return true
        return int(rng.choice([it for it in self.stream.known(self.day).tolist() if it != true]))
