"""What all pages and tables share: the one Jinja environment with its filters, and CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import jinja2


@cache
def page_environment() -> jinja2.Environment:
    """The environment of all pages: values are escaped where they are filled in, and a missing one is an error.

    Returns
    -------
    jinja2.Environment
        With the filters ``percent``, ``duration`` and ``count``; its templates lie in ``protocols/templates``.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("protocols"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "count": count}
    return environment


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""CSV with a header line, lines ending in a newline alone.

    Parameters
    ----------
    columns : sequence of str
        Names in the header line.
    rows : iterable of sequence
        Values in the order of the columns; None becomes an empty field.

    Returns
    -------
    str

    Examples
    --------
    >>> csv_text(("example", "label"), [(3, "cat"), (5, None)])
    'example,label\n3,cat\n5,\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def percent(share: float | None, digits: int = 1) -> str:
    """A share as text, ``98.3 %``; a dash where there was nothing to measure; 100 only where nothing is missing."""
    if share is None:
        return "–"
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) >= 100:
        text = f"{100 - 10.0**-digits:.{digits}f}"
    return f"{text}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def count(number: int) -> str:
    """A number with commas between the thousands."""
    return f"{number:,}"
