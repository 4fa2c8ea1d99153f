"""Minutes put together to steps of a plot."""

from __future__ import annotations

from collections.abc import Iterable

from protocols.service.drift.minutes import Minute


def steps(minutes: Iterable[Minute], length: int) -> list[Minute]:
    """Put minutes of one era together that lie in the same step.

    Parameters
    ----------
    minutes : iterable of Minute
        In the order of their eras and times.
    length : int
        Of a step (seconds, a multiple of 60); steps begin at multiples of it.

    Returns
    -------
    list of Minute
        One for each era and step that has inputs; ``start`` is the step's, ``generation`` the one that answered last.

    Examples
    --------
    >>> one, two = Minute(0, 60, log10=0.5, log10_max=0.9), Minute(0, 120, log10=0.25, log10_max=0.3)
    >>> [(it.start, it.log10, it.log10_max) for it in steps([one, two], 3600)]
    [(0, 0.25, 0.9)]
    """
    made: list[Minute] = []
    for it in minutes:
        start = it.start // length * length
        if not made or (made[-1].era, made[-1].start) != (it.era, start):
            made.append(Minute(it.era, start))
        _add(made[-1], it)
    return made


def whole(minutes: Iterable[Minute]) -> Minute:
    """All minutes as one, whatever their eras."""
    made = Minute(0, 0)
    for it in minutes:
        _add(made, it)
    return made


def _add(to: Minute, more: Minute) -> None:
    """Add a later minute's counts; the capital is the later one's."""
    to.histogram = [one + other for one, other in zip(to.histogram, more.histogram, strict=True)]
    for label, counts in more.labels.items():
        before = to.labels.get(label, [0] * len(counts))
        to.labels[label] = [one + other for one, other in zip(before, counts, strict=True)]
    to.log10, to.log10_max, to.generation = more.log10, max(to.log10_max, more.log10_max), more.generation
