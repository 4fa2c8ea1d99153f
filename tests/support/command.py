"""The ``slots`` command: installed, for tests that need a process of its own, or in the test's process."""

import sys
from pathlib import Path

import pytest

from protocols.commands import main

SLOTS = [str(Path(sys.executable).with_name("slots"))]
"""Not ``python -m cli``: that would put the current folder first and test the checkout instead of the wheel."""


def told(capsys, *arguments, status=0):
    """Run a command in this process, hold its exit status, and give what it printed."""
    with pytest.raises(SystemExit) as end:
        main([str(it) for it in arguments])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed
