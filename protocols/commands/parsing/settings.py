"""Defaults of a command's options from a TOML file and from variables of the environment."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocols.commands.options import usage

_OWN = {"config", "help"}  # said on the command line, or by a variable of their own


def option_names(params: Sequence[Any]) -> dict[str, Any]:
    """The options of a command by the names that a file may use.

    Parameters
    ----------
    params : sequence of parser's parameters
        Of the command.

    Returns
    -------
    dict of str to parameter
        Long names without dashes in front, as they are on the command line: ``slots-per-class``.
    """
    found = {}
    for param in params:
        for option in param.opts:
            if option.startswith("--") and option[2:] not in _OWN:
                found[option[2:]] = param
    return found


def from_file(path: Path, command: str, params: Sequence[Any]) -> dict[str, Any]:
    """What a file says for one command.

    Parameters
    ----------
    path : Path
        A TOML file. Keys outside any table are for every command that has such an option; a table named as the command
        is for that command alone, and goes before them.
    command : str
        Name of the command.
    params : sequence of parser's parameters
        Of the command.

    Returns
    -------
    dict
        Values by the names that the parser gives the options.

    Raises
    ------
    UsageError
        If the file is missing or no TOML, or a table of the command has a key that is none of its options.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise usage(f"`--config` must name a readable TOML file, got {path}: {error}.") from error
    names = option_names(params)
    own = document.get(command, {})
    if not isinstance(own, dict):
        raise usage(f"`{command}` in {path} must be a table, got {own!r}. Write [{command}].")
    said = {key: value for key, value in document.items() if not isinstance(value, dict) and _dashed(key) in names}
    found = {}
    for key, value in [*said.items(), *own.items()]:
        if _dashed(key) not in names:
            raise usage(f"`{key}` in [{command}] of {path} must be an option of slots {command}. {_those(names)}")
        if isinstance(value, dict):
            raise usage(f"`{key}` in [{command}] of {path} must be a value or a list, got a table.")
        found[_dashed(key)] = value
    return {names[key].name: _fitting(names[key], value) for key, value in found.items()}


def from_environment(environment: Mapping[str, str], command: str, params: Sequence[Any]) -> dict[str, Any]:
    """What the environment says for one command: ``SLOTS_FIT_EPOCHS=20`` is ``slots fit --epochs 20``.

    Parameters
    ----------
    environment : mapping of str to str
        Such as `os.environ`.
    command : str
        Name of the command.
    params : sequence of parser's parameters
        Of the command.

    Returns
    -------
    dict
        Values by the names that the parser gives the options. Words of an option that may be given several times are
        parted as by a shell.

    Raises
    ------
    UsageError
        If a variable begins as those of the command do, and names none of its options.
    """
    names, found = option_names(params), {}
    prefix = f"SLOTS_{command.upper()}_"
    for variable, value in environment.items():
        if not variable.startswith(prefix):
            continue
        name = _dashed(variable.removeprefix(prefix).lower())
        if name not in names:
            raise usage(f"`{variable}` must be named as an option of slots {command}. {_those(names)}")
        found[names[name].name] = shlex.split(value) if getattr(names[name], "multiple", False) else value
    return found


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _fitting(param: Any, value: Any) -> Any:
    """A value of a file in the form that the parser takes for the option."""
    if getattr(param, "multiple", False):
        return [str(it) for it in value] if isinstance(value, list) else [str(value)]
    return value if isinstance(value, bool) else str(value)


def _those(names: dict[str, Any]) -> str:
    return f"Those are: {', '.join(sorted(names))}."
