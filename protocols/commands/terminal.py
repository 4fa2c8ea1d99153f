"""Results on stdout, progress on stderr, and a training that stops when asked to. Light: no torch here."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

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


Volume = Literal["quiet", "normal", "verbose"]
_volume: ContextVar[Volume] = ContextVar("volume", default="normal")


def set_volume(volume: Volume) -> None:
    """How much this process says from now on, beside results and errors.

    Parameters
    ----------
    volume : {"quiet", "normal", "verbose"}
        Quiet: no progress, no remarks, no hints. Verbose: each step of the work as a line, also where stderr is a file.
    """
    _volume.set(volume)


def remark(*lines: str) -> None:
    """Lines on stderr about a result that is on stdout, or about the work; none where it is to be quiet."""
    if _volume.get() != "quiet":
        say(*lines, err=True)


def say_next(*words: object) -> None:
    """The last line of a command: what to run next, on stderr, so that a pipe does not get it.

    Parameters
    ----------
    *words : str or Path
        Of the command, behind ``slots``; words in capitals stand for what only the user knows.
    """
    remark(f"Next: slots {shlex.join(map(str, words))}")


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
def progress_bar(*, shown: bool = True) -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr, one line that changes; nothing where stderr is no terminal or none shall be shown.

    Where it is to be verbose, a line for each step instead, with the seconds since the start.
    """
    if _volume.get() == "verbose" and shown:
        with _step_lines() as note:
            yield note
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal and _volume.get() != "quiet"),
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda step, share: bar.update(task, description=printable(step), completed=share)


@contextmanager
def _step_lines() -> Iterator[Callable[[str, float], None]]:
    """A progress callback that writes a line for each step when it is over, with the last figures that it told."""
    begun, said = time.monotonic(), [""]

    def over() -> None:
        if said[0]:
            say(f"{time.monotonic() - begun:8.1f} s  {said[0]}", err=True)

    def note(step: str, share: float) -> None:
        del share
        if step.partition("  ")[0] != said[0].partition("  ")[0]:  # behind two blanks figures change within a step
            over()
        said[0] = step

    try:
        yield note
    finally:
        over()


@contextmanager
def stop_on_signal(
    told: str = "Stopping: closing the model with what was learned so far. Once more to give up.",
    *,
    among: int = 1,
) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or termination asks the work to end, and says so; the second ends the program.

    Where it is one of several processes (``among``) the first ends it: what started them wants all of them gone, most
    often because one is.
    """
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if among > 1:
            from slots.errors import RankLostError

            raise RankLostError(
                f"All {among} processes must stay until the work is done, and this one was told to end. Start all "
                "again; with --resume they go on from the last epoch that was done."
            )
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
