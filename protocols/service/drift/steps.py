"""Minutes put together to steps of a plot."""

from __future__ import annotations

from collections.abc import Iterable

from protocols.service.drift.minutes import Minute
from protocols.service.drift.rows import Seen


def steps(minutes: Iterable[Seen], length: int) -> list[Seen]:
    """Put minutes of one era together that lie in the same step.

    Parameters
    ----------
    minutes : iterable of Seen
        In the order of their eras and times.
    length : int
        Of a step (seconds, a multiple of 60); steps begin at multiples of it.

    Returns
    -------
    list of Seen
        One for each era and step that has inputs; ``start`` is the step's.

    Examples
    --------
    >>> one, two = Minute(0, 60, log10=0.5, log10_max=0.9), Minute(0, 120, log10=0.25, log10_max=0.3)
    >>> [(it.minute.start, it.minute.log10, it.minute.log10_max) for it in steps([Seen(one, 3), Seen(two, 3)], 3600)]
    [(0, 0.25, 0.9)]
    """
    made: list[Seen] = []
    for it in minutes:
        start = it.minute.start // length * length
        if not made or (made[-1].minute.era, made[-1].minute.start) != (it.minute.era, start):
            made.append(Seen(Minute(it.minute.era, start), it.generation))
        _add(made[-1].minute, it.minute)
    return made


def whole(minutes: Iterable[Seen]) -> Minute:
    """All minutes as one, whatever their eras."""
    made = Minute(0, 0)
    for it in minutes:
        _add(made, it.minute)
    return made


def _add(to: Minute, more: Minute) -> None:
    """Add a later minute's counts; the capital is the later one's."""
    to.histogram = [one + other for one, other in zip(to.histogram, more.histogram, strict=True)]
    for label, counts in more.labels.items():
        before = to.labels.get(label, [0] * len(counts))
        to.labels[label] = [one + other for one, other in zip(before, counts, strict=True)]
    to.log10, to.log10_max = more.log10, max(to.log10_max, more.log10_max)
