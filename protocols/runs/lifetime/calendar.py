"""What happens on which day of a life: new classes, junk, a shift of the domain, and a day of bad labels."""

from __future__ import annotations

from dataclasses import dataclass

from slots.errors import UsageError

_EVENTS = 4  # days on which new classes come
_WEEK, _WEEKEND = 7, (6, 0)  # days of a week on which junk comes


@dataclass(frozen=True)
class Calendar:
    """The days of a life, counted from 1.

    Parameters
    ----------
    days : int
        How many (>= 7).
    new : int
        Classes that are not known at the start (>= 1).
    junk : float
        Share of the inputs of each sixth and seventh day that are of no class, in [0, 1).
    shifted : float
        Share of the inputs that come from the other domain after the shift, in [0, 1].
    wrong, wrong_once : float
        Share of the labels that are wrong, in [0, 1]: on any day, and on the one bad day.

    Raises
    ------
    UsageError
        If a number is out of its range.
    """

    days: int = 30
    new: int = 4
    junk: float = 0.15
    shifted: float = 0.5
    wrong: float = 0.05
    wrong_once: float = 0.5

    def __post_init__(self) -> None:
        if self.days < _WEEK or self.new < 1:
            raise UsageError(f"`days` must be >= 7 and `new` >= 1, got {self.days} and {self.new}. Try 30 and 4.")
        for name in ("junk", "shifted", "wrong", "wrong_once"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}. It is a share.")

    @property
    def arrivals(self) -> tuple[int, ...]:
        """Days on which new classes come, in the first three fifths."""
        n = min(_EVENTS, self.new)
        return tuple(1 + round(0.6 * self.days * (it + 1) / (n + 1)) for it in range(n))

    @property
    def shift(self) -> int:
        """The first day of the other domain."""
        return 1 + round(self.days * 2 / 3)

    @property
    def bad_day(self) -> int:
        """The day whose labels are bad; it is noticed on the next morning."""
        return min(self.days - 1, 1 + round(self.days * 5 / 6))

    def junk_share(self, day: int) -> float:
        """Share of a day's inputs that are of no class."""
        return self.junk if day % _WEEK in _WEEKEND else 0.0

    def shifted_share(self, day: int) -> float:
        """Share of a day's inputs that come from the other domain."""
        return self.shifted if day >= self.shift else 0.0

    def wrong_share(self, day: int) -> float:
        """Share of the labels given on a day that are wrong."""
        return self.wrong_once if day == self.bad_day else self.wrong
