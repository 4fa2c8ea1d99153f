"""What a stream did in one minute: the row that a plot is drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from slots.errors import DataError
from slots.head import Answer

BINS = 20


@dataclass
class Minute:
    """Counts of one minute of one era.

    Parameters
    ----------
    era : int
        Which run of the martingale; it and ``start`` are the key of the row.
    start : int
        First second of the minute, seconds since 1970 (UTC), a multiple of 60.
    histogram : list of 20 ints
        P-values by their size: bin ``i`` holds those in ``(i / 20, (i + 1) / 20]``. Flat where nothing changed.
    labels : dict of int to list of 3 ints
        Of each label that was answered the number of unmatched, ambiguous and matched inputs, in the order of `Answer`.
    log10 : float
        Decimal logarithm of the martingale after the last input.
    log10_max : float
        Its largest value within the minute; an alarm in it stands out although the capital may have fallen again.
    generation : int
        Generation of the model that answered last in it.

    Examples
    --------
    >>> minute = Minute(era=0, start=60)
    >>> minute.add(np.array([0.01, 0.51]), np.array([0, 2]), np.array([7, 7]), np.array([0.4, 0.1]))
    >>> minute.n, minute.answers, minute.labels, minute.log10, minute.log10_max
    (2, [1, 0, 1], {7: [1, 0, 1]}, 0.1, 0.4)
    """

    era: int
    start: int
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    labels: dict[int, list[int]] = field(default_factory=dict)
    log10: float = 0.0
    log10_max: float = -math.inf
    generation: int = 0

    @property
    def n(self) -> int:
        """Inputs of the minute."""
        return sum(self.histogram)

    @property
    def answers(self) -> list[int]:
        """Number of unmatched, ambiguous and matched inputs, in the order of `Answer`."""
        return [sum(counts[kind] for counts in self.labels.values()) for kind in Answer]

    def add(
        self,
        p_values: npt.NDArray[np.float64],
        answers: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        log10: npt.NDArray[np.float64],
    ) -> None:
        """Count inputs; at least one.

        Parameters
        ----------
        p_values : float64 array of shape (item,)
            In (0, 1].
        answers : int array of shape (item,)
            `Answer` of each.
        labels : int64 array of shape (item,)
            Label of each; of an unmatched input the best guess.
        log10 : float64 array of shape (item,)
            Decimal logarithm of the martingale after each.
        """
        bins = np.clip(np.ceil(p_values * BINS).astype(np.int64) - 1, 0, BINS - 1)
        counted = np.bincount(bins, minlength=BINS).tolist()
        self.histogram = [before + more for before, more in zip(self.histogram, counted, strict=True)]
        for label, kind in zip(labels.tolist(), answers.tolist(), strict=True):
            self.labels.setdefault(label, [0] * len(Answer))[kind] += 1
        self.log10 = float(log10[-1])
        self.log10_max = max(self.log10_max, float(log10.max()))

    def to_json(self) -> dict[str, Any]:
        """The row as JSON holds it; labels become strings.

        Returns
        -------
        dict
            For `from_json`.
        """
        labels = {str(label): list(counts) for label, counts in sorted(self.labels.items())}
        return {
            "era": self.era, "start": self.start, "histogram": list(self.histogram), "labels": labels,
            "log10": self.log10, "log10_max": self.log10_max, "generation": self.generation,
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """The minute that `to_json` wrote.

        Parameters
        ----------
        row : dict
            What `to_json` gave.

        Returns
        -------
        Minute

        Raises
        ------
        DataError
            If a list has not the length it must have.
        KeyError
            If an entry is missing.
        """
        labels = {int(label): [int(it) for it in counts] for label, counts in row["labels"].items()}
        histogram = [int(it) for it in row["histogram"]]
        if len(histogram) != BINS or any(len(counts) != len(Answer) for counts in labels.values()):
            raise DataError("A minute of a drift state is damaged: its counts have another length.")
        log10, log10_max = float(row["log10"]), float(row["log10_max"])
        return cls(int(row["era"]), int(row["start"]), histogram, labels, log10, log10_max, int(row["generation"]))
