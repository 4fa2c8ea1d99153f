"""The options that every command has: ``--quiet``, ``--verbose`` and ``--config``."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from protocols.commands.options import usage
from protocols.commands.parsing.settings import from_environment, from_file
from protocols.commands.terminal import set_volume


def _configure(context: typer.Context, path: Path | None) -> Path | None:
    """Take the command's defaults from a file and from the environment, before its other options are read."""
    if context.resilient_parsing:
        return path
    name = context.info_name or ""
    found = {} if path is None else from_file(path, name, context.command.params)
    found |= from_environment(os.environ, name, context.command.params)
    context.default_map = {**(context.default_map or {}), **found}
    return path


_OPTIONS = {
    "config": (
        Annotated[
            Path | None,
            typer.Option(
                metavar="FILE.toml",
                callback=_configure,
                is_eager=True,
                envvar="SLOTS_CONFIG",
                show_envvar=False,
                help="Options from a file: a table for each command. Default: $SLOTS_CONFIG.",
            ),
        ],
        None,
    ),
    "quiet": (Annotated[bool, typer.Option("--quiet", "-q", help="No progress, remarks or hints.")], False),
    "verbose": (Annotated[bool, typer.Option("--verbose", "-v", help="Each step as a line on stderr.")], False),
}


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all have.

    Parameters
    ----------
    command : callable
        A function whose signature typer reads.

    Returns
    -------
    callable
        The same, with ``config``, ``quiet`` and ``verbose`` behind its own parameters.
    """

    @functools.wraps(command)
    def run(*args: Any, quiet: bool, verbose: bool, config: Path | None, **kwargs: Any) -> None:
        del config  # its callback has read it
        if quiet and verbose:
            raise usage("--quiet and --verbose exclude each other, got both. Leave one out.")
        set_volume("quiet" if quiet else "verbose" if verbose else "normal")
        command(*args, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, kind, default=it[1], annotation=it[0]) for name, it in _OPTIONS.items()]
    together = signature.replace(parameters=[*signature.parameters.values(), *more])
    run.__signature__ = together  # type: ignore[attr-defined]  # what inspect, and so typer, reads first
    run.__annotations__ = {name: it.annotation for name, it in together.parameters.items()}
    return run
