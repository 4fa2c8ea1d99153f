"""``slots completion``: what a shell completes, written out once, so that no process starts while somebody types."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from protocols.commands.options import usage
from protocols.commands.terminal import say

_BASH = """\
_slots() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" command="" options="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$each" in -*) ;; *) command="$each"; break ;; esac
    done
    case "$command" in
        "") COMPREPLY=($(compgen -W {commands} -- "$word")); return ;;
{cases}
    esac
    case "$word" in -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;; *) COMPREPLY=() ;; esac
}}
complete -o default -F _slots slots
"""
_ZSH = """\
(( $+functions[compdef] )) || {{ autoload -U compinit && compinit; }}
_slots() {{
    local command="" each
    local -a options
    for each in "${{(@)words[2,CURRENT-1]}}"; do
        case "$each" in -*) ;; *) command="$each"; break ;; esac
    done
    case "$command" in
        "") compadd -- {commands}; return ;;
{cases}
    esac
    if [[ "$words[CURRENT]" == -* ]]; then compadd -- $options; else _files; fi
}}
compdef _slots slots
"""


def completion(context: typer.Context, shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print a script that completes commands and options in a shell.

    Put one line into the shell's start file: eval "$(slots completion bash)" into ~/.bashrc, the same with zsh into
    ~/.zshrc, or slots completion fish | source into ~/.config/fish/config.fish.
    """
    commands = options_by_command(context.find_root().command)
    if shell not in ("bash", "zsh", "fish"):
        raise usage(f"`SHELL` must be bash, zsh or fish, got {shell}.")
    script = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell]
    say(*script(commands).splitlines())


def options_by_command(group: Any) -> dict[str, dict[str, str]]:
    """Every command with its options and what they are for.

    Parameters
    ----------
    group : parser of the program
        As typer makes it.

    Returns
    -------
    dict of str to dict of str to str
        The help of each long or short option.
    """
    found: dict[str, dict[str, str]] = {}
    for name, command in group.commands.items():
        shown = [it for it in command.params if not getattr(it, "hidden", False)]
        options = {option: it.help or "" for it in shown for option in it.opts if option.startswith("-")}
        found[name] = {**options, "--help": "Show this message and exit."}
    return found


def bash_script(commands: Mapping[str, Mapping[str, str]]) -> str:
    """The script for bash; what is no option is completed as a file.

    Parameters
    ----------
    commands : mapping
        As `options_by_command` gives them.

    Returns
    -------
    str
    """
    cases = "\n".join(f"        {name}) options={shlex.quote(' '.join(it))} ;;" for name, it in commands.items())
    return _BASH.format(commands=shlex.quote(" ".join(commands)), cases=cases)


def zsh_script(commands: Mapping[str, Mapping[str, str]]) -> str:
    """The script for zsh; what is no option is completed as a file.

    Parameters
    ----------
    commands : mapping
        As `options_by_command` gives them.

    Returns
    -------
    str
    """
    cases = "\n".join(f"        {name}) options=({' '.join(it)}) ;;" for name, it in commands.items())
    return _ZSH.format(commands=" ".join(commands), cases=cases)


def fish_script(commands: Mapping[str, Mapping[str, str]]) -> str:
    """The script for fish.

    Parameters
    ----------
    commands : mapping
        As `options_by_command` gives them.

    Returns
    -------
    str
    """
    lines = [f"complete -c slots -n __fish_use_subcommand -f -a {shlex.quote(' '.join(commands))}"]
    for name, options in commands.items():
        here = f"complete -c slots -n {shlex.quote(f'__fish_seen_subcommand_from {name}')}"
        for option, text in options.items():
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            about = " ".join(text.split()).replace("\\", "").replace("'", "").split(". ")[0].rstrip(".")
            lines.append(f"{here} {kind} -d '{about}'")
    return "\n".join(lines) + "\n"
