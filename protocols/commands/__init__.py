"""The commands: each parses, calls one function, and prints. Heavy imports happen inside them."""

from __future__ import annotations

import atexit
import gc
import sys


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `protocols.commands.app.main`.

    Parameters
    ----------
    arguments : list of str, optional
        What follows the command's name. Default: what this process was started with.
    """
    from protocols.commands.app import main as run

    if arguments is None:
        atexit.register(_leave_what_is_left)
    run(arguments)


def _leave_what_is_left() -> None:
    """Spare the last passes of the garbage collector: with torch loaded they take a second, and the memory goes anyway.

    Triton counts at the end what is left of its own, and complains.
    """
    if "triton" not in sys.modules:
        gc.freeze()
