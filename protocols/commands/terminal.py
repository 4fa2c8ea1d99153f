"""Results on stdout, progress on stderr, and a training that stops when asked to. Light: no torch here."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

_WIDE = 240


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(document, indent=1))


def print_table(title: str, rows: list[tuple[Any, ...]]) -> None:
    """A plain table on stdout; shares as percentages."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(rows[0]):
        table.add_column(str(name), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for row in rows[1:]:
        table.add_row(*(cell(value) for value in row))
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
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda step, share: bar.update(task, description=step, completed=share)


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
        typer.echo(told, err=True)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
