"""Thirty days of a stream: familiar inputs, new classes, junk, and a domain that shifts; what comes on which day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import Dataset
from protocols.runs.lifetime.calendar import Calendar
from slots.errors import UsageError
from slots.shapes import Ids

JUNK = -1
"""In place of a class: an input that is of none."""

_MOST_A_DAY = 300
_LEAST_A_DAY = 8
_START_SHARE = 0.4  # of the examples of each class that is known from the start, at most
_SPARE = 0.9  # of the examples are planned for: each day's draw is random


@dataclass(frozen=True)
class Day:
    """What comes in on one day, in its order.

    Parameters
    ----------
    rows : int64 array of shape (input,)
        Rows of the training part; of junk, rows of the foreign inputs.
    y : int64 array of shape (input,)
        Class of each, or `JUNK`.
    shifted : bool array of shape (input,)
        Whether it comes from the other domain.
    """

    rows: Ids
    y: Ids
    shifted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stream:
    """A life: what is known at the start, what comes on which day, and what nobody sees.

    Parameters
    ----------
    start : int64 array
        Rows of the training part that all methods are given with labels at the start.
    days : tuple of Day
        The first is day 1.
    arrived : dict of int to int
        Day on which each class comes first; 0 for those of the start.
    test : int64 array
        Rows of the test part that measure.
    n_junk : int
        Foreign inputs that come in all (count).
    """

    start: Ids
    days: tuple[Day, ...]
    arrived: dict[int, int]
    test: Ids
    n_junk: int

    def known(self, day: int) -> Ids:
        """Classes that have come by the end of a day, ascending."""
        return np.array(sorted(it for it, first in self.arrived.items() if first <= day), np.int64)


def make_stream(data: Dataset, calendar: Calendar, seed: int, *, start: int, a_day: int, n_test: int) -> Stream:
    """Draw a life from labelled data; no example comes twice.

    Parameters
    ----------
    data : Dataset
        With labels in both parts.
    calendar : Calendar
        What happens when.
    seed : int
        Which classes are new, and which example comes when.
    start : int
        Labelled examples at the start, at most two fifths of those of the classes that are known then.
    a_day : int
        Inputs of a day; 0 for as many as there are, at most 300.
    n_test : int
        Test examples that measure, at most.

    Returns
    -------
    Stream

    Raises
    ------
    UsageError
        If there are too few classes or examples.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(data.y_train[data.y_train >= 0])
    if len(classes) - calendar.new < 2:
        raise UsageError(
            f"`new` must leave at least two classes for the start, got {calendar.new} of {len(classes)}. Take fewer."
        )
    order = rng.permutation(classes)
    arrived = {int(it): 0 for it in order[calendar.new :]}
    for day, several in zip(
        calendar.arrivals, np.array_split(order[: calendar.new], len(calendar.arrivals)), strict=True
    ):
        arrived |= {int(it): day for it in several}
    pools = {int(it): rng.permutation(np.flatnonzero(data.y_train == it)) for it in classes}
    known = [it for it, day in arrived.items() if day == 0]
    taken = {it: min(start // len(known), int(_START_SHARE * len(pools[it]))) for it in known}
    begin = np.concatenate([pools[it][:n] for it, n in taken.items()])
    left = {it: pool[taken.get(it, 0) :] for it, pool in pools.items()}
    size = a_day or min(_MOST_A_DAY, _room(left, arrived, calendar))
    if size < _LEAST_A_DAY:
        raise UsageError(
            f"`data` must have {_LEAST_A_DAY} inputs for each of {calendar.days} days, got {size}. Ask for fewer days."
        )
    days: list[Day] = []
    n_junk = 0
    for day in range(1, calendar.days + 1):
        junk = round(calendar.junk_share(day) * size)
        there = [it for it, first in arrived.items() if first <= day]
        drawn = _drawn(left, there, size - junk, rng)
        days.append(_mixed(drawn, np.arange(n_junk, n_junk + junk), calendar.shifted_share(day), rng))
        n_junk += junk
    test = np.flatnonzero(np.isin(data.y_test, classes))
    return Stream(rng.permutation(begin), tuple(days), arrived, np.sort(rng.permutation(test)[:n_test]), n_junk)


def _room(left: dict[int, Ids], arrived: dict[int, int], calendar: Calendar) -> int:
    """As many inputs a day as the rarest class has room for."""
    wanted = dict.fromkeys(arrived, 0.0)
    for day in range(1, calendar.days + 1):
        there = [it for it, first in arrived.items() if first <= day]
        for it in there:
            wanted[it] += (1 - calendar.junk_share(day)) / len(there)
    return int(_SPARE * min(len(left[it]) / wanted[it] for it in arrived))


def _drawn(left: dict[int, Ids], there: list[int], n: int, rng: np.random.Generator) -> dict[int, Ids]:
    """Examples of the classes that are there, each class as likely as any other; they are left no more."""
    found = {}
    for it, count in zip(there, rng.multinomial(n, np.full(len(there), 1 / len(there))).tolist(), strict=True):
        found[it], left[it] = left[it][:count], left[it][count:]
    return found


def _mixed(drawn: dict[int, Ids], junk: Ids, share: float, rng: np.random.Generator) -> Day:
    """A day in random order; a share of what is of a class comes from the other domain."""
    rows = np.concatenate([*drawn.values(), junk])
    y = np.concatenate([np.full(len(of), it) for it, of in drawn.items()] + [np.full(len(junk), JUNK)])
    order = rng.permutation(len(rows))
    shifted = rng.random(len(rows)) < share
    return Day(rows[order].astype(np.int64), y[order].astype(np.int64), shifted & (y[order] != JUNK))
