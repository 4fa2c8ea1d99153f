"""Results on stdout, progress on stderr, and a training that stops when asked to. Light: no torch here."""

from __future__ import annotations

import json
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

_WIDE = 240
_COMMANDS = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of characters, and what ends a line or paragraph
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, keep: str = "") -> str:
    r"""A text as a terminal may be given it: what would steer the terminal, or is no character, is spelt out.

    Names of classes, files and labels come from strangers; none of them may move the cursor, set a title, fake a line
    or turn the direction of writing.

    Parameters
    ----------
    text : str
        Any string.
    keep : str, default ""
        Characters that stay as they are all the same, such as newlines.

    Returns
    -------
    str
        Control characters, line separators, marks of direction and lone surrogates as escapes of Python.

    Examples
    --------
    >>> printable("cat\x1b[2J"), printable("a\nb", keep="\n")
    ('cat\\x1b[2J', 'a\nb')
    """
    if text.isprintable():
        return text
    return "".join(it.encode("unicode_escape").decode() if _steers(it) and it not in keep else it for it in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _COMMANDS or character in _DIRECTIONS


def say(*lines: str, err: bool = False) -> None:
    """Lines on stdout, or on stderr, with nothing in them that steers a terminal."""
    for line in lines:
        typer.echo(printable(line), err=err)


def print_csv(text: str) -> None:
    """A CSV on stdout: as it is for a file or a pipe, spelt out as far as needed for a terminal."""
    # Not by typer.echo, which drops escapes where there is no terminal.
    sys.stdout.write(printable(text, keep="\n") if sys.stdout.isatty() else text)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout, in ASCII."""
    typer.echo(json.dumps(document, indent=1))


def print_table(title: str, rows: list[tuple[Any, ...]]) -> None:
    """A plain table on stdout; shares as percentages."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(value: object) -> Text:  # never a plain string: rich reads its own markup in those
        return Text(printable(str(value)))

    table = Table(title=text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(rows[0]):
        table.add_column(text(name), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for row in rows[1:]:
        table.add_row(*(text(cell(value)) for value in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)  # a file or pipe has no edge to wrap at
    console.print(table)


def cell(value: object) -> str:
    """A value as a table shows it: a float in [0, 1] as a percentage, None as a dash."""
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if isinstance(value, float) and 0 <= value <= 1 else str(value)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr, one line that changes; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda step, share: bar.update(task, description=printable(step), completed=share)


@contextmanager
def stop_on_signal(
    told: str = "Stopping: closing the model with what was learned so far. Once more to give up.",
) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or termination asks the work to end, and says so; the second ends the program."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        say(told, err=True)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
