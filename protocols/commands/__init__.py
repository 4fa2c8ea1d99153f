"""The commands: each parses, calls one function, and prints. Heavy imports happen inside them."""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `protocols.commands.app.main`.

    Parameters
    ----------
    arguments : list of str, optional
        What follows the command's name. Default: what this process was started with.
    """
    from protocols.commands.app import main as run

    run(arguments)
