"""What all pages and tables share: the one Jinja environment with its filters, and CSV text."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
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


def render_page(template: str, **values: Any) -> str:
    """A page with its Content-Security-Policy: it runs no script but its own, and asks for no other file.

    Parameters
    ----------
    template : str
        Name of a template. Its blocks ``style`` and ``script`` are what the page's ``<style>`` and ``<script>`` hold;
        no value is filled in there.
    **values
        What its other parts name.

    Returns
    -------
    str
        HTML whose ``policy`` lets in those two blocks by their digests, and pictures inside the page.

    Notes
    -----
    The digests are of the template's own text, never of the page: whatever got into the page by way of a value is not
    let in. Attributes ``style`` may be there, since they hold lengths of bars; they cannot load anything.
    """
    found = page_environment().get_template(template)
    sources = {"style": "'none'", "script": "'none'"}
    for name, block in found.blocks.items():
        text = "".join(block(found.new_context()))
        sources[name] = f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return found.render(policy=policy, **values)


_PLACES = (r"^{}(?='*[=+\-@\t\r])", r"(?<=[;\t\r\n]){}(?=[\"']*[=+\-@\t\r])")
_BARE, _MARKED = (re.compile("|".join(place.format(mark) for place in _PLACES)) for mark in ("", "'"))


def as_text(value: str) -> str:
    r"""A text for a CSV cell: what a spreadsheet would take for a formula gets an apostrophe in front.

    Parameters
    ----------
    value : str
        Any text.

    Returns
    -------
    str
        With one apostrophe more where it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, or with
        apostrophes and then one of these; and where one of these stands behind a semicolon, a tab or the end of a line,
        since some spreadsheets begin a cell there. `from_text` takes them away again.

    Examples
    --------
    >>> as_text("=1+1"), as_text("'=1"), as_text("it's"), as_text("a;=1"), from_text(as_text("=1+1"))
    ("'=1+1", "''=1", "it's", "a;'=1", '=1+1')
    """
    return _BARE.sub("'", value)


def from_text(cell: str) -> str:
    """The text that `as_text` made a cell of; any other cell stays as it is."""
    return _MARKED.sub("", cell)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""CSV with a header line, lines ending in a newline alone; texts that look like formulas as `as_text` has them.

    Parameters
    ----------
    columns : sequence of str
        Names in the header line.
    rows : iterable of sequence
        Values in the order of the columns; None becomes an empty field, numbers stay numbers.

    Returns
    -------
    str

    Examples
    --------
    >>> csv_text(("example", "label"), [(3, "cat"), (5, None)])
    'example,label\n3,cat\n5,\n'
    """
    return "".join(map(_csv_line, (columns, *rows)))


def _csv_line(row: Sequence[Any]) -> str:
    line = io.StringIO()
    # With both characters as the end of a line the writer puts quotes around cells that hold either of them.
    csv.writer(line, lineterminator="\r\n").writerow([as_text(it) if isinstance(it, str) else it for it in row])
    return line.getvalue().removesuffix("\r\n") + "\n"


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
