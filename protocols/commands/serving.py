"""``slots serve``: a service that answers, learns and can be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protocols.commands.options import Device, usage
from protocols.commands.terminal import say


def serve(
    models: Annotated[list[str], typer.Argument(help="Model folders, or NAME=FOLDER.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any that is free.")] = 8080,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the service's own data. Default: `service` in the first model folder."),
    ] = None,
    database: Annotated[str, typer.Option("--db", help="URL of a database. Default: SQLite in the data folder.")] = "",
    rate: Annotated[
        float,
        typer.Option("--false-alarm-rate", min=0, max=1, help="Share of familiar inputs that may be called novel."),
    ] = 0.05,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds between saying that it is not ready and refusing connections.")
    ] = 0.0,
    device: Device = "auto",
) -> None:
    """Serve models over HTTP until interrupted: answers, novelty, a queue of what is new, labels, updates, undo.

    It needs nothing but a model folder. What comes in and what is labelled lies in the data folder; new generations go
    into the model folder, where `slots log`, `slots diff` and `slots undo` see them.
    """
    from slots.errors import MissingExtraError

    try:
        from protocols.service.running import run
        from protocols.service.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"`slots serve` needs the package {error.name}. Install it: pip install 'neural-slots[serve]'"
        ) from error
    named = dict(_named(word) for word in models)
    if len(named) != len(models):
        raise usage(f"Model names must differ, got {', '.join(_named(word)[0] for word in models)}. Use NAME=FOLDER.")
    settings = Settings(
        models=named,
        data=data or next(iter(named.values())) / "service",
        host=host,
        port=port,
        database=database,
        device=device,
        false_alarm_rate=rate,
        drain_seconds=drain,
    )
    run(settings, started=lambda address: say(f"Serving {', '.join(named)} at {address}", "Stop it with Ctrl-C."))


def _named(word: str) -> tuple[str, Path]:
    """The name and folder that a word stands for."""
    name, equals, folder = word.partition("=")
    if not equals:
        name, folder = Path(word).resolve().name, word
    if not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(name) > 128:
        raise usage(f"A model's name must consist of letters, digits, '-', '_' and '.', got {name!r}. Use NAME=FOLDER.")
    return name, Path(folder)
