"""From the answers of each day to the figures of a life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.runs.lifetime.calendar import Calendar
from protocols.runs.lifetime.contenders import Evening, Said
from protocols.runs.lifetime.stream import JUNK, Stream
from slots.shapes import Ids

Mask = npt.NDArray[np.bool_]


@dataclass
class Diary:
    """All answers that one method gave.

    Parameters
    ----------
    stream : list of Said
        To each day's inputs, in the order of the days.
    plain, other : list of Said
        To the test examples as they are and from the other domain: at the start, then on each evening.
    evenings : list of Evening
        What each evening took.
    start_s, answer_s : float
        Seconds of the start, and of all answers to the stream.
    labels : int
        Labels that were asked (count).
    nbytes, kept_bytes : int
        At the end.
    """

    stream: list[Said] = field(default_factory=list)
    plain: list[Said] = field(default_factory=list)
    other: list[Said] = field(default_factory=list)
    evenings: list[Evening] = field(default_factory=list)
    start_s: float = 0.0
    answer_s: float = 0.0
    labels: int = 0
    nbytes: int = 0
    kept_bytes: int = 0


class Measures:
    """Measures diaries of one life.

    Parameters
    ----------
    stream : Stream
        What came when.
    calendar : Calendar
        What happened when.
    y : int64 array of shape (test example,)
        Class of each test example.
    """

    def __init__(self, stream: Stream, calendar: Calendar, y: Ids) -> None:
        self.stream, self.calendar, self.y = stream, calendar, y
        self.old = np.isin(y, stream.known(0))

    def of_day(self, diary: Diary, day: int) -> float:
        """Share of right labels of a day's inputs, junk left out, whether a label is given as final or as a guess."""
        said, came = diary.stream[day - 1], self.stream.days[day - 1]
        asked = came.y != JUNK
        return float((said.labels == came.y)[asked].mean())

    def held_out(self, diary: Diary, day: int, *, evening: int | None = None) -> float:
        """Accuracy on the test examples of all classes that have come by a day, half of them shifted after the shift.

        Parameters
        ----------
        diary : Diary
            Of a method.
        day : int
            What has come by then is asked.
        evening : int, optional
            Whose answers. Default: those of the same day.
        """
        at = day if evening is None else evening
        asked = np.isin(self.y, self.stream.known(day))
        plain = float((diary.plain[at].labels == self.y)[asked].mean())
        if day < self.calendar.shift:
            return plain
        share = self.calendar.shifted
        return (1 - share) * plain + share * float((diary.other[at].labels == self.y)[asked].mean())

    def recall(self, diary: Diary, day: int, label: int) -> float:
        """Share of a class's test examples, not shifted, that are named right on an evening."""
        return float((diary.plain[day].labels == label)[self.y == label].mean())

    def days_until(self, diary: Diary, label: int, share: float) -> int:
        """Evenings from a class's first day until its recall is reached; the day after the last where it never is."""
        first = self.stream.arrived[label]
        days = range(first, self.calendar.days + 1)
        return next((day - first + 1 for day in days if self.recall(diary, day, label) >= share), len(days) + 1)

    def figures(self, diary: Diary) -> dict[str, float | None]:
        """Every figure of a method, by the columns of the table."""
        last = self.calendar.days
        new = [it for it, day in self.stream.arrived.items() if day > 0]
        final, never = self.held_out(diary, last), self.held_out(diary, last, evening=0)
        return {
            "daily": float(np.mean([self.of_day(diary, day) for day in range(1, last + 1)])),
            "held_out": float(np.mean([self.held_out(diary, day) for day in range(1, last + 1)])),
            "final": final,
            "new": float(np.mean([self.recall(diary, last, it) for it in new])),
            "shifted": float((diary.other[last].labels == self.y).mean()),
            "gain": 100 * 100 * (final - never) / max(1, diary.labels),
            "days_50": float(np.mean([self.days_until(diary, it, 0.5) for it in new])),
            "days_80": float(np.mean([self.days_until(diary, it, 0.8) for it in new])),
            "noticed": self._called_novel(diary, self._first_day),
            "false_alarms": self._called_novel(diary, self._familiar),
            "junk_caught": self._junk_caught(diary),
            "forgetting": self._old(diary, 0) - self._old(diary, last),
            "lost": float(((diary.plain[0].labels == self.y) & (diary.plain[last].labels != self.y))[self.old].mean()),
            "changed": self._changed(diary),
            **_when_matched(diary.plain[last], self.y),
            "labels": float(diary.labels),
            "evening_s": float(np.mean([it.choose_s + it.learn_s for it in diary.evenings])),
            "answer_s": 1000 * diary.answer_s / sum(len(it.y) for it in self.stream.days),
            "start_s": diary.start_s,
            "bytes": float(diary.nbytes),
            "kept_bytes": float(diary.kept_bytes),
        }

    def recall_of_new(self, diary: Diary, day: int) -> float | None:
        """Mean recall of the new classes that have come by a day; None before the first."""
        come = [it for it, first in self.stream.arrived.items() if 0 < first <= day]
        return float(np.mean([self.recall(diary, day, it) for it in come])) if come else None

    def facts(self, diary: Diary) -> dict[str, Any]:
        """What is kept beside the figures: recall of each new class by day, drift alarms, what went wrong."""
        new = [it for it, first in self.stream.arrived.items() if first > 0]
        return {
            "recall of new classes": {
                str(it): [self.recall(diary, day, it) for day in range(1, self.calendar.days + 1)] for it in new
            },
            "notes": sorted({it.note for it in diary.evenings if it.note}),
            "drift": self._drift([it.drift for it in diary.evenings]),
        }

    def _drift(self, alarms: Sequence[bool | None]) -> dict[str, Any] | None:
        """When a drift monitor raised alarms; None where nothing watched."""
        if any(it is None for it in alarms):
            return None
        quiet = [day for day in range(1, min(self.calendar.arrivals)) if not self.calendar.junk_share(day)]
        late = range(self.calendar.shift, self.calendar.days + 1)
        since = next((day for day in late if alarms[day - 1]), None)
        return {
            "days with an alarm": [day for day, it in enumerate(alarms, start=1) if it],
            "quiet days": len(quiet),
            "false alarms": sum(bool(alarms[day - 1]) for day in quiet),
            "days from the shift to an alarm": None if since is None else since - self.calendar.shift + 1,
        }

    def _called_novel(self, diary: Diary, which: Callable[[int], Mask]) -> float | None:
        """Mean over the days of the share of some of their inputs that are called novel."""
        shares = []
        for day, said in enumerate(diary.stream, start=1):
            some = which(day)
            if some.any():
                shares.append(float(said.novel[some].mean()))
        return float(np.mean(shares)) if shares else None

    def _first_day(self, day: int) -> Mask:
        """Inputs of classes that come on this day for the first time."""
        return np.array([self.stream.arrived.get(int(it)) == day for it in self.stream.days[day - 1].y], bool)

    def _familiar(self, day: int) -> Mask:
        """Inputs of the first classes as they always were."""
        came = self.stream.days[day - 1]
        return np.isin(came.y, self.stream.known(0)) & ~came.shifted

    def _junk_caught(self, diary: Diary) -> float | None:
        caught = [
            (said.novel | (said.labels == JUNK))[came.y == JUNK]
            for said, came in zip(diary.stream, self.stream.days, strict=True)
        ]
        together = np.concatenate(caught)
        return float(together.mean()) if len(together) else None

    def _old(self, diary: Diary, day: int) -> float:
        return float((diary.plain[day].labels == self.y)[self.old].mean())

    def _changed(self, diary: Diary) -> float | None:
        """Test inputs whose matched answer was another on the next evening; the day that was taken back is left out."""
        lived = [day for day in range(len(diary.plain)) if day != self.calendar.bad_day]
        total = 0
        for said in (diary.plain, diary.other):
            for before, after in pairwise(lived):
                matched = said[before].matched
                if matched is None:
                    return None
                total += int((matched & (said[before].labels != said[after].labels)).sum())
        return float(total)


def _when_matched(said: Said, y: Ids) -> dict[str, float | None]:
    """How many answers are given as final, and how many of those are right; None where a method gives none as final."""
    if said.matched is None:
        return {"matched": None, "matched_right": None}
    right = (said.labels == y)[said.matched]
    return {"matched": float(said.matched.mean()), "matched_right": float(right.mean()) if len(right) else None}
